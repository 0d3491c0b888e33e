//! The text of `/etc/resolv.conf` and `/etc/hosts` for a container with a network of its own.
//!
//! Pure text: reading the host's files and writing the container's is the caller's. A container on the host's
//! network gets the host's files unchanged.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// The resolvers that Docker uses when the host has none that a container can reach.
pub const FALLBACK_RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// What is said about resolving names; an empty list is the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are tried in; one `.` is none.
    pub search: Vec<String>,
    /// Options, as `ndots:2`.
    pub options: Vec<String>,
}

/// Which of the host's name servers a container can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reachable {
    /// Those on loopback: it shares the host's network.
    pub loopback: bool,
    /// Those with an IPv6 address: it has one.
    pub ipv6: bool,
}

/// The `resolv.conf` of a container: what `said` says, else the host's with only such name servers as the container can
/// reach.
///
/// A resolver on loopback, as systemd-resolved's 127.0.0.53, is the container's own loopback inside, and an IPv6
/// one has no route where there is no IPv6. When none of `host`'s is left, those of `upstream` are taken (the text of
/// `/run/systemd/resolve/resolv.conf`, which names the real ones), and when there are none either, `fallback`.
#[must_use]
pub fn resolv_conf(
    host: &str,
    upstream: Option<&str>,
    fallback: &[Ipv4Addr],
    reachable: Reachable,
    said: &Resolver,
) -> String {
    let mut servers = said.servers.clone();
    for text in [Some(host), upstream].into_iter().flatten() {
        if servers.is_empty() {
            servers = reachable_servers(text, reachable);
        }
    }
    if servers.is_empty() {
        servers = fallback.iter().copied().map(IpAddr::from).collect();
    }
    let mut text = String::with_capacity(host.len() + 32);
    for server in servers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    let kept = host.lines().map(str::trim_end).filter(|line| match line.split_whitespace().next() {
        None | Some("nameserver") => false,
        Some("search" | "domain") => said.search.is_empty(),
        Some("options") => said.options.is_empty(),
        Some(word) => !word.starts_with(['#', ';']),
    });
    for line in kept {
        text.push_str(line);
        text.push('\n');
    }
    if !said.search.is_empty() && said.search != ["."] {
        let _ = writeln!(text, "search {}", said.search.join(" "));
    }
    if !said.options.is_empty() {
        let _ = writeln!(text, "options {}", said.options.join(" "));
    }
    text
}

/// Whether that `resolv.conf` leads to a resolver of the container's own.
#[must_use]
pub fn has_resolver(text: &str) -> bool {
    text.starts_with(&format!("nameserver {}\n", crate::dns::ADDRESS))
}

/// `resolv.conf` of a container with a resolver of its own ([`crate::dns`]): that one, and what the user said of search
/// domains and options, or else the host's.
///
/// A search domain `.` is none. Names without a dot are asked as they are (`ndots:0`), unless an option says otherwise.
#[must_use]
pub fn resolver_conf(host: &str, said: &Resolver) -> String {
    let of_host = |wanted: &'static str| {
        let mut found = Vec::new();
        for line in host.lines() {
            let mut words = line.split_whitespace();
            // Of several lines with search domains the last one counts, as for the C library; options add up.
            match words.next() {
                Some(word) if word == wanted && word == "search" => {
                    found = words.map(str::to_owned).collect()
                }
                Some(word) if word == wanted => found.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    };
    let search = if said.search.is_empty() { of_host("search") } else { said.search.clone() };
    let search: Vec<String> = search.into_iter().filter(|domain| domain != ".").collect();
    let mut options = if said.options.is_empty() { of_host("options") } else { said.options.clone() };
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    let mut text = format!("nameserver {}\n", crate::dns::ADDRESS);
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    let _ = writeln!(text, "options {}", options.join(" "));
    text
}

fn reachable_servers(text: &str, reachable: Reachable) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok())?
        })
        .filter(|address| reachable.loopback || !(address.is_loopback() || address.is_unspecified()))
        .filter(|address| reachable.ipv6 || address.is_ipv4())
        .collect()
}

