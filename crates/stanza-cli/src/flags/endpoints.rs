//! `--network`, and what else says how a container joins its networks: `--ip`, `--ip6`, `--mac-address`, `--network-alias`.
//!
//! ```text
//!   none | host | container:NAME | pasta[:OPTIONS] | slirp4netns[:OPTIONS] | cni:NAME      kinds of network, alone
//!   NAME[,NAME…] | NAME:KEY=VALUE[,…]                                                      Podman's forms
//!   name=NAME[,KEY=VALUE…]                                                                 Docker's long form
//! ```

use std::net::IpAddr;

use stanza_spec::{ContainerConfig, EndpointRequest, NetworkMode};

use super::FlagError;

const OPTION: &str = "--network";
/// What Docker says of networks that exclude each other.
const MIXED: &str = "conflicting options: cannot attach both user-defined and non-user-defined network-modes";

/// What one `--network` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A kind of network that is alone.
    Mode(NetworkMode),
    /// Networks to join.
    Join(Vec<EndpointRequest>),
}

/// Options that hold for the first network.
#[derive(Debug, Default)]
pub(crate) struct First<'a> {
    pub(crate) ip: Option<&'a str>,
    pub(crate) ip6: Option<&'a str>,
    pub(crate) mac: Option<&'a str>,
    pub(crate) aliases: Vec<&'a str>,
}

/// One `--network`.
pub(crate) fn network(text: &str) -> Result<Choice, FlagError> {
    if is_long_form(text) {
        return Ok(Choice::Join(vec![long_form(text)?]));
    }
    let (name, options) = text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let words = || split_options(options);
    match (name, options) {
        ("", _) => Err(FlagError::new(OPTION, "the network has no name")),
        ("none", None) => Ok(Choice::Mode(NetworkMode::None)),
        ("host", None) => Ok(Choice::Mode(NetworkMode::Host)),
        ("none" | "host", Some(_)) => {
            Err(FlagError::new(OPTION, format!("`{text}`: `{name}` takes no options")))
        }
        ("container" | "cni", None | Some("")) => {
            Err(FlagError::new(OPTION, format!("`{text}`: expected `{name}:NAME`")))
        }
        ("container", Some(other)) => Ok(Choice::Mode(NetworkMode::Container(other.to_owned()))),
        ("cni", Some(chain)) if chain.contains(':') => {
            Err(FlagError::new(OPTION, format!("`{text}`: `cni:NAME` takes no options"))
                .hint("`--ip`, `--ip6`, `--mac-address` and `--network-alias` hold for it"))
        }
        ("cni", Some(chain)) => Ok(Choice::Mode(NetworkMode::Cni(chain.to_owned()))),
        ("pasta", _) => Ok(Choice::Mode(NetworkMode::Pasta(words()))),
        ("slirp4netns", _) => Ok(Choice::Mode(NetworkMode::Slirp4netns(words()))),
        ("ns", Some(_)) => Err(FlagError::not_built(OPTION, "ns:…")),
        (_, None) => {
            let names = name.split(',').map(str::trim);
            let join = names.map(|name| match name {
                "" => Err(FlagError::new(OPTION, format!("`{text}`: a network has no name"))),
                "none" | "host" => Err(FlagError::new(OPTION, MIXED)),
                _ => Ok(named(name)),
            });
            Ok(Choice::Join(join.collect::<Result<_, _>>()?))
        }
        (_, Some(options)) => {
            let mut request = named(name);
            for option in options.split(',').filter(|option| !option.is_empty()) {
                let (key, value) = option.split_once('=').ok_or_else(|| {
                    FlagError::new(OPTION, format!("`{text}`: `{option}` is not `KEY=VALUE`"))
                })?;
                set(&mut request, key, value)?;
            }
            Ok(Choice::Join(vec![request]))
        }
    }
}

/// A network by its name. `default` and Podman's `private` are the default network.
fn named(name: &str) -> EndpointRequest {
    let name = if matches!(name, "default" | "private") { "bridge" } else { name };
    EndpointRequest { network: name.to_owned(), ..EndpointRequest::default() }
}

