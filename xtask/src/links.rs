//! Links between the documents of the repository: the file must be there, and the heading when one is named.

use std::fs;
use std::path::{Path, PathBuf};

/// All Markdown files that belong to the repository.
fn documents(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                documents(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The targets of `[text](target)` outside of code, with their line numbers.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Odd pieces between backticks are code.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("\u{0}");
        for piece in plain.split("](").skip(1) {
            if let Some((target, _)) = piece.split_once(')') {
                let target = target.split_whitespace().next().unwrap_or_default();
                found.push((number + 1, target.to_owned()));
            }
        }
    }
    found
}

/// A heading as the usual renderers turn it into an anchor.
fn anchor(heading: &str) -> String {
    let kept =
        heading.trim().chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect::<String>().to_lowercase()
}

fn has_anchor(document: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(document).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#'));
    headings.map(anchor).any(|found| found == wanted.to_lowercase())
}

/// What is wrong with one link of a document.
fn fault(document: &Path, target: &str) -> Option<String> {
    if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, wanted) = target.split_once('#').map_or((target, None), |(path, wanted)| (path, Some(wanted)));
    let file = if path.is_empty() { document.to_path_buf() } else { document.parent()?.join(path) };
    if !file.exists() {
        return Some(format!("`{target}` is not there"));
    }
    let wanted = wanted.filter(|_| file.extension().is_some_and(|extension| extension == "md"))?;
    (!has_anchor(&file, wanted)).then(|| format!("`{target}`: no such heading"))
}

/// Checks all documents; the faults found.
pub(crate) fn check() -> Vec<String> {
    let mut paths = Vec::new();
    documents(Path::new("."), &mut paths);
    paths.sort();
    let mut faults = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (line, target) in targets(&text) {
            if let Some(fault) = fault(&path, &target) {
                faults.push(format!("{}:{line}: {fault}", path.strip_prefix(".").unwrap_or(&path).display()));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "see [a](docs/a.md#b) and [c](c.md \"title\")\n`[no](no)`\n```\n[no](no)\n```\n[d](#d)";
        let expected =
            [(1, "docs/a.md#b"), (1, "c.md"), (6, "#d")].map(|(line, text)| (line, text.to_owned()));
        assert_eq!(targets(text), expected);
    }

    #[test]
    fn headings_become_anchors() {
        assert_eq!(anchor(" Start-up: what `it` costs"), "start-up-what-it-costs");
    }
}
