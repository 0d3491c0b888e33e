//! The container's `hosts` and `resolv.conf`, once the plugins have said what is in them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::plan::CniPlan;
use super::{CniError, CniResult};

/// Debian's address for a name that has no other: what `hosts` has until there is one.
const NO_ADDRESS: &str = "127.0.1.1";

/// Writes both, in place.
pub(super) fn tell(plan: &CniPlan, result: &CniResult) -> Result<(), CniError> {
    let files = &plan.files;
    if let Some(path) = &files.hosts {
        let addresses = result.inside().map(|ip| ip.address.to_string());
        rewrite(path, |text| hosts(text, &files.names, addresses))?;
    }
    if let Some(path) = files.resolv_conf.as_ref().filter(|_| !result.dns.nameservers.is_empty()) {
        rewrite(path, |_| resolv_conf(result))?;
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

fn resolv_conf(result: &CniResult) -> String {
    let dns = &result.dns;
    let mut text: String = dns.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search: Vec<&str> = if dns.search.is_empty() && !dns.domain.is_empty() {
        vec![&dns.domain]
    } else {
        dns.search.iter().map(String::as_str).collect()
    };
    for (word, values) in [("search", search), ("options", dns.options.iter().map(String::as_str).collect())]
    {
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
        let result = |dns| CniResult::read(&json!({"dns": dns})).unwrap();
        let all = json!({"nameservers": ["10.1.0.1", "fd00::1"], "domain": "d", "search": ["a", "b"], "options": ["ndots:5"]});
        let text = "nameserver 10.1.0.1\nnameserver fd00::1\nsearch a b\noptions ndots:5\n";
        assert_eq!(resolv_conf(&result(all)), text);
        let domain = json!({"nameservers": ["10.1.0.1"], "domain": "d"});
        assert_eq!(resolv_conf(&result(domain)), "nameserver 10.1.0.1\nsearch d\n");
    }
}
