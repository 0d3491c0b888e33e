//! A [`VmSpec`] becomes QEMU's command line, and the list of the files that it must see. Pure.
//!
//! The machine is `microvm` with a PCI bus: no firmware, of legacy devices the clock alone (without one Debian's kernels
//! wait for it twice, a second each), devices on fixed slots:
//!
//! ```text
//!  slot 1       virtio-serial, port `stanza.agent`     all that a template has
//!  slot 2..=9   virtio-net
//!  slot 10..=19 virtio-fs
//!  slot 20..=31 virtio-blk
//! ```
//! A restored machine may have devices that its template did not have: the state that is loaded does not mention them, and
//! the guest finds them by looking at the bus again (`/sys/bus/pci/rescan`). Devices of the kind virtio-mmio cannot
//! come so: they are listed in a table in the template's memory.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::find::Qemu;
use super::machine::{host_tsc_khz, kernel_command_line};
use crate::spec::{Accelerator, Memory, VmSpec};

/// The most network devices, shares and disks of one machine.
pub const NICS: usize = 8;
/// See [`NICS`].
pub const SHARES: usize = 10;
/// See [`NICS`].
pub const DISKS: usize = 12;

/// What a launcher needs to start QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub arguments: Vec<OsString>,
    /// Files that it opens by path, besides its own libraries.
    pub files: Vec<NeededFile>,
    /// Descriptors that it must inherit, under these numbers.
    pub descriptors: Vec<RawFd>,
}

/// A file that QEMU opens by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededFile {
    /// The path.
    pub path: PathBuf,
    /// Whether it writes to it.
    pub writable: bool,
}

/// Why a specification cannot become a command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// More devices of a kind than there are slots.
    #[error("a virtual machine can have at most {most} {kind}, not {count}")]
    TooMany {
        /// The kind.
        kind: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many there can be.
        most: usize,
    },
    /// A path that QEMU's words cannot hold.
    #[error("the path `{0}` cannot be given to QEMU: it has a byte that is not printable")]
    Path(PathBuf),
    /// A share whose server could not see what the guest writes.
    #[error("shares need memory that is shared with their server")]
    PrivateMemory,
    /// A tag that is not one.
    #[error("`{0}` cannot be a share's tag: expected 1 to 35 letters, digits, `-`, `_`, `.`")]
    Tag(String),
    /// Too little memory, or no processor.
    #[error("a virtual machine needs at least 64 MiB and one processor, not {memory_mib} MiB and {cpus}")]
    Size {
        /// Memory asked for.
        memory_mib: u32,
        /// Processors asked for.
        cpus: u32,
    },
}

/// QEMU's command line for `spec` on this host.
///
/// # Errors
/// What QEMU could not be told, by name.
pub fn plan_command(qemu: &Qemu, spec: &VmSpec) -> Result<Command, CommandError> {
    plan(qemu, spec, host_tsc_khz())
}

fn plan(qemu: &Qemu, spec: &VmSpec, tsc_khz: Option<u64>) -> Result<Command, CommandError> {
    check(spec)?;
    let mut line = Line::default();
    for word in ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"] {
        line.word(word);
    }
    line.option("-name", "stanza");
    line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    line.option(
        "-machine",
        "microvm,acpi=on,pcie=on,pit=off,pic=off,rtc=on,usb=off,auto-kernel-cmdline=off,isa-serial=on,\
         memory-backend=ram",
    );
    // An emulated page walk has a level less without la57.
    line.option(
        "-cpu",
        match spec.accelerator {
            Accelerator::Kvm => "host",
            Accelerator::Tcg => "max,la57=off",
        },
    );
    line.option("-accel", spec.accelerator.as_str());
    line.option("-m", &format!("{}M", spec.memory_mib));
    line.option("-smp", &spec.cpus.to_string());
    line.memory(qemu, spec)?;
    line.file("-kernel", &spec.kernel)?;
    line.file("-initrd", &spec.initramfs)?;
    line.option("-append", &kernel_command_line(spec.accelerator, tsc_khz));
    line.socket("qmp", spec.qmp);
    line.option("-mon", "chardev=qmp,mode=control");
    match spec.console {
        None => line.option("-chardev", "null,id=console"),
        Some(number) => {
            line.descriptors.push(number);
            line.option("-add-fd", &format!("fd={number},set=1"));
            line.option("-chardev", "file,id=console,path=/dev/fdset/1,append=on");
        }
    }
    line.option("-serial", "chardev:console");
    line.socket("agent", spec.agent);
    line.option("-device", "virtio-serial-pci,id=serial,addr=1,max_ports=2,disable-legacy=on");
    line.option("-device", "virtserialport,bus=serial.0,chardev=agent,name=stanza.agent");
    line.devices(spec)?;
    if spec.restore {
        line.option("-incoming", "defer");
    }
    Ok(Command {
        program: qemu.program.clone(),
        arguments: line.arguments,
        files: line.files,
        descriptors: line.descriptors,
    })
}

