//! Directories and files of the host in the guest: each has a server of its own (`virtiofsd`), which sees nothing else of the
//! host.
//!
//! What is to be only read is mounted read-only for the server: the guest has no say in it. A server that ends takes its
//! container with it, as a disk that is torn out: the guest would wait for it forever.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use stanza_container::{Attendant, CgroupEntry, Init, Launch, Manner, launch};
use stanza_spec::Rootfs;
use stanza_vmm::Virtiofsd;

use super::kind::refused;
use super::{guest, start, walls};
use crate::frame::Refusal;
use crate::plan::SandboxPlan;

/// Where a server has what it serves.
const SERVED: &str = "/share";
/// The name of a single file in there.
const FILE: &str = "file";
/// Where the guest has all of them.
const SHARES: &str = "/run/stanza/shares";
/// The longest file of the host's that is sent into a guest; longer ones are served.
pub(super) const LONGEST_FILE: u64 = 1 << 20;

/// File systems whose files are the kernel's words.
const KERNEL_FILES: [&str; 12] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devtmpfs",
    "devpts",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "efivarfs",
    "bpf",
];

/// A mount of the container whose files stay on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    number: usize,
    source: PathBuf,
    destination: PathBuf,
    read_only: bool,
    is_file: bool,
}

impl Shared {
    /// All of a container's. Short files that are only read are none: the guest gets copies.
    pub(super) fn of(plan: &SandboxPlan) -> Result<Vec<Shared>, Refusal> {
        let mut shares = Vec::new();
        for mount in plan.spec.mounts().iter().flatten() {
            let Some(source) = guest::bound(mount) else { continue };
            let failed =
                |error: io::Error| Refusal::of_io(&format!("failed to read `{}`", source.display()), &error);
            let found = fs::metadata(&source).map_err(failed)?;
            let options = mount.options().as_deref().unwrap_or_default();
            let read_only = options.iter().any(|option| option == "ro");
            let own = source.starts_with(&plan.state_dir);
            if found.is_file() && found.len() <= LONGEST_FILE && (read_only || own) {
                continue;
            }
            if !found.is_dir() && !found.is_file() {
                return Err(Refusal {
                    message: format!(
                        "`{}` cannot be mounted in a virtual machine: expected a directory or a regular file",
                        source.display()
                    ),
                    kind: "unsupported".to_owned(),
                    hint: Some("use `--isolation container`".to_owned()),
                });
            }
            refuse_kernel_files(&source)?;
            shares.push(Shared {
                number: shares.len(),
                source,
                destination: mount.destination().clone(),
                read_only,
                is_file: found.is_file(),
            });
        }
        Ok(shares)
    }

    pub(super) fn tag(&self) -> String {
        format!("share{}", self.number)
    }

    pub(super) fn read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn is_for(&self, destination: &Path) -> bool {
        self.destination == destination
    }

    fn target(&self) -> PathBuf {
        Path::new(SHARES).join(self.number.to_string())
    }

    /// What the container mounts.
    pub(super) fn path_in_guest(&self) -> PathBuf {
        if self.is_file { self.target().join(FILE) } else { self.target() }
    }

    pub(super) fn in_guest(&self) -> stanza_agent::Share {
        stanza_agent::Share { tag: self.tag(), target: self.target(), read_only: self.read_only }
    }
}

/// A server of files has no business in what is no file but a word with this machine's kernel.
fn refuse_kernel_files(source: &Path) -> Result<(), Refusal> {
    let failed = |error: io::Error| {
        Refusal::of_io(&format!("failed to find what is mounted in `{}`", source.display()), &error)
    };
    let source = fs::canonicalize(source).map_err(failed)?;
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    match kernel_mount(&table, &source) {
        None => Ok(()),
        Some((point, kind)) => Err(Refusal {
            message: format!(
                "`{}` cannot be mounted in a virtual machine: `{}` in it is this machine's {kind}",
                source.display(),
                point.display()
            ),
            kind: "unsupported".to_owned(),
            hint: Some("mount a directory without it, or use `--isolation container`".to_owned()),
        }),
    }
}

/// The first mount of a kernel's own that `source` is in, or that is in it, in a table as in `/proc/self/mountinfo`.
fn kernel_mount(table: &str, source: &Path) -> Option<(PathBuf, String)> {
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = unescape(before.split(' ').nth(4)?);
        Some((PathBuf::from(point), after.split(' ').next()?.to_owned()))
    });
    let mounts: Vec<(PathBuf, String)> = mounts.collect();
    let around = mounts.iter().filter(|(point, _)| source.starts_with(point));
    // Of those at one place the last is what is seen.
    let here = around.max_by_key(|(point, _)| point.components().count());
    let inside = mounts.iter().filter(|(point, _)| point.starts_with(source));
    here.into_iter().chain(inside).find(|(_, kind)| KERNEL_FILES.contains(&kind.as_str())).cloned()
}

