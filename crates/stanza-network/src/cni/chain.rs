//! The verbs: what they do with the plugins of a chain, in which order, and what is left when one fails.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stanza_spec::ContainerId;

use super::plan::{CniNetwork, CniPlaces, CniPlan, CniVersion};
use super::plugin::{Caller, Verb};
use super::record::{self, Record, Share};
use super::tell::tell;
use super::{CniError, CniResult};
use crate::{PortMap, ports};

/// A container in a network. Dropping it gives the ports free but takes nothing else down; that is [`leave`]'s.
#[derive(Debug)]
pub struct CniAttachment {
    /// As it was asked for, with the host ports that were really taken.
    plan: CniPlan,
    result: CniResult,
    netns: Netns,
    /// Never read: they keep other programs off the published ports for as long as they are open. What comes to the ports
    /// is led to the container before the host looks for a socket.
    _sockets: Vec<OwnedFd>,
}

impl CniAttachment {
    /// What the chain made.
    #[must_use]
    pub fn result(&self) -> &CniResult {
        &self.result
    }

    /// The published ports with the host ports that were really taken.
    #[must_use]
    pub fn ports(&self) -> &[PortMap] {
        &self.plan.request.ports
    }
}

/// A network name space that is held open, so that the path to it leads there until this is dropped.
#[derive(Debug)]
struct Netns(File);

