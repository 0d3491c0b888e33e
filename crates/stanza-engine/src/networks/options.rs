//! `--opt` of `network create`: Docker's names and Podman's, translated; what is not known is refused by name.

use std::collections::BTreeMap;

use super::NetworkRequestError;

/// What the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mtu: Option<u32>,
    pub(super) bridge: Option<String>,
    pub(super) peers: bool,
    pub(super) masquerade: bool,
    pub(super) parent: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) vlan: Option<u16>,
    pub(super) interface: Option<String>,
    pub(super) no_default_route: bool,
    pub(super) metric: Option<u32>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mtu: None,
            bridge: None,
            peers: true,
            masquerade: true,
            parent: None,
            mode: None,
            vlan: None,
            interface: None,
            no_default_route: false,
            metric: None,
        }
    }
}

/// The smallest packet that IPv4 hosts must take (RFC 791), and the largest that there is.
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

fn wrong(name: &str, reason: impl Into<String>) -> NetworkRequestError {
    NetworkRequestError::Option { name: name.to_owned(), reason: reason.into() }
}

fn truth(name: &str, value: &str) -> Result<bool, NetworkRequestError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" | "" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => Err(wrong(name, format!("`{value}` is neither `true` nor `false`"))),
    }
}

/// Whether a network device may have the name (`dev_valid_name` of the kernel).
pub(crate) fn is_device_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name
            .bytes()
            .any(|byte| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte.is_ascii_control())
}

fn device(name: &str, value: &str) -> Result<String, NetworkRequestError> {
    if is_device_name(value) {
        Ok(value.to_owned())
    } else {
        Err(wrong(
            name,
            format!("`{value}` is no name of a network device: 1 to 15 bytes, without `/`, `:` and blanks"),
        ))
    }
}

/// What the options of a network of that driver say.
pub(super) fn read(driver: &str, given: &BTreeMap<String, String>) -> Result<Options, NetworkRequestError> {
    let mut options = Options::default();
    for (name, value) in given {
        let bare = name
            .strip_prefix("com.docker.network.driver.")
            .or_else(|| name.strip_prefix("com.docker.network.bridge."))
            .or_else(|| name.strip_prefix("com.docker.network."))
            .unwrap_or(name);
        match (bare, driver) {
            ("mtu", _) => {
                let mtu = value.parse().ok().filter(|mtu| *mtu == 0 || MTU.contains(mtu));
                let mtu = mtu.ok_or_else(|| {
                    wrong(name, format!("`{value}` is not a number of bytes from 68 to 65535"))
                })?;
                // 0 is the default in Docker.
                options.mtu = (mtu != 0).then_some(mtu);
            }
            ("name" | "bridge_name", "bridge") => options.bridge = Some(device(name, value)?),
            ("enable_icc", "bridge") => options.peers = truth(name, value)?,
            ("enable_ip_masquerade", "bridge") => options.masquerade = truth(name, value)?,
            ("isolate", "bridge") => {
                if value != "strict" && !truth(name, value)? {
                    return Err(wrong(name, "networks are always kept apart: connect a container to both"));
                }
            }
            ("parent", "macvlan" | "ipvlan") => {
                options.parent = if value.is_empty() { None } else { Some(parent(name, value)?) };
            }
            ("macvlan_mode", "macvlan") | ("ipvlan_mode", "ipvlan") | ("mode", "macvlan" | "ipvlan") => {
                options.mode = Some(value.to_ascii_lowercase());
            }
            ("ipvlan_flag", "ipvlan") if value == "bridge" => {}
            // Podman's word for a bridge that it makes itself.
            ("mode", "bridge") if value == "managed" => {}
            ("vlan", _) => {
                let vlan = value.parse().ok().filter(|vlan| (1..=4094).contains(vlan));
                options.vlan =
                    Some(vlan.ok_or_else(|| wrong(name, format!("`{value}` is not a VLAN from 1 to 4094")))?);
            }
            ("no_default_route", _) => options.no_default_route = truth(name, value)?,
            ("metric", _) => {
                let metric = value.parse().ok();
                options.metric =
                    Some(metric.ok_or_else(|| wrong(name, format!("`{value}` is not a number")))?);
            }
            // What they are anyway.
            ("gateway_mode_ipv4" | "gateway_mode_ipv6", "bridge") if value == "nat" => {}
            ("container_iface_prefix", _) => {
                let prefix = device(name, value)?;
                if prefix.len() > 12 {
                    return Err(wrong(name, "no room for a number behind it: at most 12 bytes"));
                }
                options.interface = Some(prefix);
            }
            _ => return Err(wrong(name, format!("not known to the driver `{driver}`"))),
        }
    }
    Ok(options)
}

/// A card, or `CARD.VLAN`.
fn parent(name: &str, value: &str) -> Result<String, NetworkRequestError> {
    device(name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_of_docker_and_podman_say_the_same() {
        let docker = given(&[
            ("com.docker.network.driver.mtu", "1400"),
            ("com.docker.network.bridge.name", "br7"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "false"),
            ("com.docker.network.container_iface_prefix", "lan"),
        ]);
        let expected = Options {
            mtu: Some(1400),
            bridge: Some("br7".into()),
            peers: false,
            masquerade: false,
            interface: Some("lan".into()),
            ..Options::default()
        };
        assert_eq!(read("bridge", &docker).unwrap(), expected);
        let podman = read("bridge", &given(&[("mtu", "9000"), ("vlan", "7"), ("isolate", "true")])).unwrap();
        assert_eq!((podman.mtu, podman.vlan), (Some(9000), Some(7)));
        let ways = read("macvlan", &given(&[("metric", "7"), ("no_default_route", "1")])).unwrap();
        assert_eq!((ways.metric, ways.no_default_route), (Some(7), true));
        let card = given(&[("parent", "eth0.7"), ("macvlan_mode", "private")]);
        let card = read("macvlan", &card).unwrap();
        assert_eq!((card.parent.as_deref(), card.mode.as_deref()), (Some("eth0.7"), Some("private")));
        assert_eq!(read("bridge", &given(&[("mtu", "0")])).unwrap(), Options::default());
    }

    #[test]
    fn what_is_unknown_or_impossible_is_refused_by_name() {
        for (driver, name, value) in [
            ("bridge", "colour", "red"),
            ("bridge", "parent", "eth0"),
            ("macvlan", "com.docker.network.bridge.name", "br0"),
            ("bridge", "mtu", "67"),
            ("bridge", "vlan", "4095"),
            ("bridge", "isolate", "false"),
            ("bridge", "com.docker.network.bridge.name", "a name/"),
            ("bridge", "com.docker.network.bridge.enable_icc", "perhaps"),
            ("bridge", "com.docker.network.container_iface_prefix", "abcdefghijklm"),
            ("ipvlan", "ipvlan_flag", "vepa"),
            ("bridge", "metric", "-1"),
            ("bridge", "no_default_route", "perhaps"),
            ("bridge", "gateway_mode_ipv4", "routed"),
        ] {
            let error = read(driver, &given(&[(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("network option `{name}`: ")), "{error}");
        }
    }
}
