//! This program's own file, kept from being changed by a container.
//!
//! A process of a container can reach the program file of whoever enters the container (`/proc/PID/exe`, or an entry
//! point `#!/proc/self/exe`), and root in it could overwrite the file on the host (CVE-2019-5736). So every process that
//! touches a container runs from a read-only clone of the mount that the file is on, or where that is not allowed, from
//! a sealed copy in memory.
//!
//! `stanza-oci` does the same before its C library starts (`stanza-sys`, `entry.rs`).

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{
    CWD, MemfdFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals, fstatvfs, memfd_create,
};
use rustix::mount::{OpenTreeFlags, open_tree};
use stanza_sys::{MountAttributes, mount_set_attributes};

const EXECUTABLE: &str = "/proc/self/exe";

/// This program, as a file that cannot be written through.
///
/// # Errors
/// Without `/proc`, or without memory for a copy.
pub fn protected_executable() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if let Ok(tree) = open_tree(CWD, EXECUTABLE, flags) {
        let attributes = MountAttributes { set: MountAttributes::READ_ONLY, ..MountAttributes::default() };
        if mount_set_attributes(tree.as_fd(), c"", false, &attributes).is_ok() {
            return Ok(tree);
        }
    }
    let copy = memfd_create("stanza", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    io::copy(&mut File::open(EXECUTABLE)?, &mut File::from(copy.try_clone()?))?;
    fcntl_add_seals(&copy, ALL_SEALS)?;
    Ok(copy)
}

const ALL_SEALS: SealFlags =
    SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Whether nobody can write through `file`.
fn is_protected(file: impl AsFd) -> io::Result<bool> {
    let read_only = fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(read_only || fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(ALL_SEALS)))
}

/// Runs this program again from the beginning with the same arguments, from a file that cannot be written through; returns
/// when it runs from one already.
///
/// # Errors
/// When that cannot be done: then this process must not enter a container.
pub fn run_protected() -> io::Result<()> {
    if is_protected(File::open(EXECUTABLE)?)? {
        return Ok(());
    }
    let program = protected_executable()?;
    let mut words = env::args_os();
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    Err(command.args(words).exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protected_file_is_this_one_and_cannot_be_written_through() {
        let program = protected_executable().unwrap();
        assert!(is_protected(&program).unwrap());
        let itself = File::open(EXECUTABLE).unwrap();
        assert!(!is_protected(&itself).unwrap());
        let path = format!("/proc/self/fd/{}", program.as_raw_fd());
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(EXECUTABLE).unwrap());
    }
}
