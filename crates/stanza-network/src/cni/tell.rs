//! The container's `hosts` and `resolv.conf`, once the plugins have said what is in them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::plan::CniPlan;
use super::{CniDns, CniError, CniResult};

/// Debian's address for a name that has no other: what `hosts` has until there is one.
const NO_ADDRESS: &str = "127.0.1.1";

/// Writes both, in place.
pub(super) fn tell(plan: &CniPlan, result: &CniResult) -> Result<(), CniError> {
    let files = &plan.files;
    if let Some(path) = &files.hosts {
        let addresses = result.inside().map(|ip| ip.address.to_string());
        let gateway = result.inside().find_map(|ip| ip.gateway);
        rewrite(path, |text| {
            let mut text = hosts(text, &files.names, addresses);
            for (name, gateway) in files.gateway_names.iter().zip(gateway.into_iter().cycle()) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{gateway}\t{name}");
            }
            text
        })?;
    }
    if let Some(path) = files.resolv_conf.as_ref().filter(|_| !result.dns.nameservers.is_empty()) {
        rewrite(path, |_| resolv_conf(&result.dns, plan.request.dns.as_ref()))?;
    }
    Ok(())
}

fn rewrite(path: &Path, change: impl FnOnce(&str) -> String) -> Result<(), CniError> {
    let rewrite = || -> io::Result<()> { fs::write(path, change(&fs::read_to_string(path)?)) };
    rewrite().map_err(|source| CniError::Record { what: "write", path: path.to_owned(), source })
}

fn hosts(text: &str, names: &[String], addresses: impl Iterator<Item = String>) -> String {
    let mut addresses = addresses.peekable();
    if names.is_empty() || addresses.peek().is_none() {
        return text.to_owned();
    }
    let is_kept = |line: &&str| line.split_whitespace().next() != Some(NO_ADDRESS);
    let mut text: String = text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
    for address in addresses {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

/// The plugins' servers, with the search domains and options of `said`, else the plugins'. A search domain `.` is none.
fn resolv_conf(dns: &CniDns, said: Option<&CniDns>) -> String {
    let mut text: String = dns.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let none = CniDns::default();
    let said = said.unwrap_or(&none);
    let domain: &[String] = if dns.domain.is_empty() { &[] } else { std::slice::from_ref(&dns.domain) };
    let first = |lists: [&[String]; 3]| {
        let list = lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default();
        list.iter().filter(|word| *word != ".").cloned().collect::<Vec<_>>()
    };
    let search = first([&said.search, &dns.search, domain]);
    let options = first([&said.options, &dns.options, &[]]);
    for (word, values) in [("search", search), ("options", options)] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hosts_names_the_container_by_its_addresses_instead_of_none() {
        let text = "127.0.0.1\tlocalhost\n127.0.1.1\tweb\n10.9.9.9\tother\n";
        let names = ["web".to_owned(), "www".to_owned()];
        let addresses = ["10.1.0.2", "fd00::2"].map(str::to_owned);
        assert_eq!(
            hosts(text, &names, addresses.into_iter()),
            "127.0.0.1\tlocalhost\n10.9.9.9\tother\n10.1.0.2\tweb www\nfd00::2\tweb www\n"
        );
        assert_eq!(hosts(text, &names, std::iter::empty()), text);
    }

    #[test]
    fn resolv_conf_has_what_the_plugins_say() {
        let result = |dns| CniResult::read(&json!({"dns": dns})).unwrap().dns;
        let all = json!({"nameservers": ["10.1.0.1", "fd00::1"], "domain": "d", "search": ["a", "b"], "options": ["ndots:5"]});
        let text = "nameserver 10.1.0.1\nnameserver fd00::1\nsearch a b\noptions ndots:5\n";
        assert_eq!(resolv_conf(&result(all.clone()), None), text);
        let said =
            CniDns { search: vec![".".to_owned()], options: vec!["edns0".to_owned()], ..CniDns::default() };
        let text = "nameserver 10.1.0.1\nnameserver fd00::1\noptions edns0\n";
        assert_eq!(resolv_conf(&result(all), Some(&said)), text);
        let domain = json!({"nameservers": ["10.1.0.1"], "domain": "d"});
        assert_eq!(resolv_conf(&result(domain), None), "nameserver 10.1.0.1\nsearch d\n");
    }
}
