//! What a chain of plugins is to do: plain data.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stanza_spec::ContainerId;

use super::CniError;
use crate::PortMap;

/// A version of the specification, in its order.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CniVersion {
    /// 0.3.0: chains.
    #[serde(rename = "0.3.0")]
    V0_3_0,
    /// 0.3.1: the same, with a mistake of the text put right.
    #[serde(rename = "0.3.1")]
    V0_3_1,
    /// 0.4.0: CHECK, and the result at DEL.
    #[serde(rename = "0.4.0")]
    V0_4_0,
    /// 1.0.0: addresses without a version.
    #[serde(rename = "1.0.0")]
    V1_0_0,
    /// 1.1.0: GC and STATUS.
    #[serde(rename = "1.1.0")]
    V1_1_0,
}

impl CniVersion {
    /// All of them.
    pub const ALL: [CniVersion; 5] =
        [CniVersion::V0_3_0, CniVersion::V0_3_1, CniVersion::V0_4_0, CniVersion::V1_0_0, CniVersion::V1_1_0];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CniVersion::V0_3_0 => "0.3.0",
            CniVersion::V0_3_1 => "0.3.1",
            CniVersion::V0_4_0 => "0.4.0",
            CniVersion::V1_0_0 => "1.0.0",
            CniVersion::V1_1_0 => "1.1.0",
        }
    }

    /// The one that is written so.
    #[must_use]
    pub fn of(text: &str) -> Option<CniVersion> {
        CniVersion::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

/// A network configuration: a chain of plugins under a name.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct CniNetwork {
    /// Letters, digits, `_`, `.` and `-`, the first a letter or digit.
    pub name: String,
    /// The version that all its plugins are asked in.
    pub version: CniVersion,
    /// The file it comes from.
    pub file: PathBuf,
    /// CHECK is not to be called.
    pub disable_check: bool,
    /// GC is not to be called.
    pub disable_gc: bool,
    /// At least one, in the order of ADD; each has a `type`, the name of its program.
    pub plugins: Vec<Map<String, Value>>,
}

/// Where plugins and results are, and how long plugins may take.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CniPlaces {
    /// Where plugins are looked for, in order; nothing else is executed.
    pub plugin_dirs: Vec<PathBuf>,
    /// The records of attachments: `NETWORK/CONTAINER-INTERFACE.json`. Made when missing; it outlives a boot, since what
    /// plugins keep (as addresses given out) may as well.
    pub results_dir: PathBuf,
    /// How long one verb may take, for the whole chain.
    pub time_limit: Duration,
}

/// One container in one network.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct CniPlan {
    /// The network.
    pub network: CniNetwork,
    /// The container.
    pub container: ContainerId,
    /// Name of the device inside: 1 to 15 bytes, no `/`, `:` or white space.
    pub interface: String,
    /// `CNI_ARGS`: names and values without `;`, names without `=`.
    pub args: Vec<(String, String)>,
    /// What is asked of plugins that declare that they can do it.
    pub request: CniRequest,
    /// Directories and limits.
    pub places: CniPlaces,
    /// The files that tell the container its addresses and name servers.
    #[serde(default)]
    pub files: CniFiles,
}

/// Files of the container that are known in full only when the plugins have answered. They exist already, and are written in
/// place, because they may be mounted.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CniFiles {
    /// `/etc/hosts`; `None` leaves it alone.
    pub hosts: Option<PathBuf>,
    /// The container's own names there.
    pub names: Vec<String>,
    /// Names of the host there: they get the address of the first gateway, and are left out without one.
    #[serde(default)]
    pub gateway_names: Vec<String>,
    /// `/etc/resolv.conf`, for when the plugins name servers; `None` when the user said which. What [`CniRequest::dns`] says
    /// of search domains and options counts before the plugins' word.
    pub resolv_conf: Option<PathBuf>,
}

/// What a plugin is asked for in `runtimeConfig`, when it declares the capability (CNI's CONVENTIONS.md).
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct CniRequest {
    /// `portMappings`: some plugin of the network must declare it when there are any.
    pub ports: Vec<PortMap>,
    /// `ips`: addresses to have; empty lets the plugin choose.
    pub ips: Vec<IpAddr>,
    /// `mac`.
    pub mac: Option<[u8; 6]>,
    /// `aliases`: further names of the container.
    pub aliases: Vec<String>,
    /// `dns`.
    pub dns: Option<CniDns>,
    /// `bandwidth`.
    pub bandwidth: Option<CniBandwidth>,
    /// Others, by the capability's name, as `ioBandwidth` or `cgroupPath`.
    pub others: BTreeMap<String, Value>,
}

/// Names and how they are found.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct CniDns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// The domain of short names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Domains that short names are looked for in.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

/// Limits, in bits a second and bits; 0 is none.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CniBandwidth {
    /// Into the container.
    pub ingress_rate: u64,
    /// At once.
    pub ingress_burst: u64,
    /// Out of it.
    pub egress_rate: u64,
    /// At once.
    pub egress_burst: u64,
}

impl CniNetwork {
    /// Whether a plugin of it declares the capability.
    #[must_use]
    pub fn can(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| declares(plugin, capability))
    }

    /// Refuses a request that no plugin would heed: what is not declared is not told to plugins. Name servers are not looked
    /// at, since the container's own file has them in any case.
    ///
    /// # Errors
    /// [`CniError::Incapable`], with the first capability that is missing.
    pub fn require(&self, request: &CniRequest) -> Result<(), CniError> {
        let wanted = [
            ("portMappings", "publishes no ports", !request.ports.is_empty()),
            ("ips", "gives no addresses that are asked for", !request.ips.is_empty()),
            ("mac", "gives no hardware address that is asked for", request.mac.is_some()),
            ("aliases", "has no names for containers", !request.aliases.is_empty()),
            ("bandwidth", "has no limits of bandwidth", request.bandwidth.is_some()),
        ];
        let missing = wanted.into_iter().find(|(capability, _, wanted)| *wanted && !self.can(capability));
        match missing {
            Some((capability, what, _)) => {
                Err(CniError::Incapable { network: self.name.clone(), what, capability })
            }
            None => Ok(()),
        }
    }
}

