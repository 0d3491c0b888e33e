//! `update`: other limits for a container that is there, its devices included.

use std::fs;
use std::io::Read;

use serde_json::{Map, Value, json};
use stanza_cgroup::Location;
use stanza_cgroup::systemd;
use stanza_spec::oci::runtime::Spec;
use stanza_spec::units;

use crate::arguments::{Parsed, Verb, option};
use crate::cgroups;
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::state::{Container, Status};

pub(super) static VERB: Verb = Verb {
    name: "update",
    usage: "ID",
    help: "Change the limits of a container",
    flags: &[
        option(
            &["resources", "r"],
            "FILE",
            "the new limits as in config.json, `-` for standard input; no other option counts then",
        ),
        option(&["blkio-weight"], "N", "weight of input and output, 10 to 1000"),
        option(&["cpu-period"], "US", "period of the processor limit, in microseconds"),
        option(&["cpu-quota"], "US", "processor time in a period, in microseconds; -1 for no limit"),
        option(&["cpu-burst"], "US", "processor time that may be saved up, in microseconds"),
        option(&["cpu-share", "cpu-shares"], "N", "weight of processor time"),
        option(&["cpu-rt-period"], "US", "period of the real-time limit, in microseconds"),
        option(&["cpu-rt-runtime"], "US", "real-time processor time in a period, in microseconds"),
        option(&["cpu-idle"], "N", "1 to run only where nobody else wants the processor, 0 not to"),
        option(&["cpuset-cpus"], "LIST", "the processors to use, as 0-3,7"),
        option(&["cpuset-mems"], "LIST", "the memory nodes to use"),
        option(&["memory", "memory-limit"], "BYTES", "memory, as 67108864 or 64m; -1 for no limit"),
        option(&["memory-reservation"], "BYTES", "memory to be left with when it is short"),
        option(&["memory-swap"], "BYTES", "memory and swap together; -1 for no limit"),
        option(
            &["kernel-memory"],
            "BYTES",
            "accepted and without effect: the kernel has no such limit any more",
        ),
        option(&["kernel-memory-tcp"], "BYTES", "accepted and without effect"),
        option(&["pids-limit"], "N", "processes; -1 for no limit"),
        option(&["l3-cache-schema"], "SCHEMA", "Intel's resource control: the last cache"),
        option(&["mem-bw-schema"], "SCHEMA", "Intel's resource control: memory bandwidth"),
    ],
    own_words: usize::MAX,
    run,
};

/// A flag, where its number goes in `linux.resources`, and how it is written.
type Limit = (&'static str, &'static str, &'static str, fn(&str) -> Option<Value>);

const LIMITS: [Limit; 14] = [
    ("blkio-weight", "blockIO", "weight", number),
    ("cpu-period", "cpu", "period", number),
    ("cpu-quota", "cpu", "quota", number),
    ("cpu-burst", "cpu", "burst", number),
    ("cpu-share", "cpu", "shares", number),
    ("cpu-rt-period", "cpu", "realtimePeriod", number),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", number),
    ("cpu-idle", "cpu", "idle", number),
    ("cpuset-cpus", "cpu", "cpus", text),
    ("cpuset-mems", "cpu", "mems", text),
    ("memory", "memory", "limit", bytes),
    ("memory-reservation", "memory", "reservation", bytes),
    ("memory-swap", "memory", "swap", bytes),
    ("pids-limit", "pids", "limit", number),
];

fn number(text: &str) -> Option<Value> {
    text.trim().parse::<i64>().ok().map(Value::from)
}

fn text(text: &str) -> Option<Value> {
    Some(Value::from(text))
}

fn bytes(text: &str) -> Option<Value> {
    match number(text) {
        Some(number) => Some(number),
        None => units::parse_bytes(text).ok().map(Value::from),
    }
}

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::open_locked(context, parsed.id()?)?;
    if matches!(container.status(), Status::Stopped | Status::Creating) {
        return Err(Failure::State("container not running".to_owned()));
    }
    let changes = match parsed.value("resources").filter(|path| !path.is_empty()) {
        Some(path) => read(path)?,
        None => of_flags(parsed)?,
    };
    let path = container.place.file("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).doing("read", &path)?)
        .map_err(|error| Failure::Configuration(format!("{}: {error}", path.display())))?;
    let devices = changes.get("devices").is_some();
    merge(&mut config, &changes);
    apply(context, &container, &config, devices, parsed)?;
    let text = serde_json::to_vec(&config).map_err(Failure::below)?;
    container.place.write("config.json", &text)?;
    Ok(0)
}

fn read(path: &str) -> Result<Map<String, Value>, Failure> {
    let text = match path {
        "-" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).step("read standard input")?;
            text
        }
        path => fs::read(path).doing("open", path)?,
    };
    let name = if path == "-" { "standard input" } else { path };
    serde_json::from_slice(&text).map_err(|error| Failure::Configuration(format!("{name}: {error}")))
}

