//! The end of a container: every part is removed, every failure is kept, none stops the others.

use std::fs;
use std::io;

use rustix::time::{ClockId, clock_gettime};
use stanza_cgroup::Cgroup;
use stanza_network::NetworkPlan;
use stanza_spec::Instant;

use super::{Monitor, clients};
use crate::error::chain;
use crate::lifecycle::Event;
use crate::plan::Used;

/// Processor time of this process, in nanoseconds.
fn own_cpu() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
    whole.saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

impl Monitor {
    /// Reads what the container wrote last. Its pid namespace has died with its first process; processes of a container
    /// that shares the host's are killed by its control groups, or else may hold the pipes open, and are not waited for.
    pub(super) fn collect_output(&mut self) -> Event {
        let shares_pids =
            self.plan.spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref()).is_some_and(
                |namespaces| {
                    namespaces
                        .iter()
                        .all(|one| one.typ() != stanza_spec::oci::runtime::LinuxNamespaceType::Pid)
                },
            );
        if shares_pids
            && let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.kill()
        {
            self.error.get_or_insert_with(|| chain(&error));
        }
        if let Some(isolation) = &mut self.isolation {
            let (clients, log) = (&mut self.clients, &mut self.log);
            isolation.collect(&mut |stream, bytes| clients::keep(clients, log, stream, bytes));
        }
        self.log.finish(&Instant::now().rfc3339());
        if let Some(error) = self.log.failure() {
            self.error.get_or_insert_with(|| format!("output was lost from the log: {error}"));
        }
        Event::OutputCollected
    }

    /// Removes everything but the files that tell how it went.
    pub(super) fn tear_down(&mut self) -> Event {
        self.oom_killed = self.cgroup.as_ref().is_some_and(|cgroup| cgroup.oom_kills() > 0)
            || self.isolation.as_ref().is_some_and(|isolation| isolation.oom_killed());
        if let Some(trouble) = self.isolation.as_mut().and_then(|isolation| isolation.trouble()) {
            self.error.get_or_insert(trouble);
        }
        let (cpu, memory_peak) = self.cgroup.as_ref().map_or((None, None), Cgroup::used);
        self.used = Some(Used { cpu, memory_peak, monitor_cpu: own_cpu() });
        let mut errors = self.withdraw_names();
        self.user_mode = None;
        self.proxied = None;
        // The veth goes with the network namespace, which has just lost its last process: deleting it by hand would
        // wait 35 ms for the kernel, which needs nobody to wait for it.
        if let (NetworkPlan::Endpoints(plan), Some(attachment)) = (&self.plan.network, &mut self.attachment) {
            self.devices = stanza_network::devices_of(plan);
            if let Err(error) = stanza_network::withdraw_ports(plan, attachment) {
                errors.push(chain(&error));
            }
        }
        // Before the lock is given free: who starts the container again adds what is deleted here.
        if let Some(cni) = self.cni.take() {
            errors.extend(stanza_network::cni::leave(cni).iter().map(|error| chain(error)));
        }
        if let Some(cgroup) = self.cgroup.take() {
            errors.extend(cgroup.remove().iter().map(|error| chain(error)));
        }
        if !errors.is_empty() {
            self.error.get_or_insert_with(|| errors.join("; "));
        }
        Event::TornDown
    }

    /// Removes the run directory and lets the lock go.
    pub(super) fn remove_run_directory(&mut self) {
        match fs::remove_dir_all(&self.plan.run_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.error.get_or_insert_with(|| format!("failed to remove the run directory: {error}"));
            }
            _ => {}
        }
        self.lock = None;
    }
}
