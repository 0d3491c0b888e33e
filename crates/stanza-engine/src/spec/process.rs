//! The process of a container: program, environment, directory, user, resource limits.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, User, UserBuilder,
};
use stanza_spec::{ContainerConfig, Ulimit, oci::image::Config};

use super::SpecError;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Entry point and command: an entry point of the user's own takes the image's command away with the image's.
pub(crate) fn argv(config: &ContainerConfig, image: Option<&Config>) -> Result<Vec<String>, SpecError> {
    let image_entrypoint = image.and_then(|image| image.entrypoint().clone()).unwrap_or_default();
    let image_command = image.and_then(|image| image.cmd().clone()).unwrap_or_default();
    let (entrypoint, default_command) = match &config.entrypoint {
        Some(own) if own.iter().all(String::is_empty) => (Vec::new(), Vec::new()),
        Some(own) => (own.clone(), Vec::new()),
        None => (image_entrypoint, image_command),
    };
    let command = if config.command.is_empty() { default_command } else { config.command.clone() };
    let argv: Vec<String> = entrypoint.into_iter().chain(command).collect();
    if argv.is_empty() { Err(SpecError::NoCommand) } else { Ok(argv) }
}

/// The image's environment with the user's over it; `PATH` comes first when nobody sets it.
pub(crate) fn environment(config: &ContainerConfig, image: Option<&Config>) -> Vec<String> {
    let image = image.and_then(|image| image.env().clone()).unwrap_or_default();
    merge_environment(image, &config.env, true)
}

