//! Whether and how this kernel mounts our images from the store's file system: a trial, attached nowhere.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use sha2::{Digest as _, Sha256};
use stanza_spec::{Digest, ErofsWay};
use stanza_sys::mount_erofs;
use stanza_tar::{Builder, Header};

use super::{INDEX, TAR, write_layer};
use crate::ApplyError;
use crate::ingest::Ingest;

/// The content of the trial's file.
const CONTENT: &[u8] = b"trial";
const EXT4: i64 = 0xef53;

/// Writes a small layer into the store's `ingest` and mounts it; `None` when neither way works.
pub(crate) fn probe(ingest: &Path) -> io::Result<Option<ErofsWay>> {
    let ingest = Ingest::create(ingest)?;
    let home = ingest.path();
    crate::store::make_directory(home, 0o700)?;
    let mut builder = Builder::new(Vec::new());
    let header = Header { path: b"f".to_vec(), mode: 0o644, size: CONTENT.len() as u64, ..Header::default() };
    builder.append(&header, &mut &*CONTENT).map_err(io::Error::other)?;
    let tar = builder.finish().map_err(io::Error::other)?;
    let diff_id = Digest::from_hash(&Sha256::digest(&tar));
    let fail = |source| ApplyError::Store { path: home.to_owned(), source };
    write_layer(home, &diff_id, &mut &*tar, &fail).map_err(io::Error::other)?;
    let (index, tar) = (File::open(home.join(INDEX))?, File::open(home.join(TAR))?);
    let mut ways = vec![ErofsWay::File, ErofsWay::Loop];
    if rustix::fs::fstatfs(&index)?.f_type == EXT4 && dies_of_warnings() {
        // The first look-up warns since Linux 6.16: erofs reads without the lock that ext4 asks for.
        ways.remove(0);
    }
    Ok(ways.into_iter().find(|way| works(&index, &tar, *way).unwrap_or(false)))
}

fn works(index: &File, tar: &File, way: ErofsWay) -> io::Result<bool> {
    let mount = mount_erofs(index.as_fd(), tar.as_fd(), way == ErofsWay::Loop)?;
    let file = openat(&mount, "f", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(io::read_to_string(File::from(file))?.as_bytes() == CONTENT)
}

fn dies_of_warnings() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/panic_on_warn").is_ok_and(|text| text.trim() != "0")
}
