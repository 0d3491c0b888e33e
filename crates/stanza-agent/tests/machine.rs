//! The agent as what it is made for: the first process of a machine that QEMU emulates. Needs root, QEMU, `mkfs.erofs`, `mkfs.ext4` and an
//! unpacked package of Debian's cloud kernel 6.1 in `STANZA_GUEST_KERNEL`:
//!
//! ```text
//! apt-get download linux-image-6.1.0-56-cloud-amd64 && dpkg-deb -x linux-image-*.deb kernel
//! STANZA_GUEST_KERNEL=$PWD/kernel cargo test -p stanza-agent --test machine -- --ignored --nocapture
//! ```

#![allow(clippy::print_stdout, reason = "it measures, too")]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Fixture, agent, container, exec, root_directory};
use stanza_agent::{
    Disk, DiskMount, Event, ExitStatus, FileSystem, Guest, GuestAddress, GuestConfig, Hex, Interface, Root,
    Route, Upper,
};

/// In the order in which they are loaded.
const EARLY: [&str; 4] = ["virtio_ring", "virtio", "virtio_mmio", "virtio_console"];
const LATE: [&str; 7] =
    ["virtio_blk", "libcrc32c", "erofs", "failover", "net_failover", "virtio_net", "overlay"];

/// Where a volume is in the guest.
const VOLUME: &str = "/run/stanza/volumes/one";

const MAC: &str = "02:42:0a:4d:00:02";

/// One entry of an archive in the form `newc`.
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let name_size = u32::try_from(name.len() + 1).unwrap();
    let size = u32::try_from(content.len()).unwrap();
    archive.extend_from_slice(b"070701");
    for field in [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

fn module(kernel: &Path, name: &str) -> Vec<u8> {
    let found = Command::new("find").arg(kernel).args(["-name", &format!("{name}.ko")]).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    fs::read(path.trim()).unwrap_or_else(|error| panic!("the module {name}: {error}"))
}

fn initramfs(kernel: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    for directory in ["dev", "proc", "sys", "run", "modules"] {
        entry(&mut archive, directory, 0o40755, b"");
    }
    entry(&mut archive, "init", 0o100_755, &fs::read(agent()).unwrap());
    for (list, names) in [("early", &EARLY[..]), ("late", &LATE[..])] {
        for name in names {
            entry(&mut archive, &format!("modules/{name}.ko"), 0o100_644, &module(kernel, name));
        }
        let lines: String = names.iter().flat_map(|name| [*name, ".ko\n"]).collect();
        entry(&mut archive, &format!("modules/{list}"), 0o100_644, lines.as_bytes());
    }
    entry(&mut archive, "TRAILER!!!", 0, b"");
    println!("initramfs: {} KiB", archive.len() >> 10);
    archive
}

/// A disk with busybox on it, and an empty one.
fn disks(place: &Path) -> (PathBuf, PathBuf) {
    let (root, image, volume) = (root_directory(), place.join("image.erofs"), place.join("volume.ext4"));
    let erofs = Command::new("mkfs.erofs").arg(&image).arg(root.path()).output().unwrap();
    assert!(erofs.status.success(), "{erofs:?}");
    let ext4 = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&volume).arg("8M").output().unwrap();
    assert!(ext4.status.success(), "{ext4:?}");
    (image, volume)
}

