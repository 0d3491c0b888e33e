//! Connecting to something inside.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::Pid;

use super::streams::{Flavour, Input, Output};
use super::task::{Task, What};
use crate::wire::{GuestAddress, Stream, TaskId};

/// Starts to connect; `init` is the container's first process, in whose root paths are.
pub(super) fn dial(id: TaskId, address: &GuestAddress, init: Option<Pid>) -> io::Result<Task> {
    let (socket, flavour) = match address {
        GuestAddress::Tcp(address) => (open(*address, SocketType::STREAM)?, Flavour::Socket),
        GuestAddress::Udp(address) => (open(*address, SocketType::DGRAM)?, Flavour::Datagrams),
        GuestAddress::Unix(path) => (open_unix(path, init)?, Flavour::Socket),
    };
    let duplicate = |socket: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(socket, 3);
    let outputs = vec![Output::new(duplicate(&socket)?, Stream::Output, flavour)?];
    let input = Input::new(Some(duplicate(&socket)?), flavour);
    Ok(Task { id, what: What::Connection { connecting: Some(socket) }, input, outputs })
}

/// Whether a socket is connected by now.
pub(super) fn connected(socket: &OwnedFd) -> io::Result<bool> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&now))? == 0 {
        return Ok(false);
    }
    sockopt::socket_error(socket)?.map_err(io::Error::from)?;
    Ok(true)
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn open(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, FLAGS, None)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

fn open_unix(path: &Path, init: Option<Pid>) -> io::Result<OwnedFd> {
    let init = init.ok_or(io::ErrorKind::NotFound)?;
    let root = format!("/proc/{}/root", init.as_raw_nonzero());
    let root = openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Links are the container's.
    let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))?;
    connect(&socket, &address)?;
    Ok(socket)
}
