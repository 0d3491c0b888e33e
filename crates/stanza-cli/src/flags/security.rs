//! `--cap-add`, `--cap-drop` and `--security-opt`.

use stanza_spec::SeccompChoice;

use super::FlagError;

/// All capabilities of Linux (man 7 capabilities), without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A capability in normal form, `CAP_NAME` or `ALL`.
pub(crate) fn capability(option: &'static str, text: &str) -> Result<String, FlagError> {
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" {
        return Ok("ALL".to_owned());
    }
    if CAPABILITIES.contains(&name) {
        return Ok(format!("CAP_{name}"));
    }
    let error = FlagError::new(option, format!("there is no capability `{text}`"));
    let close = CAPABILITIES.iter().find(|known| known.replace('_', "") == name.replace(['_', '-'], ""));
    Err(match close {
        Some(known) => error.hint(format!("did you mean `{known}`?")),
        None => error.hint("`man 7 capabilities` lists them"),
    })
}

/// What `--security-opt` can say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: SeccompChoice,
    pub(crate) apparmor: Option<String>,
}

/// Reads one `--security-opt` into `options`; `read` reads a profile's file.
pub(crate) fn security(
    text: &str,
    options: &mut SecurityOptions,
    read: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<(), FlagError> {
    const OPTION: &str = "--security-opt";
    // `=` is the separator; Docker still takes the older `:`.
    let (key, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    match (key, value) {
        ("no-new-privileges", None | Some("true")) => options.no_new_privileges = true,
        ("no-new-privileges", Some("false")) => options.no_new_privileges = false,
        ("seccomp", Some("unconfined")) => options.seccomp = SeccompChoice::Unconfined,
        ("seccomp", Some("builtin")) => options.seccomp = SeccompChoice::Default,
        ("seccomp", Some(path)) if !path.is_empty() => {
            let profile = read(path).map_err(|error| {
                FlagError::new(OPTION, format!("cannot read the seccomp profile `{path}`: {error}"))
            })?;
            options.seccomp = SeccompChoice::Profile(profile);
        }
        ("apparmor", Some(profile)) if !profile.is_empty() => options.apparmor = Some(profile.to_owned()),
        ("label", Some("disable")) => {}
        ("label" | "systempaths" | "writable-cgroups" | "mask" | "unmask" | "proc-opts", _) => {
            return Err(FlagError::not_built(OPTION, text));
        }
        _ => {
            return Err(FlagError::new(OPTION, format!("there is no security option `{text}`"))
                .hint("options: seccomp=FILE, seccomp=unconfined, apparmor=PROFILE, no-new-privileges"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_one_normal_form() {
        for (text, normal) in [
            ("net_admin", "CAP_NET_ADMIN"),
            ("CAP_SYS_ADMIN", "CAP_SYS_ADMIN"),
            ("cap_chown", "CAP_CHOWN"),
            ("all", "ALL"),
        ] {
            assert_eq!(capability("--cap-add", text), Ok(normal.to_owned()));
        }
        let error = capability("--cap-drop", "netadmin").unwrap_err();
        assert_eq!(error.to_string(), "option `--cap-drop`: there is no capability `netadmin`");
        assert_eq!(error.hint.as_deref(), Some("did you mean `NET_ADMIN`?"));
        assert!(capability("--cap-add", "").is_err());
    }

    #[test]
    fn security_options_are_read_or_refused() {
        let read = |text: &str| {
            let mut options = SecurityOptions::default();
            let file = |path: &str| {
                if path == "p.json" { Ok("{}".to_owned()) } else { Err(std::io::ErrorKind::NotFound.into()) }
            };
            security(text, &mut options, &file).map(|()| options)
        };
        let seccomp = |seccomp| Ok(SecurityOptions { no_new_privileges: false, seccomp, apparmor: None });
        assert_eq!(read("seccomp=unconfined"), seccomp(SeccompChoice::Unconfined));
        assert_eq!(read("seccomp:unconfined"), seccomp(SeccompChoice::Unconfined));
        assert_eq!(read("seccomp=p.json"), seccomp(SeccompChoice::Profile("{}".to_owned())));
        assert_eq!(read("label=disable"), Ok(SecurityOptions::default()));
        for yes in ["no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"] {
            assert!(read(yes).unwrap().no_new_privileges);
        }
        assert_eq!(read("apparmor=docker-default").unwrap().apparmor.as_deref(), Some("docker-default"));
        assert!(read("label=type:x").unwrap_err().unsupported);
        for bad in ["seccomp=missing.json", "seccomp", "nope", "no-new-privileges=maybe"] {
            assert!(!read(bad).unwrap_err().unsupported, "{bad}");
        }
    }
}
