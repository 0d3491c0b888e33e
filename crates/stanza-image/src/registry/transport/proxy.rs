//! Proxies, as the environment names them.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in lower case, read as curl does: a proxy is
//! `[http://|https://|socks5://|socks5h://|socks4://|socks4a://][USER:PASSWORD@]HOST[:PORT]`; `NO_PROXY` has hosts, domains
//! (with all below them), addresses and networks (`10.0.0.0/8`), separated by commas, or `*`; as in Go, a host or domain may
//! have a port. In a CGI program (`REQUEST_METHOD`
//! is set) nothing of it counts, since `HTTP_PROXY` comes from whoever sent the request there (CVE-2016-5385).

use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// Which proxy is for which URL.
#[derive(Clone)]
pub(super) struct Proxies(Option<Arc<Rules>>);

struct Rules {
    matcher: Matcher,
    /// Domains without a proxy for one port; the matcher knows no ports.
    ports: Vec<(String, u16)>,
}

impl Proxies {
    pub(super) fn none() -> Proxies {
        Proxies(None)
    }

    pub(super) fn of_environment() -> Proxies {
        let except = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| std::env::var(name).ok());
        Proxies::new(Matcher::from_env(), &except.unwrap_or_default())
    }

    fn new(matcher: Matcher, except: &str) -> Proxies {
        let with_port = |entry: &str| {
            let (domain, port) = entry.trim().rsplit_once(':')?;
            // More colons are an IPv6 address.
            let domain = domain.trim_start_matches('.').to_ascii_lowercase();
            (!domain.is_empty() && !domain.contains(':')).then_some((domain, port.parse().ok()?))
        };
        let ports = except.split(',').filter_map(with_port).collect();
        Proxies(Some(Arc::new(Rules { matcher, ports })))
    }

    /// The proxy for a URL, if there is one.
    pub(super) fn intercept(&self, target: &Uri) -> Option<Intercept> {
        let rules = self.0.as_ref()?;
        let host = target.host()?.to_ascii_lowercase();
        let usual = if target.scheme_str() == Some("https") { 443 } else { 80 };
        let port = target.port_u16().unwrap_or(usual);
        let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let excepted = |(domain, at): &(String, u16)| *at == port && (host == *domain || below(domain));
        if rules.ports.iter().any(excepted) { None } else { rules.matcher.intercept(target) }
    }

    /// What a request that the proxy itself answers must carry.
    pub(super) fn authorization(&self, target: &Uri) -> Option<HeaderValue> {
        self.intercept(target)?.basic_auth().cloned()
    }

    #[cfg(test)]
    fn of(proxy: &str, except: &str) -> Proxies {
        let matcher = Matcher::builder().all(proxy.to_owned()).no(except.to_owned()).build();
        Proxies::new(matcher, except)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_domains_addresses_and_networks_are_left_out() {
        let proxies = Proxies::of(
            "http://u:p@proxy.io:3128",
            "r.io, .corp.io,10.1.2.3, 192.168.0.0/16,fd00::/8,p.io:5000, .s.io:443",
        );
        let through = |url: &str| proxies.intercept(&url.parse().unwrap()).is_some();
        for url in [
            "https://q.io/v2/",
            "https://xr.io/",
            "https://10.1.2.4/",
            "http://[fe80::1]/",
            "https://p.io/",
            "http://xp.io:5000/",
        ] {
            assert!(through(url), "{url}");
        }
        for url in [
            "https://r.io/v2/",
            "https://a.r.io:5000/",
            "https://corp.io/",
            "https://a.b.corp.io/",
            "https://10.1.2.3/",
            "http://192.168.7.7:5000/",
            "https://[fd00::5]:5000/",
            "http://P.io:5000/v2/",
            "https://a.s.io/",
        ] {
            assert!(!through(url), "{url}");
        }
        assert!(Proxies::of("http://p", "*").intercept(&"https://q.io/".parse().unwrap()).is_none());
    }

    #[test]
    fn a_proxy_has_an_address_and_credentials() {
        let target = "https://q.io/".parse().unwrap();
        let proxies = Proxies::of("u:p%40@proxy.io:3128", "");
        assert_eq!(proxies.intercept(&target).unwrap().uri().to_string(), "http://proxy.io:3128/");
        assert_eq!(proxies.authorization(&target).unwrap(), "Basic dTpwQA==");
        let socks = Proxies::of("socks5h://u:p@proxy.io", "").intercept(&target).unwrap();
        assert_eq!((socks.uri().scheme_str(), socks.raw_auth()), (Some("socks5h"), Some(("u", "p"))));
    }
}