/// `/etc/hosts` of a container: loopback, and its own name for each address that it has.
#[must_use]
pub fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    // Without an address the name must still resolve: 127.0.1.1 is Debian's custom.
    let alone = [IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1))];
    for address in if addresses.is_empty() { &alone } else { addresses } {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolv(host: &str, upstream: Option<&str>, fallback: &[Ipv4Addr]) -> String {
        resolv_conf(host, upstream, fallback, Reachable::default(), &Resolver::default())
    }

    #[test]
    fn what_is_said_takes_the_place_of_the_hosts() {
        let host = "nameserver 192.168.1.1\nsearch lan\noptions edns0\n";
        let said = Resolver {
            servers: vec!["9.9.9.9".parse().unwrap(), "fd00::1".parse().unwrap()],
            search: vec!["a.b".into(), "c".into()],
            options: vec!["ndots:2".into()],
        };
        let told = |said: &Resolver| resolv_conf(host, None, &[], Reachable::default(), said);
        assert_eq!(told(&said), "nameserver 9.9.9.9\nnameserver fd00::1\nsearch a.b c\noptions ndots:2\n");
        let none = Resolver { search: vec![".".into()], ..Resolver::default() };
        assert_eq!(told(&none), "nameserver 192.168.1.1\noptions edns0\n");
        let both = "nameserver 127.0.0.53\nnameserver fd00::5\nnameserver 10.0.0.1\n";
        let six = Reachable { ipv6: true, loopback: false };
        let text = resolv_conf(both, None, &[], six, &Resolver::default());
        assert_eq!(text, "nameserver fd00::5\nnameserver 10.0.0.1\n");
        let host = Reachable { ipv6: true, loopback: true };
        assert_eq!(resolv_conf(both, None, &[], host, &Resolver::default()), both);
    }

    #[test]
    fn resolvers_that_a_container_reaches_stay_and_others_go() {
        let host = "# comment\nnameserver 127.0.0.53\nnameserver 192.168.1.1\nnameserver fe80::1%eth0\n\
                    search lan\noptions edns0 trust-ad\n";
        assert_eq!(
            resolv(host, Some("nameserver 9.9.9.9\n"), &FALLBACK_RESOLVERS),
            "nameserver 192.168.1.1\nsearch lan\noptions edns0 trust-ad\n"
        );
    }

    #[test]
    fn loopback_resolvers_are_replaced_by_the_upstream_ones_then_by_the_fallback() {
        let host = "nameserver 127.0.0.53\nsearch .\n";
        let upstream = "nameserver 10.0.0.2\nnameserver ::1\nnameserver 10.0.0.3\n";
        assert_eq!(
            resolv(host, Some(upstream), &FALLBACK_RESOLVERS),
            "nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch .\n"
        );
        let fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        assert_eq!(resolv("", None, &FALLBACK_RESOLVERS), fallback);
        assert_eq!(resolv("nameserver ::1", Some("junk\nnameserver"), &FALLBACK_RESOLVERS), fallback);
    }

    #[test]
    fn a_container_with_a_resolver_asks_it_alone_with_the_users_or_the_hosts_domains() {
        let host = "nameserver 127.0.0.53\nsearch old\nsearch lan corp\noptions edns0 trust-ad\n";
        assert_eq!(
            resolver_conf(host, &Resolver::default()),
            "nameserver 127.0.0.11\nsearch lan corp\noptions edns0 trust-ad ndots:0\n"
        );
        let said = |search: &[&str], options: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            Resolver { servers: Vec::new(), search: owned(search), options: owned(options) }
        };
        assert_eq!(
            resolver_conf(host, &said(&["example.com"], &["ndots:2"])),
            "nameserver 127.0.0.11\nsearch example.com\noptions ndots:2\n"
        );
        assert_eq!(resolver_conf("", &said(&["."], &[])), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn hosts_names_the_container_by_its_address() {
        let text = hosts("web", &["10.77.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        assert!(
            text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with("\n10.77.0.2\tweb\nfd00::2\tweb\n"),
            "{text}"
        );
        assert!(hosts("web", &[]).ends_with("\n127.0.1.1\tweb\n"));
    }
}
