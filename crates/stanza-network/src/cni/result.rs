//! What plugins answer to ADD, of every version in one type.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CniDns;

/// What a chain made.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// Devices, on the host and inside.
    pub interfaces: Vec<CniInterface>,
    /// Addresses.
    pub ips: Vec<CniAddress>,
    /// Routes inside.
    pub routes: Vec<CniRoute>,
    /// Name servers for the container.
    pub dns: CniDns,
}

/// A device.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CniInterface {
    /// Its name.
    pub name: String,
    /// Its hardware address; `None` when it has none or the plugin does not say.
    pub mac: Option<[u8; 6]>,
    /// Its largest packet in bytes (since 1.1.0).
    pub mtu: Option<u32>,
    /// The name space that it is in; empty is the host's.
    pub sandbox: String,
    /// A socket that it is reached by (since 1.1.0).
    pub socket_path: Option<String>,
    /// The PCI device it is (since 1.1.0).
    pub pci_id: Option<String>,
}

/// An address with the length of its network's prefix.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CniAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
    /// The way out.
    pub gateway: Option<IpAddr>,
    /// The device that has it: an index into [`CniResult::interfaces`].
    pub interface: Option<usize>,
}

/// A route.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CniRoute {
    /// Where to.
    pub destination: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
    /// By whom; `None` is the address's gateway.
    pub gateway: Option<IpAddr>,
    /// The largest packet in bytes (since 1.1.0).
    pub mtu: Option<u32>,
    /// The largest segment to announce in bytes (since 1.1.0).
    pub advmss: Option<u32>,
    /// Lower comes first (since 1.1.0).
    pub priority: Option<u32>,
    /// The routing table (since 1.1.0).
    pub table: Option<u32>,
    /// The scope (since 1.1.0).
    pub scope: Option<u32>,
}

/// A result as it is written; what was added in one version is absent in those before.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Written {
    interfaces: Option<Vec<WrittenInterface>>,
    ips: Option<Vec<WrittenAddress>>,
    routes: Option<Vec<WrittenRoute>>,
    dns: Option<WrittenDns>,
}

#[derive(Deserialize)]
struct WrittenInterface {
    name: String,
    mac: Option<String>,
    mtu: Option<u32>,
    sandbox: Option<String>,
    #[serde(rename = "socketPath")]
    socket_path: Option<String>,
    #[serde(rename = "pciID")]
    pci_id: Option<String>,
}

#[derive(Deserialize)]
struct WrittenAddress {
    address: String,
    gateway: Option<String>,
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct WrittenRoute {
    dst: String,
    gw: Option<String>,
    mtu: Option<u32>,
    advmss: Option<u32>,
    priority: Option<u32>,
    table: Option<u32>,
    scope: Option<u32>,
}

#[derive(Deserialize)]
struct WrittenDns {
    nameservers: Option<Vec<String>>,
    domain: Option<String>,
    search: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

impl CniResult {
    /// Reads a result of any version.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(value: &Value) -> Result<CniResult, String> {
        if !value.is_object() {
            return Err("it is no object".to_owned());
        }
        let written = Written::deserialize(value).map_err(|error| error.to_string())?;
        let interfaces: Vec<CniInterface> =
            written.interfaces.unwrap_or_default().into_iter().map(interface).collect::<Result<_, _>>()?;
        let ips: Vec<CniAddress> =
            written.ips.unwrap_or_default().into_iter().map(address).collect::<Result<_, _>>()?;
        if let Some(stray) = ips.iter().find(|ip| ip.interface.is_some_and(|index| index >= interfaces.len()))
        {
            return Err(format!("the address `{}` is of no interface of the result", stray.address));
        }
        let routes = written.routes.unwrap_or_default().into_iter().map(route).collect::<Result<_, _>>()?;
        let dns = written.dns.map(dns).transpose()?.unwrap_or_default();
        Ok(CniResult { interfaces, ips, routes, dns })
    }

