//! `--publish [[IP:][HOST-PORT[-END]]:]PORT[-END][/PROTOCOL]`, `--expose PORT[-END][/PROTOCOL]`.

use std::net::IpAddr;

use stanza_spec::{ExposedPort, PortRequest, Protocol};

use super::FlagError;

const OPTION: &str = "--publish";

/// The ports that one option publishes.
pub(crate) fn publish(text: &str) -> Result<Vec<PortRequest>, FlagError> {
    if text.contains('=') {
        return publish(&short_form(text)?);
    }
    let (rest, protocol) = protocol(OPTION, text)?;
    let (host, container) = match rest.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, rest),
    };
    let (from, to) = range(OPTION, text, container)?;
    let (ip, host_port) = match host {
        None => (None, ""),
        Some(host) => address(text, host)?,
    };
    let count = to - from;
    let host = match host_port {
        "" => None,
        _ => Some(range(OPTION, text, host_port)?),
    };
    // Docker lets the kernel choose for port 0.
    let host = host.filter(|host| *host != (0, 0));
    if let Some((first, last)) = host {
        if first == 0 {
            return Err(FlagError::new(OPTION, format!("`{text}`: a range starts at 1")));
        }
        if last - first != count && count > 0 {
            return Err(FlagError::new(OPTION, format!("`{text}`: the two ranges differ in length")));
        }
    }
    if from == 0 {
        return Err(FlagError::new(OPTION, format!("`{text}`: the container's port cannot be 0")));
    }
    // One port inside and several outside: any of them will do.
    let any_of = host.filter(|(first, last)| count == 0 && first != last);
    Ok((0..=count)
        .map(|offset| PortRequest {
            host_ip: ip,
            host_port: host.filter(|_| any_of.is_none()).map(|(first, _)| first + offset),
            host_range: any_of,
            container_port: from + offset,
            protocol,
        })
        .collect())
}

/// The ports that one `--expose` names.
pub(crate) fn expose(text: &str) -> Result<Vec<ExposedPort>, FlagError> {
    const OPTION: &str = "--expose";
    let (rest, protocol) = protocol(OPTION, text)?;
    let (from, to) = range(OPTION, text, rest)?;
    if from == 0 {
        return Err(FlagError::new(OPTION, format!("`{text}`: a port cannot be 0")));
    }
    Ok((from..=to).map(|port| ExposedPort { port, protocol }).collect())
}

/// A port of a container, as `port` takes it: `80` or `80/udp`.
pub(crate) fn private(text: &str) -> Result<ExposedPort, FlagError> {
    const OPTION: &str = "PRIVATE_PORT";
    let (rest, protocol) = protocol(OPTION, text)?;
    match range(OPTION, text, rest)? {
        (port, same) if port == same => Ok(ExposedPort { port, protocol }),
        _ => Err(FlagError::new(OPTION, format!("`{text}` is more than one port"))),
    }
}

/// Docker's long form in the short one: `published=8080,target=80,protocol=tcp,host_ip=…`.
fn short_form(text: &str) -> Result<String, FlagError> {
    let (mut published, mut target, mut protocol, mut ip) = ("", "", "tcp", String::new());
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| FlagError::new(OPTION, format!("`{text}`: `{field}` is not `KEY=VALUE`")))?;
        match key {
            "published" => published = value,
            "target" => target = value,
            "protocol" => protocol = value,
            "host_ip" if value.contains(':') => ip = format!("[{value}]"),
            "host_ip" => ip = value.to_owned(),
            "mode" if matches!(value, "host" | "ingress") => {}
            "name" | "app_protocol" => {}
            _ => return Err(FlagError::new(OPTION, format!("`{text}`: `{field}` is not known"))),
        }
    }
    if target.is_empty() || [published, target, protocol].iter().any(|value| value.contains(['=', ':', '/']))
    {
        return Err(FlagError::new(OPTION, format!("`{text}`: the long form needs `target=PORT`")));
    }
    let ip = if ip.is_empty() { ip } else { format!("{ip}:") };
    Ok(format!("{ip}{published}:{target}/{protocol}"))
}

/// What stands before the slash, and the protocol behind it.
fn protocol<'a>(option: &'static str, text: &'a str) -> Result<(&'a str, Protocol), FlagError> {
    let (rest, name) = text.split_once('/').unwrap_or((text, "tcp"));
    let lower = name.to_ascii_lowercase();
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|known| known.word() == lower)
        .map(|known| (rest, known))
        .ok_or_else(|| FlagError::new(option, format!("`{text}`: there is no protocol `{name}`")))
}

fn range(option: &'static str, text: &str, ports: &str) -> Result<(u16, u16), FlagError> {
    let fail = || FlagError::new(option, format!("`{text}`: `{ports}` is not a port or a range of ports"));
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
            let range = p.host_range.map(|(first, last)| format!("{first}-{last}")).unwrap_or_default();
            let host = p.host_port.map_or(range, |port| port.to_string());
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
        assert_eq!(shown("8000-8001:80"), ["|8000-8001|80|Tcp"]);
        assert_eq!(shown("127.0.0.1:0:80-81"), ["127.0.0.1||80|Tcp", "127.0.0.1||81|Tcp"]);
        assert_eq!(shown("9000:80/sctp"), ["|9000|80|Sctp"]);
        assert_eq!(shown("published=8080,target=80"), ["|8080|80|Tcp"]);
        assert_eq!(shown("target=53,protocol=udp,host_ip=::1,mode=host"), ["::1||53|Udp"]);
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
            ("8000:80-81", "the two ranges differ in length"),
            ("localhost:80:80", "`localhost` is not an IP address"),
            ("80/x", "there is no protocol `x`"),
            ("[::1:80", "the bracket is not closed"),
            ("0", "cannot be 0"),
            ("+80", "is not a port"),
            ("0-1:80-81", "a range starts at 1"),
            ("published=80", "needs `target=PORT`"),
            ("target=80,colour=red", "`colour=red` is not known"),
            ("target=80=81", "needs `target=PORT`"),
        ] {
            let error = publish(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn exposed_ports_are_single_or_ranges() {
        let shown = |text: &str| {
            let show = |port: &ExposedPort| format!("{}/{}", port.port, port.protocol.word());
            expose(text).unwrap().iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(shown("80"), ["80/tcp"]);
        assert_eq!(shown("80-82/UDP"), ["80/udp", "81/udp", "82/udp"]);
        assert_eq!(private("53/udp"), Ok(ExposedPort { port: 53, protocol: Protocol::Udp }));
        for wrong in ["", "0", "80/x", "82-80", "127.0.0.1:80"] {
            assert!(expose(wrong).is_err(), "{wrong}");
        }
        assert!(private("80-81").is_err());
    }
}