/// `base` with `changes` over it: `NAME=VALUE` replaces in place, a bare `NAME` removes.
pub(crate) fn merge_environment(base: Vec<String>, changes: &[String], default_path: bool) -> Vec<String> {
    let name = |entry: &str| entry.split_once('=').map_or(entry, |(name, _)| name).to_owned();
    let mut env: Vec<String> = Vec::with_capacity(base.len() + changes.len() + 1);
    for entry in base.iter().filter(|entry| entry.contains('=')).chain(changes) {
        let key = name(entry);
        let position = env.iter().position(|known| name(known) == key);
        match (position, entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
    if default_path && !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.insert(0, PATH.to_owned());
    }
    env
}

/// Adds a variable unless it is set.
pub(crate) fn add_default(env: &mut Vec<String>, name: &str, value: &str) {
    let set = |entry: &String| entry.split_once('=').is_some_and(|(key, _)| key == name);
    if !env.iter().any(set) {
        env.push(format!("{name}={value}"));
    }
}

/// The user's working directory, the image's, or `/`.
pub(crate) fn workdir(config: &ContainerConfig, image: Option<&Config>) -> Result<String, SpecError> {
    let image = image.and_then(|image| image.working_dir().clone());
    let path =
        config.workdir.clone().or(image).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    if path.starts_with('/') { Ok(path) } else { Err(SpecError::Workdir(path)) }
}

/// The user as the container floor takes it: text to resolve inside, uid and gid left 0.
pub(crate) fn user(text: &str) -> User {
    let mut user = UserBuilder::default().uid(0u32).gid(0u32).build().unwrap_or_default();
    if !text.is_empty() {
        user.set_username(Some(text.to_owned()));
    }
    user
}

/// OCI's capability sets: bounding, effective and permitted; none inheritable, none ambient, as Docker since its
/// CVE-2022-24769.
pub(crate) fn capability_sets(names: &BTreeSet<&'static str>) -> LinuxCapabilities {
    let set: Capabilities =
        names.iter().filter_map(|name| name.strip_prefix("CAP_")?.parse::<Capability>().ok()).collect();
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .unwrap_or_default()
}

/// Resource limits by Docker's names. `hard_limit` gives this process's own hard limit (`None` is unlimited) for a
/// limit that cannot be raised above it; a higher wish is lowered with a warning.
pub(crate) fn rlimits(
    ulimits: &[Ulimit],
    hard_limit: &dyn Fn(&str) -> Option<u64>,
) -> Result<(Vec<PosixRlimit>, Vec<String>), SpecError> {
    let mut limits = Vec::with_capacity(ulimits.len());
    let mut warnings = Vec::new();
    for ulimit in ulimits {
        let kind = rlimit_type(&ulimit.name).ok_or_else(|| SpecError::Ulimit(ulimit.name.clone()))?;
        let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        let (mut soft, mut hard) = (number(ulimit.soft), number(ulimit.hard));
        if soft > hard {
            return Err(SpecError::UlimitOrder {
                name: ulimit.name.clone(),
                soft: ulimit.soft,
                hard: ulimit.hard,
            });
        }
        if let Some(most) = hard_limit(&ulimit.name)
            && hard > most
        {
            warnings.push(format!(
                "the limit {} cannot be raised above {most} here: {most} is used",
                ulimit.name
            ));
            hard = most;
            soft = soft.min(most);
        }
        limits
            .push(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build().unwrap_or_default());
    }
    Ok((limits, warnings))
}

fn rlimit_type(name: &str) -> Option<PosixRlimitType> {
    use PosixRlimitType as T;
    Some(match name {
        "as" => T::RlimitAs,
        "core" => T::RlimitCore,
        "cpu" => T::RlimitCpu,
        "data" => T::RlimitData,
        "fsize" => T::RlimitFsize,
        "locks" => T::RlimitLocks,
        "memlock" => T::RlimitMemlock,
        "msgqueue" => T::RlimitMsgqueue,
        "nice" => T::RlimitNice,
        "nofile" => T::RlimitNofile,
        "nproc" => T::RlimitNproc,
        "rss" => T::RlimitRss,
        "rtprio" => T::RlimitRtprio,
        "rttime" => T::RlimitRttime,
        "sigpending" => T::RlimitSigpending,
        "stack" => T::RlimitStack,
        _ => return None,
    })
}

/// A process with nothing of the crate's defaults, which bring variables and limits of their own.
pub(crate) fn blank() -> Process {
    let mut process = Process::default();
    process.set_args(None).set_env(None).set_rlimits(None).set_capabilities(None);
    process.set_no_new_privileges(Some(false)).set_terminal(Some(false));
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn image(entrypoint: Option<&[&str]>, command: Option<&[&str]>) -> Config {
        let mut image = Config::default();
        image.set_entrypoint(entrypoint.map(strings));
        image.set_cmd(command.map(strings));
        image
    }

    #[test]
    fn entry_point_and_command_combine_as_in_docker() {
        let both = image(Some(&["/e"]), Some(&["c"]));
        let case = |entrypoint: Option<&[&str]>, command: &[&str]| {
            let config = ContainerConfig {
                entrypoint: entrypoint.map(strings),
                command: strings(command),
                ..Default::default()
            };
            argv(&config, Some(&both))
        };
        assert_eq!(case(None, &[]).unwrap(), ["/e", "c"]);
        assert_eq!(case(None, &["x", "y"]).unwrap(), ["/e", "x", "y"]);
        assert_eq!(case(Some(&["/o"]), &[]).unwrap(), ["/o"]);
        assert_eq!(case(Some(&["/o"]), &["x"]).unwrap(), ["/o", "x"]);
        assert_eq!(case(Some(&[]), &["x"]).unwrap(), ["x"]);
        assert_eq!(case(Some(&[""]), &["x"]).unwrap(), ["x"]);
        assert_eq!(case(Some(&[""]), &[]).unwrap_err().to_string(), "no command specified");
        assert!(argv(&ContainerConfig::default(), Some(&image(None, None))).is_err());
        assert!(argv(&ContainerConfig::default(), None).is_err());
    }

    #[test]
    fn the_environment_is_the_images_with_the_users_over_it() {
        let mut image = Config::default();
        image.set_env(Some(strings(&["A=1", "B=2", "C=3", "junk"])));
        let config = ContainerConfig { env: strings(&["B=", "C", "D=4=5", "E"]), ..Default::default() };
        assert_eq!(environment(&config, Some(&image)), [PATH, "A=1", "B=", "D=4=5"]);
        image.set_env(Some(strings(&["PATH=/bin"])));
        assert_eq!(environment(&ContainerConfig::default(), Some(&image)), ["PATH=/bin"]);
    }

    #[test]
    fn limits_that_cannot_be_raised_are_lowered_with_a_warning() {
        let ulimit = |name: &str, soft, hard| Ulimit { name: name.into(), soft, hard };
        let most = |name: &str| (name == "nofile").then_some(1000);
        let (limits, warnings) =
            rlimits(&[ulimit("nofile", 500, 4000), ulimit("core", -1, -1), ulimit("nproc", 1, 2)], &most)
                .unwrap();
        let numbers: Vec<(u64, u64)> = limits.iter().map(|limit| (limit.soft(), limit.hard())).collect();
        assert_eq!(numbers, [(500, 1000), (u64::MAX, u64::MAX), (1, 2)]);
        assert_eq!(warnings.len(), 1);
        assert!(rlimits(&[ulimit("nope", 1, 1)], &most).is_err());
        let error = rlimits(&[ulimit("core", 5, 3)], &most).unwrap_err();
        assert!(error.to_string().contains("5 > 3"), "{error}");
    }

    #[test]
    fn a_relative_working_directory_is_refused() {
        let config = ContainerConfig { workdir: Some("a".into()), ..Default::default() };
        assert!(workdir(&config, None).unwrap_err().to_string().contains("absolute"));
        assert_eq!(workdir(&ContainerConfig::default(), None).unwrap(), "/");
    }
}
