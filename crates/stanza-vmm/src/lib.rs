//! Starting a virtual machine: a kernel, its first files, a monitor (QEMU), and templates from which one goes on without
//! booting. What runs in it is not known here.
//!
//! ```text
//!  KernelFiles::find ─▶ Kernel::prepare ─▶ Boot::prepare(agent) ─┬─▶ Accelerator::choose
//!  Qemu::find ───────────────────────────────────────────────────┤
//!                                                                └─▶ Template::ensure ─▶ Memory::Template(ram)
//!  VmSpec ─ plan_command ─▶ Command {program, arguments, files, descriptors} ─ the caller starts it, confined ─▶ Qmp
//!                                                              Template::restore(qmp): the agent goes on ◀──┘
//! ```
//!
//! Invariants
//! * A plan is data: [`plan_command`] touches nothing. The caller starts what it says, behind walls of its own.
//! * Whatever is kept (`store.rs` draws it) appears whole, by one rename, and what a killed process left is cleared by the
//!   next that makes something.
//! * Kernels, packages, modules, a template's files and QEMU's answers are read with limits, and may be corrupt or hostile.
//!
//! Measured with Debian's 6.12 cloud kernel, QEMU 7.2, emulated, 128 MiB (`examples/measure.rs`): see `docs/vm.md`.

#![forbid(unsafe_code)]

mod accelerator;
mod boot;
mod bounded;
mod compression;
mod initramfs;
mod kernel;
mod modules;
mod qemu;
mod qmp;
mod spec;
mod store;
mod template;
mod virtiofsd;

pub use accelerator::Choice;
pub use boot::{Agent, Boot, BootFilesError};
pub use initramfs::Initramfs;
pub use kernel::{DebError, ImageError, InstallError, Kernel, KernelError, KernelFiles, install_kernel};
pub use modules::{Module, Modules, ModulesError};
pub use qemu::{
    BootError, Command, CommandError, DISKS, FindError, NICS, NeededFile, PROGRAM, Qemu, SHARES,
    host_tsc_khz, installed, plan_command,
};
pub use qmp::{EVENTS, Event, Qmp, QmpError, Status};
pub use spec::{Accelerator, Disk, Memory, Nic, Share, VmSpec};
pub use store::{Store, StoreError};
pub use template::{Shape, Template, TemplateError, remove_templates_but};
pub use virtiofsd::{NoVirtiofsd, Virtiofsd};
