//! The guest's side: one thread, one `poll`.
//!
//! ```text
//!  boot: file systems, early modules, channel ─▶ greeted ─▶ (template) ─▶ configured ─▶ created ─▶ exited ─▶ power off
//!                                                                             exec, dial, resize, signal, … ┘
//! ```
//!
//! The template point is before `Configure`: the machine may be stopped there, copied, and go on much later, more than once. So
//! until then nothing random is drawn or kept, and no time is looked at.

mod agent;
mod boot;
mod configure;
mod container;
mod devices;
mod dial;
mod dns;
mod files;
mod netlink;
mod network;
mod orders;
mod streams;
mod task;

use std::io;
use std::process::ExitCode;

use stanza_spec::ErrorKind;

use crate::wire::{Kind, Notice, Outbox, Refusal};
use agent::{Agent, Place};
#[cfg(feature = "fuzzing")]
pub(crate) use orders::Orders;

/// The whole life of a guest's first process; returns only when the machine cannot be powered off.
#[must_use]
pub fn boot() -> ExitCode {
    match boot::start() {
        Ok(channel) => {
            let mut agent = match Agent::new(channel, Place::Machine) {
                Ok(agent) => agent,
                Err(error) => boot::give_up(&format!("cannot start: {error}")),
            };
            if let Err(reason) = agent.run() {
                boot::say(&reason);
            }
            boot::power_off()
        }
        Err(reason) => boot::give_up(&reason),
    }
}

/// The same without a machine of its own: the channel is standard input, and limits are somebody else's. For tests, and for
/// full machines that have a system of their own.
#[must_use]
pub fn serve() -> ExitCode {
    let served = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
        .map_err(|error| error.to_string())
        .and_then(|channel| Agent::new(channel, Place::Process).map_err(|error| error.to_string()))
        .and_then(|mut agent| agent.run());
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says it to the host. What does not fit into a message is cut: it is text that somebody else made long.
fn tell(out: &mut Outbox, notice: &Notice) {
    // These types are always JSON.
    let body = serde_json::to_vec(notice).unwrap_or_default();
    out.push(Kind::Message, 0, &body);
}

/// A failure of the kernel's, told as what was tried.
fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Refusal {
    let what = what.into();
    move |error| Refusal::new(ErrorKind::of_io(&error), format!("{what}: {error}"))
}
