//! What follows the colon in `--network pasta:…` and `--network slirp4netns:…`, in Podman's words.

use stanza_spec::{Classify, ErrorKind};

use super::UserModeDriver;

/// An option that there is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{option}` is no option of `{program}`: {expected}")]
pub struct OptionError {
    option: String,
    program: &'static str,
    expected: &'static str,
}

impl Classify for OptionError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

/// Turns the words of a list with commas into the program's own options.
///
/// pasta's are its own (`man pasta`), and a comma stands for a space: `-T,5432`. Those that would lead it to another name
/// space or away from its owner are refused. `--map-gw` is Podman's: the gateway's address is the host's loopback.
///
/// slirp4netns's are `allow_host_loopback=BOOL`, `cidr=CIDR`, `enable_ipv6=BOOL`, `mtu=BYTES`, `outbound_addr=`,
/// `outbound_addr6=`.
///
/// # Errors
/// When there is no such option.
pub fn parse_options(driver: UserModeDriver, words: &[String]) -> Result<Vec<String>, OptionError> {
    let words = words.iter().map(String::as_str);
    match driver {
        UserModeDriver::Pasta => words.map(pasta).collect(),
        UserModeDriver::Slirp4netns => words.map(slirp).collect(),
    }
}

/// Options of pasta that are its owner's.
const OWNERS: [&str; 14] = [
    "-f",
    "--foreground",
    "-P",
    "--pid",
    "--netns",
    "--userns",
    "--netns-only",
    "--runas",
    "-l",
    "--log-file",
    "--config-net",
    "-h",
    "--help",
    "--version",
];

fn pasta(word: &str) -> Result<String, OptionError> {
    let name = word.split('=').next().unwrap_or(word);
    if OWNERS.contains(&name) {
        let expected = "this one is set by stanza";
        return Err(OptionError { option: word.to_owned(), program: "pasta", expected });
    }
    Ok(word.to_owned())
}

fn slirp(word: &str) -> Result<String, OptionError> {
    let refuse = |expected| OptionError { option: word.to_owned(), program: "slirp4netns", expected };
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    let truth = || value.parse::<bool>().map_err(|_| refuse("expected `true` or `false`"));
    Ok(match name {
        "allow_host_loopback" => if truth()? { super::slirp::HOST_LOOPBACK } else { "" }.to_owned(),
        "enable_ipv6" => if truth()? { "" } else { super::slirp::NO_IPV6 }.to_owned(),
        "mtu" if value.parse::<u16>().is_ok_and(|mtu| (576..=65521).contains(&mtu)) => {
            format!("--mtu={value}")
        }
        "mtu" => return Err(refuse("expected a number from 576 to 65521")),
        "outbound_addr" if !value.is_empty() => format!("--outbound-addr={value}"),
        "outbound_addr6" if !value.is_empty() => format!("--outbound-addr6={value}"),
        // The address inside follows from it, and with it where published ports lead to.
        "cidr" if super::slirp::address_in(value).is_some() => format!("--cidr={value}"),
        "cidr" => {
            return Err(refuse("expected an IPv4 subnet with a prefix of at most 25, as `10.0.2.0/24`"));
        }
        _ => {
            return Err(refuse(
                "expected `allow_host_loopback`, `cidr`, `enable_ipv6`, `mtu`, `outbound_addr` or `outbound_addr6`",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: UserModeDriver, text: &str) -> Result<Vec<String>, OptionError> {
        let words: Vec<String> = text.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        parse_options(driver, &words)
    }

    #[test]
    fn options_of_pasta_are_its_own_but_for_those_of_its_owner() {
        let parse = |text| parse(UserModeDriver::Pasta, text);
        assert_eq!(
            parse("-T,5432,--map-gw"),
            Ok(vec!["-T".to_owned(), "5432".to_owned(), "--map-gw".to_owned()])
        );
        assert_eq!(parse(""), Ok(Vec::new()));
        assert_eq!(
            parse("--netns=/x").unwrap_err().to_string(),
            "`--netns=/x` is no option of `pasta`: this one is set by stanza"
        );
    }

    #[test]
    fn options_of_slirp4netns_are_podmans() {
        let parse = |text| parse(UserModeDriver::Slirp4netns, text);
        assert_eq!(
            parse("mtu=1500,cidr=10.9.0.0/24,outbound_addr=eth0"),
            Ok(["--mtu=1500", "--cidr=10.9.0.0/24", "--outbound-addr=eth0"].map(str::to_owned).to_vec())
        );
        for wrong in ["mtu=9", "cidr=10.9.0.0/30", "allow_host_loopback=yes", "port_handler=rootlesskit", "x"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
