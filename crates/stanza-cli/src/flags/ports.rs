//! `--publish [[IP:][HOST-PORT[-END]]:]PORT[-END][/PROTOCOL]`.

use std::net::IpAddr;

use stanza_spec::{PortRequest, Protocol};

use super::FlagError;

const OPTION: &str = "--publish";

/// The ports that one option publishes.
pub(crate) fn publish(text: &str) -> Result<Vec<PortRequest>, FlagError> {
    if text.contains('=') {
        return Err(FlagError::not_built(OPTION, "published=…,target=…"));
    }
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => return Err(FlagError::not_built(OPTION, "sctp")),
        other => return Err(FlagError::new(OPTION, format!("`{text}`: there is no protocol `{other}`"))),
    };
    let (host, container) = match rest.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, rest),
    };
    let (from, to) = range(text, container)?;
    let (ip, host_port) = match host {
        None => (None, ""),
        Some(host) => address(text, host)?,
    };
    let count = to - from;
    let host_from = match host_port {
        "" => None,
        _ => {
            let (first, last) = range(text, host_port)?;
            if last - first != count {
                return Err(if count == 0 {
                    FlagError::not_built(OPTION, text)
                        .hint("give one host port, or none to let the kernel choose")
                } else {
                    FlagError::new(OPTION, format!("`{text}`: the two ranges differ in length"))
                });
            }
            // Docker lets the kernel choose for port 0.
            if first == 0 && count > 0 {
                return Err(FlagError::new(OPTION, format!("`{text}`: a range starts at 1")));
            }
            (first != 0).then_some(first)
        }
    };
    if from == 0 {
        return Err(FlagError::new(OPTION, format!("`{text}`: the container's port cannot be 0")));
    }
    Ok((0..=count)
        .map(|offset| PortRequest {
            host_ip: ip,
            host_port: host_from.map(|port| port + offset),
            host_range: None,
            container_port: from + offset,
            protocol,
        })
        .collect())
}

fn range(text: &str, ports: &str) -> Result<(u16, u16), FlagError> {
    let fail = || FlagError::new(OPTION, format!("`{text}`: `{ports}` is not a port or a range of ports"));
    let port = |part: &str| part.parse::<u16>().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit()));
    let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
    match (port(from), port(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err(fail()),
    }
}

/// `IP:PORT`, `IP:`, `PORT` or nothing.
fn address<'a>(text: &str, host: &'a str) -> Result<(Option<IpAddr>, &'a str), FlagError> {
    let parse = |ip: &str| {
        ip.parse::<IpAddr>()
            .map(Some)
            .map_err(|_| FlagError::new(OPTION, format!("`{text}`: `{ip}` is not an IP address")))
    };
    if let Some(rest) = host.strip_prefix('[') {
        let Some((ip, port)) = rest.split_once("]") else {
            return Err(FlagError::new(OPTION, format!("`{text}`: the bracket is not closed")));
        };
        return match port.strip_prefix(':') {
            Some(port) => Ok((parse(ip)?, port)),
            None => Err(FlagError::new(OPTION, format!("`{text}`: expected `:` behind `[{ip}]`"))),
        };
    }
    match host.rsplit_once(':') {
        Some(("", port)) => Ok((None, port)),
        Some((ip, port)) => Ok((parse(ip)?, port)),
        None => Ok((None, host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |p: PortRequest| {
            let ip = p.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
            let host = p.host_port.map(|port| port.to_string()).unwrap_or_default();
            format!("{ip}|{host}|{}|{:?}", p.container_port, p.protocol)
        };
        publish(text).unwrap().into_iter().map(show).collect()
    }

    #[test]
    fn every_form_of_docker_is_read() {
        assert_eq!(shown("80"), ["||80|Tcp"]);
        assert_eq!(shown("8080:80"), ["|8080|80|Tcp"]);
        assert_eq!(shown("8080:53/UDP"), ["|8080|53|Udp"]);
        assert_eq!(shown("127.0.0.1:8080:80"), ["127.0.0.1|8080|80|Tcp"]);
        assert_eq!(shown("127.0.0.1::80"), ["127.0.0.1||80|Tcp"]);
        assert_eq!(shown("[::1]:8080:80"), ["::1|8080|80|Tcp"]);
        assert_eq!(shown("[::]::80"), ["::||80|Tcp"]);
        assert_eq!(shown("8000-8001:80-81"), ["|8000|80|Tcp", "|8001|81|Tcp"]);
        assert_eq!(shown("80-81/udp"), ["||80|Udp", "||81|Udp"]);
        assert_eq!(shown("0:80"), ["||80|Tcp"]);
        assert_eq!(shown(":80"), ["||80|Tcp"]);
    }

    #[test]
    fn wrong_ports_are_named() {
        for (text, part) in [
            ("", "`` is not a port"),
            ("a", "`a` is not a port"),
            ("70000", "`70000` is not a port"),
            ("80:", "`` is not a port"),
            ("81-80", "`81-80` is not a port"),
            ("8000-8001:80", "`8000-8001:80` is not built yet"),
            ("8000:80-81", "the two ranges differ in length"),
            ("localhost:80:80", "`localhost` is not an IP address"),
            ("80/sctp", "`sctp` is not built yet"),
            ("80/x", "there is no protocol `x`"),
            ("[::1:80", "the bracket is not closed"),
            ("0", "cannot be 0"),
            ("+80", "is not a port"),
            ("published=80,target=80", "not built yet"),
        ] {
            let error = publish(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
