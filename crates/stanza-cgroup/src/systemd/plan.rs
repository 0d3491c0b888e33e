//! OCI resources as properties of a transient unit (`man 5 systemd.resource-control`, `man 5 org.freedesktop.systemd1`).

use serde::{Deserialize, Serialize};
use stanza_spec::oci::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::bus::BusKind;
use super::wire::Value;
use super::{SystemdError, devices};
use crate::detect::Layout;
use crate::plan::PlanError;
use crate::v2;

/// A transient unit, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdPlan {
    /// Whose systemd makes it.
    pub bus: BusKind,
    /// The unit: `<prefix>-<name>.scope`, or a slice.
    pub unit: String,
    /// The slice it is in, as `system.slice`.
    pub slice: String,
    /// What makes the unit.
    pub properties: Vec<Property>,
    /// Its limits; these an update sets again.
    pub limits: Vec<Property>,
}

/// One property of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// Its name on the bus, as `MemoryMax`.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// The first version of systemd that has it, where that is not beyond doubt; an older one is not told, and the limit holds
    /// until it rewrites its files.
    #[serde(default)]
    pub since: u32,
}

impl Property {
    fn new(name: &str, value: Value) -> Property {
        Property { name: name.to_owned(), value, since: 0 }
    }

    fn since(mut self, version: u32) -> Property {
        self.since = version;
        self
    }
}

/// Plans the unit of the container `id`. `cgroups_path` is `slice:prefix:name`, or empty for `<default slice>:runc:<id>`'s like
/// with this project's name.
///
/// # Errors
/// [`SystemdError::Path`], [`SystemdError::Slice`], or a value that no kernel takes.
pub fn plan_systemd(
    layout: &Layout,
    cgroups_path: &str,
    id: &str,
    resources: &LinuxResources,
    rootless: bool,
) -> Result<SystemdPlan, SystemdError> {
    let default = if rootless { "user.slice" } else { "system.slice" };
    let (slice, prefix, name) = match *cgroups_path.split(':').collect::<Vec<_>>() {
        [""] => ("", "stanza", id),
        [slice, prefix, name] if !name.is_empty() => (slice, prefix, name),
        _ => return Err(SystemdError::Path(cgroups_path.to_owned())),
    };
    let slice = if slice.is_empty() { default } else { slice };
    expand_slice(slice)?;
    let unit = match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    };
    let unified = matches!(layout, Layout::V2 { .. });
    let text = |text: &str| Value::Text(text.to_owned());
    let mut properties = vec![Property::new("Description", text(&format!("stanza container {name}")))];
    if unit.ends_with(".slice") {
        properties.push(Property::new("Wants", Value::Texts(vec![slice.to_owned()])));
    } else {
        properties.push(Property::new("Slice", text(slice)));
        // The container may make cgroups of its own below, and systemd leaves them alone.
        properties.push(Property::new("Delegate", Value::Bool(true)));
    }
    let io = if unified { "IOAccounting" } else { "BlockIOAccounting" };
    for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        properties.push(Property::new(name, Value::Bool(true)));
    }
    // Else it would end at the beginning of a shutdown, before whoever is to stop it.
    properties.push(Property::new("DefaultDependencies", Value::Bool(false)));
    let bus = if rootless { BusKind::User } else { BusKind::System };
    let limits = limits(unified, resources)?;
    Ok(SystemdPlan { bus, unit, slice: slice.to_owned(), properties, limits })
}

