//! The guest's first files, as the kernel unpacks them: a cpio archive in the form "newc"
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`), not compressed: under emulation unpacking costs more than
//! reading.
//!
//! ```text
//!  /init                the agent, process 1
//!  /dev/console         c 5 1: standard input and output of process 1
//!  /modules/early       names of files in /modules, one a line, in load order: loaded before the template is taken
//!  /modules/late        the same, loaded when the virtual machine is somebody's
//!  /modules/NAME.ko
//! ```

use crate::modules::Module;

/// What an initramfs is made of.
#[derive(Clone, Copy, Debug)]
pub struct Initramfs<'a> {
    /// The executable that becomes process 1; static.
    pub init: &'a [u8],
    /// Modules that are loaded before the template is taken, in load order.
    pub early: &'a [Module],
    /// Modules that are loaded later.
    pub late: &'a [Module],
}

impl Initramfs<'_> {
    /// The archive. The same parts give the same bytes.
    #[must_use]
    pub fn archive(&self) -> Vec<u8> {
        let list = |modules: &[Module]| {
            modules.iter().map(|module| format!("{}.ko\n", module.name)).collect::<String>().into_bytes()
        };
        let mut archive = Archive::default();
        archive.put("dev", Kind::Directory, &[]);
        archive.put("dev/console", Kind::Character(5, 1), &[]);
        archive.put("init", Kind::Executable, self.init);
        archive.put("modules", Kind::Directory, &[]);
        archive.put("modules/early", Kind::File, &list(self.early));
        archive.put("modules/late", Kind::File, &list(self.late));
        for module in self.early.iter().chain(self.late) {
            archive.put(&format!("modules/{}.ko", module.name), Kind::File, &module.content);
        }
        archive.finish()
    }
}

enum Kind {
    Directory,
    File,
    Executable,
    Character(u32, u32),
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn put(&mut self, name: &str, kind: Kind, content: &[u8]) {
        let (mode, device) = match kind {
            Kind::Directory => (0o040_755, (0, 0)),
            Kind::File => (0o100_644, (0, 0)),
            Kind::Executable => (0o100_755, (0, 0)),
            Kind::Character(major, minor) => (0o020_600, (major, minor)),
        };
        self.entries += 1;
        self.entry(name, mode, device, content);
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        // Magic, inode, mode, owner, group, links, time, size, device, device of the file, length of the name, checksum.
        let fields = [
            self.entries as usize,
            mode as usize,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            device.0 as usize,
            device.1 as usize,
            name.len() + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn example() -> Vec<u8> {
        let module =
            |name: &str| Module { name: name.to_owned(), content: format!("module {name}").into_bytes() };
        let (early, late) = ([module("virtio"), module("virtio_pci")], [module("fuse")]);
        Initramfs { init: b"agent", early: &early, late: &late }.archive()
    }

    #[test]
    fn the_archive_has_the_agreed_form() {
        let archive = example();
        let second = "07070100000002000021800000000000000000000000010000000000000000000000000000000000000005\
                      000000010000000C00000000dev/console\0";
        let at = archive.windows(11).position(|window| window == b"dev/console").unwrap();
        assert_eq!(std::str::from_utf8(&archive[at - 110..at + 12]).unwrap(), second);
        assert_eq!(archive.len() % 4, 0);
        assert_eq!(archive, example());
    }

    #[test]
    fn another_program_reads_it() {
        let mut child = match Command::new("busybox")
            .args(["cpio", "-i", "-t", "-v"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => panic!("cannot run `busybox`: {error}"),
        };
        child.stdin.take().unwrap().write_all(&example()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<(&str, &str)> = text
            .lines()
            .map(|line| (line.split_whitespace().next().unwrap(), line.rsplit(' ').next().unwrap()))
            .collect();
        assert_eq!(
            lines,
            [
                ("drwxr-xr-x", "dev"),
                ("crw-------", "dev/console"),
                ("-rwxr-xr-x", "init"),
                ("drwxr-xr-x", "modules"),
                ("-rw-r--r--", "modules/early"),
                ("-rw-r--r--", "modules/late"),
                ("-rw-r--r--", "modules/virtio.ko"),
                ("-rw-r--r--", "modules/virtio_pci.ko"),
                ("-rw-r--r--", "modules/fuse.ko"),
            ]
        );
    }
}
