//! Where configurations and plugins are, when nobody says it, and what Kubernetes' plugins are told.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stanza_spec::ContainerId;

use super::plan::CniPlaces;

/// How long one verb may take by default: a DHCP server may need most of it.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Where network configurations are looked for: the directories of `NETCONFPATH`, else those configured, else
/// `/etc/cni/net.d`.
#[must_use]
pub fn config_dirs(configured: &[PathBuf]) -> Vec<PathBuf> {
    choose(std::env::var_os("NETCONFPATH"), configured, &["/etc/cni/net.d"])
}

/// Where plugins are looked for: the directories of `CNI_PATH`, else those configured, else where distributions and
/// Kubernetes put them.
#[must_use]
pub fn plugin_dirs(configured: &[PathBuf]) -> Vec<PathBuf> {
    let usual =
        ["/opt/cni/bin", "/usr/local/libexec/cni", "/usr/libexec/cni", "/usr/local/lib/cni", "/usr/lib/cni"];
    choose(std::env::var_os("CNI_PATH"), configured, &usual)
}

fn choose(variable: Option<OsString>, configured: &[PathBuf], usual: &[&str]) -> Vec<PathBuf> {
    let of_variable: Vec<PathBuf> = variable
        .map(|text| std::env::split_paths(&text).filter(|path| path.is_absolute()).collect())
        .unwrap_or_default();
    if !of_variable.is_empty() {
        return of_variable;
    }
    if configured.is_empty() { usual.iter().map(PathBuf::from).collect() } else { configured.to_vec() }
}

impl CniPlaces {
    /// The places of an engine: `configured` are its plugin directories ([`plugin_dirs`]), `root` is its root directory.
    #[must_use]
    pub fn of_engine(configured: &[PathBuf], root: &Path) -> CniPlaces {
        CniPlaces {
            plugin_dirs: plugin_dirs(configured),
            results_dir: root.join("cni"),
            time_limit: TIME_LIMIT,
        }
    }
}

/// The arguments that plugins for Kubernetes expect (`CNI_ARGS`), by the labels that its node agent gives a pod; none without
/// them.
#[must_use]
pub fn kubernetes_args(container: &ContainerId, labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let label = |name: &str| labels.get(&format!("io.kubernetes.pod.{name}")).cloned();
    let (Some(namespace), Some(name)) = (label("namespace"), label("name")) else { return Vec::new() };
    let mut args = vec![
        ("IgnoreUnknown", "1".to_owned()),
        ("K8S_POD_NAMESPACE", namespace),
        ("K8S_POD_NAME", name),
        ("K8S_POD_INFRA_CONTAINER_ID", container.to_string()),
    ];
    args.extend(label("uid").map(|uid| ("K8S_POD_UID", uid)));
    args.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_counts_before_the_configuration_and_that_before_the_usual() {
        let configured = [PathBuf::from("/c")];
        let paths = |words: &[&str]| words.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(choose(Some("/a:relative:/b".into()), &configured, &["/u"]), paths(&["/a", "/b"]));
        assert_eq!(choose(Some("".into()), &configured, &["/u"]), paths(&["/c"]));
        assert_eq!(choose(None, &[], &["/u"]), paths(&["/u"]));
    }

    #[test]
    fn pods_are_told_to_plugins_and_other_containers_are_not() {
        let id = ContainerId::from_random([7; 32]);
        assert!(kubernetes_args(&id, &BTreeMap::new()).is_empty());
        let labels = [("namespace", "shop"), ("name", "db-0"), ("uid", "u-1")];
        let labels = labels.map(|(name, value)| (format!("io.kubernetes.pod.{name}"), value.to_owned()));
        let args = kubernetes_args(&id, &BTreeMap::from(labels));
        let args: Vec<String> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0;K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID=u-1"
        );
        assert_eq!(args.join(";"), expected);
    }
}
