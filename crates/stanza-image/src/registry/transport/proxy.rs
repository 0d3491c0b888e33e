//! Proxies, as the environment names them.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in lower case, read as curl does: a proxy is
//! `[http://|https://|socks5://|socks5h://|socks4://|socks4a://][USER:PASSWORD@]HOST[:PORT]`; `NO_PROXY` has hosts, domains
//! (with all below them), addresses and networks (`10.0.0.0/8`), separated by commas, or `*`. In a CGI program (`REQUEST_METHOD`
//! is set) nothing of it counts, since `HTTP_PROXY` comes from whoever sent the request there (CVE-2016-5385).

use std::sync::Arc;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

/// Which proxy is for which URL.
#[derive(Clone)]
pub(super) struct Proxies(Option<Arc<Matcher>>);

impl Proxies {
    pub(super) fn none() -> Proxies {
        Proxies(None)
    }

    pub(super) fn of_environment() -> Proxies {
        Proxies(Some(Arc::new(Matcher::from_env())))
    }

    /// The proxy for a URL, if there is one.
    pub(super) fn intercept(&self, target: &Uri) -> Option<Intercept> {
        self.0.as_ref()?.intercept(target)
    }

    /// What a request that the proxy itself answers must carry.
    pub(super) fn authorization(&self, target: &Uri) -> Option<HeaderValue> {
        self.intercept(target)?.basic_auth().cloned()
    }

    #[cfg(test)]
    fn of(proxy: &str, except: &str) -> Proxies {
        Proxies(Some(Arc::new(Matcher::builder().all(proxy.to_owned()).no(except.to_owned()).build())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_domains_addresses_and_networks_are_left_out() {
        let proxies =
            Proxies::of("http://u:p@proxy.io:3128", "r.io, .corp.io,10.1.2.3, 192.168.0.0/16,fd00::/8");
        let through = |url: &str| proxies.intercept(&url.parse().unwrap()).is_some();
        for url in ["https://q.io/v2/", "https://xr.io/", "https://10.1.2.4/", "http://[fe80::1]/"] {
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
