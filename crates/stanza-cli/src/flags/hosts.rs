//! `--dns` and `--add-host`.

use std::net::IpAddr;

use stanza_spec::ExtraHost;

use super::FlagError;
use super::endpoints::address;

/// The servers of one `--dns`: addresses, Podman's with commas between them.
pub(crate) fn servers(option: &'static str, text: &str) -> Result<Vec<IpAddr>, FlagError> {
    if text == "none" && option == "--dns" {
        return Err(FlagError::not_built(option, text));
    }
    text.split(',').map(|server| address(option, server.trim())).collect()
}

/// The lines of one `--add-host`: `NAME:ADDRESS` or `NAME=ADDRESS`, Podman's with several names and `;` between them.
pub(crate) fn extra(text: &str) -> Result<Vec<ExtraHost>, FlagError> {
    const OPTION: &str = "--add-host";
    let at = text.find(['=', ':']);
    let Some((names, value)) = at.map(|at| (&text[..at], &text[at + 1..])) else {
        return Err(FlagError::new(OPTION, format!("`{text}` is not `NAME:ADDRESS`")));
    };
    let bare = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    let address = match bare {
        "host-gateway" => None,
        _ => Some(address(OPTION, bare)?),
    };
    let line = |name: &str| {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
            return Err(FlagError::new(OPTION, format!("`{text}`: `{name}` is no name of a host")));
        }
        Ok(ExtraHost { name: name.to_owned(), address })
    };
    names.split(';').map(line).collect()
}

/// One word of `--dns-search` or `--dns-option`: no blanks, which would make it several.
pub(crate) fn word(option: &'static str, text: &str) -> Result<String, FlagError> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(FlagError::new(option, format!("`{text}` is not one word")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_and_addresses_of_both_families() {
        let shown = |text: &str| {
            let lines = extra(text).unwrap();
            let line = |host: &ExtraHost| {
                format!("{} {}", host.name, host.address.map_or("-".to_owned(), |ip| ip.to_string()))
            };
            lines.iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(shown("a:10.0.0.1"), ["a 10.0.0.1"]);
        assert_eq!(shown("a=10.0.0.1"), ["a 10.0.0.1"]);
        assert_eq!(shown("a:::1"), ["a ::1"]);
        assert_eq!(shown("a=[fd00::1]"), ["a fd00::1"]);
        assert_eq!(shown("a;b:host-gateway"), ["a -", "b -"]);
        for wrong in ["a", "a:", ":10.0.0.1", "a:b", "a b:1.2.3.4", "a;:1.2.3.4"] {
            assert!(extra(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_are_addresses() {
        let two: Vec<IpAddr> = vec![[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()];
        assert_eq!(servers("--dns", "10.0.0.1, fd00::1"), Ok(two));
        assert!(servers("--dns", "none").unwrap_err().unsupported);
        assert!(servers("--dns", "dns.example").is_err());
        assert!(word("--dns-search", "a b").is_err() && word("--dns-search", ".").is_ok());
    }
}
