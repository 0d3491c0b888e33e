//! URLs of registries: absolute, http or https, without user information; and which redirects are followed.

use std::fmt;
use std::net::IpAddr;

/// An absolute URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// Whether the scheme is https.
    pub(crate) secure: bool,
    /// Host, without brackets, lower case.
    pub(crate) host: String,
    /// Port, also when it is the scheme's own.
    pub(crate) port: u16,
    /// Path and query, from the first slash on.
    pub(crate) target: String,
}

impl Url {
    /// Parses an absolute http or https URL.
    pub(crate) fn parse(text: &str) -> Result<Url, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it is not an absolute URL")?;
        let secure = if scheme.eq_ignore_ascii_case("https") {
            true
        } else if scheme.eq_ignore_ascii_case("http") {
            false
        } else {
            return Err("only http and https are followed");
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (host, port) = split_authority(authority, secure)?;
        let target = target.split('#').next().unwrap_or("");
        if !target.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its path has spaces or control characters");
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url { secure, host, port, target: format!("{slash}{target}") })
    }

    /// The URL of a path on the registry `authority` (host with optional port).
    pub(crate) fn of_registry(secure: bool, authority: &str, target: String) -> Result<Url, &'static str> {
        let (host, port) = split_authority(authority, secure)?;
        Ok(Url { secure, host, port, target })
    }

    /// What a `Location` header means, seen from this URL.
    pub(crate) fn join(&self, location: &str) -> Result<Url, &'static str> {
        let scheme = if self.secure { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let colon = location.find(':');
        let stop = location.find(['/', '?', '#']).unwrap_or(location.len());
        if colon.is_some_and(|colon| colon < stop) {
            return Url::parse(location);
        }
        let authority = self.authority();
        if location.starts_with('/') {
            return Url::parse(&format!("{scheme}://{authority}{location}"));
        }
        let path = self.target.split('?').next().unwrap_or("/");
        if location.starts_with('?') {
            return Url::parse(&format!("{scheme}://{authority}{path}{location}"));
        }
        let directory = path.rfind('/').map_or("/", |at| &path[..=at]);
        Url::parse(&format!("{scheme}://{authority}{directory}{location}"))
    }

    /// Host and port, as a URL writes them.
    pub(crate) fn authority(&self) -> String {
        let usual = if self.secure { 443 } else { 80 };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether both have one scheme, host and port: what may see the same credentials.
    pub(crate) fn same_origin(&self, other: &Url) -> bool {
        self.secure == other.secure && self.host == other.host && self.port == other.port
    }

    /// Whether the host is this machine by its name or address.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback_host(&self.host)
    }

    /// Whether the host is an address that a registry out in the world has no business to name.
    fn is_inward(&self) -> bool {
        self.is_loopback() || self.host.parse::<IpAddr>().is_ok_and(is_inward_address)
    }

    /// Whether a registry (or its token realm, or where it redirected to) may send us on to `target`.
    ///
    /// `registry` is where the chain began: what a loopback registry does stays on this machine anyway.
    pub(crate) fn check_redirect(&self, target: &Url, registry: &Url) -> Result<(), &'static str> {
        if self.secure && !target.secure {
            return Err("it leads from https to plain http");
        }
        if target.is_inward() && !registry.is_loopback() && target.host != registry.host {
            return Err("it leads to a loopback or link-local address");
        }
        Ok(())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// Loopback by name or address: `localhost`, 127.0.0.0/8, `::1`.
fn is_loopback_host(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Loopback, unspecified or link-local (where clouds keep their metadata service).
pub(super) fn is_inward_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()
        }
    }
}

fn split_authority(authority: &str, secure: bool) -> Result<(String, u16), &'static str> {
    if authority.contains('@') {
        return Err("it carries a user name");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("its host is malformed")?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or("its port is malformed")?),
            };
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "its host is malformed")?;
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(legal) {
        return Err("its host is malformed");
    }
    let port = match port {
        None => {
            if secure {
                443
            } else {
                80
            }
        }
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse().map_err(|_| "its port is malformed")?
        }
        Some(_) => return Err("its port is malformed"),
    };
    Ok((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn urls_are_read_and_written() {
        for (text, written) in [
            ("HTTPS://Example.com", "https://example.com/"),
            ("http://a:80/b?c#d", "http://a/b?c"),
            ("https://[::1]:5000?x", "https://[::1]:5000/?x"),
        ] {
            assert_eq!(url(text).to_string(), written);
        }
        for bad in [
            "file:///etc/passwd",
            "ftp://a/",
            "a/b",
            "http://u:p@a/",
            "http://",
            "http://a:99999/",
            "http://a:+80/",
            "http://[x]/",
            "http://a\r\nb/",
            "http://a/\r\nX: y",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn locations_are_relative_to_where_they_came_from() {
        let base = url("https://r.io:8443/v2/a/blobs/x?q=/z");
        for (location, whole) in [
            ("/b", "https://r.io:8443/b"),
            ("//other/b", "https://other/b"),
            ("y?c:d", "https://r.io:8443/v2/a/blobs/y?c:d"),
            ("?c:/d", "https://r.io:8443/v2/a/blobs/x?c:/d"),
            ("http://plain/b", "http://plain/b"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), whole);
        }
        assert!(base.join("file:///etc/passwd").is_err());
        assert!(base.join("javascript:x").is_err());
    }

    #[test]
    fn redirects_never_lead_inward_or_down() {
        let registry = url("https://r.io/v2/");
        let refused =
            ["http://cdn.io/x", "https://127.0.0.1/x", "https://localhost/x", "https://169.254.169.254/"];
        for target in
            refused.iter().chain(&["https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://0.0.0.0/"])
        {
            assert!(registry.check_redirect(&url(target), &registry).is_err(), "{target}");
        }
        assert_eq!(registry.check_redirect(&url("https://cdn.io/x"), &registry), Ok(()));
        let local = url("http://127.0.0.1:5000/v2/");
        assert_eq!(local.check_redirect(&url("http://localhost:5001/x"), &local), Ok(()));
    }
}
