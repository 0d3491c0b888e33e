//! `network create`: its subnets, each with its gateway, range and reserved addresses; and its options.

use std::collections::BTreeMap;
use std::net::IpAddr;

use stanza_engine::SubnetRequest;
use stanza_network::Subnet;

use super::FlagError;
use super::endpoints::address;

/// The options that describe subnets, as typed.
#[derive(Debug, Default)]
pub(crate) struct Described<'a> {
    pub(crate) subnets: Vec<&'a str>,
    pub(crate) gateways: Vec<&'a str>,
    pub(crate) ranges: Vec<&'a str>,
    pub(crate) aux: Vec<&'a str>,
}

/// The subnets with what belongs to each of them: that which contains the address.
pub(crate) fn subnets(described: &Described<'_>) -> Result<Vec<SubnetRequest>, FlagError> {
    let plain = |subnet| SubnetRequest { subnet, gateway: None, range: None, aux: Vec::new() };
    let mut list = described
        .subnets
        .iter()
        .map(|text| subnet("--subnet", text).map(plain))
        .collect::<Result<Vec<_>, _>>()?;
    for text in &described.ranges {
        let range = subnet("--ip-range", text)?;
        let place = holder(&mut list, range.network(), "--ip-range", "ip-range", text)?;
        if let Some(other) = place.range.replace(range) {
            return Err(several("--ip-range", "ranges", &range, &other, place));
        }
    }
    for text in &described.gateways {
        let gateway = address("--gateway", text)?;
        let place = holder(&mut list, gateway, "--gateway", "gateway", text)?;
        if let Some(other) = place.gateway.replace(gateway) {
            return Err(several("--gateway", "gateways", &gateway, &other, place));
        }
    }
    for text in described.aux.iter().flat_map(|text| text.split(',')) {
        const OPTION: &str = "--aux-address";
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| FlagError::new(OPTION, format!("`{text}` is not `NAME=ADDRESS`")))?;
        let reserved = address(OPTION, value)?;
        let place = holder(&mut list, reserved, OPTION, "aux-address", value)?;
        if place.aux.iter().any(|(known, _)| known == name) {
            return Err(FlagError::new(OPTION, format!("the name `{name}` stands for two addresses")));
        }
        place.aux.push((name.to_owned(), reserved));
    }
    Ok(list)
}

fn subnet(option: &'static str, text: &str) -> Result<Subnet, FlagError> {
    text.parse().map_err(|_| {
        FlagError::new(option, format!("`{text}` is not a subnet"))
            .hint("a subnet is an address and the length of its prefix, as `10.7.0.0/24` or `fd00:7::/64`")
    })
}

/// The subnet that the address is in.
fn holder<'a>(
    list: &'a mut [SubnetRequest],
    address: IpAddr,
    option: &'static str,
    what: &str,
    text: &str,
) -> Result<&'a mut SubnetRequest, FlagError> {
    list.iter_mut().find(|place| place.subnet.contains(address)).ok_or_else(|| {
        FlagError::new(option, format!("no matching subnet for {what} {text}"))
            .hint("give the `--subnet` that it is in")
    })
}

fn several(
    option: &'static str,
    what: &str,
    one: &impl ToString,
    other: &impl ToString,
    place: &SubnetRequest,
) -> FlagError {
    let (one, other) = (one.to_string(), other.to_string());
    let reason =
        format!("cannot configure multiple {what} ({one}, {other}) on the same subnet ({})", place.subnet);
    FlagError::new(option, reason)
}

/// `NAME=VALUE` options; a bare name has an empty value.
pub(crate) fn options<'a>(
    option: &'static str,
    texts: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, FlagError> {
    texts
        .map(|text| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            match name {
                "" => Err(FlagError::new(option, format!("`{text}` has no name"))),
                _ => Ok((name.to_owned(), value.to_owned())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_subnet_is_found_by_its_addresses() {
        let list = subnets(&Described {
            subnets: vec!["fd00:7::/64", "10.7.0.0/24"],
            gateways: vec!["10.7.0.254", "fd00:7::1"],
            ranges: vec!["10.7.0.128/25"],
            aux: vec!["printer=10.7.0.9,scanner=10.7.0.10", "six=fd00:7::9"],
        })
        .unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].gateway, Some("fd00:7::1".parse().unwrap()));
        assert_eq!((list[0].range, list[0].aux.len()), (None, 1));
        assert_eq!(list[1].gateway, Some([10, 7, 0, 254].into()));
        assert_eq!(list[1].range, Some("10.7.0.128/25".parse().unwrap()));
        assert_eq!(list[1].aux[1], ("scanner".to_owned(), [10, 7, 0, 10].into()));
    }

    #[test]
    fn what_belongs_to_no_subnet_is_told_in_dockers_words() {
        let ten = || vec!["10.7.0.0/24"];
        for (described, part) in [
            (
                Described { gateways: vec!["10.7.0.1"], ..Described::default() },
                "no matching subnet for gateway 10.7.0.1",
            ),
            (
                Described { subnets: ten(), ranges: vec!["10.8.0.0/25"], ..Described::default() },
                "no matching subnet for ip-range 10.8.0.0/25",
            ),
            (
                Described { subnets: ten(), aux: vec!["a=10.8.0.1"], ..Described::default() },
                "no matching subnet for aux-address 10.8.0.1",
            ),
            (
                Described { subnets: ten(), gateways: vec!["10.7.0.1", "10.7.0.2"], ..Described::default() },
                "cannot configure multiple gateways (10.7.0.2, 10.7.0.1) on the same subnet (10.7.0.0/24)",
            ),
            (Described { subnets: vec!["10.7.0.0"], ..Described::default() }, "`10.7.0.0` is not a subnet"),
            (
                Described { subnets: ten(), aux: vec!["10.7.0.1"], ..Described::default() },
                "is not `NAME=ADDRESS`",
            ),
        ] {
            let error = subnets(&described).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn options_have_names() {
        let read = options("--opt", ["mtu=1400", "bare"].into_iter()).unwrap();
        assert_eq!((read["mtu"].as_str(), read["bare"].as_str()), ("1400", ""));
        assert!(options("--opt", ["=x"].into_iter()).is_err());
    }
}
