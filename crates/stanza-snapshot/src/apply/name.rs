//! What an entry's path means in a layer: pure, no file system.

/// What a path in a layer means. Paths are relative, their parts joined by single slashes; the empty path is the root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The layer's root directory itself.
    Root,
    /// An entry in `parent`.
    Entry { parent: Vec<u8>, name: Vec<u8> },
    /// Hides `name` of lower layers in `parent`.
    Whiteout { parent: Vec<u8>, name: Vec<u8> },
    /// Hides everything of lower layers in this directory.
    Opaque { directory: Vec<u8> },
    /// Bookkeeping of aufs, without meaning elsewhere.
    Nothing,
}

const WHITEOUT: &[u8] = b".wh.";
const BOOKKEEPING: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What `path` means, or why it is refused.
pub(crate) fn meaning(path: &[u8]) -> Result<Meaning, &'static str> {
    let (parent, name) = match split(path)? {
        Some(split) => split,
        None => return Ok(Meaning::Root),
    };
    let parts = || parent.split(|byte| *byte == b'/');
    if parts().any(|part| part.starts_with(BOOKKEEPING)) {
        return Ok(Meaning::Nothing);
    }
    if parts().any(|part| part.starts_with(WHITEOUT)) {
        return Err("it lies below a whiteout");
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque { directory: parent });
    }
    if name.starts_with(BOOKKEEPING) {
        return Ok(Meaning::Nothing);
    }
    match name.strip_prefix(WHITEOUT) {
        Some(b"" | b"." | b"..") => Err("it is a malformed whiteout"),
        Some(hidden) => Ok(Meaning::Whiteout { parent, name: hidden.to_vec() }),
        None => Ok(Meaning::Entry { parent, name }),
    }
}

/// A parent, and a name in it.
pub(crate) type Split = (Vec<u8>, Vec<u8>);

/// The parent and the last part of a path; `None` is the root.
pub(crate) fn split(path: &[u8]) -> Result<Option<Split>, &'static str> {
    if path.is_empty() {
        return Err("its name is empty");
    }
    if path.contains(&0) {
        return Err("its name holds a NUL byte");
    }
    let mut parent = Vec::new();
    let mut name: &[u8] = b"";
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("its name leads upwards"),
            _ => {}
        }
        if !name.is_empty() {
            if !parent.is_empty() {
                parent.push(b'/');
            }
            parent.extend_from_slice(name);
        }
        name = part;
    }
    Ok((!name.is_empty()).then(|| (parent, name.to_vec())))
}

/// The path of `name` in `parent`.
pub(crate) fn joined(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    if !parent.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(parent: &str, name: &str) -> Result<Meaning, &'static str> {
        Ok(Meaning::Entry { parent: parent.into(), name: name.into() })
    }

    #[test]
    fn paths_are_normal_or_refused() {
        for root in ["/", ".", "./", "//", "/./"] {
            assert_eq!(meaning(root.as_bytes()), Ok(Meaning::Root), "{root}");
        }
        for (path, parent, name) in [
            ("a", "", "a"),
            ("./a", "", "a"),
            ("/a/b/", "a", "b"),
            ("a//b/./c", "a/b", "c"),
            ("...", "", "..."),
            ("a/..b", "a", "..b"),
            ("x.wh.y", "", "x.wh.y"),
        ] {
            assert_eq!(meaning(path.as_bytes()), entry(parent, name), "{path}");
        }
        assert_eq!(meaning(b"\xff\n"), Ok(Meaning::Entry { parent: vec![], name: b"\xff\n".to_vec() }));
        for bad in ["", "..", "../x", "a/../b", "a/../../x", "./../x", "/..", "a/..", "a\0b", "a/./../b"] {
            assert!(meaning(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn whiteouts_are_told_apart_and_malformed_ones_refused() {
        assert_eq!(meaning(b"d/.wh.x"), Ok(Meaning::Whiteout { parent: b"d".to_vec(), name: b"x".to_vec() }));
        assert_eq!(meaning(b"d/.wh..wh..opq"), Ok(Meaning::Opaque { directory: b"d".to_vec() }));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Meaning::Opaque { directory: vec![] }));
        assert_eq!(meaning(b".wh..wh.plnk/1"), Ok(Meaning::Nothing));
        assert_eq!(meaning(b"a/.wh..wh.aufs"), Ok(Meaning::Nothing));
        for bad in [".wh.", ".wh..", ".wh...", ".wh./x", ".wh./", ".wh.a/b", "a/.wh.b/.wh..wh..opq"] {
            assert!(meaning(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