/// Undoes the octal escapes of a mount table.
fn unescape(text: &str) -> String {
    ["\\040 ", "\\011\t", "\\012\n", "\\134\\"].iter().fold(text.to_owned(), |text, pair| {
        let (from, to) = pair.split_at(4);
        text.replace(from, to)
    })
}

/// The servers of one machine.
#[derive(Debug, Default)]
pub(super) struct Servers {
    running: Vec<(PathBuf, Init)>,
}

struct Alone;

impl Attendant for Alone {
    fn attach(&mut self, _pid: Pid) -> Result<(), String> {
        Ok(())
    }
}

impl Servers {
    /// Starts one for each share; gives the machine's ends of their sockets.
    pub(super) fn start(
        &mut self,
        plan: &SandboxPlan,
        shares: &[Shared],
        cgroup: &dyn Fn() -> io::Result<CgroupEntry>,
        console: &File,
    ) -> Result<Vec<OwnedFd>, Refusal> {
        if shares.is_empty() {
            return Ok(Vec::new());
        }
        let server =
            Virtiofsd::find().map_err(|error| refused("failed to find the server of mounts", &error))?;
        let failed = |what: &'static str| move |error: io::Error| Refusal::of_io(what, &error);
        let mut sockets = Vec::new();
        for share in shares {
            let root = plan.run_dir.join(share.tag());
            walls::make_root(&root).map_err(failed("failed to make a server's directory"))?;
            let (socket, listener) =
                connected(&plan.run_dir).map_err(failed("failed to make a server's socket"))?;
            let command = server.serve(SERVED, listener.as_raw_fd());
            let inside = if share.is_file { Path::new(SERVED).join(FILE) } else { PathBuf::from(SERVED) };
            let init = launch(Launch {
                spec: &walls::server_spec(&command, &share.source, &inside, share.read_only),
                rootfs: &Rootfs::Directory(root),
                copy_up: &[],
                filter: None,
                landlock: None,
                cgroup: cgroup().map_err(failed("failed to open the control groups"))?,
                stdio: start::stdio(console).map_err(failed("failed to open /dev/null"))?,
                manner: Manner { handed: vec![listener], ..Manner::default() },
                attendant: &mut Alone,
            })
            .map_err(|error| Refusal::of(&error))?;
            self.running.push((share.destination.clone(), init));
            sockets.push(socket);
        }
        Ok(sockets)
    }

    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    pub(super) fn watch<'a>(&'a self, descriptors: &mut Vec<PollFd<'a>>) {
        descriptors.extend(self.running.iter().map(|(_, init)| PollFd::new(&init.pidfd, PollFlags::IN)));
    }

    /// The mount whose server has ended, by what happened to the descriptors that [`Servers::watch`] added.
    pub(super) fn dead(&self, ready: &[PollFlags]) -> Option<&Path> {
        let ended = self.running.iter().zip(ready).find(|(_, flags)| flags.contains(PollFlags::IN));
        ended.map(|((destination, _), _)| destination.as_path())
    }

    pub(super) fn kill(&self) {
        for (_, init) in &self.running {
            let _ = stanza_sys::signal_process(init.pidfd.as_fd(), 9);
            let id = WaitId::PidFd(init.pidfd.as_fd());
            while let Err(rustix::io::Errno::INTR) = waitid(id.clone(), WaitIdOptions::EXITED) {}
        }
    }
}

impl Drop for Servers {
    /// A machine that did not come to be leaves no servers.
    fn drop(&mut self) {
        self.kill();
    }
}

/// A listening socket with one connection, and that connection. Its name is gone before anybody could use it: servers
/// accept, they take no connection.
fn connected(directory: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let held = File::open(directory)?;
    // The directory's own path may be too long for a socket's.
    let path = PathBuf::from(format!("/proc/self/fd/{}/share.sock", held.as_raw_fd()));
    let listener = UnixListener::bind(&path)?;
    let socket = UnixStream::connect(&path);
    fs::remove_file(&path)?;
    Ok((socket?.into(), listener.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
        2 1 0:5 / /proc rw shared:1 - proc proc rw\n\
        3 1 0:6 / /srv/a\\040b/sys rw - sysfs sysfs rw\n\
        4 1 8:2 / /srv/data rw - ext4 /dev/sdb rw\n";

    fn found(source: &str) -> Option<String> {
        kernel_mount(TABLE, Path::new(source)).map(|(_, kind)| kind)
    }

    #[test]
    fn the_kernels_files_are_found_round_a_source_and_in_it() {
        assert_eq!(found("/proc/sys").as_deref(), Some("proc"));
        assert_eq!(found("/").as_deref(), Some("proc"));
        assert_eq!(found("/srv/a b").as_deref(), Some("sysfs"));
        assert_eq!(found("/srv/data"), None);
        assert_eq!(found("/procession"), None);
    }
}
