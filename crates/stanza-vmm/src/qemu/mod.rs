//! The QEMU back end: found on the host, driven by its command line and by QMP.

mod command;
mod find;
mod machine;
mod process;

pub use command::{Command, CommandError, DISKS, NICS, NeededFile, SHARES, plan_command};
pub use find::{FindError, PROGRAM, Qemu, installed};
pub use machine::host_tsc_khz;
pub use process::BootError;
pub(crate) use process::Process;