/// The path of a slice's cgroup: `/a.slice/a-b.slice` for `a-b.slice`.
///
/// # Errors
/// [`SystemdError::Slice`].
pub fn expand_slice(slice: &str) -> Result<String, SystemdError> {
    let bad = || SystemdError::Slice(slice.to_owned());
    let name = slice
        .strip_suffix(".slice")
        .filter(|name| !name.is_empty() && !name.contains('/'))
        .ok_or_else(bad)?;
    if name == "-" {
        return Ok("/".into());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(bad());
        }
        prefix.push_str(part);
        path.push_str(&format!("/{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

fn limits(unified: bool, resources: &LinuxResources) -> Result<Vec<Property>, SystemdError> {
    let mut limits = Vec::new();
    if let Some(memory) = resources.memory() {
        memory_limits(unified, memory, &mut limits);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_limits(unified, cpu, &mut limits)?;
    }
    if let Some(pids) = resources.pids() {
        limits.push(Property::new("TasksMax", Value::Long(long(pids.limit()))));
    }
    let weight = resources.block_io().as_ref().and_then(|io| io.weight()).filter(|weight| *weight != 0);
    if let (Some(weight), false) = (weight, unified) {
        limits.push(Property::new("BlockIOWeight", Value::Long(weight.into())));
    }
    if let Some(rules) = resources.devices() {
        limits.extend(devices::properties(rules)?);
    }
    if unified {
        let mut files: Vec<_> = resources.unified().iter().flatten().collect();
        files.sort_unstable();
        for (name, value) in files {
            unified_limit(name, value.trim(), &mut limits)?;
        }
    }
    Ok(limits)
}

/// No limit is all bits, as -1 and 0 are.
fn long(value: i64) -> u64 {
    if value > 0 { value.cast_unsigned() } else { u64::MAX }
}

fn memory_limits(unified: bool, memory: &LinuxMemory, limits: &mut Vec<Property>) {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let mut push = |name: &str, value: u64| limits.push(Property::new(name, Value::Long(value)));
    if let Some(limit) = set(memory.limit()) {
        push(if unified { "MemoryMax" } else { "MemoryLimit" }, long(limit));
    }
    if !unified {
        return;
    }
    if let Some(reservation) = set(memory.reservation()) {
        push("MemoryLow", long(reservation));
    }
    match (set(memory.limit()), set(memory.swap())) {
        (Some(limit), Some(swap)) if limit > 0 && swap >= limit => {
            push("MemorySwapMax", (swap - limit).cast_unsigned());
        }
        (_, Some(-1)) | (Some(-1), None) => push("MemorySwapMax", u64::MAX),
        _ => {}
    }
}

fn cpu_limits(unified: bool, cpu: &LinuxCpu, limits: &mut Vec<Property>) -> Result<(), PlanError> {
    let idle = cpu.idle() == Some(1);
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && !idle) {
        limits.push(if unified {
            Property::new("CPUWeight", Value::Long(v2::weight_of_shares(shares)))
        } else {
            Property::new("CPUShares", Value::Long(shares))
        });
    }
    if idle && unified {
        limits.push(Property::new("CPUWeight", Value::Long(0)).since(252));
    }
    quota(cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0), limits);
    for (option, name, list) in
        [("cpu.cpus", "AllowedCPUs", cpu.cpus()), ("cpu.mems", "AllowedMemoryNodes", cpu.mems())]
    {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            limits.push(set(option, name, list)?);
        }
    }
    Ok(())
}

/// systemd counts a quota per second, and in steps of 10 ms; a limit is rounded up to the next.
fn quota(quota: i64, period: u64, limits: &mut Vec<Property>) {
    if period != 0 {
        limits.push(Property::new("CPUQuotaPeriodUSec", Value::Long(period)).since(242));
    }
    if quota == 0 && period == 0 {
        return;
    }
    let per_second = if quota > 0 {
        let period = if period == 0 { 100_000 } else { period };
        let exact = u128::from(quota.cast_unsigned()) * 1_000_000 / u128::from(period);
        u64::try_from(exact.next_multiple_of(10_000)).unwrap_or(u64::MAX)
    } else {
        u64::MAX
    };
    limits.push(Property::new("CPUQuotaPerSecUSec", Value::Long(per_second)));
}

/// `0-2,9` as bits, the lowest first.
fn set(option: &'static str, name: &str, list: &str) -> Result<Property, PlanError> {
    let bad = || PlanError::Value {
        option,
        value: list.to_owned(),
        reason: "expected numbers and ranges, as `0-3,7`",
    };
    let mut bits: Vec<u8> = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| bad());
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        for bit in first..=last {
            let at = usize::from(bit / 8);
            if bits.len() <= at {
                bits.resize(at + 1, 0);
            }
            bits[at] |= 1 << (bit % 8);
        }
    }
    Ok(Property::new(name, Value::Bytes(bits)).since(244))
}

