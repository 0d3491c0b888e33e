//! A writer of plain ustar archives, hostile ones too: it writes what it is told.

use std::fs;
use std::path::Path;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with its content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to a target.
    Symlink(String),
    /// A hard link to an earlier entry.
    Hardlink(String),
    /// A character device.
    CharacterDevice(u32, u32),
}

/// A tar archive in memory.
#[derive(Clone, Debug, Default)]
pub struct Tarball {
    bytes: Vec<u8>,
}

/// A number as tar writes it: octal digits, a zero byte at the end.
fn octal(field: &mut [u8], value: u64) {
    let digits = format!("{value:0width$o}", width = field.len() - 1);
    field[..digits.len()].copy_from_slice(digits.as_bytes());
}

impl Tarball {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Tarball {
        Tarball::default()
    }

    /// Appends an entry with an owner.
    ///
    /// # Panics
    /// When the name or link does not fit into 100 bytes.
    #[must_use]
    pub fn entry(mut self, path: &str, mode: u32, owner: (u32, u32), kind: &Kind) -> Tarball {
        let (flag, content, link, device): (u8, &[u8], &str, (u32, u32)) = match kind {
            Kind::File(content) => (b'0', content, "", (0, 0)),
            Kind::Hardlink(target) => (b'1', &[], target, (0, 0)),
            Kind::Symlink(target) => (b'2', &[], target, (0, 0)),
            Kind::CharacterDevice(major, minor) => (b'3', &[], "", (*major, *minor)),
            Kind::Directory => (b'5', &[], "", (0, 0)),
        };
        assert!(path.len() <= 100 && link.len() <= 100, "`{path}` or `{link}` is too long for ustar");
        let mut header = [0u8; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        octal(&mut header[100..108], u64::from(mode));
        octal(&mut header[108..116], u64::from(owner.0));
        octal(&mut header[116..124], u64::from(owner.1));
        octal(&mut header[124..136], content.len() as u64);
        octal(&mut header[136..148], 1_700_000_000);
        header[148..156].fill(b' ');
        header[156] = flag;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut header[329..337], u64::from(device.0));
        octal(&mut header[337..345], u64::from(device.1));
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        octal(&mut header[148..155], sum);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Appends a file of root.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Tarball {
        self.entry(path, mode, (0, 0), &Kind::File(content.as_ref().to_vec()))
    }

    /// Appends a directory of root.
    #[must_use]
    pub fn directory(self, path: &str, mode: u32) -> Tarball {
        self.entry(path, mode, (0, 0), &Kind::Directory)
    }

    /// Appends a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Tarball {
        self.entry(path, 0o777, (0, 0), &Kind::Symlink(target.to_owned()))
    }

    /// The whole archive.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }
}

/// The root file system that most tests run: busybox with all its applets, two accounts, `/tmp`.
///
/// # Errors
/// When this machine has no static busybox.
pub fn busybox_tarball() -> Result<Tarball, String> {
    let path = ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|path| Path::new(path).is_file())
        .ok_or("no `/bin/busybox` (package busybox-static)")?;
    let binary = fs::read(path).map_err(|error| format!("cannot read `{path}`: {error}"))?;
    if binary.windows(7).any(|window| window == b"/ld-lin") {
        return Err(format!("`{path}` is not static (package busybox-static)"));
    }
    let applets = crate::tool(&[path, "--list"]).stdout;
    let mut tarball = Tarball::new();
    for directory in ["bin", "etc", "home", "home/user", "opt", "root", "usr", "usr/bin", "var", "var/www"] {
        tarball = tarball.directory(&format!("{directory}/"), 0o755);
    }
    tarball = tarball
        .directory("tmp/", 0o1777)
        .file("bin/busybox", 0o755, binary)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
        .file("etc/not-executable", 0o644, "#!/bin/sh\n");
    for applet in applets.lines().filter(|applet| !applet.is_empty() && *applet != "busybox") {
        tarball = tarball.symlink(&format!("bin/{applet}"), "busybox");
    }
    Ok(tarball)
}
