//! Published ports as `ps` shows them and as `inspect` does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use stanza_network::PortMap;

use super::json::Json;

fn protocol(port: &PortMap) -> &'static str {
    port.protocol.word()
}

fn host_ip(port: &PortMap) -> String {
    port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip: IpAddr| ip.to_string())
}

/// `0.0.0.0:8080->80/tcp, 81/tcp`: runs of ports that are the same on both sides stand together, as in Docker.
pub(crate) fn column(ports: &[PortMap], exposed: &[String]) -> String {
    let mut same: BTreeMap<(String, &str), Vec<u16>> = BTreeMap::new();
    let mut mapped = Vec::new();
    for port in ports {
        let ip = host_ip(port);
        match port.host_port {
            Some(host) if host != port.container_port => {
                let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
                mapped.push((
                    port.container_port,
                    format!("{ip}:{host}->{}/{}", port.container_port, protocol(port)),
                ));
            }
            Some(_) => same.entry((ip, protocol(port))).or_default().push(port.container_port),
            None => same.entry((String::new(), protocol(port))).or_default().push(port.container_port),
        }
    }
    for text in exposed {
        let (number, name) = text.split_once('/').unwrap_or((text, "tcp"));
        let name = if name == "udp" { "udp" } else { "tcp" };
        if let Ok(number) = number.parse::<u16>()
            && !ports.iter().any(|port| port.container_port == number && protocol(port) == name)
        {
            same.entry((String::new(), name)).or_default().push(number);
        }
    }
    let mut parts = Vec::new();
    for ((ip, protocol), mut numbers) in same {
        numbers.sort_unstable();
        numbers.dedup();
        for run in numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            parts.push(match ip.as_str() {
                "" => format!("{range}/{protocol}"),
                ip if ip.contains(':') => format!("[{ip}]:{range}->{range}/{protocol}"),
                ip => format!("{ip}:{range}->{range}/{protocol}"),
            });
        }
    }
    mapped.sort();
    parts.extend(mapped.into_iter().map(|(_, text)| text));
    parts.join(", ")
}

/// `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null}`.
pub(crate) fn bindings(ports: &[PortMap], exposed: &[String]) -> Json {
    let mut map: BTreeMap<String, Option<Vec<Json>>> =
        exposed.iter().map(|name| (name.clone(), None)).collect();
    for port in ports {
        let name = format!("{}/{}", port.container_port, protocol(port));
        let host_port = port.host_port.map(|port| port.to_string()).unwrap_or_default();
        let binding = Json::object([("HostIp", host_ip(port).into()), ("HostPort", host_port.into())]);
        map.entry(name).or_default().get_or_insert_default().push(binding);
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
            container_port: container,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn runs_of_equal_ports_stand_together() {
        let ports = [
            port(None, Some(80), 80),
            port(None, Some(81), 81),
            port(None, Some(8443), 443),
            port(Some("::1"), Some(9000), 90),
        ];
        let exposed = ["53/udp".to_owned(), "80/tcp".to_owned()];
        assert_eq!(
            column(&ports, &exposed),
            "53/udp, 0.0.0.0:80-81->80-81/tcp, [::1]:9000->90/tcp, 0.0.0.0:8443->443/tcp"
        );
        assert_eq!(column(&[], &[]), "");
    }

    #[test]
    fn bindings_have_dockers_shape() {
        let json = bindings(&[port(None, Some(8080), 80)], &["80/tcp".to_owned(), "81/tcp".to_owned()]);
        let expected =
            serde_json::json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": null});
        assert_eq!(json.value(), expected);
    }
}
