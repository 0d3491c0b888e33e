//! `bpf(2)`, for one purpose: the program that decides about device nodes in a cgroup of version 2.
//!
//! Numbers are those of `linux/bpf.h`, which never change. The kernel takes a union of structures; here it is a row
//! of zeroed 64-bit words, filled at the offsets that each command's structure has.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`, the place to attach to.
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// The most programs that [`query_device_programs`] tells; the kernel allows 64 on one cgroup.
const MAX_PROGRAMS: usize = 64;

/// A loaded program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
#[derive(Debug)]
pub struct DeviceProgram(OwnedFd);

impl AsFd for DeviceProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `union bpf_attr`: 16 words cover every structure used here.
struct Attributes([u64; 16]);

impl Attributes {
    fn new() -> Attributes {
        Attributes([0; 16])
    }

    /// Sets the 32-bit field at byte `offset`.
    fn word(mut self, offset: usize, value: u32) -> Attributes {
        let half = usize::from(!offset.is_multiple_of(8));
        let mut halves = split(self.0[offset / 8]);
        halves[half] = value;
        self.0[offset / 8] = join(halves);
        self
    }

    /// Sets the 64-bit field at byte `offset` to an address.
    fn address<T>(mut self, offset: usize, pointer: *const T) -> Attributes {
        self.0[offset / 8] = pointer.addr() as u64;
        self
    }

    fn descriptor(self, offset: usize, descriptor: BorrowedFd<'_>) -> Attributes {
        self.word(offset, descriptor.as_raw_fd().cast_unsigned())
    }

    /// The 32-bit field at byte `offset`.
    fn read(&self, offset: usize) -> u32 {
        split(self.0[offset / 8])[usize::from(!offset.is_multiple_of(8))]
    }
}

/// The two 32-bit fields that lie in a word, in the order of their addresses.
fn split(word: u64) -> [u32; 2] {
    let bytes = word.to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    [half(0), half(4)]
}

fn join([first, second]: [u32; 2]) -> u64 {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

/// Makes the system call.
///
/// # Safety
/// Every address in `attributes` must point to memory that lives through the call and is of the kind and length that
/// `command` has for it; where the kernel writes, nobody else may hold a reference.
unsafe fn call(command: libc::c_int, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    let size = size_of_val(&attributes.0);
    // SAFETY: the words are ours and `size` long; the caller vouches for the addresses in them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.0.as_mut_ptr(), size) };
    super::check(result)
}

/// A descriptor that the kernel has just made.
fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = libc::c_int::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: called only with the result of a command that gives a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Loads a device program of whole 64-bit `struct bpf_insn`, after the kernel has verified it.
///
/// # Errors
/// `EINVAL` or `EACCES` when the verifier refuses it, `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` (or
/// `CAP_SYS_ADMIN`).
pub fn load_device_program(instructions: &[u64]) -> io::Result<DeviceProgram> {
    let count = u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let license = c"Apache-2.0";
    let mut attributes = Attributes::new()
        .word(0, TYPE_CGROUP_DEVICE)
        .word(4, count)
        .address(8, instructions.as_ptr())
        .address(16, license.as_ptr())
        .word(68, CGROUP_DEVICE);
    // SAFETY: `instructions` holds `count` instructions and `license` ends in NUL; the kernel only reads both.
    let result = unsafe { call(PROG_LOAD, &mut attributes) }?;
    descriptor(result).map(DeviceProgram)
}

/// Attaches a program to a cgroup beside others of its parents and itself (all of them must allow), or in the place
/// of `replaced`, which no access can slip through. `cgroup` is an open directory of a cgroup2 file system.
///
/// # Errors
/// `EPERM` without the right or when a parent's program was attached as final, `ENOENT` when `replaced` is not there.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: &DeviceProgram,
    replaced: Option<&DeviceProgram>,
) -> io::Result<()> {
    let mut attributes = Attributes::new()
        .descriptor(0, cgroup)
        .descriptor(4, program.as_fd())
        .word(8, CGROUP_DEVICE)
        .word(12, ALLOW_MULTI);
    if let Some(replaced) = replaced {
        attributes = attributes.word(12, ALLOW_MULTI | REPLACE).descriptor(16, replaced.as_fd());
    }
    // SAFETY: this command has no addresses.
    unsafe { call(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Detaches a program from a cgroup.
///
/// # Errors
/// `ENOENT` when it is not attached there.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: &DeviceProgram) -> io::Result<()> {
    let mut attributes =
        Attributes::new().descriptor(0, cgroup).descriptor(4, program.as_fd()).word(8, CGROUP_DEVICE);
    // SAFETY: this command has no addresses.
    unsafe { call(PROG_DETACH, &mut attributes) }.map(drop)
}

/// The programs attached to this very cgroup.
///
/// # Errors
/// `EPERM` without the right.
pub fn query_device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<DeviceProgram>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let room = u32::try_from(ids.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut attributes = Attributes::new()
        .descriptor(0, cgroup)
        .word(4, CGROUP_DEVICE)
        .address(16, ids.as_mut_ptr())
        .word(24, room);
    // SAFETY: `ids` has room for the number of ids that the attributes say, and nothing else refers to it now.
    unsafe { call(PROG_QUERY, &mut attributes) }?;
    let count = usize::try_from(attributes.read(24)).unwrap_or(0).min(MAX_PROGRAMS);
    ids[..count].iter().map(|id| program_by_id(*id)).collect()
}

fn program_by_id(id: u32) -> io::Result<DeviceProgram> {
    let mut attributes = Attributes::new().word(0, id);
    // SAFETY: this command has no addresses.
    let result = unsafe { call(PROG_GET_FD_BY_ID, &mut attributes) }?;
    descriptor(result).map(DeviceProgram)
}
