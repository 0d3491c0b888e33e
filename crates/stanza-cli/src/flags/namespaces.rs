//! `--network`, `--pid`, `--ipc`, `--uts`, `--userns`, `--isolation`, `--pull`, `--platform`, `--stop-signal`.

use stanza_spec::{Isolation, NamespaceMode, NetworkMode, Platform, PullPolicy, UsernsMode, signal};

use super::FlagError;

/// `none`, `host`, `bridge`, `pasta[:OPTION,…]` or `slirp4netns[:OPTION,…]`.
pub(crate) fn network(text: &str) -> Result<NetworkMode, FlagError> {
    const OPTION: &str = "--network";
    let (name, options) = text.split_once(':').unwrap_or((text, ""));
    let options = || options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    match name {
        "pasta" => return Ok(NetworkMode::Pasta(options())),
        "slirp4netns" => return Ok(NetworkMode::Slirp4netns(options())),
        _ => {}
    }
    match text {
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        "bridge" | "default" => Ok(NetworkMode::Bridge),
        "" => Err(FlagError::new(OPTION, "the network has no name")),
        _ if text.starts_with("container:") => Err(FlagError::not_built(OPTION, "container:…")),
        _ if text.contains('=') => Err(FlagError::not_built(OPTION, "name=…,alias=…")),
        _ => Err(FlagError::new(OPTION, format!("there is no network `{text}`"))
            .hint("networks: none, host, bridge, and without root pasta, slirp4netns; own networks are not built yet")),
    }
}

/// `host` or `private`.
pub(crate) fn namespace(option: &'static str, text: &str) -> Result<NamespaceMode, FlagError> {
    match text {
        "" | "private" => Ok(NamespaceMode::Private),
        "host" => Ok(NamespaceMode::Host),
        "shareable" | "none" if option == "--ipc" => Err(FlagError::not_built(option, text)),
        _ if text.starts_with("container:") => Err(FlagError::not_built(option, "container:…")),
        _ => Err(FlagError::new(option, format!("`{text}` is not a mode: expected `host` or `private`"))),
    }
}

/// `host`, `private` or `keep-id`.
pub(crate) fn user_namespace(text: &str) -> Result<UsernsMode, FlagError> {
    match text {
        "" | "host" => Ok(UsernsMode::Host),
        "private" => Ok(UsernsMode::Private),
        "keep-id" => Ok(UsernsMode::KeepId),
        "auto" | "nomap" => Err(FlagError::not_built("--userns", text)),
        _ if text.starts_with("keep-id:") || text.starts_with("auto:") || text.starts_with("container:") => {
            Err(FlagError::not_built("--userns", text))
        }
        _ => {
            let reason = format!("`{text}` is not a mode: expected `host`, `private` or `keep-id`");
            Err(FlagError::new("--userns", reason))
        }
    }
}

/// `container` or `vm`.
pub(crate) fn isolation(text: &str) -> Result<Isolation, FlagError> {
    match text {
        "container" | "default" => Ok(Isolation::Container),
        "vm" => Ok(Isolation::Vm),
        _ => {
            let reason = format!("`{text}` is not a kind of isolation: expected `container` or `vm`");
            Err(FlagError::new("--isolation", reason))
        }
    }
}

/// `missing`, `always` or `never`.
pub(crate) fn pull(text: &str) -> Result<PullPolicy, FlagError> {
    match text {
        "missing" => Ok(PullPolicy::Missing),
        "always" => Ok(PullPolicy::Always),
        "never" => Ok(PullPolicy::Never),
        _ => {
            let reason = format!("`{text}` is not a policy: expected `missing`, `always` or `never`");
            Err(FlagError::new("--pull", reason))
        }
    }
}

/// `os/architecture[/variant]` in its normal spelling.
pub(crate) fn platform(text: &str) -> Result<Platform, FlagError> {
    text.parse().map_err(|error: stanza_spec::PlatformError| FlagError::new("--platform", error.to_string()))
}

/// The number of a signal.
pub(crate) fn signal_number(option: &'static str, text: &str) -> Result<i32, FlagError> {
    signal::parse(text).ok_or_else(|| {
        FlagError::new(option, format!("there is no signal `{text}`"))
            .hint("give a name, as `TERM` or `SIGTERM`, or a number from 1 to 64")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read() {
        assert_eq!(network("host"), Ok(NetworkMode::Host));
        assert_eq!(network("default"), Ok(NetworkMode::Bridge));
        assert_eq!(network("pasta"), Ok(NetworkMode::Pasta(Vec::new())));
        let options = ["-T", "5432"].map(str::to_owned).to_vec();
        assert_eq!(network("pasta:-T,5432"), Ok(NetworkMode::Pasta(options)));
        assert_eq!(
            network("slirp4netns:mtu=1500"),
            Ok(NetworkMode::Slirp4netns(vec!["mtu=1500".to_owned()]))
        );
        assert_eq!(namespace("--pid", "host"), Ok(NamespaceMode::Host));
        assert_eq!(namespace("--ipc", "private"), Ok(NamespaceMode::Private));
        assert_eq!(user_namespace("keep-id"), Ok(UsernsMode::KeepId));
        assert_eq!(isolation("vm"), Ok(Isolation::Vm));
        assert_eq!(pull("never"), Ok(PullPolicy::Never));
        assert_eq!(platform("x86_64").unwrap().to_string(), "linux/amd64");
        assert_eq!(signal_number("--signal", "kill"), Ok(9));
    }

    #[test]
    fn what_docker_has_and_stanza_not_is_told_from_nonsense() {
        for unsupported in [
            network("container:x").unwrap_err(),
            network("name=x,alias=y").unwrap_err(),
            namespace("--ipc", "shareable").unwrap_err(),
            namespace("--pid", "container:x").unwrap_err(),
            user_namespace("auto").unwrap_err(),
        ] {
            assert!(unsupported.unsupported, "{unsupported}");
        }
        for nonsense in [
            network("x").unwrap_err(),
            namespace("--pid", "shareable").unwrap_err(),
            user_namespace("x").unwrap_err(),
            isolation("hyperv").unwrap_err(),
            pull("x").unwrap_err(),
            platform("a/b/c/d").unwrap_err(),
            signal_number("--signal", "0").unwrap_err(),
        ] {
            assert!(!nonsense.unsupported, "{nonsense}");
        }
    }
}