fn split_options(options: Option<&str>) -> Vec<String> {
    let words = options.unwrap_or_default().split(',').filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Docker's long form begins with a key; a colon before the first `=` makes it Podman's.
fn is_long_form(text: &str) -> bool {
    text.split_once('=').is_some_and(|(key, _)| !key.contains(':') && !key.contains(','))
}

fn long_form(text: &str) -> Result<EndpointRequest, FlagError> {
    let mut request = EndpointRequest::default();
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| FlagError::new(OPTION, format!("`{text}`: `{field}` is not `KEY=VALUE`")))?;
        if key.eq_ignore_ascii_case("name") {
            request.network = named(value).network;
        } else {
            set(&mut request, key, value)?;
        }
    }
    match request.network.as_str() {
        "" => Err(FlagError::new(OPTION, format!("`{text}`: the network has no name"))
            .hint("the long form is `name=NAME,alias=…,ip=…`")),
        "none" | "host" => {
            Err(FlagError::new(OPTION, format!("`{text}`: `{}` takes no options", request.network)))
        }
        _ => Ok(request),
    }
}

/// Sets one field of a place in a network, by Docker's key or Podman's.
fn set(request: &mut EndpointRequest, key: &str, value: &str) -> Result<(), FlagError> {
    match key.trim().to_ascii_lowercase().as_str() {
        "ip" => match address(OPTION, value)? {
            IpAddr::V4(ip) => request.ipv4 = Some(ip),
            IpAddr::V6(ip) => request.ipv6 = Some(ip),
        },
        "ip6" => request.ipv6 = Some(ipv6(OPTION, value)?),
        "mac" | "mac-address" => request.mac = Some(mac(OPTION, value)?),
        "alias" => request.aliases.push(value.to_owned()),
        "interface_name" | "interface-name" => request.interface = Some(interface(OPTION, value)?),
        "gw-priority" => request.gateway_priority = priority(OPTION, value)?,
        "driver-opt" => driver_option(OPTION, value, request)?,
        "link-local-ip" | "host_interface_name" => {
            return Err(FlagError::not_built(OPTION, &format!("{key}=…")));
        }
        _ => {
            return Err(FlagError::new(OPTION, format!("a network has no key `{key}`")).hint(
                "the keys are `name`, `ip`, `ip6`, `mac-address`, `alias`, `interface_name`, `gw-priority` and `driver-opt`",
            ));
        }
    }
    Ok(())
}

/// `--driver-opt`: the one of Docker's that means something here is the device's name.
pub(crate) fn driver_option(
    option: &'static str,
    text: &str,
    request: &mut EndpointRequest,
) -> Result<(), FlagError> {
    match text.split_once('=') {
        Some(("com.docker.network.endpoint.ifname", name)) => {
            request.interface = Some(interface(option, name)?);
            Ok(())
        }
        Some((name, _)) => Err(FlagError::not_built(option, name)),
        None => Err(FlagError::new(option, format!("`{text}` is not `NAME=VALUE`"))),
    }
}

/// An IP address.
pub(crate) fn address(option: &'static str, text: &str) -> Result<IpAddr, FlagError> {
    text.parse().map_err(|_| FlagError::new(option, format!("`{text}` is not an IP address")))
}

/// An IPv4 address.
pub(crate) fn ipv4(option: &'static str, text: &str) -> Result<std::net::Ipv4Addr, FlagError> {
    text.parse().map_err(|_| FlagError::new(option, format!("`{text}` is not an IPv4 address")))
}

/// An IPv6 address.
pub(crate) fn ipv6(option: &'static str, text: &str) -> Result<std::net::Ipv6Addr, FlagError> {
    text.parse().map_err(|_| FlagError::new(option, format!("`{text}` is not an IPv6 address")))
}

/// A hardware address of one device: six bytes, colons or dashes between them.
pub(crate) fn mac(option: &'static str, text: &str) -> Result<[u8; 6], FlagError> {
    let fail =
        || FlagError::new(option, format!("`{text}` is not a hardware address, as `02:42:ac:11:00:02`"));
    let mut address = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut address {
        let part = parts.next().filter(|part| part.len() == 2).ok_or_else(fail)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| fail())?;
    }
    if parts.next().is_some() || address == [0; 6] {
        return Err(fail());
    }
    if address[0] & 1 == 1 {
        return Err(FlagError::new(option, format!("`{text}` is the address of a group, not of a device")));
    }
    Ok(address)
}