fn check(spec: &VmSpec) -> Result<(), CommandError> {
    for (kind, count, most) in [
        ("network devices", spec.nics.len(), NICS),
        ("shares", spec.shares.len(), SHARES),
        ("disks", spec.disks.len(), DISKS),
    ] {
        if count > most {
            return Err(CommandError::TooMany { kind, count, most });
        }
    }
    if spec.memory_mib < 64 || spec.cpus == 0 {
        return Err(CommandError::Size { memory_mib: spec.memory_mib, cpus: spec.cpus });
    }
    if !spec.shares.is_empty() && matches!(spec.memory, Memory::Private | Memory::Template(_)) {
        return Err(CommandError::PrivateMemory);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match spec
        .shares
        .iter()
        .find(|share| !(1..=35).contains(&share.tag.len()) || !share.tag.bytes().all(plain))
    {
        Some(share) => Err(CommandError::Tag(share.tag.clone())),
        None => Ok(()),
    }
}

#[derive(Default)]
struct Line {
    arguments: Vec<OsString>,
    files: Vec<NeededFile>,
    descriptors: Vec<RawFd>,
}

impl Line {
    fn word(&mut self, word: &str) {
        self.arguments.push(word.into());
    }

    fn option(&mut self, name: &str, value: &str) {
        self.word(name);
        self.word(value);
    }

    /// An option whose value ends with a path that QEMU opens.
    fn path(&mut self, name: &str, before: &str, path: &Path, writable: bool) -> Result<(), CommandError> {
        let mut value = before.as_bytes().to_vec();
        for byte in path.as_os_str().as_bytes() {
            if byte.is_ascii_control() {
                return Err(CommandError::Path(path.to_owned()));
            }
            value.push(*byte);
            // In a list of properties a comma is doubled.
            if *byte == b',' && !before.is_empty() {
                value.push(b',');
            }
        }
        self.word(name);
        self.arguments.push(OsString::from_vec(value));
        self.files.push(NeededFile { path: path.to_owned(), writable });
        Ok(())
    }

    fn file(&mut self, name: &str, path: &Path) -> Result<(), CommandError> {
        self.path(name, "", path, false)
    }

    fn socket(&mut self, id: &str, number: RawFd) {
        self.descriptors.push(number);
        self.option("-chardev", &format!("socket,id={id},fd={number}"));
    }

    fn memory(&mut self, qemu: &Qemu, spec: &VmSpec) -> Result<(), CommandError> {
        let size = spec.memory_mib;
        match &spec.memory {
            Memory::Private => {
                self.option("-object", &format!("memory-backend-ram,id=ram,size={size}M"));
                Ok(())
            }
            Memory::Shared => {
                self.option("-object", &format!("memory-backend-memfd,id=ram,size={size}M,share=on"));
                Ok(())
            }
            Memory::File(path) => {
                let before = format!("memory-backend-file,id=ram,size={size}M,share=on,mem-path=");
                self.path("-object", &before, path, true)
            }
            Memory::Template(path) => {
                let read_only = qemu.opens_memory_read_only();
                let flags = if read_only { ",readonly=on,rom=off" } else { "" };
                let before = format!("memory-backend-file,id=ram,size={size}M,share=off{flags},mem-path=");
                self.path("-object", &before, path, !read_only)
            }
        }
    }

    fn devices(&mut self, spec: &VmSpec) -> Result<(), CommandError> {
        for (index, nic) in spec.nics.iter().enumerate() {
            self.descriptors.push(nic.tap);
            self.option("-netdev", &format!("tap,id=net{index},fd={}", nic.tap));
            let [a, b, c, d, e, f] = nic.mac;
            self.option(
                "-device",
                &format!(
                    "virtio-net-pci,netdev=net{index},mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x},\
                     addr={:x},romfile=,disable-legacy=on",
                    2 + index
                ),
            );
        }
        for (index, share) in spec.shares.iter().enumerate() {
            self.socket(&format!("share{index}"), share.socket);
            self.option(
                "-device",
                &format!(
                    "vhost-user-fs-pci,chardev=share{index},tag={},addr={:x}",
                    share.tag,
                    2 + NICS + index
                ),
            );
        }
        for (index, disk) in spec.disks.iter().enumerate() {
            let read_only = if disk.read_only { "on" } else { "off" };
            let before = format!(
                "driver=raw,node-name=disk{index},read-only={read_only},discard=unmap,file.driver=file,\
                 file.locking=off,file.filename="
            );
            self.path("-blockdev", &before, &disk.path, !disk.read_only)?;
            let slot = 2 + NICS + SHARES + index;
            self.option(
                "-device",
                &format!(
                    "virtio-blk-pci,drive=disk{index},serial={},addr={slot:x},disable-legacy=on",
                    disk.serial
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Disk, Nic, Share};

    fn qemu(version: (u32, u32)) -> Qemu {
        Qemu { program: "/usr/bin/qemu-system-x86_64".into(), version, identity: "test".into() }
    }

    fn spec() -> VmSpec {
        VmSpec {
            kernel: "/vm/vmlinux".into(),
            initramfs: "/vm/initramfs".into(),
            accelerator: Accelerator::Tcg,
            memory_mib: 128,
            memory: Memory::Private,
            cpus: 1,
            disks: Vec::new(),
            nics: Vec::new(),
            shares: Vec::new(),
            agent: 3,
            qmp: 4,
            console: None,
            restore: false,
        }
    }

    /// One option a line.
    fn text(command: &Command) -> String {
        let words: Vec<&str> = command.arguments.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn the_least_machine() {
        let command = plan(&qemu((7, 2)), &spec(), Some(2_596_132)).unwrap();
        assert_eq!(
            text(&command),
            "-nodefaults\n-no-user-config\n-no-reboot\n-display none\n-name stanza\n\
             -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n\
             -machine microvm,acpi=on,pcie=on,pit=off,pic=off,rtc=on,usb=off,auto-kernel-cmdline=off,\
             isa-serial=on,memory-backend=ram\n\
             -cpu max,la57=off\n-accel tcg\n-m 128M\n-smp 1\n-object memory-backend-ram,id=ram,size=128M\n\
             -kernel /vm/vmlinux\n-initrd /vm/initramfs\n\
             -append panic=-1 reboot=t quiet i8042.noaux i8042.nokbd i8042.nopnp i8042.dumbkbd cryptomgr.notests \
             random.trust_cpu=on \
             initcall_blacklist=load_system_certificate_list,sed_opal_init,jent_mod_init,init_encrypted \
             console=ttyS0 tsc_early_khz=2596132 tsc=reliable no_timer_check\n\
             -chardev socket,id=qmp,fd=4\n-mon chardev=qmp,mode=control\n\
             -chardev null,id=console\n-serial chardev:console\n-chardev socket,id=agent,fd=3\n\
             -device virtio-serial-pci,id=serial,addr=1,max_ports=2,disable-legacy=on\n\
             -device virtserialport,bus=serial.0,chardev=agent,name=stanza.agent"
        );
        assert_eq!(command.descriptors, [4, 3]);
    }

    #[test]
    fn a_restored_machine_with_everything() {
        let mut spec = spec();
        spec.accelerator = Accelerator::Kvm;
        spec.memory = Memory::File("/vm/copy,1".into());
        spec.console = Some(5);
        spec.restore = true;
        spec.nics = vec![Nic { tap: 6, mac: [2, 0, 0, 0, 0, 0x1a] }];
        spec.shares = vec![Share { socket: 7, tag: "data".into() }];
        spec.disks = vec![
            Disk { path: "/vm/root.erofs".into(), read_only: true, serial: "root".into() },
            Disk { path: "/vm/upper".into(), read_only: false, serial: "upper".into() },
        ];
        let command = plan(&qemu((7, 2)), &spec, None).unwrap();
        let text = text(&command);
        let (_, devices) = text.split_once("name=stanza.agent\n").unwrap();
        assert_eq!(
            devices,
            "-netdev tap,id=net0,fd=6\n\
             -device virtio-net-pci,netdev=net0,mac=02:00:00:00:00:1a,addr=2,romfile=,disable-legacy=on\n\
             -chardev socket,id=share0,fd=7\n-device vhost-user-fs-pci,chardev=share0,tag=data,addr=a\n\
             -blockdev driver=raw,node-name=disk0,read-only=on,discard=unmap,file.driver=file,file.locking=off,\
             file.filename=/vm/root.erofs\n-device virtio-blk-pci,drive=disk0,serial=root,addr=14,disable-legacy=on\n\
             -blockdev driver=raw,node-name=disk1,read-only=off,discard=unmap,file.driver=file,file.locking=off,\
             file.filename=/vm/upper\n-device virtio-blk-pci,drive=disk1,serial=upper,addr=15,disable-legacy=on\n\
             -incoming defer"
        );
        assert!(text.contains("share=on,mem-path=/vm/copy,,1\n"), "{text}");
        assert!(text.contains("-cpu host\n-accel kvm\n"), "{text}");
        assert!(
            text.contains("-add-fd fd=5,set=1\n-chardev file,id=console,path=/dev/fdset/1,append=on\n"),
            "{text}"
        );
        assert_eq!(command.descriptors, [4, 5, 3, 6, 7]);
        let files: Vec<(&str, bool)> =
            command.files.iter().map(|file| (file.path.to_str().unwrap(), file.writable)).collect();
        assert_eq!(
            files,
            [
                ("/vm/copy,1", true),
                ("/vm/vmlinux", false),
                ("/vm/initramfs", false),
                ("/vm/root.erofs", false),
                ("/vm/upper", true),
            ]
        );
    }

    #[test]
    fn a_templates_memory_is_opened_for_reading_where_qemu_can() {
        let mut spec = spec();
        spec.memory = Memory::Template("/t/ram".into());
        let old = plan(&qemu((7, 2)), &spec, None).unwrap();
        assert!(text(&old).contains("size=128M,share=off,mem-path=/t/ram\n"));
        assert!(old.files[0].writable);
        let new = plan(&qemu((8, 2)), &spec, None).unwrap();
        assert!(text(&new).contains("size=128M,share=off,readonly=on,rom=off,mem-path=/t/ram\n"));
        assert!(!new.files[0].writable);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |change: fn(&mut VmSpec)| {
            let mut spec = spec();
            change(&mut spec);
            plan(&qemu((7, 2)), &spec, None).unwrap_err().to_string()
        };
        assert_eq!(
            refused(|spec| spec.nics = vec![Nic { tap: 5, mac: [2; 6] }; 9]),
            "a virtual machine can have at most 8 network devices, not 9"
        );
        assert_eq!(
            refused(|spec| spec.shares = vec![Share { socket: 5, tag: "a".into() }]),
            "shares need memory that is shared with their server"
        );
        assert_eq!(
            refused(|spec| {
                spec.memory = Memory::Shared;
                spec.shares = vec![Share { socket: 5, tag: "a,cache-size=1".into() }];
            }),
            "`a,cache-size=1` cannot be a share's tag: expected 1 to 35 letters, digits, `-`, `_`, `.`"
        );
        assert_eq!(
            refused(|spec| spec.cpus = 0),
            "a virtual machine needs at least 64 MiB and one processor, not 128 MiB and 0"
        );
        assert!(refused(|spec| spec.kernel = "/a\nb".into()).contains("not printable"));
    }
}
