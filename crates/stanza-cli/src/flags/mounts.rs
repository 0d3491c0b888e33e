//! `--volume`, `--mount` and `--tmpfs`.

use std::path::{Component, Path, PathBuf};

use stanza_spec::{MountKind, MountRequest};

use super::{FlagError, bytes};

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// An absolute path in the container, `.` and `..` taken out.
fn destination(option: &'static str, text: &str) -> Result<String, FlagError> {
    if !text.starts_with('/') {
        return Err(FlagError::new(option, format!("`{text}` is not an absolute path in the container")));
    }
    let mut clean = PathBuf::from("/");
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    match clean.to_str() {
        Some("/") | None => Err(FlagError::new(option, "the destination cannot be `/`")),
        Some(path) => Ok(path.to_owned()),
    }
}

/// A path of the host, absolute; a relative one starts at the working directory.
fn host_path(option: &'static str, text: &str) -> Result<String, FlagError> {
    let path = std::path::absolute(text)
        .map_err(|error| FlagError::new(option, format!("the source `{text}` is no path: {error}")))?;
    path.into_os_string()
        .into_string()
        .map_err(|_| FlagError::new(option, "the working directory is not valid UTF-8"))
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`
fn is_volume_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() >= 2
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn volume_name(option: &'static str, text: &str) -> Result<String, FlagError> {
    if is_volume_name(text) {
        return Ok(text.to_owned());
    }
    let reason =
        format!("`{text}` is not a volume name: expected at least two letters, digits, `_`, `.` or `-`");
    Err(FlagError::new(option, reason)
        .hint("for a directory of the host, give a path that starts with `/` or `./`"))
}

/// `-v [SOURCE:]DESTINATION[:OPTIONS]`.
pub(crate) fn volume(text: &str) -> Result<MountRequest, FlagError> {
    const OPTION: &str = "--volume";
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        // Docker reads `/a:ro` as a destination `ro`, which is never absolute: name the likely wish.
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => {
            return Err(FlagError::new(OPTION, format!("`{text}` has too many `:`"))
                .hint("a path with a colon can be given with `--mount type=bind,source=…,target=…`"));
        }
    };
    if source == Some("") || target.is_empty() {
        return Err(FlagError::new(OPTION, format!("`{text}` has an empty source or destination")));
    }
    let destination = destination(OPTION, target)?;
    let mut flags = VolumeFlags::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        flags.read(option)?;
    }
    let path = source.filter(|source| source.starts_with(['/', '.', '~']) || source.contains('/'));
    let kind = match (source, path) {
        (_, Some(path)) if path.starts_with('~') => {
            return Err(FlagError::new(OPTION, format!("`{path}`: only a shell replaces `~`"))
                .hint("leave the `~` unquoted, or use `$HOME`"));
        }
        (_, Some(path)) if path.starts_with('/') || path.starts_with('.') => {
            if flags.no_copy {
                return Err(FlagError::new(OPTION, "`nocopy` is for named volumes"));
            }
            MountKind::Bind {
                source: host_path(OPTION, path)?,
                create_source: true,
                propagation: flags.propagation,
                non_recursive: false,
            }
        }
        (Some(name), _) => {
            if let Some(propagation) = flags.propagation {
                return Err(FlagError::new(OPTION, format!("`{propagation}` is for bind mounts")));
            }
            MountKind::Volume { name: Some(volume_name(OPTION, name)?), no_copy: flags.no_copy }
        }
        (None, _) => MountKind::Volume { name: None, no_copy: flags.no_copy },
    };
    Ok(MountRequest { kind, destination, read_only: flags.read_only })
}

#[derive(Default)]
struct VolumeFlags {
    read_only: bool,
    no_copy: bool,
    propagation: Option<String>,
}

impl VolumeFlags {
    fn read(&mut self, option: &str) -> Result<(), FlagError> {
        match option {
            "ro" => self.read_only = true,
            // `z` and `Z` ask SELinux for a label, the last three a file server of another system for a cache.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" => self.no_copy = true,
            _ if PROPAGATIONS.contains(&option) => self.propagation = Some(option.to_owned()),
            "U" | "idmap" | "O" | "copy" | "noexec" | "nodev" | "nosuid" | "exec" | "dev" | "suid" => {
                return Err(FlagError::not_built("--volume", option));
            }
            _ => {
                return Err(FlagError::new("--volume", format!("there is no mount option `{option}`")).hint(
                    "options: ro, rw, z, Z, nocopy, rprivate, private, rshared, shared, rslave, slave",
                ));
            }
        }
        Ok(())
    }
}

/// The fields of a comma-separated list; a field in double quotes may hold commas.
fn fields(text: &str) -> Result<Vec<String>, FlagError> {
    let mut list = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let last = list.len() - 1;
        match c {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => list[last].push('"'),
            '"' if quoted || list[last].is_empty() => quoted = !quoted,
            ',' if !quoted => list.push(String::new()),
            c => list[last].push(c),
        }
    }
    if quoted { Err(FlagError::new("--mount", format!("`{text}` has an unclosed quote"))) } else { Ok(list) }
}

/// The keys of one `--mount`.
#[derive(Default)]
struct Keys {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    propagation: Option<String>,
    non_recursive: bool,
    create_source: bool,
    no_copy: bool,
    size: Option<u64>,
    mode: Option<u32>,
    /// Keys that belong to one type of mount, as typed.
    special: Vec<String>,
}

impl Keys {
    fn read(&mut self, field: &str) -> Result<(), FlagError> {
        const OPTION: &str = "--mount";
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let wrong = |what: &str| FlagError::new(OPTION, format!("`{field}`: expected {what}"));
        let switch = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(_) => Err(wrong("`true` or `false`")),
        };
        let text = || value.filter(|value| !value.is_empty()).ok_or_else(|| wrong("a value"));
        match key.as_str() {
            "type" => self.kind = Some(text()?.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(text()?.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(text()?.to_owned()),
            "readonly" | "ro" => self.read_only = switch()?,
            "consistency" => {}
            "bind-propagation" => match text()? {
                value if PROPAGATIONS.contains(&value) => self.propagation = Some(value.to_owned()),
                _ => return Err(wrong(&format!("one of {}", PROPAGATIONS.join(", ")))),
            },
            "bind-nonrecursive" => self.non_recursive = switch()?,
            "bind-recursive" => match text()? {
                "enabled" => self.non_recursive = false,
                "disabled" => self.non_recursive = true,
                other => return Err(FlagError::not_built(OPTION, &format!("bind-recursive={other}"))),
            },
            "bind-create-src" => self.create_source = switch()?,
            "volume-nocopy" => self.no_copy = switch()?,
            "tmpfs-size" => self.size = Some(bytes::size(OPTION, text()?)?),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(text()?, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| wrong("permission bits in octal, as `1777`"))?);
            }
            "volume-label" | "volume-driver" | "volume-opt" | "volume-subpath" | "image-subpath"
            | "tmpfs-options" => {
                return Err(FlagError::not_built(OPTION, &key));
            }
            _ => {
                return Err(FlagError::new(OPTION, format!("there is no key `{key}`")).hint(
                    "keys: type, source, target, readonly, bind-propagation, bind-recursive, volume-nocopy, \
                     tmpfs-size, tmpfs-mode",
                ));
            }
        }
        if key.contains('-') {
            self.special.push(key);
        }
        Ok(())
    }

    /// Refuses the keys of other types.
    fn only(&self, prefix: &str) -> Result<(), FlagError> {
        match self.special.iter().find(|key| !key.starts_with(prefix)) {
            Some(key) => Err(FlagError::new(
                "--mount",
                format!("`{key}` does not go with `type={}`", prefix.trim_end_matches('-')),
            )),
            None => Ok(()),
        }
    }
}

/// `--mount type=…,source=…,target=…`.
pub(crate) fn mount(text: &str) -> Result<MountRequest, FlagError> {
    const OPTION: &str = "--mount";
    let mut keys = Keys::default();
    for field in fields(text)? {
        keys.read(&field)?;
    }
    let Some(target) = &keys.target else {
        return Err(FlagError::new(OPTION, format!("`{text}` has no `target`")));
    };
    let destination = destination(OPTION, target)?;
    let kind = match keys.kind.as_deref().unwrap_or("volume") {
        "bind" => {
            keys.only("bind-")?;
            let Some(source) = &keys.source else {
                return Err(FlagError::new(OPTION, format!("`{text}` has no `source`")));
            };
            MountKind::Bind {
                source: host_path(OPTION, source)?,
                create_source: keys.create_source,
                propagation: keys.propagation,
                non_recursive: keys.non_recursive,
            }
        }
        "volume" => {
            keys.only("volume-")?;
            let name = keys.source.as_deref().map(|name| volume_name(OPTION, name)).transpose()?;
            MountKind::Volume { name, no_copy: keys.no_copy }
        }
        "tmpfs" => {
            keys.only("tmpfs-")?;
            if keys.source.is_some() {
                return Err(FlagError::new(OPTION, "a tmpfs has no `source`"));
            }
            MountKind::Tmpfs { size: keys.size, mode: keys.mode, options: Vec::new() }
        }
        other @ ("image" | "npipe" | "cluster" | "devpts" | "ramfs" | "glob") => {
            return Err(FlagError::not_built(OPTION, &format!("type={other}")));
        }
        other => {
            return Err(FlagError::new(OPTION, format!("there is no mount type `{other}`"))
                .hint("types: bind, volume, tmpfs"));
        }
    };
    Ok(MountRequest { kind, destination, read_only: keys.read_only })
}

/// `--tmpfs DESTINATION[:OPTIONS]`.
pub(crate) fn tmpfs(text: &str) -> Result<MountRequest, FlagError> {
    const OPTION: &str = "--tmpfs";
    const PLAIN: [&str; 16] = [
        "noexec",
        "exec",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "sync",
        "async",
        "dirsync",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "norelatime",
        "strictatime",
    ];
    let (path, rest) = text.split_once(':').unwrap_or((text, ""));
    let destination = destination(OPTION, path)?;
    let (mut size, mut mode, mut read_only, mut options) = (None, None, false, Vec::new());
    for option in rest.split(',').filter(|option| !option.is_empty()) {
        let fail = || FlagError::new(OPTION, format!("there is no tmpfs option `{option}`"));
        match option.split_once('=') {
            None if option == "ro" => read_only = true,
            None if option == "rw" => read_only = false,
            None if PLAIN.contains(&option) => options.push(option.to_owned()),
            Some(("size", value)) if value.ends_with('%') => {
                value[..value.len() - 1].parse::<u32>().map_err(|_| fail())?;
                options.push(option.to_owned());
            }
            Some(("size", value)) => size = Some(bytes::size(OPTION, value)?),
            Some(("mode", value)) => {
                let bits = u32::from_str_radix(value, 8).ok().filter(|bits| *bits <= 0o7777);
                mode = Some(bits.ok_or_else(fail)?);
            }
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks", value)) => {
                let digits = value.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G']);
                digits.parse::<u64>().map_err(|_| fail())?;
                options.push(option.to_owned());
            }
            _ => {
                return Err(fail().hint(
                    "options: ro, rw, size=, mode=, uid=, gid=, nr_inodes=, noexec, nosuid, nodev, …",
                ));
            }
        }
    }
    Ok(MountRequest { kind: MountKind::Tmpfs { size, mode, options }, destination, read_only })
}

/// Refuses two mounts at one place.
pub(crate) fn check_unique(mounts: &[MountRequest]) -> Result<(), FlagError> {
    for (index, mount) in mounts.iter().enumerate() {
        if mounts[..index].iter().any(|earlier| earlier.destination == mount.destination) {
            let reason = format!("`{}` is the destination of two mounts", mount.destination);
            return Err(FlagError::new("--volume", reason));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, destination: &str, read_only: bool) -> MountRequest {
        let kind = MountKind::Bind {
            source: source.to_owned(),
            create_source: true,
            propagation: None,
            non_recursive: false,
        };
        MountRequest { kind, destination: destination.to_owned(), read_only }
    }

    #[test]
    fn volumes_are_paths_names_or_nothing() {
        assert_eq!(volume("/a:/b"), Ok(bind("/a", "/b", false)));
        assert_eq!(volume("/a:/b/../c/.:ro,z"), Ok(bind("/a", "/c", true)));
        let here = std::env::current_dir().unwrap().join("x").to_str().unwrap().to_owned();
        assert_eq!(volume("./x:/b"), Ok(bind(&here, "/b", false)));
        let named = MountKind::Volume { name: Some("data".to_owned()), no_copy: true };
        let request = MountRequest { kind: named, destination: "/d".to_owned(), read_only: false };
        assert_eq!(volume("data:/d:nocopy"), Ok(request));
        assert_eq!(volume("/d").unwrap().kind, MountKind::Volume { name: None, no_copy: false });
        let shared = volume("/a:/b:rshared").unwrap().kind;
        assert!(matches!(shared, MountKind::Bind { propagation: Some(p), .. } if p == "rshared"));
    }

    #[test]
    fn wrong_volumes_are_named() {
        for (text, part) in [
            ("b", "`b` is not an absolute path in the container"),
            ("/a:b", "`b` is not an absolute path in the container"),
            ("/a:/", "the destination cannot be `/`"),
            ("/a:/..", "the destination cannot be `/`"),
            ("a/b:/c", "`a/b` is not a volume name"),
            ("a:/c", "`a` is not a volume name"),
            (":/c", "empty source or destination"),
            ("/a:/b:ro:x", "too many `:`"),
            ("/a:/b:nope", "there is no mount option `nope`"),
            ("/a:/b:U", "`U` is not built yet"),
            ("data:/b:rslave", "`rslave` is for bind mounts"),
            ("/a:/b:nocopy", "`nocopy` is for named volumes"),
            ("~/a:/b", "only a shell replaces `~`"),
        ] {
            let error = volume(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn mounts_are_keys_and_values() {
        let request = mount("type=bind,src=/a,\"dst=/b,c\",readonly,bind-propagation=rslave").unwrap();
        assert_eq!(request.destination, "/b,c");
        assert!(request.read_only);
        let expected = MountKind::Bind {
            source: "/a".to_owned(),
            create_source: false,
            propagation: Some("rslave".to_owned()),
            non_recursive: false,
        };
        assert_eq!(request.kind, expected);
        let kind = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").unwrap().kind;
        assert_eq!(kind, MountKind::Tmpfs { size: Some(1 << 20), mode: Some(0o700), options: Vec::new() });
        let kind = mount("source=data,target=/d,volume-nocopy=true").unwrap().kind;
        assert_eq!(kind, MountKind::Volume { name: Some("data".to_owned()), no_copy: true });
        assert_eq!(mount("dst=/d,ro=false").unwrap().kind, MountKind::Volume { name: None, no_copy: false });
    }

    #[test]
    fn wrong_mounts_are_named() {
        for (text, part) in [
            ("type=bind,src=/a", "no `target`"),
            ("type=bind,dst=/a", "no `source`"),
            ("type=nope,dst=/a", "there is no mount type `nope`"),
            ("type=image,dst=/a", "`type=image` is not built yet"),
            ("dst=/a,nope=1", "there is no key `nope`"),
            ("dst=/a,volume-driver=x", "`volume-driver` is not built yet"),
            ("dst=/a,readonly=maybe", "expected `true` or `false`"),
            ("type=tmpfs,dst=/a,src=x", "a tmpfs has no `source`"),
            ("type=tmpfs,dst=/a,bind-propagation=shared", "`bind-propagation` does not go with `type=tmpfs`"),
            ("type=tmpfs,dst=/a,tmpfs-mode=9", "permission bits"),
            ("\"dst=/a", "unclosed quote"),
            ("dst=", "expected a value"),
        ] {
            let error = mount(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn tmpfs_take_the_kernels_options() {
        let request = tmpfs("/t:size=64m,mode=755,noexec,uid=5,ro").unwrap();
        let options = vec!["noexec".to_owned(), "uid=5".to_owned()];
        assert_eq!(request.kind, MountKind::Tmpfs { size: Some(64 << 20), mode: Some(0o755), options });
        assert!(request.read_only);
        for bad in ["t", "/t:nope", "/t:size=x", "/t:mode=9", "/t:uid=x", "/t:size=x%"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_place_takes_one_mount() {
        let mounts = [tmpfs("/a").unwrap(), volume("/x:/a/").unwrap()];
        assert!(check_unique(&mounts).is_err());
        assert_eq!(check_unique(&mounts[..1]), Ok(()));
    }
}
