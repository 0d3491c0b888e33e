//! The text of `/etc/resolv.conf` and `/etc/hosts` for a container with a network of its own.
//!
//! Pure text: reading the host's files and writing the container's is the caller's. A container on the host's
//! network gets the host's files unchanged.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// The resolvers that Docker uses when the host has none that a container can reach.
pub const FALLBACK_RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// The host's `resolv.conf` with only such name servers as a container on a bridge can reach.
///
/// A resolver on loopback, as systemd-resolved's 127.0.0.53, is the container's own loopback inside, and an IPv6
/// one has no route. When none of `host`'s is left, those of `upstream` are taken (the text of
/// `/run/systemd/resolve/resolv.conf`, which names the real ones), and when there are none either, `fallback`.
/// Other lines (`search`, `options`) stay.
#[must_use]
pub fn resolv_conf(host: &str, upstream: Option<&str>, fallback: &[Ipv4Addr]) -> String {
    let mut servers = reachable_servers(host);
    if servers.is_empty() {
        servers = upstream.map(reachable_servers).unwrap_or_default();
    }
    if servers.is_empty() {
        servers = fallback.to_vec();
    }
    let mut text = String::with_capacity(host.len() + 32);
    for server in servers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    let kept = host.lines().map(str::trim_end).filter(|line| {
        let word = line.split_whitespace().next();
        word.is_some_and(|word| word != "nameserver" && !word.starts_with(['#', ';']))
    });
    for line in kept {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// `resolv.conf` of a container with a resolver of its own ([`crate::dns`]): that one, and what the user said of search
/// domains and options, or else the host's.
///
/// A search domain `.` is none. Names without a dot are asked as they are (`ndots:0`), unless an option says otherwise.
#[must_use]
pub fn resolver_conf(host: &str, search: &[String], options: &[String]) -> String {
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
    let search = if search.is_empty() { of_host("search") } else { search.to_vec() };
    let search: Vec<String> = search.into_iter().filter(|domain| domain != ".").collect();
    let mut options = if options.is_empty() { of_host("options") } else { options.to_vec() };
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

fn reachable_servers(text: &str) -> Vec<Ipv4Addr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next()?.parse::<Ipv4Addr>().ok())?
        })
        .filter(|address| !address.is_loopback() && !address.is_unspecified())
        .collect()
}

/// `/etc/hosts` of a container: loopback, and its own name when it has an address.
#[must_use]
pub fn hosts(hostname: &str, address: Option<IpAddr>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    // Without an address the name must still resolve: 127.0.1.1 is Debian's custom.
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1)));
    let _ = writeln!(text, "{address}\t{hostname}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_that_a_container_reaches_stay_and_others_go() {
        let host = "# comment\nnameserver 127.0.0.53\nnameserver 192.168.1.1\nnameserver fe80::1%eth0\n\
                    search lan\noptions edns0 trust-ad\n";
        assert_eq!(
            resolv_conf(host, Some("nameserver 9.9.9.9\n"), &FALLBACK_RESOLVERS),
            "nameserver 192.168.1.1\nsearch lan\noptions edns0 trust-ad\n"
        );
    }

    #[test]
    fn loopback_resolvers_are_replaced_by_the_upstream_ones_then_by_the_fallback() {
        let host = "nameserver 127.0.0.53\nsearch .\n";
        let upstream = "nameserver 10.0.0.2\nnameserver ::1\nnameserver 10.0.0.3\n";
        assert_eq!(
            resolv_conf(host, Some(upstream), &FALLBACK_RESOLVERS),
            "nameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch .\n"
        );
        let fallback = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        assert_eq!(resolv_conf("", None, &FALLBACK_RESOLVERS), fallback);
        assert_eq!(resolv_conf("nameserver ::1", Some("junk\nnameserver"), &FALLBACK_RESOLVERS), fallback);
    }

    #[test]
    fn a_container_with_a_resolver_asks_it_alone_with_the_users_or_the_hosts_domains() {
        let host = "nameserver 127.0.0.53\nsearch old\nsearch lan corp\noptions edns0 trust-ad\n";
        assert_eq!(
            resolver_conf(host, &[], &[]),
            "nameserver 127.0.0.11\nsearch lan corp\noptions edns0 trust-ad ndots:0\n"
        );
        let (domain, option) = (["example.com".to_owned()], ["ndots:2".to_owned()]);
        assert_eq!(
            resolver_conf(host, &domain, &option),
            "nameserver 127.0.0.11\nsearch example.com\noptions ndots:2\n"
        );
        let none = [".".to_owned()];
        assert_eq!(resolver_conf("", &none, &[]), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn hosts_names_the_container_by_its_address() {
        let text = hosts("web", Some("10.77.0.2".parse().unwrap()));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with("\n10.77.0.2\tweb\n"), "{text}");
        assert!(hosts("web", None).ends_with("\n127.0.1.1\tweb\n"));
    }
}