fn machine(channel: UnixStream, kernel: &Path, place: &Path) -> std::process::Child {
    fs::write(place.join("initramfs"), initramfs(kernel)).unwrap();
    let vmlinuz = fs::read_dir(kernel.join("boot")).unwrap().map(|entry| entry.unwrap().path());
    let vmlinuz = vmlinuz.into_iter().find(|path| path.to_string_lossy().contains("vmlinuz")).unwrap();
    let (image, volume) = disks(place);
    let words = "console=ttyS0 tsc_early_khz=2600000 tsc=reliable no_timer_check panic=-1 loglevel=4";
    Command::new("qemu-system-x86_64")
        .args(["-M", "microvm,acpi=on", "-accel", "tcg", "-cpu", "max", "-m", "192M", "-nodefaults"])
        .args(["-no-user-config", "-no-reboot", "-display", "none", "-append", words, "-kernel"])
        .arg(vmlinuz)
        .arg("-initrd")
        .arg(place.join("initramfs"))
        .arg("-serial")
        .arg(format!("file:{}", place.join("console").display()))
        .args(["-device", "virtio-serial-device", "-chardev", "socket,id=agent,fd=0"])
        .args(["-device", "virtserialport,chardev=agent,name=stanza.agent", "-drive"])
        .arg(format!("if=none,id=image,format=raw,readonly=on,file={}", image.display()))
        .args(["-device", "virtio-blk-device,drive=image,serial=image", "-drive"])
        .arg(format!("if=none,id=volume,format=raw,file={}", volume.display()))
        .args(["-device", "virtio-blk-device,drive=volume,serial=volume"])
        .args(["-netdev", "user,id=net,restrict=on", "-device"])
        .arg(format!("virtio-net-device,netdev=net,mac={MAC}"))
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .spawn()
        .unwrap()
}

fn config() -> GuestConfig {
    let disk = Disk { serial: "image".to_owned(), file_system: FileSystem::Erofs };
    let volume = Disk { serial: "volume".to_owned(), file_system: FileSystem::Ext4 };
    let interface = Interface {
        mac: MAC.to_owned(),
        name: "eth0".to_owned(),
        mtu: Some(1400),
        addresses: vec![("10.77.0.2".parse().unwrap(), 24), ("fd77::2".parse().unwrap(), 64)],
        routes: vec![
            Route { to: ("0.0.0.0".parse().unwrap(), 0), gateway: Some("10.77.0.1".parse().unwrap()) },
            Route { to: ("::".parse().unwrap(), 0), gateway: Some("fd77::1".parse().unwrap()) },
        ],
    };
    GuestConfig {
        entropy: Hex(vec![42; 64]),
        clock: Some((2_000_000_000, 0)),
        hostname: Some("guest".to_owned()),
        machine_id: Some("0123456789abcdef0123456789abcdef".to_owned()),
        root: Root::Overlay { lower: disk, upper: Upper::Memory(Some(8 << 20)) },
        disks: vec![DiskMount { disk: volume, target: VOLUME.into(), read_only: false }],
        interfaces: vec![interface],
        sysctls: BTreeMap::from([("net/ipv4/ip_forward".to_owned(), "1".to_owned())]),
        dns_relay: true,
        ..GuestConfig::default()
    }
}

fn wait(guest: &mut Fixture, place: &Path, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
    let console = || fs::read_to_string(place.join("console")).unwrap_or_default();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guest.wait(what, wanted)));
    done.unwrap_or_else(|_| panic!("the console: {}", console()))
}

/// Answers the next query with 10.77.0.9; both messages.
fn answer_one(guest: &mut Fixture, place: &Path) -> (Vec<u8>, Vec<u8>) {
    let asked = wait(guest, place, "asked", |event| matches!(event, Event::Query { .. }));
    let Event::Query { query, message } = asked else { unreachable!("it was looked for") };
    let mut answer = message.clone();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[7] = 1;
    answer.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\x4d\0\x09");
    guest.guest.answer(query, &answer);
    (message, answer)
}