/// The name of a network device, as the kernel takes it (`dev_valid_name`).
pub(crate) fn interface(option: &'static str, text: &str) -> Result<String, FlagError> {
    let valid = (1..=15).contains(&text.len())
        && !matches!(text, "." | ".." | "lo")
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ':'));
    if valid {
        Ok(text.to_owned())
    } else {
        Err(FlagError::new(option, format!("`{text}` is no name for a network device")))
    }
}

/// A number, the greatest of which gives the default route.
pub(crate) fn priority(option: &'static str, text: &str) -> Result<i32, FlagError> {
    text.parse().map_err(|_| FlagError::new(option, format!("`{text}` is not a whole number")))
}

/// Puts what all network options say into the configuration.
pub(crate) fn apply<'a>(
    networks: impl Iterator<Item = &'a str>,
    first: &First<'_>,
    config: &mut ContainerConfig,
) -> Result<(), FlagError> {
    for text in networks {
        match network(text)? {
            Choice::Mode(mode) => {
                let is_other = config.network.as_ref().is_some_and(|known| *known != mode);
                if is_other {
                    return Err(mixed(config, text));
                }
                config.network = Some(mode);
            }
            Choice::Join(requests) => {
                if !matches!(config.network, None | Some(NetworkMode::Bridge)) {
                    return Err(mixed(config, text));
                }
                config.network = Some(NetworkMode::Bridge);
                config.networks.extend(requests);
            }
        }
    }
    apply_first(first, config)
}

/// `text` names a network that cannot be joined besides those that are named already.
fn mixed(config: &ContainerConfig, text: &str) -> FlagError {
    let chain = match &config.network {
        Some(NetworkMode::Cni(chain)) => Some((format!("cni:{chain}"), text.to_owned())),
        _ if text.starts_with("cni:") => {
            let other = config.networks.first().map(|request| request.network.clone());
            other.map(|other| (text.to_owned(), other))
        }
        _ => None,
    };
    match chain {
        Some((chain, other)) => FlagError::new(
            OPTION,
            format!("a container in the network `{chain}` is in no other one: `{other}`"),
        ),
        None => FlagError::new(OPTION, MIXED),
    }
}

