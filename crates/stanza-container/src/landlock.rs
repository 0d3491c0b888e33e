//! Landlock: what a container's processes may do to files and ports, whoever they are and whatever they mount later
//! (landlock(7)). The runtime specification has no place for it yet, so it is asked for by an annotation:
//!
//! ```json
//! "dev.stanza.landlock": "{
//!   \"ruleset\": {\"handledAccessFS\": [\"read_file\", \"write_file\", \"make_reg\"], \"handledAccessNet\": [\"connect_tcp\"]},
//!   \"rules\": {
//!     \"pathBeneath\": [{\"allowedAccess\": [\"read_file\"], \"paths\": [\"/\"]},
//!                     {\"allowedAccess\": [\"write_file\", \"make_reg\"], \"paths\": [\"/tmp\"]}],
//!     \"netPort\": [{\"allowedAccess\": [\"connect_tcp\"], \"ports\": [443]}]}}"
//! ```
//!
//! The form is that of the proposal for the specification (its pull request 1241). What is handled is denied but for the rules;
//! without `ruleset` all accesses to files are handled where there are rules for paths, all to ports where there are rules for
//! ports. An access that the kernel does not know is an error, unless `"disableBestEffort": false` asks for what can be had.

use std::collections::HashMap;
use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use serde::Deserialize;

use stanza_spec::chain;

use crate::error::{Failure, LaunchError};

/// The annotation.
pub const LANDLOCK_ANNOTATION: &str = "dev.stanza.landlock";

/// The newest version of Landlock whose accesses are known here.
const NEWEST: ABI = ABI::V6;

/// What a container's processes may do to files and ports.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Landlock {
    #[serde(default)]
    ruleset: Handled,
    #[serde(default)]
    rules: Rules,
    /// Whether a kernel that lacks something asked for is an error: so unless it is set to `false`.
    #[serde(default = "yes")]
    disable_best_effort: bool,
}

