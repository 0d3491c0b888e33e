//! The container's network, on the monitor's side: when it starts, and when it is to change.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::process::Pid;
use stanza_container::Attendant;
use stanza_network::{Attachment, NetworkPlan};

use super::Monitor;
use crate::error::chain;
use crate::frame::{Kind, Refusal};
use crate::plan::NetworkChange;

/// Gives the container its network, once the namespace exists.
pub(super) struct NetworkAttendant<'a> {
    pub(super) network: &'a NetworkPlan,
    pub(super) attachment: &'a mut Option<Attachment>,
}

impl Attendant for NetworkAttendant<'_> {
    fn attach(&mut self, pid: Pid) -> Result<(), String> {
        let NetworkPlan::Endpoints(plan) = self.network else { return Ok(()) };
        let namespace = namespace_of(pid.as_raw_nonzero().get())?;
        let attached = stanza_network::attach(plan, namespace.as_fd());
        *self.attachment = Some(attached.map_err(|error| chain(&error))?);
        Ok(())
    }
}

fn namespace_of(pid: i32) -> Result<File, String> {
    let path = format!("/proc/{pid}/ns/net");
    File::open(path).map_err(|error| format!("failed to open the network namespace: {error}"))
}

impl Monitor {
    /// Changes the networks as a client asks, and answers it.
    pub(super) fn change_networks(&mut self, client: u64, change: &[u8]) {
        match self.try_change_networks(change) {
            Ok(()) => self.clients.answer(client, Kind::Done, &[]),
            Err(refusal) => {
                let body = serde_json::to_vec(&refusal).unwrap_or_default();
                self.clients.answer(client, Kind::Failed, &body);
            }
        }
    }

    fn try_change_networks(&mut self, change: &[u8]) -> Result<(), Refusal> {
        let conflict = |message: String| Refusal { message, kind: "conflict".to_owned(), hint: None };
        let change: NetworkChange =
            serde_json::from_slice(change).map_err(|error| conflict(error.to_string()))?;
        let (NetworkPlan::Endpoints(old), Some(attachment), Some(init)) =
            (&mut self.plan.network, &mut self.attachment, &self.init)
        else {
            return Err(conflict("the container is in no network that can be changed".to_owned()));
        };
        let namespace = namespace_of(init.pid.as_raw_nonzero().get()).map_err(conflict)?;
        stanza_network::change(attachment, old, &change.plan, change.anew, namespace.as_fd())
            .map_err(|error| Refusal::of(&error))?;
        old.endpoints = change.plan.endpoints;
        Ok(())
    }
}
