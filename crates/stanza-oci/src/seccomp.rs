//! A container's system call filter: compiled, and its listener handed to the agent.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stanza_container::seccomp::{Filter, compile};
use stanza_spec::oci::runtime::Spec;
use stanza_sys::send_descriptors;

use crate::failure::{Doing, Failure};
use crate::state::State;

/// Compiles the filter of a configuration.
pub(crate) fn filter(spec: &Spec) -> Result<Option<Filter>, Failure> {
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    seccomp.map(compile).transpose().map_err(Failure::below)
}

/// Where a listener goes, and with which words.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    path: PathBuf,
    metadata: String,
}

/// What an agent reads (runtime-spec, "Container Process State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State<'a>,
}

impl Agent {
    /// The agent of a configuration; a filter that notifies must name one.
    pub(crate) fn of(spec: &Spec, filter: Option<&Filter>) -> Result<Option<Agent>, Failure> {
        let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let path = seccomp.and_then(|seccomp| seccomp.listener_path().clone());
        match (path, filter.is_some_and(Filter::notifies)) {
            (Some(path), true) => {
                let metadata = seccomp.and_then(|seccomp| seccomp.listener_metadata().clone());
                Ok(Some(Agent { path, metadata: metadata.unwrap_or_default() }))
            }
            (None, true) => Err(Failure::Configuration(
                "seccomp listenerPath is not set: `SCMP_ACT_NOTIFY` needs an agent to be told".to_owned(),
            )),
            (_, false) => Ok(None),
        }
    }

    /// Sends the listener of process `pid`.
    pub(crate) fn send(&self, pid: i32, listener: &OwnedFd, state: &State<'_>) -> Result<(), Failure> {
        let message = ProcessState {
            oci_version: state.oci_version,
            fds: ["seccompFd"],
            pid,
            metadata: &self.metadata,
            state,
        };
        let text = serde_json::to_vec(&message).map_err(Failure::below)?;
        let agent = connect(&self.path)?;
        send_descriptors(&agent, &text, &[listener.as_fd()])
            .and_then(|()| agent.shutdown(Shutdown::Write))
            .doing("send the seccomp listener to", &self.path)
    }
}

fn connect(path: &Path) -> Result<UnixStream, Failure> {
    UnixStream::connect(path).doing("connect to the seccomp agent at", path)
}
