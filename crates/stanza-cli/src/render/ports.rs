//! Published ports as `ps` shows them and as `inspect` does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use stanza_network::PortMap;
use stanza_spec::Protocol;

use super::json::Json;

fn protocol(port: &PortMap) -> &'static str {
    port.protocol.word()
}

/// The host's addresses: a port of no address in particular is published on those of both families.
fn host_ips(port: &PortMap) -> Vec<IpAddr> {
    match port.host_ip {
        Some(ip) => vec![ip],
        None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
    }
}

/// `0.0.0.0:8080`, `[::]:8080`.
fn host_side(ip: IpAddr, port: &str) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// Where on the host a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// Nowhere: it is only named.
    Named,
    /// On no address in particular.
    Anywhere,
    /// On this one.
    At(IpAddr),
}

/// Ports that stand together: on one side, of one protocol, each as far from the host's as the others.
type Run = (Side, &'static str, i32);

/// `0.0.0.0:8080->80/tcp, 81/tcp`: runs of ports stand together, those that are the same on both sides first, as in Docker.
pub(crate) fn column(ports: &[PortMap], exposed: &[String]) -> String {
    runs(ports, exposed, |port| host_ips(port).into_iter().map(Side::At).collect()).join(", ")
}

/// The runs of published ports, without an address where there is none in particular.
pub(crate) fn short(ports: &[PortMap]) -> Vec<String> {
    let published: Vec<PortMap> = ports.iter().filter(|port| port.host_port.is_some()).cloned().collect();
    runs(&published, &[], |port| vec![port.host_ip.map_or(Side::Anywhere, Side::At)])
}

fn runs(ports: &[PortMap], exposed: &[String], sides: impl Fn(&PortMap) -> Vec<Side>) -> Vec<String> {
    let mut groups: BTreeMap<Run, Vec<u16>> = BTreeMap::new();
    for port in ports {
        let inside = port.container_port;
        match port.host_port {
            Some(host) => {
                for side in sides(port) {
                    let distance = i32::from(host) - i32::from(inside);
                    groups.entry((side, protocol(port), distance)).or_default().push(inside);
                }
            }
            None => groups.entry((Side::Named, protocol(port), 0)).or_default().push(inside),
        }
    }
    for text in exposed {
        let (number, name) = text.split_once('/').unwrap_or((text, "tcp"));
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
        let name = known.map(Protocol::word).find(|word| *word == name).unwrap_or("tcp");
        if let Ok(number) = number.parse::<u16>()
            && !ports.iter().any(|port| port.container_port == number && protocol(port) == name)
        {
            groups.entry((Side::Named, name, 0)).or_default().push(number);
        }
    }
    let mut parts = Vec::new();
    for ((side, protocol, distance), mut numbers) in groups {
        numbers.sort_unstable();
        numbers.dedup();
        for run in numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (first, last) = (i32::from(run[0]), i32::from(run[run.len() - 1]));
            let range = |first: i32, last: i32| {
                if first == last { first.to_string() } else { format!("{first}-{last}") }
            };
            let inside = format!("{}/{protocol}", range(first, last));
            let outside = range(first + distance, last + distance);
            let text = match side {
                Side::Named => inside,
                Side::Anywhere => format!("{outside}->{inside}"),
                Side::At(ip) => format!("{}->{inside}", host_side(ip, &outside)),
            };
            parts.push(((distance != 0, if distance == 0 { 0 } else { first }), text));
        }
    }
    // Stable: what is not sorted by its port keeps the order of addresses.
    parts.sort_by_key(|(key, _)| *key);
    parts.into_iter().map(|(_, text)| text).collect()
}

/// Each port inside, as `80/tcp`, with the host's addresses, as `0.0.0.0:8080`.
pub(crate) fn lines(ports: &[PortMap]) -> Vec<(String, Vec<String>)> {
    let mut map: BTreeMap<(u16, &str), Vec<String>> = BTreeMap::new();
    for port in ports {
        let Some(host) = port.host_port else { continue };
        let sides = host_ips(port).into_iter().map(|ip| host_side(ip, &host.to_string()));
        map.entry((port.container_port, protocol(port))).or_default().extend(sides);
    }
    map.into_iter().map(|((port, protocol), sides)| (format!("{port}/{protocol}"), sides)).collect()
}

