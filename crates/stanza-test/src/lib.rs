//! What the black-box tests share: a private stanza, images, registries, name spaces, terminals.
//!
//! ```text
//!   fixture!()  ->  Stanza   temporary directory: root/ runroot/ bin/stanza; image busybox:latest loaded
//!                     |-- ok / fails / output / spawn / terminal     runs the real executable
//!                     |-- leftovers / assert_clean                   what the kernel and the disk hold of it
//!                     '-- drop: removes its containers, kills what is left of its processes
//! ```
//!
//! Invariants: every fixture has directories of its own, so tests run in parallel; no network but loopback and the
//! name spaces made here is used; nothing sleeps for a condition ([`wait_until`] polls). A test that cannot run ends
//! with a line `skipped: reason` on standard error, which `cargo xtask test` counts.
//!
//! It does not use any other crate of stanza: what it builds (archives, layouts, registries) is independent of the
//! code under test.

#![forbid(unsafe_code)]

mod account;
mod fake_registry;
mod layout;
mod leftovers;
mod machines;
mod name_server;
mod network;
mod process;
mod random;
mod registry;
mod relay;
mod secure_registry;
mod small_disk;
mod stanza;
mod tarball;
mod terminal;
mod traffic;
mod wait;

pub use account::Account;
pub use fake_registry::{Answer, FakeRegistry, Manner, Request, good_answers};
pub use layout::{Layout, hex_sha256};
pub use leftovers::Leftovers;
pub use name_server::NameServer;
pub use network::{Network, in_network, in_network_of};
pub use process::{Output, Running, free_port, have, tool};
pub use random::{Random, number};
pub use registry::Registry;
pub use relay::Relay;
pub use secure_registry::{Demands, SecureRegistry};
pub use small_disk::on_a_small_disk;
pub use stanza::{Stanza, Wish};
pub use tarball::{Kind, Tarball, busybox_tarball};
pub use terminal::Terminal;
pub use traffic::{Server, ask_tcp, ask_udp, reaches, serve_tcp};
pub use wait::{wait_for, wait_until};

use std::io::Write as _;

/// The account that rootless tests run as; `cargo xtask test` makes it.
pub const ORDINARY_USER: &str = "stanza-test";

/// Announces that the running test cannot run here. Goes around the test runner's capture of output.
pub fn skipped(reason: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

/// Ends the test with the reason why it cannot run.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skipped(&format!($($reason)*));
        return;
    }};
}

/// A [`Stanza`] as the wishes say (`fixture!()`, `fixture!(Empty, PrivateNetwork)`), or the end of the test with the
/// reason why there is none. To be used in tests of the package that builds the executable.
#[macro_export]
macro_rules! fixture {
    ($($wish:ident),* $(,)?) => {
        match $crate::Stanza::new(env!("CARGO_BIN_EXE_stanza"), &[$($crate::Wish::$wish),*]) {
            Ok(stanza) => stanza,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}