/// Those files that systemd writes itself must be told to it, or it takes them back.
fn unified_limit(name: &str, value: &str, limits: &mut Vec<Property>) -> Result<(), PlanError> {
    let bad = |reason| PlanError::Value { option: "unified", value: format!("{name}={value}"), reason };
    let number = || match value {
        "max" => Ok(u64::MAX),
        _ => value.parse::<u64>().map_err(|_| bad("expected a number or `max`")),
    };
    let name = match name {
        "cpu.max" => {
            let (amount, period) = value.split_once(' ').unwrap_or((value, "100000"));
            let period = period.trim().parse().map_err(|_| bad("expected `<quota> <period>`"))?;
            let amount = match amount {
                "max" => -1,
                _ => amount.parse().map_err(|_| bad("expected `<quota> <period>`"))?,
            };
            quota(amount, period, limits);
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" => {
            let property = if name == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
            limits.push(set("unified", property, value)?);
            return Ok(());
        }
        "cpu.idle" if value == "1" => {
            limits.push(Property::new("CPUWeight", Value::Long(0)).since(252));
            return Ok(());
        }
        "cpu.weight" => "CPUWeight",
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        // systemd has no word for the rest, and leaves it alone.
        _ => return Ok(()),
    };
    limits.push(Property::new(name, Value::Long(number()?)));
    Ok(())
}

/// The property in an annotation `org.systemd.property.<Name>: <value>`; the value is written as `busctl` and runc take it:
/// `true`, `'text'`, `uint64 5`, `int32 -1`, `['a', 'b']`. A name that ends in `Sec` is in seconds, and becomes `USec`. `None` for
/// any other annotation.
///
/// # Errors
/// [`SystemdError::Annotation`].
pub fn property_of_annotation(annotation: &str, text: &str) -> Option<Result<Property, SystemdError>> {
    let name = annotation.strip_prefix("org.systemd.property.")?;
    let bad =
        |reason| SystemdError::Annotation { name: annotation.to_owned(), value: text.to_owned(), reason };
    if name.is_empty() || !name.bytes().all(|letter| letter.is_ascii_alphanumeric()) {
        return Some(Err(bad("not the name of a property")));
    }
    let Some(value) = value(text.trim()) else { return Some(Err(bad("not a value"))) };
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with(['U', 'N', 'M'])) else {
        return Some(Ok(Property::new(name, value)));
    };
    let seconds = match value {
        Value::Int(number) => u64::try_from(number).ok(),
        Value::Unsigned(number) => Some(number.into()),
        Value::Long(number) => Some(number),
        _ => None,
    };
    let microseconds = seconds.and_then(|seconds| seconds.checked_mul(1_000_000));
    let property = |value| Property::new(&format!("{stem}USec"), Value::Long(value));
    Some(microseconds.map(property).ok_or_else(|| bad("not a number of seconds")))
}

