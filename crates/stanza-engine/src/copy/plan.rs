//! What a copy means: Docker's rules, in which it counts what a path ends in.
//!
//! | target | source is a file | source is a directory `d` | source is `d/.` |
//! |---|---|---|---|
//! | a directory | a file of its name goes into it | a directory of its name goes into it, merged | what is in `d` goes into it |
//! | a file | it is replaced | refused | refused |
//! | nothing | the file gets that name; refused when it ends in `/` | the directory gets that name | the same |
//!
//! A link at the end of the target is followed. One at the end of the source is copied as a link, unless following is asked
//! for or a slash comes after it.

use stanza_snapshot::Found;

use super::CopyError;
use super::side::Side;

/// As many links are followed as the kernel follows.
const LINKS: usize = 40;

/// A path, and what is there.
#[derive(Debug)]
pub(super) struct Place {
    /// As it was given, in normal form.
    pub(super) asked: String,
    /// After links at its end.
    pub(super) path: Vec<u8>,
    pub(super) found: Option<Found>,
}

/// Where the source goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// A directory that is there.
    pub(super) directory: Vec<u8>,
    /// What the source is called in it; `.` is what the source holds.
    pub(super) name: Vec<u8>,
}

/// Docker's normal form: absolute, without `..`, `.` and double slashes, but with the slash or the `/.` that it ended in.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let ending = match path.rsplit('/').next() {
        Some(".") => "/.",
        Some("") if !parts.is_empty() => "/",
        _ => "",
    };
    let joined = parts.join("/");
    if joined.is_empty() && ending == "/." { ending.to_owned() } else { format!("/{joined}{ending}") }
}

