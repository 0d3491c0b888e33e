//! The system calls that `rustix` lacks, as thin typed functions. Nearly all `unsafe` of stanza is here.
//!
//! Each function makes one system call (or one short fixed sequence), turns its result into an `io::Result`, and
//! decides nothing. What can be done with `rustix` is done with `rustix`, not here.

pub mod bpf;
mod clone;
mod counter;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod entry;
mod erofs;
mod exec;
mod handle;
mod helper;
mod keyring;
mod lock;
mod loop_device;
mod loopback;
mod mount;
mod pages;
mod pass;
mod proc;
mod random;
mod scheduling;
mod seccomp;
mod seccomp_notify;
mod signal;
mod tap;
mod time;
mod usage;

pub use clone::{CloneFlags, Cloned, clone_process, unshare};
pub use counter::SharedCounter;
pub use erofs::mount_erofs;
pub use exec::{
    CStringArray, close_descriptors_from, execute, keep_across_exec, keep_only, set_close_on_exec_from,
};
pub use handle::Handle;
pub use helper::as_helper;
pub use keyring::join_session_keyring;
pub use lock::{is_locked, lock_exclusive, try_lock_exclusive};
pub use loop_device::attach_loop;
pub use loopback::bring_up_loopback;
pub use mount::{MountAttributes, mount_set_attributes};
pub use pages::release_program_pages;
pub use pass::{DESCRIPTORS_AT_ONCE, receive_descriptors, send_descriptors};
pub use proc::read_proc;
pub use random::add_entropy;
pub use scheduling::{
    SchedulingAttributes, set_io_priority, set_memory_policy, set_personality, set_scheduling,
};
pub use seccomp::{install_seccomp, seccomp_takes};
pub use seccomp_notify::{HeldCall, answer_with_descriptor, next_held_call};
pub use signal::{
    SignalDescriptor, SignalRecord, exit_process, ignore_broken_pipes, reset_signals, signal_process,
};
pub use tap::create_tap;
pub use time::{ProcessStatus, boot_id, process_start_time, process_status, realtime};
pub use usage::{Ended, wait_with_usage};

/// Makes `$main`, which returns an exit code, the `main` of a program that does without the set-up of Rust's standard library:
/// no guard page handler, no look at the standard descriptors, and SIGPIPE as it was. For `#![no_main]`.
#[macro_export]
macro_rules! plain_main {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(_: i32, _: *const *const u8) -> i32 {
            $main()
        }
    };
}

use std::io;

/// The result of a raw system call as `io::Result`.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