    /// The addresses of the container: those of devices inside, or of none that is named.
    pub fn inside(&self) -> impl Iterator<Item = &CniAddress> {
        self.ips
            .iter()
            .filter(|ip| self.interface_of(ip).is_none_or(|interface| !interface.sandbox.is_empty()))
    }

    /// The device that has an address.
    #[must_use]
    pub fn interface_of(&self, address: &CniAddress) -> Option<&CniInterface> {
        self.interfaces.get(address.interface?)
    }
}

fn interface(written: WrittenInterface) -> Result<CniInterface, String> {
    let mac = match written.mac.as_deref() {
        None | Some("") => None,
        // Other lengths exist (InfiniBand); they are no hardware address of ours.
        Some(text) => mac(text)?,
    };
    Ok(CniInterface {
        name: written.name,
        mac,
        mtu: written.mtu.filter(|mtu| *mtu > 0),
        sandbox: written.sandbox.unwrap_or_default(),
        socket_path: written.socket_path.filter(|path| !path.is_empty()),
        pci_id: written.pci_id.filter(|id| !id.is_empty()),
    })
}

fn mac(text: &str) -> Result<Option<[u8; 6]>, String> {
    let bytes: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|digits| u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2))
        .collect();
    let bytes = bytes.ok_or_else(|| format!("`{}` is no hardware address", text.escape_debug()))?;
    Ok(bytes.try_into().ok())
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{}` is no address", text.escape_debug()))
}

fn optional_ip(text: Option<&str>) -> Result<Option<IpAddr>, String> {
    text.filter(|text| !text.is_empty()).map(ip).transpose()
}

/// `ADDRESS/BITS`.
fn cidr(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("`{}` is no address with a prefix, as 10.1.0.2/16", text.escape_debug());
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
    Ok((address, bits))
}

fn address(written: WrittenAddress) -> Result<CniAddress, String> {
    let (address, prefix) = cidr(&written.address)?;
    let interface = match written.interface {
        // The specification's -1 for "none" in early versions.
        None | Some(-1) => None,
        Some(index) => {
            Some(usize::try_from(index).map_err(|_| format!("{index} is no index of an interface"))?)
        }
    };
    Ok(CniAddress { address, prefix, gateway: optional_ip(written.gateway.as_deref())?, interface })
}

fn route(written: WrittenRoute) -> Result<CniRoute, String> {
    let (destination, prefix) = cidr(&written.dst)?;
    Ok(CniRoute {
        destination,
        prefix,
        gateway: optional_ip(written.gw.as_deref())?,
        mtu: written.mtu,
        advmss: written.advmss,
        priority: written.priority,
        table: written.table,
        scope: written.scope,
    })
}

/// What ends up in `resolv.conf` is one word each, and servers are addresses.
fn dns(written: WrittenDns) -> Result<CniDns, String> {
    let words = |words: Option<Vec<String>>| -> Result<Vec<String>, String> {
        let words = words.unwrap_or_default();
        match words.iter().find(|word| !is_word(word)) {
            Some(word) => Err(format!("`{}` is no word for `resolv.conf`", word.escape_debug())),
            None => Ok(words),
        }
    };
    let nameservers = words(written.nameservers)?;
    for server in &nameservers {
        ip(server.split('%').next().unwrap_or(server))?;
    }
    let domain = words(written.domain.filter(|domain| !domain.is_empty()).map(|domain| vec![domain]))?;
    Ok(CniDns {
        nameservers,
        domain: domain.into_iter().next().unwrap_or_default(),
        search: words(written.search)?,
        options: words(written.options)?,
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(address: &str, prefix: u8, gateway: Option<&str>, interface: Option<usize>) -> CniAddress {
        let gateway = gateway.map(|text| text.parse().unwrap());
        CniAddress { address: address.parse().unwrap(), prefix, gateway, interface }
    }

    #[test]
    fn results_of_every_version_say_the_same() {
        let interfaces = json!([
            {"name": "cni0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/proc/7/ns/net"},
        ]);
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "10.2.0.0/16", "gw": "10.1.0.3"}]);
        let dns = json!({"nameservers": ["10.1.0.1"], "domain": "a.example", "search": ["b.example"]});
        let old = json!({"cniVersion": "0.3.1", "interfaces": interfaces, "routes": routes, "dns": dns, "ips": [
            {"version": "4", "address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 1},
            {"version": "6", "address": "fd00::2/64", "interface": 1}]});
        let new = json!({"cniVersion": "1.1.0", "interfaces": interfaces, "routes": routes, "dns": dns, "ips": [
            {"address": "10.1.0.2/16", "gateway": "10.1.0.1", "interface": 1},
            {"address": "fd00::2/64", "interface": 1}]});
        let read = CniResult::read(&old).unwrap();
        assert_eq!(read, CniResult::read(&new).unwrap());
        let expected =
            [plain("10.1.0.2", 16, Some("10.1.0.1"), Some(1)), plain("fd00::2", 64, None, Some(1))];
        assert_eq!(read.ips, expected);
        assert_eq!(read.inside().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        assert_eq!(read.interface_of(&read.ips[0]).unwrap().mac, Some([2, 0, 0, 0, 0, 2]));
        assert_eq!((read.routes[1].prefix, read.routes[1].gateway), (16, Some("10.1.0.3".parse().unwrap())));
        assert_eq!(read.dns.nameservers, ["10.1.0.1"]);
        assert_eq!(CniResult::read(&json!({})).unwrap(), CniResult::default());
    }

    #[test]
    fn what_1_1_added_is_read() {
        let value = json!({
            "interfaces": [{"name": "e", "mtu": 1400, "socketPath": "/s", "pciID": "0000:00:01.0", "sandbox": "/n"}],
            "routes": [{"dst": "::/0", "mtu": 1, "advmss": 2, "priority": 3, "table": 4, "scope": 5}],
        });
        let read = CniResult::read(&value).unwrap();
        let interface = &read.interfaces[0];
        assert_eq!((interface.mtu, interface.mac), (Some(1400), None));
        assert_eq!(interface.socket_path.as_deref(), Some("/s"));
        assert_eq!(interface.pci_id.as_deref(), Some("0000:00:01.0"));
        let route = &read.routes[0];
        assert_eq!(
            (route.mtu, route.advmss, route.priority, route.table, route.scope),
            (Some(1), Some(2), Some(3), Some(4), Some(5))
        );
    }

    #[test]
    fn addresses_on_the_host_are_not_the_containers() {
        let value = json!({"interfaces": [{"name": "cni0"}], "ips": [
            {"address": "10.1.0.1/16", "interface": 0}, {"address": "10.1.0.2/16"}]});
        let read = CniResult::read(&value).unwrap();
        assert_eq!(read.inside().collect::<Vec<_>>(), [&plain("10.1.0.2", 16, None, None)]);
    }

    #[test]
    fn what_is_wrong_in_a_result_is_told() {
        for (value, word) in [
            (json!([]), "no object"),
            (json!({"ips": [{"address": "10.1.0.2"}]}), "10.1.0.2"),
            (json!({"ips": [{"address": "10.1.0.2/33"}]}), "/33"),
            (json!({"ips": [{"address": "10.1.0.2/16", "gateway": "x"}]}), "`x`"),
            (json!({"ips": [{"address": "10.1.0.2/16", "interface": 0}]}), "no interface"),
            (json!({"ips": [{"address": "10.1.0.2/16", "interface": -2}]}), "-2"),
            (json!({"interfaces": [{"name": "a", "mac": "zz:00"}]}), "zz:00"),
            (json!({"interfaces": [{}]}), "name"),
            (json!({"routes": [{"dst": "10.0.0.0"}]}), "10.0.0.0"),
            (json!({"dns": {"nameservers": ["a\nnameserver 6.6.6.6"]}}), "resolv.conf"),
            (json!({"dns": {"nameservers": ["ns.example"]}}), "ns.example"),
        ] {
            let error = CniResult::read(&value).unwrap_err();
            assert!(error.contains(word), "{value}: {error}");
        }
    }
}
