//! A terminal for a container's process, from the container's own devpts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use stanza_sys::Handle;

use crate::root::Root;

/// Both ends of a new terminal.
pub(crate) struct Terminal {
    pub(crate) controller: Handle,
    pub(crate) user: OwnedFd,
}

/// Opens a terminal in the devpts of `root`. The user end comes from the controller itself (`TIOCGPTPEER`), so that no
/// name under /dev/pts is trusted (CVE-2025-52565).
pub(crate) fn open(root: &Root, size: Option<(u16, u16)>) -> io::Result<Terminal> {
    let controller = root.open(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY)?;
    let stat = rustix::fs::fstat(&controller)?;
    if (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) != (5, 2) {
        return Err(io::Error::from(rustix::io::Errno::NOTTY));
    }
    unlockpt(&controller)?;
    let user =
        ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if let Some((rows, columns)) = size {
        tcsetwinsize(
            controller.as_fd(),
            Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 },
        )?;
    }
    Ok(Terminal { controller, user })
}