/// What is denied but for the rules.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
struct Handled {
    #[serde(rename = "handledAccessFS")]
    files: Option<Vec<String>>,
    #[serde(rename = "handledAccessNet")]
    ports: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rules {
    path_beneath: Vec<PathRule>,
    net_port: Vec<PortRule>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathRule {
    allowed_access: Vec<String>,
    paths: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortRule {
    allowed_access: Vec<String>,
    ports: Vec<u16>,
}

fn yes() -> bool {
    true
}

fn file_access(name: &str) -> Option<AccessFs> {
    Some(match name {
        "execute" => AccessFs::Execute,
        "write_file" => AccessFs::WriteFile,
        "read_file" => AccessFs::ReadFile,
        "read_dir" => AccessFs::ReadDir,
        "remove_dir" => AccessFs::RemoveDir,
        "remove_file" => AccessFs::RemoveFile,
        "make_char" => AccessFs::MakeChar,
        "make_dir" => AccessFs::MakeDir,
        "make_reg" => AccessFs::MakeReg,
        "make_sock" => AccessFs::MakeSock,
        "make_fifo" => AccessFs::MakeFifo,
        "make_block" => AccessFs::MakeBlock,
        "make_sym" => AccessFs::MakeSym,
        "refer" => AccessFs::Refer,
        "truncate" => AccessFs::Truncate,
        "ioctl_dev" => AccessFs::IoctlDev,
        _ => return None,
    })
}

fn port_access(name: &str) -> Option<AccessNet> {
    Some(match name {
        "bind_tcp" => AccessNet::BindTcp,
        "connect_tcp" => AccessNet::ConnectTcp,
        _ => return None,
    })
}

/// The bits of all names; the first that is unknown.
fn all<T: Copy>(names: &[String], find: fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    names.iter().map(|name| find(name).ok_or_else(|| format!("unknown access `{name}`"))).collect()
}

impl Landlock {
    /// What a container's annotations ask for.
    ///
    /// # Errors
    /// When the annotation is not of that form or names an access that does not exist.
    pub fn of(annotations: Option<&HashMap<String, String>>) -> Result<Option<Landlock>, LaunchError> {
        let text = annotations.and_then(|annotations| annotations.get(LANDLOCK_ANNOTATION));
        text.map(|text| Landlock::parse(text)).transpose().map_err(|reason| {
            LaunchError::Configuration(format!("the annotation `{LANDLOCK_ANNOTATION}`: {reason}"))
        })
    }

    fn parse(text: &str) -> Result<Landlock, String> {
        let landlock: Landlock = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (files, ports) = (landlock.files()?, landlock.ports()?);
        if files.is_none() && ports.is_none() {
            return Err("it says nothing: expected `ruleset` or `rules`".to_owned());
        }
        for rule in &landlock.rules.path_beneath {
            all(&rule.allowed_access, file_access)?;
        }
        for rule in &landlock.rules.net_port {
            all(&rule.allowed_access, port_access)?;
        }
        Ok(landlock)
    }

    /// The accesses to files that are handled; `None` for none at all.
    fn files(&self) -> Result<Option<BitFlags<AccessFs>>, String> {
        match &self.ruleset.files {
            Some(names) => Ok(Some(all(names, file_access)?.into_iter().collect())),
            None => Ok((!self.rules.path_beneath.is_empty()).then(|| AccessFs::from_all(NEWEST))),
        }
    }

    /// The same for ports.
    fn ports(&self) -> Result<Option<BitFlags<AccessNet>>, String> {
        match &self.ruleset.ports {
            Some(names) => Ok(Some(all(names, port_access)?.into_iter().collect())),
            None => Ok((!self.rules.net_port.is_empty()).then(|| AccessNet::from_all(NEWEST))),
        }
    }

    /// Restricts this process and those that come from it. Called in the container's root; paths are the container's.
    pub(crate) fn restrict(&self) -> Result<(), Failure> {
        let mut created = self.create().map_err(|error| refused(&error))?;
        for rule in &self.rules.path_beneath {
            created = rule.add(created, self.files().ok().flatten().unwrap_or_default())?;
        }
        for rule in &self.rules.net_port {
            let access: BitFlags<AccessNet> =
                all(&rule.allowed_access, port_access).unwrap_or_default().into_iter().collect();
            for port in &rule.ports {
                created = created.add_rule(NetPort::new(*port, access)).map_err(|error| refused(&error))?;
            }
        }
        created.no_new_privs(false).restrict_self().map(drop).map_err(|error| refused(&error))
    }

    fn create(&self) -> Result<RulesetCreated, RulesetError> {
        let level =
            if self.disable_best_effort { CompatLevel::HardRequirement } else { CompatLevel::BestEffort };
        let mut ruleset = Ruleset::default().set_compatibility(level);
        // What cannot be read was refused when the annotation was.
        if let Some(access) = self.files().ok().flatten() {
            ruleset = ruleset.handle_access(access)?;
        }
        if let Some(access) = self.ports().ok().flatten() {
            ruleset = ruleset.handle_access(access)?;
        }
        ruleset.create()
    }
}

/// Leaves this process what is open, and TCP connections to those ports: no files, no other TCP, no abstract sockets or signals
/// of others, and no new rights; as far as the kernel knows how.
///
/// # Errors
/// When the kernel knows Landlock, and refuses.
pub fn confine_to_connections(ports: impl IntoIterator<Item = u16>) -> io::Result<()> {
    let confine = || -> Result<(), RulesetError> {
        let mut created = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for port in ports {
            created = created.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        created.restrict_self().map(drop)
    };
    confine().map_err(io::Error::other)
}

fn refused(error: &RulesetError) -> Failure {
    Failure::configuration(format!("restrict by landlock: {}", chain(error)))
}

impl PathRule {
    fn add(
        &self,
        mut created: RulesetCreated,
        handled: BitFlags<AccessFs>,
    ) -> Result<RulesetCreated, Failure> {
        let access: BitFlags<AccessFs> =
            all(&self.allowed_access, file_access).unwrap_or_default().into_iter().collect();
        for path in &self.paths {
            let missing = |error: &dyn std::error::Error| {
                Failure::configuration(format!("landlock: the path `{path}`: {}", chain(error)))
            };
            let metadata = std::fs::metadata(path).map_err(|error| missing(&error))?;
            let file = PathFd::new(path).map_err(|error| missing(&error))?;
            // What only directories have means nothing for a file, and the kernel refuses it, as what is not handled.
            let possible = if metadata.is_dir() { handled } else { handled & AccessFs::from_file(NEWEST) };
            if (access & possible).is_empty() {
                continue;
            }
            let rule = PathBeneath::new(file, access & possible);
            created = created.add_rule(rule).map_err(|error| refused(&error))?;
        }
        Ok(created)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_checked_before_anything_is_made() {
        let of = |text: &str| {
            Landlock::of(Some(&HashMap::from([(LANDLOCK_ANNOTATION.to_owned(), text.to_owned())])))
        };
        assert_eq!(Landlock::of(None).unwrap(), None);
        let good = r#"{"rules": {"pathBeneath": [{"allowedAccess": ["read_file"], "paths": ["/"]}]}}"#;
        assert!(of(good).unwrap().unwrap().disable_best_effort);
        for bad in ["", "{}", &good.replace("read_file", "fly"), &good.replace("paths", "path")] {
            assert!(of(bad).unwrap_err().to_string().contains(LANDLOCK_ANNOTATION), "{bad}");
        }
    }

    #[test]
    fn a_confined_thread_connects_to_its_ports_and_does_nothing_else() {
        use std::net::{TcpListener, TcpStream};
        if Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessNet::ConnectTcp)
            .is_err()
        {
            return; // A kernel without it, or before 6.7.
        }
        let listen = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            (listener, address)
        };
        let ((_allowed, allowed), (_denied, denied)) = (listen(), listen());
        let confined = move || {
            confine_to_connections([allowed.port()]).unwrap();
            TcpStream::connect(allowed).unwrap();
            let refused = [
                TcpStream::connect(denied).map(drop),
                TcpListener::bind("127.0.0.1:0").map(drop),
                std::fs::File::open("/proc/self/status").map(drop),
            ];
            refused.map(|result| result.unwrap_err().kind())
        };
        let refused = std::thread::spawn(confined).join().unwrap();
        assert_eq!(refused, [io::ErrorKind::PermissionDenied; 3]);
    }
}
