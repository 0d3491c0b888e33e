//! The container's network, on the monitor's side: when it starts, and when it is to change.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::Pid;
use stanza_container::Attendant;
use stanza_network::cni::{self, CniAttachment};
use stanza_network::dns::{self, Resolver, ResolverPlan};
use stanza_network::{Attachment, EndpointsPlan, NetworkPlan, PortMap, UserMode};
use stanza_spec::Classify;
use stanza_spec::oci::runtime::LinuxNamespaceType;
use stanza_sys::process_start_time;

use super::Monitor;
use super::ports::ProxiedPorts;
use crate::error::chain;
use crate::frame::{Kind, Refusal};
use crate::plan::NetworkChange;

/// What did not work, when it was about ports that need a proxy.
const UNSERVED: &str = "failed to serve the published ports that the kernel cannot lead";

/// Gives the container its network, once the namespace exists.
pub(super) struct NetworkAttendant<'a> {
    pub(super) network: &'a NetworkPlan,
    pub(super) attachment: &'a mut Option<Attachment>,
    pub(super) proxied: &'a mut Option<ProxiedPorts>,
    pub(super) resolver: &'a mut Option<Resolver>,
    pub(super) user_mode: &'a mut Option<UserMode>,
    pub(super) cni: &'a mut Option<CniAttachment>,
}

impl Attendant for NetworkAttendant<'_> {
    fn attach(&mut self, pid: Pid) -> Result<(), String> {
        let namespace = || namespace_of(pid.as_raw_nonzero().get());
        match self.network {
            NetworkPlan::Endpoints(plan) => {
                let namespace = namespace()?;
                let attached = stanza_network::attach(plan, namespace.as_fd());
                let attachment = self.attachment.insert(attached.map_err(|error| with_hint(&error))?);
                *self.proxied = ProxiedPorts::renew(None, attachment).map_err(|error| unserved(&error))?;
                if let Some(resolver) = &plan.resolver {
                    let opened = Resolver::open(resolver, namespace.as_fd());
                    *self.resolver = Some(opened.map_err(|error| chain(&error))?);
                    // It is found when it can be reached, and not before.
                    dns::announce(plan).map_err(|error| chain(&error))?;
                }
            }
            NetworkPlan::UserMode(plan) => {
                let started = stanza_network::start_user_mode(plan, namespace()?.as_fd());
                *self.user_mode = Some(started.map_err(|error| with_hint(&error))?);
            }
            NetworkPlan::Cni(plan) => {
                let added = cni::add(plan, namespace()?);
                *self.cni = Some(added.map_err(|error| with_hint(&error))?);
            }
            NetworkPlan::None | NetworkPlan::Host | NetworkPlan::Join { .. } => {}
        }
        Ok(())
    }
}

/// Gives a container in a virtual machine its resolver; the machine has the rest of its network already.
pub(super) struct MachineAttendant<'a> {
    pub(super) network: &'a NetworkPlan,
    pub(super) resolver: &'a mut Option<Resolver>,
}

impl Attendant for MachineAttendant<'_> {
    fn attach(&mut self, pid: Pid) -> Result<(), String> {
        if let NetworkPlan::Endpoints(plan) = self.network
            && let Some(resolver) = &plan.resolver
        {
            let namespace = namespace_of(pid.as_raw_nonzero().get())?;
            let opened = Resolver::open(resolver, namespace.as_fd());
            *self.resolver = Some(opened.map_err(|error| chain(&error))?);
            dns::announce(plan).map_err(|error| chain(&error))?;
        }
        Ok(())
    }
}

/// Lets the resolver answer for other networks from now on, or makes it.
fn adapt(
    resolver: &mut Option<Resolver>,
    plan: Option<&ResolverPlan>,
    namespace: &File,
) -> Result<(), Refusal> {
    match (resolver, plan) {
        (Some(resolver), None) => resolver.forget_networks(),
        (Some(resolver), Some(plan)) => resolver.set_plan(plan),
        (resolver, Some(plan)) => {
            let opened = Resolver::open(plan, namespace.as_fd());
            *resolver = Some(opened.map_err(|error| Refusal::of(&error))?);
        }
        (None, None) => {}
    }
    Ok(())
}

fn unserved(error: &io::Error) -> String {
    format!("{UNSERVED}: {error}")
}

fn namespace_of(pid: i32) -> Result<File, String> {
    let path = format!("/proc/{pid}/ns/net");
    File::open(path).map_err(|error| format!("failed to open the network namespace: {error}"))
}