impl Netns {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

/// Joins a container, which is in the network name space `netns`, to a network: ADD of every plugin, in order; then writes
/// what the plan wants told to the container. The calling thread's name space is the host.
///
/// What an earlier attachment of the same container, network and device left is deleted first.
///
/// # Errors
/// The whole chain is deleted then. When that fails too the record is kept, for [`del`] and [`collect`] to try again.
pub fn add(plan: &CniPlan, netns: File) -> Result<CniAttachment, CniError> {
    plan.verify()?;
    Caller::new(&plan.network, &plan.places).require_all()?;
    let netns = Netns(netns);
    let mut sockets = Vec::new();
    let mut plan = plan.clone();
    for port in &mut plan.request.ports {
        let reserved = ports::reserve(port)?;
        sockets.extend(reserved.sockets.into_iter().map(|held| held.socket));
        port.host_port = Some(reserved.number);
    }
    let _lock = record::lock(&plan.places.results_dir, &plan.network.name, Share::Shared)?;
    if let Some(old) = record::read(&plan)? {
        // The specification allows no second ADD without a DEL. One that fails now would fail the ADD as well.
        delete_all(&old, None);
    }
    let mut record = Record { plan, result: None, netns: netns.path() };
    record::write(&record)?;
    let added = add_all(&mut record).and_then(|result| {
        record::write(&record)?;
        tell(&record.plan, &result)?;
        Ok(result)
    });
    match added {
        Ok(result) => Ok(CniAttachment { plan: record.plan, result, netns, _sockets: sockets }),
        Err(error) => {
            // What was told first is the reason; what DEL says on top of it would hide it.
            if delete_all(&record, Some(&record.netns)).is_empty() {
                let _ = record::remove(&record.plan);
            }
            Err(error)
        }
    }
}

/// Asks every plugin, each with the answer of the one before.
fn add_all(record: &mut Record) -> Result<CniResult, CniError> {
    let plan = &record.plan;
    let caller = Caller::new(&plan.network, &plan.places);
    let mut result: Option<Value> = None;
    let mut read = CniResult::default();
    for plugin in &plan.network.plugins {
        let output = caller.call_for(Verb::Add, plan, Some(&record.netns), plugin, result.as_ref())?;
        let answer = caller.result(plugin, &output)?;
        read = CniResult::read(&answer)
            .map_err(|reason| CniError::Answer { call: caller.name(Verb::Add, plugin), reason })?;
        result = Some(answer);
    }
    record.result = result;
    Ok(read)
}

/// Looks whether a running container's network is as it was made: CHECK of every plugin, in order. Nothing is asked when the
/// network says so or is older than 0.4.0.
///
/// # Errors
/// The first plugin's that finds something missing, or that there is no attachment.
pub fn check(plan: &CniPlan) -> Result<(), CniError> {
    plan.verify()?;
    let _lock = record::lock(&plan.places.results_dir, &plan.network.name, Share::Shared)?;
    let Some(Record { plan, result: Some(result), netns }) = record::read(plan)? else {
        let (network, container) = (plan.network.name.clone(), plan.container.to_string());
        return Err(CniError::NotAttached { network, container });
    };
    if plan.network.disable_check || plan.network.version < CniVersion::V0_4_0 {
        return Ok(());
    }
    let caller = Caller::new(&plan.network, &plan.places);
    plan.network.plugins.iter().try_for_each(|plugin| {
        caller.call_for(Verb::Check, &plan, Some(&netns), plugin, Some(&result)).map(drop)
    })
}

/// Takes a container out of a network: DEL of every plugin, in reverse, with the configuration that it was added with; then
/// sets its ports free.
///
/// Gives everything that failed; the record is kept then, and [`del`] and [`collect`] try again.
pub fn leave(attachment: CniAttachment) -> Vec<CniError> {
    del_by_plan(&attachment.plan, Some(&attachment.netns.path()))
}

/// The same for a container whose owner has died, and its name space with it: plugins are given none.
///
/// Without a record nothing was added, or all is deleted, and nothing is done.
pub fn del(plan: &CniPlan) -> Vec<CniError> {
    del_by_plan(plan, None)
}

fn del_by_plan(plan: &CniPlan, netns: Option<&Path>) -> Vec<CniError> {
    let locked = record::lock(&plan.places.results_dir, &plan.network.name, Share::Shared);
    match locked.and_then(|lock| Ok((lock, record::read(plan)?))) {
        Ok((_lock, Some(record))) => del_recorded(&record, netns),
        Ok((_, None)) => Vec::new(),
        Err(error) => vec![error],
    }
}

fn del_recorded(record: &Record, netns: Option<&Path>) -> Vec<CniError> {
    let mut errors = delete_all(record, netns);
    if errors.is_empty() {
        errors.extend(record::remove(&record.plan).err());
    }
    errors
}

/// Asks every plugin, last first, also after a failure: what one cannot take down the others still can.
fn delete_all(record: &Record, netns: Option<&Path>) -> Vec<CniError> {
    let plan = &record.plan;
    let caller = Caller::new(&plan.network, &plan.places);
    let result = record.result.as_ref().filter(|_| plan.network.version >= CniVersion::V0_4_0);
    let plugins = plan.network.plugins.iter().rev();
    plugins.filter_map(|plugin| caller.call_for(Verb::Del, plan, netns, plugin, result).err()).collect()
}

/// Removes what is left in a network of containers that are gone: DEL of the attachments on record that `valid` does not
/// name, then, when the network is of 1.1.0 or later and allows it, GC of every plugin with those that it names.
///
/// `valid` gives containers and the names of their devices. It is called when no ADD or DEL of this network is on its way; so
/// as long as a container is known to it before it is added, one that is being started is never taken for a dead one.
pub fn collect(
    network: &CniNetwork,
    places: &CniPlaces,
    valid: impl FnOnce() -> Vec<(ContainerId, String)>,
) -> Vec<CniError> {
    let _lock = match record::lock(&places.results_dir, &network.name, Share::Alone) {
        Ok(lock) => lock,
        Err(error) => return vec![error],
    };
    let valid = valid();
    let is_valid = |plan: &CniPlan| {
        valid
            .iter()
            .any(|(container, interface)| (container, interface) == (&plan.container, &plan.interface))
    };
    let records = record::of_network(&places.results_dir, &network.name);
    let mut errors: Vec<CniError> = records
        .iter()
        .filter(|record| !is_valid(&record.plan))
        .flat_map(|record| del_recorded(record, None))
        .collect();
    if network.disable_gc || network.version < CniVersion::V1_1_0 {
        return errors;
    }
    let attachments: Vec<Value> = valid
        .iter()
        .map(|(container, interface)| json!({"containerID": container.as_str(), "ifname": interface}))
        .collect();
    let caller = Caller::new(network, places);
    for plugin in &network.plugins {
        let more = ("cni.dev/valid-attachments", Value::from(attachments.clone()));
        errors.extend(caller.call_about(Verb::Gc, plugin, Some(more)).err());
    }
    errors
}

/// Whether the network's plugins are ready for ADD: STATUS of every one. Plugins before 1.1.0 cannot be asked.
///
/// # Errors
/// The first plugin's that is not ready.
pub fn status(network: &CniNetwork, places: &CniPlaces) -> Result<(), CniError> {
    if network.version < CniVersion::V1_1_0 {
        return Ok(());
    }
    let caller = Caller::new(network, places);
    network.plugins.iter().try_for_each(|plugin| caller.call_about(Verb::Status, plugin, None).map(drop))
}

/// The versions that each plugin of a network speaks, in the order of the chain: VERSION.
///
/// # Errors
/// The first plugin's that does not answer.
pub fn supported_versions(network: &CniNetwork, places: &CniPlaces) -> Result<Vec<Vec<String>>, CniError> {
    let caller = Caller::new(network, places);
    network.plugins.iter().map(|plugin| caller.versions(plugin)).collect()
}