/// Whether a plugin's configuration declares the capability.
pub(super) fn declares(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").and_then(|declared| declared.get(capability)).and_then(Value::as_bool)
        == Some(true)
}

impl CniRequest {
    /// The `runtimeConfig` for one plugin: what it declares, and what there is to say.
    pub(super) fn runtime_config(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        let mut config = Map::new();
        let mut say = |capability: &str, value: Option<Value>| {
            if let Some(value) = value.filter(|_| declares(plugin, capability)) {
                config.insert(capability.to_owned(), value);
            }
        };
        for (capability, value) in &self.others {
            say(capability, Some(value.clone()));
        }
        let ports: Vec<Value> = self.ports.iter().map(port_mapping).collect();
        say("portMappings", (!ports.is_empty()).then(|| ports.into()));
        say("ips", (!self.ips.is_empty()).then(|| json!(self.ips)));
        say("mac", self.mac.map(|mac| mac_text(mac).into()));
        say("aliases", (!self.aliases.is_empty()).then(|| json!(self.aliases)));
        // Other names than in a result: CONVENTIONS.md.
        let dns = self.dns.as_ref();
        say(
            "dns",
            dns.map(
                |dns| json!({"servers": dns.nameservers, "searches": dns.search, "options": dns.options}),
            ),
        );
        say("bandwidth", self.bandwidth.map(|bandwidth| json!(bandwidth)));
        config
    }
}

fn port_mapping(port: &PortMap) -> Value {
    let mut mapping = json!({
        "hostPort": port.host_port.unwrap_or(0),
        "containerPort": port.container_port,
        "protocol": port.protocol.word(),
    });
    if let Some(ip) = port.host_ip.filter(|ip| !ip.is_unspecified()) {
        mapping["hostIP"] = json!(ip);
    }
    mapping
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl CniPlan {
    /// Refuses what plugins could take for something else.
    pub(super) fn verify(&self) -> Result<(), CniError> {
        let wrong = |what: String| Err(CniError::Argument { network: self.network.name.clone(), what });
        let interface = &self.interface;
        let is_odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if interface.is_empty()
            || interface.len() > 15
            || matches!(interface.as_str(), "." | "..")
            || interface.contains(is_odd)
        {
            return wrong(format!("`{}` is no name of a network device", interface.escape_debug()));
        }
        let bad = |text: &str| text.contains([';', '\0']);
        for (name, value) in &self.args {
            if name.is_empty() || name.contains('=') || bad(name) || bad(value) {
                return wrong(format!("`{}` is no argument `NAME=VALUE` without `;`", name.escape_debug()));
            }
        }
        self.network.require(&self.request)
    }
}

#[cfg(test)]
mod tests {
    use stanza_spec::Protocol;

    use super::*;

    fn plugin(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_plugin_is_asked_only_for_what_it_declares() {
        let request = CniRequest {
            ports: vec![
                PortMap {
                    host_ip: None,
                    host_range: None,
                    host_port: Some(8080),
                    container_port: 80,
                    protocol: Protocol::Tcp,
                },
                PortMap {
                    host_range: None,
                    host_ip: Some("127.0.0.1".parse().unwrap()),
                    host_port: Some(53),
                    container_port: 5353,
                    protocol: Protocol::Udp,
                },
            ],
            ips: vec!["10.1.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
            mac: Some([2, 0, 0, 0, 0, 0xab]),
            aliases: vec!["db".to_owned()],
            dns: Some(CniDns { nameservers: vec!["10.1.0.1".to_owned()], ..CniDns::default() }),
            bandwidth: Some(CniBandwidth { ingress_rate: 1000, ..CniBandwidth::default() }),
            others: BTreeMap::from([("ioBandwidth".to_owned(), json!({"weight": 3}))]),
        };
        let all = plugin(
            r#"{"type": "a", "capabilities": {"portMappings": true, "ips": true, "mac": true, "aliases": true,
                "dns": true, "bandwidth": true, "ioBandwidth": true}}"#,
        );
        let expected = json!({
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
                {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"},
            ],
            "ips": ["10.1.0.9", "fd00::9"],
            "mac": "02:00:00:00:00:ab",
            "aliases": ["db"],
            "dns": {"servers": ["10.1.0.1"], "searches": [], "options": []},
            "bandwidth": {"ingressRate": 1000, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
            "ioBandwidth": {"weight": 3},
        });
        assert_eq!(Value::from(request.runtime_config(&all)), expected);
        let one = plugin(r#"{"type": "a", "capabilities": {"mac": true, "ips": false}}"#);
        assert_eq!(Value::from(request.runtime_config(&one)), json!({"mac": "02:00:00:00:00:ab"}));
        assert!(request.runtime_config(&plugin(r#"{"type": "a"}"#)).is_empty());
        assert!(CniRequest::default().runtime_config(&all).is_empty());
    }

    #[test]
    fn versions_are_in_order_and_read_as_they_are_written() {
        assert!(CniVersion::ALL.is_sorted());
        for version in CniVersion::ALL {
            assert_eq!(CniVersion::of(version.as_str()), Some(version));
            assert_eq!(serde_json::to_value(version).unwrap(), json!(version.as_str()));
        }
        assert_eq!(CniVersion::of("0.2.0"), None);
    }
}