fn value(text: &str) -> Option<Value> {
    let quoted = |text: &str| {
        let inner = ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))?;
        (!inner.contains(['\'', '"', '\\'])).then(|| inner.to_owned())
    };
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if let Some((kind, number)) = text.split_once(' ') {
        let number = number.trim();
        match kind {
            "int32" => return number.parse().ok().map(Value::Int),
            "uint32" => return number.parse().ok().map(Value::Unsigned),
            "uint64" => return number.parse().ok().map(Value::Long),
            _ => {}
        }
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner.split(',').map(|part| quoted(part.trim())).collect::<Option<_>>().map(Value::Texts);
    }
    quoted(text).map(Value::Text).or_else(|| text.parse().ok().map(Value::Int))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(layout: &Layout, path: &str, resources: serde_json::Value) -> Result<Vec<String>, String> {
        let resources: LinuxResources = serde_json::from_value(resources).unwrap();
        let plan = plan_systemd(layout, path, "abc", &resources, false).map_err(|error| error.to_string())?;
        let all = plan.properties.iter().chain(&plan.limits);
        let head = format!("{:?} {} in {}", plan.bus, plan.unit, plan.slice);
        Ok(std::iter::once(head).chain(all.map(|one| format!("{}={:?}", one.name, one.value))).collect())
    }

    fn v2() -> Layout {
        Layout::V2 { root: "/c".into(), controllers: vec![] }
    }

    #[test]
    fn a_unit_of_version_2_has_all_that_systemd_knows() {
        let found = drawn(
            &v2(),
            "machine.slice:libpod:abc",
            serde_json::json!({
                "memory": {"limit": 1000, "swap": 3000, "reservation": 500},
                "cpu": {"shares": 1024, "quota": 25_500, "period": 100_000, "cpus": "0-2,9", "mems": "0"},
                "pids": {"limit": 7},
                "devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
                "unified": {"memory.high": "900", "cpu.max": "max 50000", "io.max": "8:0 rbps=1"},
            }),
        );
        let expected = [
            "System libpod-abc.scope in machine.slice",
            "Description=Text(\"stanza container abc\")",
            "Slice=Text(\"machine.slice\")",
            "Delegate=Bool(true)",
            "MemoryAccounting=Bool(true)",
            "CPUAccounting=Bool(true)",
            "IOAccounting=Bool(true)",
            "TasksAccounting=Bool(true)",
            "DefaultDependencies=Bool(false)",
            "MemoryMax=Long(1000)",
            "MemoryLow=Long(500)",
            "MemorySwapMax=Long(2000)",
            "CPUWeight=Long(100)",
            "CPUQuotaPeriodUSec=Long(100000)",
            "CPUQuotaPerSecUSec=Long(260000)",
            "AllowedCPUs=Bytes([7, 2])",
            "AllowedMemoryNodes=Bytes([1])",
            "TasksMax=Long(7)",
            "DevicePolicy=Text(\"strict\")",
            "DeviceAllow=Pairs([])",
            "DeviceAllow=Pairs([(\"/dev/char/1:3\", \"rw\")])",
            "CPUQuotaPeriodUSec=Long(50000)",
            "CPUQuotaPerSecUSec=Long(18446744073709551615)",
            "MemoryHigh=Long(900)",
        ];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_unit_of_version_1_has_the_older_names() {
        let resources = serde_json::json!({"memory": {"limit": -1, "swap": -1}, "cpu": {"shares": 512},
            "blockIO": {"weight": 300}, "pids": {"limit": -1}, "unified": {"x.y": "1"}});
        let found = drawn(&Layout::V1(vec![]), "", resources).unwrap();
        assert_eq!(found[0], "System stanza-abc.scope in system.slice");
        let expected = [
            "MemoryLimit=Long(18446744073709551615)",
            "CPUShares=Long(512)",
            "TasksMax=Long(18446744073709551615)",
            "BlockIOWeight=Long(300)",
        ];
        assert_eq!(found[9..], expected);
    }

    #[test]
    fn names_are_runcs() {
        let bad = drawn(&v2(), "/a/b", serde_json::json!({}));
        let text = "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead";
        assert_eq!(bad, Err(text.into()));
        let found = drawn(&v2(), "a-b.slice::inner.slice", serde_json::json!({})).unwrap();
        assert_eq!(
            (found[0].as_str(), found[2].as_str()),
            ("System inner.slice in a-b.slice", "Wants=Texts([\"a-b.slice\"])")
        );
        assert_eq!(expand_slice("a-b-c.slice").unwrap(), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(expand_slice("-.slice").unwrap(), "/");
        for bad in [".slice", "a", "a/b.slice", "a--b.slice", "-a.slice", ""] {
            assert_eq!(expand_slice(bad).unwrap_err().to_string(), format!("invalid slice name: {bad}"));
        }
    }

    #[test]
    fn annotations_become_properties() {
        let found = |name: &str, value: &str| {
            property_of_annotation(&format!("org.systemd.property.{name}"), value)
                .unwrap()
                .map(|property| format!("{}={:?}", property.name, property.value))
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            found("CollectMode", "'inactive-or-failed'").unwrap(),
            "CollectMode=Text(\"inactive-or-failed\")"
        );
        assert_eq!(found("TimeoutStopUSec", "uint64 123").unwrap(), "TimeoutStopUSec=Long(123)");
        assert_eq!(found("TimeoutStopSec", "int32 5").unwrap(), "TimeoutStopUSec=Long(5000000)");
        assert_eq!(found("After", "['a', \"b\"]").unwrap(), "After=Texts([\"a\", \"b\"])");
        assert_eq!(found("DefaultDependencies", "true").unwrap(), "DefaultDependencies=Bool(true)");
        assert!(found("X", "uint64 -1").unwrap_err().ends_with("not a value"));
        assert!(found("XSec", "'a'").unwrap_err().ends_with("not a number of seconds"));
        assert!(property_of_annotation("other", "1").is_none());
    }
}
