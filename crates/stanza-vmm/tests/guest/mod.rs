//! The guest of the tests and of `examples/measure.rs`: their own executable, which is static, as process 1.
//!
//! It loads the modules, opens the port `stanza.agent`, says `ready`, and answers each line with a line.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Whether this process is the guest's first.
pub(crate) fn is_guest() -> bool {
    std::process::id() == 1 && Path::new("/modules/early").exists()
}

/// Serves until told to stop; what fails is said on the console, and ends the machine.
pub(crate) fn serve() -> ! {
    if let Err(error) = answer() {
        eprintln!("guest: {error}");
    }
    let _ = reboot(RebootCommand::PowerOff);
    std::process::exit(1)
}

fn answer() -> io::Result<()> {
    fs::create_dir_all("/sys")?;
    attach("devtmpfs", "/dev", "devtmpfs", MountFlags::empty())?;
    attach("sysfs", "/sys", "sysfs", MountFlags::empty())?;
    load("/modules/early")?;
    let port = wait(agent_port)?;
    // A port can be opened once at a time.
    let mut writer = OpenOptions::new().read(true).write(true).open(&port)?;
    let mut reader = BufReader::new(writer.try_clone()?);
    writer.write_all(b"ready\n")?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            // Nobody is at the other end: the port reports the end of the file until somebody is.
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        let reply = match line.trim_end() {
            "ping" => "pong".to_owned(),
            "disk" => disk().unwrap_or_else(|error| format!("failed: {error}")),
            "late" => {
                load("/modules/late").map_or_else(|error| format!("failed: {error}"), |()| "loaded".into())
            }
            "nics" => nics()?,
            "crash" => {
                fs::create_dir_all("/proc")?;
                attach("proc", "/proc", "proc", MountFlags::empty())?;
                fs::write("/proc/sysrq-trigger", "c")?;
                "alive".to_owned()
            }
            "stop" => return Ok(()),
            other => format!("unknown: {other}"),
        };
        writer.write_all(format!("{reply}\n").as_bytes())?;
    }
}

fn attach(source: &str, target: &str, kind: &str, flags: MountFlags) -> io::Result<()> {
    mount(source, target, kind, flags, None)
        .map_err(|error| io::Error::other(format!("mount {target}: {error}")))
}

fn load(list: &str) -> io::Result<()> {
    for name in fs::read_to_string(list)?.lines() {
        let file = File::open(Path::new("/modules").join(name))?;
        finit_module(&file, &CString::default(), 0)
            .map_err(|error| io::Error::other(format!("load {name}: {error}")))?;
    }
    Ok(())
}

fn agent_port() -> io::Result<Option<PathBuf>> {
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == "stanza.agent") {
            return Ok(Some(Path::new("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}

fn wait<T>(mut look: impl FnMut() -> io::Result<Option<T>>) -> io::Result<T> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a device did not appear"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Finds devices that came after the start, mounts the first disk, and gives the content of `hello` on it.
fn disk() -> io::Result<String> {
    fs::write("/sys/bus/pci/rescan", "1")?;
    wait(|| Ok(Path::new("/dev/vda").exists().then_some(())))?;
    fs::create_dir_all("/disk")?;
    attach("/dev/vda", "/disk", "erofs", MountFlags::RDONLY)?;
    Ok(fs::read_to_string("/disk/hello")?.trim().to_owned())
}

/// The addresses of the network devices, after looking for new ones.
fn nics() -> io::Result<String> {
    fs::write("/sys/bus/pci/rescan", "1")?;
    let mut addresses = Vec::new();
    for nic in fs::read_dir("/sys/class/net")? {
        let nic = nic?;
        if nic.file_name() != "lo" {
            addresses.push(fs::read_to_string(nic.path().join("address"))?.trim().to_owned());
        }
    }
    addresses.sort();
    Ok(addresses.join(" "))
}