/// A failure of a launch is a text: what could help is its end.
fn with_hint(error: &(impl Classify + 'static)) -> String {
    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
    chain(error) + &hint
}

impl Monitor {
    /// Joins a machine to the container's networks: the cables of its cards, and the cards' addresses.
    pub(super) fn attach_machine(&mut self) -> Result<Vec<(OwnedFd, [u8; 6])>, Refusal> {
        let what = match &self.plan.network {
            NetworkPlan::None => return Ok(Vec::new()),
            NetworkPlan::Endpoints(plan) => {
                let attached = stanza_network::attach_machine(plan);
                let (attachment, taps) = attached.map_err(|error| Refusal::of(&error))?;
                let attachment = self.attachment.insert(attachment);
                self.proxied = ProxiedPorts::renew(None, attachment)
                    .map_err(|error| Refusal::of_io(UNSERVED, &error))?;
                return Ok(taps
                    .into_iter()
                    .zip(plan.endpoints.iter().map(|endpoint| endpoint.mac))
                    .collect());
            }
            NetworkPlan::Host => "in the host's network",
            NetworkPlan::Join { .. } => "in another container's network",
            NetworkPlan::UserMode(_) => "in a network of the user's own",
            NetworkPlan::Cni(_) => "in a network of CNI plugins",
        };
        Err(Refusal {
            message: format!("a virtual machine cannot be {what}"),
            kind: "unsupported".to_owned(),
            hint: Some("use `--network none`, or the name of a bridge".to_owned()),
        })
    }

    /// Leads the container into another one's network namespace, where that is wanted: a path of its specification.
    pub(super) fn join_network(&mut self) -> Result<(), Refusal> {
        let NetworkPlan::Join { pid, start_time } = self.plan.network else { return Ok(()) };
        let is_there = Pid::from_raw(pid).and_then(|pid| process_start_time(pid).ok()) == Some(start_time);
        if !is_there {
            return Err(Refusal {
                message: "the container whose network is to be joined does not run any more".to_owned(),
                kind: "conflict".to_owned(),
                hint: Some("start that one first".to_owned()),
            });
        }
        if let Some(linux) = self.plan.spec.linux_mut()
            && let Some(namespaces) = linux.namespaces_mut()
        {
            let network = namespaces.iter_mut().filter(|one| one.typ() == LinuxNamespaceType::Network);
            network.for_each(|one| {
                one.set_path(Some(format!("/proc/{pid}/ns/net").into()));
            });
        }
        Ok(())
    }

    /// Takes the container's names away, and ends its resolver; twice does no harm. The lock on the container is still held:
    /// nobody can have started it anew.
    pub(super) fn withdraw_names(&mut self) -> Vec<String> {
        self.resolver = None;
        match &self.plan.network {
            NetworkPlan::Endpoints(plan) => dns::withdraw(plan).iter().map(|error| chain(error)).collect(),
            _ => Vec::new(),
        }
    }

    /// The published ports with the host ports that were really taken.
    pub(super) fn ports(&self) -> &[PortMap] {
        match (&self.attachment, &self.user_mode, &self.cni) {
            (Some(attachment), ..) => attachment.ports(),
            (None, Some(user_mode), _) => user_mode.ports(),
            (None, None, Some(cni)) => cni.ports(),
            (None, None, None) => &[],
        }
    }

    /// Deals with clients of ports that the kernel cannot lead, and with the proxy's end.
    pub(super) fn serve_ports(&mut self, ready: bool) {
        if let (Some(proxied), Some(attachment)) = (&mut self.proxied, &mut self.attachment)
            && let Err(error) = proxied.turn(ready, attachment)
        {
            self.error.get_or_insert_with(|| unserved(&error));
        }
    }

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
        let Some(isolation) = &self.isolation else {
            return Err(conflict("the container does not run".to_owned()));
        };
        if !isolation.changes_networks() {
            return Err(conflict(
                "the networks of a container in a virtual machine cannot change while it runs".to_owned(),
            ));
        }
        let namespace = namespace_of(isolation.pid().as_raw_nonzero().get()).map_err(conflict)?;
        if self.plan.network == NetworkPlan::None {
            if change.plan.endpoints.is_empty() {
                return Ok(());
            }
            // It has a namespace of its own already, with only loopback in it.
            let alone = EndpointsPlan { endpoints: Vec::new(), ..change.plan.clone() };
            let attached = stanza_network::attach(&alone, namespace.as_fd());
            self.attachment = Some(attached.map_err(|error| Refusal::of(&error))?);
            self.plan.network = NetworkPlan::Endpoints(alone);
        }
        let (NetworkPlan::Endpoints(old), Some(attachment)) = (&mut self.plan.network, &mut self.attachment)
        else {
            return Err(conflict("the container is in no network that can be changed".to_owned()));
        };
        let changed = stanza_network::change(attachment, old, &change.plan, change.anew, namespace.as_fd());
        // Where the ports lead may have changed before it failed.
        let served = ProxiedPorts::renew(self.proxied.take(), attachment)
            .map(|proxied| self.proxied = proxied)
            .map_err(|error| Refusal::of_io(UNSERVED, &error));
        changed.map_err(|error| Refusal::of(&error))?;
        served?;
        let errors = dns::withdraw_changed(old, &change.plan);
        old.endpoints = change.plan.endpoints;
        old.resolver = change.plan.resolver;
        adapt(&mut self.resolver, old.resolver.as_ref(), &namespace)?;
        dns::announce(old).map_err(|error| Refusal::of(&error))?;
        errors.first().map_or(Ok(()), |error| Err(Refusal::of(error)))
    }
}
