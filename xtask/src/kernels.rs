//! The kernels of the tests' virtual machines: Debian's cloud kernel packages, downloaded and never installed.
//!
//! Each of the two Debian releases has its own list of packages, in an apt configuration below `target/`: the machine's own is
//! not touched.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::shell::{find, output};

/// Debian's releases: kernels 6.1 and 6.12.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
const PACKAGE: &str = "linux-image-cloud-amd64";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads the packages that are not in `target/kernel-packages`. What cannot be had is said; tests that need it are skipped.
pub(crate) fn ensure() -> Result<(), String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("kernel-packages");
    for release in RELEASES {
        let marker = directory.join(release);
        if fs::read_to_string(&marker).is_ok_and(|name| directory.join(name.trim()).is_file()) {
            println!("==> kernels: {release}'s is there");
            continue;
        }
        if find("apt-get").is_none() || !Path::new(KEYS).exists() {
            println!(
                "==> kernels: no Debian here: put kernel packages into `{}` yourself",
                directory.display()
            );
            return Ok(());
        }
        match download(&directory, release) {
            Ok(name) => println!("==> kernels: {release}: downloaded `{name}`"),
            Err(error) => println!("==> kernels: {release}: {error}; tests with its kernel are skipped"),
        }
    }
    Ok(())
}

fn download(directory: &Path, release: &str) -> Result<String, String> {
    let apt = directory.join("apt").join(release);
    let failed = |error| format!("cannot write below `{}`: {error}", apt.display());
    for name in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(name)).map_err(failed)?;
    }
    let source = format!("deb [signed-by={KEYS}] http://deb.debian.org/debian {release} main\n");
    fs::write(apt.join("sources.list"), source).map_err(failed)?;
    let configuration = format!(
        "Dir::Etc::sourcelist \"{0}/sources.list\";\nDir::Etc::sourceparts \"-\";\nDir::State::lists \"{0}/lists\";\n\
         Dir::Cache \"{0}/cache\";\nAPT::Sandbox::User \"\";\n",
        apt.display()
    );
    fs::write(apt.join("apt.conf"), configuration).map_err(failed)?;
    let configuration = format!("APT_CONFIG={}", apt.join("apt.conf").display());
    output(&["env", &configuration, "apt-get", "update", "--quiet"])?;
    let depends = output(&["env", &configuration, "apt-cache", "depends", PACKAGE])?;
    let package = depends
        .lines()
        .find_map(|line| {
            line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-"))
        })
        .ok_or_else(|| format!("`{PACKAGE}` depends on no kernel"))?
        .to_owned();
    let before = packages(directory)?;
    let status = Command::new("env")
        .args([&configuration, "apt-get", "download", "--quiet", &package])
        .current_dir(directory)
        .status()
        .map_err(|error| format!("cannot run `apt-get download`: {error}"))?;
    if !status.success() {
        return Err(format!("`apt-get download {package}` failed"));
    }
    let name = packages(directory)?
        .into_iter()
        .find(|name| !before.contains(name) || name.starts_with(&format!("{package}_")))
        .ok_or_else(|| format!("`apt-get download {package}` left no file"))?;
    fs::write(directory.join(release), &name).map_err(failed)?;
    Ok(name)
}

fn packages(directory: &Path) -> Result<Vec<String>, String> {
    let entries =
        fs::read_dir(directory).map_err(|error| format!("cannot read `{}`: {error}", directory.display()))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.ends_with(".deb")).collect())
}
