//! What the tests need of the machine, by the names of Debian's packages.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;

use crate::shell::{find, have, output};

/// A program, the package it comes in, what the tests do with it.
const NEEDED: &[(&str, &str, &str)] = &[
    ("busybox", "busybox-static", "the root file system of the test images"),
    ("docker-registry", "docker-registry", "the registry that images are pulled from"),
    ("skopeo", "skopeo", "images made and stores read by another tool"),
    ("umoci", "umoci", "images unpacked by another tool"),
    ("podman", "podman", "images pushed, pulled, saved and loaded by another tool"),
    ("catatonit", "catatonit", "the first process of podman's pods"),
    ("zstd", "zstd", "archives compressed by another tool"),
    ("gpg", "gnupg", "signatures of images"),
    ("gpgv", "gpgv", "the verification of OpenPGP signatures"),
    ("openssl", "openssl", "keys, certificates, signatures of images"),
    ("newuidmap", "uidmap", "containers of an ordinary user"),
    ("nft", "nftables", "a look at the packet rules"),
    ("ip", "iproute2", "networks in name spaces of their own"),
    ("pasta", "passt", "the way out of containers without root"),
    ("slirp4netns", "slirp4netns", "the same, by another program"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins", "chains of CNI plugins"),
    ("iptables-nft", "iptables", "a host whose firewall is another program's, and what CNI plugins call"),
    ("qemu-system-x86_64", "qemu-system-x86", "virtual machines"),
    ("mkfs.erofs", "erofs-utils", "disks of virtual machines"),
    ("dig", "bind9-dnsutils", "questions to resolvers by another client"),
];

/// What `cargo xtask interop` calls.
const CALLERS: &[(&str, &str, &str)] = &[
    ("busybox", "busybox-static", "the root file system of the image"),
    ("podman", "podman", "a caller of the runtime"),
    ("conmon", "conmon", "what podman calls the runtime through"),
    ("containerd", "containerd", "a caller of the runtime"),
    ("dockerd", "docker.io", "a caller of the runtime"),
    ("criu", "criu", "checkpoint and restore"),
    ("newuidmap", "uidmap", "containers of an ordinary user"),
];

/// The runtimes that `cargo xtask conformance` compares with.
const PEERS: &[(&str, &str, &str)] =
    &[("runc", "runc", "a runtime to compare with"), ("crun", "crun", "a runtime to compare with")];

/// The ordinary user that rootless tests run as.
pub(crate) const USER: &str = "stanza-test";

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    output(&["id", "-u"]).is_ok_and(|text| text.trim() == "0")
}

/// Installs what the tests need.
pub(crate) fn ensure() -> Result<(), String> {
    ensure_all(NEEDED)
}

/// Installs the other OCI runtimes.
pub(crate) fn ensure_peers() -> Result<(), String> {
    ensure_all(PEERS)
}

/// Installs the callers of an OCI runtime.
pub(crate) fn ensure_callers() -> Result<(), String> {
    ensure_all(CALLERS)
}

/// Installs what is missing, as root or through `sudo`; else says what is missing. Tests that need it are then skipped.
fn ensure_all(needed: &[(&str, &str, &str)]) -> Result<(), String> {
    let missing: Vec<_> = needed.iter().filter(|(program, ..)| !have(program)).collect();
    if missing.is_empty() {
        println!("==> packages: all there ({})", names(needed));
        return Ok(());
    }
    for (_, package, purpose) in &missing {
        println!("==> packages: {package} is missing: {purpose}");
    }
    let names: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    let mut words = Vec::new();
    if !is_root() {
        if !have("sudo") {
            println!(
                "==> packages: not root and no `sudo`: install {} yourself; tests that need them are skipped",
                names.join(" ")
            );
            return Ok(());
        }
        words.push("sudo");
    }
    if find("apt-get").is_none() {
        println!(
            "==> packages: no `apt-get` here: install {} yourself; tests that need them are skipped",
            names.join(" ")
        );
        return Ok(());
    }
    // A fresh machine has no list of packages, or an old one.
    let update = [&words[..], &["apt-get", "update", "--quiet"]].concat();
    let install = [&words[..], &["apt-get", "install", "--yes", "--no-install-recommends"], &names].concat();
    for command in [update, install] {
        println!("==> packages: {}", command.join(" "));
        let status = Command::new(command[0])
            .args(&command[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .map_err(|error| format!("cannot run `{}`: {error}", command.join(" ")))?;
        if !status.success() {
            println!("==> packages: that failed; tests that need them are skipped");
        }
    }
    Ok(())
}

/// The packages' names in one line.
fn names(needed: &[(&str, &str, &str)]) -> String {
    needed.iter().map(|(_, package, _)| *package).collect::<Vec<_>>().join(", ")
}

/// Makes the ordinary user with subordinate ids, when root asks and there is none.
pub(crate) fn ensure_user() -> Result<(), String> {
    if !is_root() {
        println!("==> user: not root; tests that need root or `{USER}` are skipped");
        return Ok(());
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if !passwd.lines().any(|line| line.starts_with(&format!("{USER}:"))) {
        println!("==> user: making `{USER}` for the rootless tests (useradd)");
        output(&["useradd", "--create-home", "--shell", "/bin/sh", USER])?;
    }
    for path in ["/etc/subuid", "/etc/subgid"] {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.lines().any(|line| line.starts_with(&format!("{USER}:"))) {
            continue;
        }
        let start = first_free(&text);
        println!("==> user: giving `{USER}` the ids {start}-{} in {path}", start + 65_535);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| format!("cannot open `{path}`: {error}"))?;
        writeln!(file, "{USER}:{start}:65536").map_err(|error| format!("cannot write `{path}`: {error}"))?;
    }
    Ok(())
}

/// The first id above all that are given away.
fn first_free(text: &str) -> u64 {
    let ends = text.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1);
        Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.trim().parse::<u64>().ok()?)
    });
    ends.max().unwrap_or(0).max(100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_do_not_overlap() {
        assert_eq!(first_free(""), 100_000);
        assert_eq!(first_free("a:100000:65536\nb:300000:65536\n"), 365_536);
    }
}