fn of_flags(parsed: &Parsed) -> Result<Map<String, Value>, Failure> {
    let mut changes = Map::new();
    for (flag, part, name, read) in LIMITS {
        let Some(text) = parsed.value(flag).filter(|text| !text.is_empty()) else { continue };
        let value =
            read(text).ok_or_else(|| Failure::Usage(format!("invalid value for {flag}: {text:?}")))?;
        changes.entry(part).or_insert_with(|| json!({}))[name] = value;
    }
    Ok(changes)
}

/// Puts the new values over the old ones, limit by limit; lists as a whole.
fn merge(config: &mut Value, changes: &Map<String, Value>) {
    let resources = &mut config["linux"]["resources"];
    if !resources.is_object() {
        *resources = json!({});
    }
    for (part, change) in changes {
        match (resources.get_mut(part).and_then(Value::as_object_mut), change) {
            (Some(old), Value::Object(new)) => {
                old.extend(
                    new.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())),
                );
            }
            (_, Value::Null) => {}
            (_, new) => resources[part] = new.clone(),
        }
    }
}

fn apply(
    context: &Context,
    container: &Container,
    config: &Value,
    devices: bool,
    parsed: &Parsed,
) -> Result<(), Failure> {
    let spec: Spec = serde_json::from_value(config.clone())
        .map_err(|error| Failure::Configuration(format!("the new limits: {error}")))?;
    let mut resources = cgroups::resources(&spec);
    if !devices {
        // What is in force stays in force, without a moment in which it is not.
        resources.set_devices(None);
    }
    let record = &container.record;
    let layout = stanza_cgroup::detect().map_err(Failure::below)?;
    if let Some(unit) = &record.systemd {
        let path = cgroups::cgroups_path(&spec);
        let plan = systemd::plan_systemd(&layout, path, &record.id, &resources, context.rootless)
            .map_err(Failure::below)?;
        systemd::update(&systemd::SystemdPlan { unit: unit.unit.clone(), ..plan }).map_err(Failure::below)?;
    }
    let plan = cgroups::plan_at(context, &layout, &Location::of_plan(&record.cgroup), &resources)?;
    container.cgroup().update(&plan).map_err(Failure::below)?;
    update_rdt(container, parsed)
}

/// Intel's resource control, which is no part of `resources`.
fn update_rdt(container: &Container, parsed: &Parsed) -> Result<(), Failure> {
    let wanted = |flag| parsed.value(flag).filter(|text| !text.is_empty()).map(str::to_owned);
    let request = stanza_cgroup::RdtRequest {
        l3_cache_schema: wanted("l3-cache-schema"),
        mem_bw_schema: wanted("mem-bw-schema"),
        ..stanza_cgroup::RdtRequest::default()
    };
    if request.l3_cache_schema.is_none() && request.mem_bw_schema.is_none() {
        return Ok(());
    }
    let plan =
        stanza_cgroup::plan_rdt(stanza_cgroup::detect_rdt().as_deref(), &request, &container.record.id)
            .map_err(Failure::below)?;
    match &container.record.rdt {
        Some(rdt) => rdt.update(&plan).map_err(Failure::below),
        None => {
            Err(Failure::State("the container was created without Intel RDT groups of its own".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_replaced_one_by_one_and_lists_as_a_whole() {
        let mut config = json!({"linux": {"resources": {
            "memory": {"limit": 1, "swap": 2}, "devices": [{"allow": false}], "pids": {"limit": 3}
        }}});
        let changes =
            json!({"memory": {"limit": 5, "swap": null}, "devices": [], "cpu": {"shares": 7}, "pids": null});
        merge(&mut config, changes.as_object().unwrap());
        assert_eq!(
            config["linux"]["resources"],
            json!({"memory": {"limit": 5, "swap": 2}, "devices": [], "pids": {"limit": 3}, "cpu": {"shares": 7}})
        );
    }

    #[test]
    fn numbers_have_units_where_they_are_bytes() {
        assert_eq!((bytes("64m"), bytes("-1"), bytes("x")), (Some(json!(64 << 20)), Some(json!(-1)), None));
        assert_eq!(number("64m"), None);
    }
}