/// Whether one path lies below another, as far as their words tell.
pub(super) fn is_within(path: &str, directory: &str) -> bool {
    let bare = |path: &str| clean(path).trim_end_matches(['.', '/']).to_owned();
    let (path, directory) = (bare(path), bare(directory));
    path.strip_prefix(&directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a path says that it is a directory.
fn asserts_directory(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.")
}

/// The directory that a path is in, and its last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let mut end = path.len();
    while end > 0 && (path[end - 1] == b'/' || path[..end].ends_with(b"/.")) {
        end -= 1;
    }
    let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let parent = if start <= 1 { &b"/"[..] } else { &path[..start - 1] };
    (parent, &path[start..end])
}

/// What an archive calls the source.
fn name_of(path: &str) -> &[u8] {
    match split(path.as_bytes()) {
        // What the root holds has no name above it.
        (_, b"") => b".",
        _ if path.ends_with("/.") => b".",
        (_, name) => name,
    }
}

/// The source's path, what it is, and what it is called.
pub(super) fn source(
    side: &Side,
    path: &str,
    follow_link: bool,
) -> Result<(Vec<u8>, Found, Vec<u8>), CopyError> {
    let asked = clean(path);
    let name = name_of(&asked).to_vec();
    let place = if follow_link {
        follow(side, path)?
    } else {
        let path = asked.clone().into_bytes();
        Place { found: side.stat(&path)?, path, asked }
    };
    match place.found {
        Some(found) => Ok((place.path, found, name)),
        None => Err(CopyError::NoSource(side.missing(&place.asked))),
    }
}

/// What a path leads to, links at its end followed also where nothing is behind them.
pub(super) fn follow(side: &Side, path: &str) -> Result<Place, CopyError> {
    let asked = clean(path);
    let mut path = asked.clone().into_bytes();
    for _ in 0..LINKS {
        match side.stat(&path)? {
            Some(Found::Link(target)) => {
                let (parent, _) = split(&path);
                path = match target.starts_with(b"/") {
                    true => target,
                    false => [parent, b"/", &target].concat(),
                };
            }
            found => return Ok(Place { asked, path, found }),
        }
    }
    Err(CopyError::Target(format!("too many links at `{}`", side.show(&asked))))
}

/// The target, which is a directory, a file, or nothing in a directory that is there.
pub(super) fn target(side: &Side, path: &str) -> Result<Place, CopyError> {
    let place = follow(side, path)?;
    let shown = side.show(&place.asked);
    match &place.found {
        Some(Found::Other) => {
            Err(CopyError::Target(format!("destination `{shown}` must be a directory or a regular file")))
        }
        None => {
            let (parent, _) = split(&place.path);
            match side.stat(&[parent, b"/."].concat())? {
                Some(_) => Ok(place),
                None => {
                    let parent = side.show(&String::from_utf8_lossy(parent));
                    Err(CopyError::Target(format!(
                        "invalid output path: directory `{parent}` does not exist"
                    )))
                }
            }
        }
        Some(_) => Ok(place),
    }
}

/// What goes where.
pub(super) fn place(
    side: &Side,
    is_directory: bool,
    name: Vec<u8>,
    target: &Place,
) -> Result<Placement, CopyError> {
    decide(is_directory, name, target)
        .map_err(|reason| CopyError::Target(format!("`{}`: {reason}", side.show(&target.asked))))
}

fn decide(is_directory: bool, name: Vec<u8>, target: &Place) -> Result<Placement, &'static str> {
    let (parent, base) = split(&target.path);
    let beside = || Placement { directory: parent.to_vec(), name: base.to_vec() };
    match &target.found {
        Some(Found::Directory) => Ok(Placement { directory: target.path.clone(), name }),
        Some(_) if is_directory => Err("cannot copy directory"),
        None if !is_directory && asserts_directory(&target.path) => Err("no such directory"),
        _ => Ok(beside()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_dockers_normal_form() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("a//b/", "/a/b/"),
            ("/a/./b/.", "/a/b/."),
            ("/a/../../b", "/b"),
            ("", "/"),
            ("/", "/"),
            ("/.", "/."),
            (".", "/."),
            ("/a/..", "/"),
            ("/a/b/..", "/a"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
    }

    #[test]
    fn names_are_those_of_the_last_part() {
        for (path, name) in
            [("/a/b", "b"), ("/a/b/", "b"), ("/a/b/.", "."), ("/", "."), ("/.", "."), ("/a.", "a.")]
        {
            assert_eq!(name_of(path), name.as_bytes(), "{path}");
        }
        assert_eq!(split(b"/a/b/."), (&b"/a"[..], &b"b"[..]));
        assert_eq!(split(b"/a"), (&b"/"[..], &b"a"[..]));
        assert_eq!(split(b"/x/../y"), (&b"/x/.."[..], &b"y"[..]));
    }

    #[test]
    fn one_path_is_within_another_by_whole_parts() {
        assert!(is_within("/a/b", "/a"));
        assert!(is_within("a/b/c/", "/a/b/."));
        assert!(is_within("/x", "/"));
        assert!(!is_within("/ab", "/a"));
        assert!(!is_within("/a", "/a"));
    }

    #[test]
    fn what_goes_where_is_dockers_table() {
        let cases = [
            // target, found, source is a directory, its name, directory, name
            ("/d", Some(Found::Directory), false, "f", Ok(("/d", "f"))),
            ("/d/", Some(Found::Directory), true, "s", Ok(("/d/", "s"))),
            ("/d", Some(Found::Directory), true, ".", Ok(("/d", "."))),
            ("/t/f", Some(Found::File), false, "g", Ok(("/t", "f"))),
            ("/t/f", Some(Found::File), true, "s", Err("cannot copy directory")),
            ("/t/n", None, false, "f", Ok(("/t", "n"))),
            ("/t/n/", None, false, "f", Err("no such directory")),
            ("/t/n/.", None, false, "f", Err("no such directory")),
            ("/t/n", None, true, "s", Ok(("/t", "n"))),
            ("/t/n/", None, true, ".", Ok(("/t", "n"))),
        ];
        for (path, found, is_directory, name, expected) in cases {
            let place = Place { asked: path.to_owned(), path: path.into(), found };
            let decided = decide(is_directory, name.into(), &place);
            let expected = expected
                .map(|(directory, name)| Placement { directory: directory.into(), name: name.into() });
            assert_eq!(decided, expected, "{path} {name}");
        }
    }
}
