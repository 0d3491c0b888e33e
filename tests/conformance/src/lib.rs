//! Black-box cases for OCI runtimes: what the specification, runc's callers and known attacks ask of one.
//!
//! ```text
//!  tests/conformance.rs ─▶ harness   every case on stanza-oci, lines as the usual test runner prints them
//!  cargo xtask conformance ─▶ table  every case on runc, crun and stanza-oci, side by side
//!                               │
//!                            runner ── one process per case and runtime, with a deadline
//!                               │
//!  cases of one area ──▶ Scene { runtime, scratch }: containers made of bundles in a directory of their own
//! ```
//!
//! Invariants: a case knows the runtime only by its command line; it makes everything below its scratch directory and its
//! own cgroup and leaves neither processes, cgroups nor mounts (checked after each); it waits for conditions; it compares exact
//! values. Each case was first seen to pass on a peer that has the feature, or says why it cannot.
//!
//! It does not use any other crate of stanza: what it checks is independent of the code under test.

#![forbid(unsafe_code)]

mod attacks;
mod bundle;
mod case;
mod cgroups;
mod container;
mod harness;
mod runner;
mod runtime;
mod scene;
mod seccomp;
mod table;
mod update;

mod checkpoint;
mod crash;
mod devices;
mod exec;
mod hooks;
mod intrusion;
mod landlock;
mod lifecycle;
mod live_mounts;
mod logs;
mod mounts;
mod namespaces;
mod network;
mod old_kernel;
mod process;
mod rootfs;
mod rootless;
mod shapes;
mod terminal;
mod version2;

use case::Case;

/// The areas, in the order of the table.
const AREAS: &[&[Case]] = &[
    lifecycle::CASES,
    process::CASES,
    namespaces::CASES,
    mounts::CASES,
    rootfs::CASES,
    devices::CASES,
    cgroups::CASES,
    version2::CASES,
    old_kernel::CASES,
    update::CASES,
    seccomp::CASES,
    hooks::CASES,
    exec::CASES,
    terminal::CASES,
    shapes::CASES,
    logs::CASES,
    network::CASES,
    live_mounts::CASES,
    checkpoint::CASES,
    crash::CASES,
    rootless::CASES,
    attacks::CASES,
    intrusion::CASES,
    landlock::CASES,
];

pub use harness::harness;
pub use table::table;

/// Every case, area by area.
fn all() -> impl Iterator<Item = &'static Case> {
    AREAS.iter().flat_map(|cases| cases.iter())
}
