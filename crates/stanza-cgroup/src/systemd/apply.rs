//! Starting, changing and stopping the unit of a plan.

use std::path::Path;

use super::SystemdError;
use super::bus::{Bus, BusKind, Endpoint, endpoints, is_booted};
use super::plan::{Property, SystemdPlan};
use super::wire::{Value, Writer};
use crate::detect::Layout;
use crate::file;
use crate::location::{Location, LocationError};

/// What a unit does to jobs that are under way for it.
const REPLACE: &str = "replace";

fn here(kind: BusKind) -> Result<Vec<Endpoint>, SystemdError> {
    let found = endpoints(kind, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    if kind == BusKind::System && !is_booted() { Err(SystemdError::NotRunning) } else { Ok(found) }
}

/// Starts the unit with the process `pid` in it, and tells where that is now, for [`plan_at`](crate::plan_at).
///
/// # Errors
/// [`SystemdError`]; a unit that failed is forgotten by systemd, so that the name is free.
pub fn start(plan: &SystemdPlan, layout: &Layout, pid: u32) -> Result<Location, SystemdError> {
    start_at(&here(plan.bus)?, plan, pid)?;
    let path = format!("/proc/{pid}/cgroup");
    let failed = |source| LocationError::Read { path: path.clone().into(), source };
    let text = file::read_records(Path::new(&path)).map_err(failed)?.unwrap_or_default();
    Ok(Location::of_process(layout, &text)?)
}

/// Starts the unit by a systemd at one of `endpoints`.
///
/// # Errors
/// [`SystemdError`].
pub fn start_at(endpoints: &[Endpoint], plan: &SystemdPlan, pid: u32) -> Result<(), SystemdError> {
    Bus::talk(endpoints, |bus| start_by(bus, plan, pid))
}

fn start_by(bus: &mut Bus, plan: &SystemdPlan, pid: u32) -> Result<(), SystemdError> {
    bus.subscribe()?;
    let pids = Property { name: "PIDs".into(), value: Value::Numbers(vec![pid]), since: 0 };
    let all: Vec<&Property> = plan.properties.iter().chain([&pids]).chain(&plan.limits).collect();
    let known = known(bus, &all)?;
    let body = || {
        let mut body = Writer::default();
        body.text(&plan.unit);
        body.text(REPLACE);
        body.properties(known.iter().map(|property| (property.name.as_str(), &property.value)));
        // Units that are to be made along with it: none.
        body.array(8, |_| {});
        body
    };
    let signature = "ssa(sv)a(sa(sv))";
    let started = match bus.manager("StartTransientUnit", signature, body()) {
        Err(SystemdError::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => {
            // A failed one of that name may be left; what then still exists is somebody's.
            let _ = reset(bus, &plan.unit);
            bus.manager("StartTransientUnit", signature, body())?
        }
        other => other?,
    };
    let job = started.body().text()?;
    let result = bus.wait_for_job(&job);
    if !matches!(result.as_deref(), Ok("done")) {
        // Best effort after another error, which is the one to tell.
        let _ = reset(bus, &plan.unit);
    }
    finished("creating", &plan.unit, result?)
}

/// Sets the limits of another plan for the same unit, until systemd's next start.
///
/// # Errors
/// [`SystemdError`].
pub fn update(plan: &SystemdPlan) -> Result<(), SystemdError> {
    update_at(&here(plan.bus)?, plan)
}

/// Sets the limits by a systemd at one of `endpoints`.
///
/// # Errors
/// [`SystemdError`].
pub fn update_at(endpoints: &[Endpoint], plan: &SystemdPlan) -> Result<(), SystemdError> {
    if plan.limits.is_empty() {
        return Ok(());
    }
    Bus::talk(endpoints, |bus| update_by(bus, plan))
}

fn update_by(bus: &mut Bus, plan: &SystemdPlan) -> Result<(), SystemdError> {
    let limits: Vec<&Property> = plan.limits.iter().collect();
    let known = known(bus, &limits)?;
    let mut body = Writer::default();
    body.text(&plan.unit);
    // Not to be kept on disk.
    body.bool(true);
    body.properties(known.iter().map(|property| (property.name.as_str(), &property.value)));
    bus.manager("SetUnitProperties", "sba(sv)", body).map(drop)
}

/// Stops the unit, which kills what is in it, and has systemd forget it. One that is gone is no error.
///
/// # Errors
/// [`SystemdError`].
pub fn stop(kind: BusKind, unit: &str) -> Result<(), SystemdError> {
    stop_at(&here(kind)?, unit)
}

/// Stops the unit by a systemd at one of `endpoints`.
///
/// # Errors
/// [`SystemdError`].
pub fn stop_at(endpoints: &[Endpoint], unit: &str) -> Result<(), SystemdError> {
    Bus::talk(endpoints, |bus| stop_by(bus, unit))
}

fn stop_by(bus: &mut Bus, unit: &str) -> Result<(), SystemdError> {
    let name = |unit: &str| {
        let mut body = Writer::default();
        body.text(unit);
        body
    };
    // Asked first: a scope mostly goes by itself, with its last process, and then there is nothing to wait for.
    match bus.manager("GetUnit", "s", name(unit)) {
        Err(SystemdError::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => return Ok(()),
        other => other.map(drop)?,
    }
    bus.subscribe()?;
    let mut body = name(unit);
    body.text(REPLACE);
    let stopped = match bus.manager("StopUnit", "ss", body) {
        Err(SystemdError::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => return Ok(()),
        other => other?,
    };
    let job = stopped.body().text()?;
    let result = bus.wait_for_job(&job);
    // Gone altogether is the usual case, and an error to systemd.
    let _ = reset(bus, unit);
    finished("stopping", unit, result?)
}

/// Those properties that this systemd has; it is asked for its version only when there is doubt.
fn known<'a>(bus: &mut Bus, properties: &[&'a Property]) -> Result<Vec<&'a Property>, SystemdError> {
    let version = if properties.iter().any(|property| property.since > 0) { bus.version()? } else { 0 };
    Ok(properties.iter().copied().filter(|property| property.since <= version).collect())
}

fn reset(bus: &mut Bus, unit: &str) -> Result<(), SystemdError> {
    let mut body = Writer::default();
    body.text(unit);
    bus.manager("ResetFailedUnit", "s", body).map(drop)
}

fn finished(action: &'static str, unit: &str, result: String) -> Result<(), SystemdError> {
    if result == "done" {
        return Ok(());
    }
    Err(SystemdError::Job { action, unit: unit.to_owned(), result })
}