/// `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null}`.
pub(crate) fn bindings(ports: &[PortMap], exposed: &[String]) -> Json {
    let ips = |port: &PortMap| host_ips(port).iter().map(ToString::to_string).collect();
    table(ports, exposed, ips)
}

/// The same of what was asked for: no address in particular is an empty one.
pub(crate) fn asked(ports: &[PortMap]) -> Json {
    table(ports, &[], |port| vec![port.host_ip.map(|ip| ip.to_string()).unwrap_or_default()])
}

fn table(ports: &[PortMap], exposed: &[String], ips: impl Fn(&PortMap) -> Vec<String>) -> Json {
    let mut map: BTreeMap<String, Option<Vec<Json>>> =
        exposed.iter().map(|name| (name.clone(), None)).collect();
    for port in ports {
        let name = format!("{}/{}", port.container_port, protocol(port));
        let range = port.host_range.map(|(first, last)| format!("{first}-{last}")).unwrap_or_default();
        let host_port = port.host_port.map_or(range, |port| port.to_string());
        let bindings = map.entry(name).or_default().get_or_insert_default();
        for ip in ips(port) {
            bindings.push(Json::object([("HostIp", ip.into()), ("HostPort", host_port.clone().into())]));
        }
    }
    Json::Object(map.into_iter().map(|(name, list)| (name, list.map_or(Json::NULL, Json::List))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: Option<&str>, host: Option<u16>, container: u16) -> PortMap {
        PortMap {
            host_ip: ip.map(|ip| ip.parse().unwrap()),
            host_port: host,
            host_range: None,
            container_port: container,
            protocol: stanza_spec::Protocol::Tcp,
        }
    }

    #[test]
    fn runs_of_ports_stand_together() {
        let any = Some("0.0.0.0");
        let ports = [
            port(any, Some(80), 80),
            port(any, Some(81), 81),
            port(any, Some(8443), 443),
            port(any, Some(9001), 1001),
            port(any, Some(9000), 1000),
            port(Some("::1"), Some(9000), 90),
        ];
        let exposed = ["53/udp".to_owned(), "80/tcp".to_owned(), "7/sctp".to_owned()];
        assert_eq!(
            column(&ports, &exposed),
            "7/sctp, 53/udp, 0.0.0.0:80-81->80-81/tcp, [::1]:9000->90/tcp, 0.0.0.0:8443->443/tcp, \
             0.0.0.0:9000-9001->1000-1001/tcp"
        );
        assert_eq!(column(&[], &[]), "");
    }

    #[test]
    fn no_address_in_particular_is_one_of_each_family() {
        let ports = [port(None, Some(8080), 80), port(None, Some(8081), 81)];
        assert_eq!(column(&ports, &[]), "0.0.0.0:8080-8081->80-81/tcp, [::]:8080-8081->80-81/tcp");
        assert_eq!(short(&ports), ["8080-8081->80-81/tcp"]);
        let expected = ["0.0.0.0:8080".to_owned(), "[::]:8080".to_owned()];
        assert_eq!(lines(&ports)[0], ("80/tcp".to_owned(), expected.to_vec()));
    }

    #[test]
    fn bindings_have_dockers_shape() {
        let one = [port(None, Some(8080), 80)];
        let json = bindings(&one, &["80/tcp".to_owned(), "81/tcp".to_owned()]);
        let expected = serde_json::json!({
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
            "81/tcp": null
        });
        assert_eq!(json.value(), expected);
        let range = PortMap { host_range: Some((8000, 8010)), ..port(None, None, 80) };
        let expected = serde_json::json!({"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]});
        assert_eq!(asked(&[range]).value(), expected);
    }
}