#[test]
#[ignore = "needs QEMU and a kernel: see above"]
fn a_machine_boots_to_the_agent_runs_a_container_and_powers_off() {
    let kernel = PathBuf::from(std::env::var_os("STANZA_GUEST_KERNEL").expect("STANZA_GUEST_KERNEL is set"));
    let place = tempfile::tempdir().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let start = Instant::now();
    let child = machine(theirs, &kernel, place.path());
    let mut guest = Fixture::of(Guest::new(ours).unwrap(), child);
    let ready = wait(&mut guest, place.path(), "ready", |event| matches!(event, Event::Ready { .. }));
    println!("{ready:?} after {:?}", start.elapsed());

    guest.guest.configure(config()).unwrap();
    let script = "hostname; date +%s; cat /proc/1/cgroup; ip -o addr show dev eth0; ip route; ip -6 route; \
        cat /proc/sys/net/ipv4/ip_forward /sys/class/net/eth0/mtu; echo written > /file; cat /file; ls /sys/fs/cgroup | head -1; \
        cat /sys/fs/cgroup/memory.max; grep -E ' (/|/volume) ' /proc/mounts | cut -d ' ' -f 1-3; touch /volume/x";
    let mut plan = container(&["sh", "-c", &format!("{script}; exec sleep 1000")]);
    common::as_in_a_machine(&mut plan.spec, VOLUME);
    guest.guest.create(1, plan).unwrap();
    let start = Instant::now();
    let configured = wait(&mut guest, place.path(), "configured", |event| {
        matches!(event, Event::Configured | Event::NotConfigured(_))
    });
    println!("{configured:?} after {:?}", start.elapsed());
    assert_eq!(configured, Event::Configured);
    guest.started(1);
    println!("the container runs after {:?}", start.elapsed());

    let mut times = Vec::new();
    for task in 2..22 {
        let start = Instant::now();
        assert_eq!(guest.exec(task, &["true"]).status, ExitStatus::Code(0));
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("exec true: median {:?}", times[10]);
    let text = String::from_utf8(guest.take_output(1)).unwrap();
    println!("{text}");
    for part in [
        "guest\n2000000",
        "0::/\n",
        "inet 10.77.0.2/24 brd 10.77.0.255",
        "inet6 fd77::2/64",
        "default via 10.77.0.1 dev eth0",
        "default via fd77::1 dev eth0",
        "1\n1400\nwritten\ncgroup.controllers\n67108864\n",
        "overlay / overlay\n",
        "/dev/vdb /volume ext4\n",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }

    // A name is asked for inside, and answered here; then the same by connections that are made from here.
    guest.guest.exec(30, exec(&["nslookup", "-type=a", "name.test", "127.0.0.11"])).unwrap();
    let (question, answer) = answer_one(&mut guest, place.path());
    assert!(guest.finish(30).text().contains("10.77.0.9"));
    let resolver = "127.0.0.11:53".parse().unwrap();
    let prefixed = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    for (task, address, asked, wanted) in [
        (31, GuestAddress::Udp(resolver), question.clone(), answer.clone()),
        (32, GuestAddress::Tcp(resolver), prefixed(&question), prefixed(&answer)),
    ] {
        guest.guest.dial(task, address).unwrap();
        guest.started(task);
        assert_eq!(guest.guest.write_stdin(task, &asked), asked.len());
        answer_one(&mut guest, place.path());
        wait(
            &mut guest,
            place.path(),
            "answered",
            |event| matches!(event, Event::Output { task: of, bytes, .. } if *of == task && *bytes == wanted),
        );
        guest.guest.close_stdin(task);
        assert_eq!(guest.finish(task).status, ExitStatus::Code(0));
    }
    guest.guest.dial(33, GuestAddress::Tcp("127.0.0.1:1".parse().unwrap())).unwrap();
    wait(&mut guest, place.path(), "refused", |event| matches!(event, Event::Failed { task: 33, .. }));

    // Too much memory ends the process, and is told.
    let plan = exec(&["dd", "if=/dev/zero", "of=/dev/null", "bs=150M", "count=1"]);
    guest.guest.exec(40, plan).unwrap();
    let exited =
        wait(&mut guest, place.path(), "ended", |event| matches!(event, Event::Exited { task: 40, .. }));
    assert!(matches!(exited, Event::Exited { oom_killed: true, .. }), "{exited:?}");
    guest.guest.stats().unwrap();
    let stats = wait(&mut guest, place.path(), "told", |event| matches!(event, Event::Stats(_)));
    let Event::Stats(Ok(stats)) = stats else { panic!("{stats:?}") };
    println!("{stats:?}");
    assert!(stats.container.memory.is_some_and(|memory| memory.limit == Some(64 << 20)));

    guest.guest.shutdown().unwrap();
    let start = Instant::now();
    while guest.turn().is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "the machine does not end");
    }
    assert!(guest.child.wait().unwrap().success());
    println!("powered off after {:?}", start.elapsed());
    let console = fs::read_to_string(place.path().join("console")).unwrap();
    println!("console:\n{console}");
}