fn apply_first(first: &First<'_>, config: &mut ContainerConfig) -> Result<(), FlagError> {
    let given = [
        ("--ip", first.ip.is_some()),
        ("--ip6", first.ip6.is_some()),
        ("--mac-address", first.mac.is_some()),
        ("--network-alias", !first.aliases.is_empty()),
    ];
    let Some((option, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
    let network = match &config.network {
        None | Some(NetworkMode::Bridge) => "bridge".to_owned(),
        // Its place there has the name that no other network can have.
        Some(NetworkMode::Cni(chain)) => format!("cni:{chain}"),
        Some(_) => {
            return Err(FlagError::new(option, "the container joins no network of its own")
                .hint("name the network: `--network NAME`"));
        }
    };
    config.network.get_or_insert(NetworkMode::Bridge);
    if config.networks.is_empty() {
        config.networks.push(named(&network));
    }
    let Some(request) = config.networks.first_mut() else { return Ok(()) };
    let twice = |option: &'static str, what: &str| {
        let reason = format!("conflicting options: cannot specify both {option} and per-network {what}");
        FlagError::new(option, reason)
    };
    if let Some(text) = first.ip
        && request.ipv4.replace(ipv4("--ip", text)?).is_some()
    {
        return Err(twice("--ip", "IPv4 address"));
    }
    if let Some(text) = first.ip6
        && request.ipv6.replace(ipv6("--ip6", text)?).is_some()
    {
        return Err(twice("--ip6", "IPv6 address"));
    }
    if let Some(text) = first.mac
        && request.mac.replace(mac("--mac-address", text)?).is_some()
    {
        return Err(twice("--mac-address", "MAC address"));
    }
    if !first.aliases.is_empty() {
        if !request.aliases.is_empty() {
            return Err(twice("--network-alias", "aliases"));
        }
        request.aliases = first.aliases.iter().map(|alias| (*alias).to_owned()).collect();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Vec<EndpointRequest> {
        match network(text) {
            Ok(Choice::Join(requests)) => requests,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn config(networks: &[&str], first: &First<'_>) -> Result<ContainerConfig, String> {
        let mut config = ContainerConfig::default();
        let done = apply(networks.iter().copied(), first, &mut config);
        done.map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn kinds_of_networks_are_words() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (text, mode) in [
            ("none", NetworkMode::None),
            ("host", NetworkMode::Host),
            ("container:web", NetworkMode::Container("web".into())),
            ("cni:lan", NetworkMode::Cni("lan".into())),
            ("pasta", NetworkMode::Pasta(Vec::new())),
            ("pasta:-T,8080,--mtu,1400", NetworkMode::Pasta(words(&["-T", "8080", "--mtu", "1400"]))),
            ("slirp4netns:mtu=1400", NetworkMode::Slirp4netns(words(&["mtu=1400"]))),
        ] {
            assert_eq!(network(text), Ok(Choice::Mode(mode)), "{text}");
        }
    }

    #[test]
    fn dockers_and_podmans_forms_say_the_same() {
        let expected = EndpointRequest {
            network: "lan".into(),
            ipv4: Some([10, 1, 0, 7].into()),
            ipv6: Some("fd00::7".parse().unwrap()),
            mac: Some([2, 0, 0, 0, 0, 7]),
            aliases: vec!["a".into(), "b".into()],
            interface: Some("lan0".into()),
            gateway_priority: 0,
        };
        assert_eq!(
            joined("lan:ip=10.1.0.7,ip6=fd00::7,mac=02:00:00:00:00:07,alias=a,alias=b,interface_name=lan0"),
            std::slice::from_ref(&expected)
        );
        assert_eq!(
            joined(
                "name=lan,ip=10.1.0.7,ip6=fd00::7,mac-address=02-00-00-00-00-07,alias=a,alias=b,driver-opt=com.docker.network.endpoint.ifname=lan0"
            ),
            [expected]
        );
        let names: Vec<_> = joined("a,b").into_iter().map(|request| request.network).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(joined("default")[0].network, "bridge");
        assert_eq!(joined("lan:ip=fd00::7")[0].ipv6, Some("fd00::7".parse().unwrap()));
        assert_eq!(joined("name=lan,gw-priority=-3")[0].gateway_priority, -3);
    }

    #[test]
    fn what_is_wrong_in_a_network_is_named() {
        for (text, part) in [
            ("", "has no name"),
            ("none:ip=1.2.3.4", "takes no options"),
            ("container:", "expected `container:NAME`"),
            ("lan:ip", "`ip` is not `KEY=VALUE`"),
            ("lan:ip=x", "`x` is not an IP address"),
            ("lan:ip6=1.2.3.4", "`1.2.3.4` is not an IPv6 address"),
            ("lan:mac=1:2:3:4:5:6", "is not a hardware address"),
            ("lan:mac=01:00:00:00:00:01", "address of a group"),
            ("lan:colour=red", "no key `colour`"),
            ("lan:interface_name=a/b", "no name for a network device"),
            ("alias=x", "has no name"),
            ("a,none", MIXED),
            ("ns:/proc/1/ns/net", "not built yet"),
            ("name=lan,link-local-ip=169.254.1.1", "not built yet"),
        ] {
            let error = network(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn single_options_are_the_first_networks() {
        let first = First { ip: Some("10.1.0.7"), aliases: vec!["x"], ..First::default() };
        let both = config(&["a", "b"], &first).unwrap();
        assert_eq!((both.networks[0].ipv4, both.networks[1].ipv4), (Some([10, 1, 0, 7].into()), None));
        assert_eq!(both.networks[0].aliases, ["x"]);
        assert_eq!(both.network, Some(NetworkMode::Bridge));
        let alone = config(&[], &First { mac: Some("02:00:00:00:00:07"), ..First::default() }).unwrap();
        assert_eq!((alone.networks[0].network.as_str(), alone.networks.len()), ("bridge", 1));
        assert_eq!(config(&[], &First::default()), Ok(ContainerConfig::default()));
        for (networks, first, part) in [
            (&["a:ip=10.1.0.8"][..], First { ip: Some("10.1.0.7"), ..First::default() }, "per-network IPv4"),
            (&["host"], First { ip: Some("10.1.0.7"), ..First::default() }, "joins no network of its own"),
            (&["host", "a"], First::default(), MIXED),
            (&["a", "none"], First::default(), MIXED),
            (&["none", "host"], First::default(), MIXED),
        ] {
            let error = config(networks, &first).unwrap_err();
            assert!(error.contains(part), "{networks:?}: {error}");
        }
    }
}
