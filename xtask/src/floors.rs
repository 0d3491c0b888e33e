//! The floors of `docs/architecture.md`: a crate may use only lower floors.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// What a manifest says, as far as floors go.
#[derive(Debug, Default, PartialEq, Eq)]
struct Manifest {
    name: String,
    floor: Option<u32>,
    /// Crates of this workspace that it uses; those of its tests do not count.
    uses: Vec<String>,
}

/// Reads the few lines that matter; the manifests of this workspace are plain.
fn parse(text: &str) -> Manifest {
    let mut manifest = Manifest::default();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
            // `[dependencies.stanza-x]`
            if let Some((table, name)) = section.rsplit_once('.').filter(|(table, _)| counts(table)) {
                let _ = table;
                manifest.uses.push(name.to_owned());
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match section.as_str() {
            "package" if key == "name" => value.trim_matches('"').clone_into(&mut manifest.name),
            "package.metadata.stanza" if key == "floor" => manifest.floor = value.parse().ok(),
            section if counts(section) => {
                manifest.uses.push(key.split('.').next().unwrap_or(key).to_owned());
            }
            _ => {}
        }
    }
    manifest
}

/// Whether dependencies of this section count: those that ship or build.
fn counts(section: &str) -> bool {
    let last = section.rsplit('.').next().unwrap_or(section);
    matches!(last, "dependencies" | "build-dependencies")
}

fn manifests() -> Result<Vec<PathBuf>, String> {
    let mut paths = vec![PathBuf::from("xtask/Cargo.toml")];
    for entry in fs::read_dir("crates").map_err(|error| format!("cannot read `crates`: {error}"))? {
        let path = entry.map_err(|error| error.to_string())?.path().join("Cargo.toml");
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What breaks the rule among these manifests.
fn faults(manifests: &[Manifest]) -> Vec<String> {
    let floors: BTreeMap<&str, u32> =
        manifests.iter().filter_map(|manifest| Some((manifest.name.as_str(), manifest.floor?))).collect();
    let mut faults = Vec::new();
    for manifest in manifests {
        let Some(own) = manifest.floor else {
            faults.push(format!("`{}` has no `[package.metadata.stanza] floor`", manifest.name));
            continue;
        };
        for used in &manifest.uses {
            if let Some(floor) = floors.get(used.as_str()).filter(|floor| **floor >= own) {
                faults.push(format!(
                    "`{}` (floor {own}) uses `{used}` (floor {floor}): only lower floors may be used",
                    manifest.name
                ));
            }
        }
    }
    faults
}

/// Checks all crates; the faults found.
pub(crate) fn check() -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for path in manifests()? {
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        all.push(parse(&text));
    }
    Ok(faults(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: &str = "[package]\nname = \"low\"\n[package.metadata.stanza]\nfloor = 1\n";

    #[test]
    fn a_manifest_is_read() {
        let text = "[package]\nname = \"a\"\n[package.metadata.stanza]\nfloor = 2\n[dependencies]\nlow.workspace = true\n\
                    b = { path = \"../b\" }\n[dependencies.c]\npath = \"../c\"\n[dev-dependencies]\nd.workspace = true\n";
        let expected =
            Manifest { name: "a".into(), floor: Some(2), uses: vec!["low".into(), "b".into(), "c".into()] };
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn only_lower_floors_may_be_used() {
        let with = |floor: u32| {
            format!(
                "[package]\nname = \"x\"\n[package.metadata.stanza]\nfloor = {floor}\n[dependencies]\nlow.workspace = true\n"
            )
        };
        assert_eq!(faults(&[parse(LOW), parse(&with(2))]), Vec::<String>::new());
        for floor in [0, 1] {
            let found = faults(&[parse(LOW), parse(&with(floor))]);
            assert_eq!(
                found,
                [format!("`x` (floor {floor}) uses `low` (floor 1): only lower floors may be used")]
            );
        }
        assert_eq!(
            faults(&[parse("[package]\nname = \"y\"\n")]),
            ["`y` has no `[package.metadata.stanza] floor`"]
        );
    }
}
