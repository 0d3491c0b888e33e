//! `stanza info`.

use clap::{ArgMatches, Command};

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::format::listing;
use crate::format::template::Scope;
use crate::output;
use crate::render::json::Json;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["info", "system info"],
    group: Group::Common,
    about: "Show facts about this stanza and this machine",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "info",
        "stanza info [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza info --format '{{.CgroupVersion}}'",
    )
    .arg(value("format", 'f', "FORMAT", "`json` or a Go template"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let facts = door.engine()?.info()?;
    let security: Vec<String> = facts.security.iter().map(ToString::to_string).collect();
    let fields = [
        ("ServerVersion", Json::from(facts.version.as_str())),
        ("Containers", facts.containers.into()),
        ("ContainersRunning", facts.running.into()),
        ("ContainersPaused", 0.into()),
        ("ContainersStopped", facts.stopped.into()),
        ("Images", facts.images.into()),
        ("Driver", facts.storage_driver.to_string().into()),
        ("BackingFilesystem", facts.backing_file_system.as_str().into()),
        ("CgroupVersion", facts.cgroup.as_str().into()),
        ("CgroupControllers", facts.cgroup_controllers.clone().into()),
        ("SecurityOptions", security.into()),
        ("KernelVersion", facts.kernel.as_str().into()),
        ("OperatingSystem", facts.operating_system.as_str().into()),
        ("OSType", "linux".into()),
        ("Architecture", facts.architecture.as_str().into()),
        ("NCPU", facts.cpus.into()),
        ("MemTotal", facts.memory.into()),
        ("Name", facts.hostname.as_str().into()),
        ("Rootless", facts.rootless.into()),
        ("RootDir", facts.root.display().to_string().into()),
        ("RunRootDir", facts.runroot.display().to_string().into()),
    ];
    show(given.text("format"), &fields)
}

/// Shows named facts: one a line, as JSON, or through a template.
pub(super) fn show<const N: usize>(format: Option<&str>, fields: &[(&str, Json); N]) -> Outcome {
    let json = Json::object(fields.clone());
    let text = match format {
        None | Some("") => fields
            .iter()
            .map(|(name, value)| match value.value() {
                serde_json::Value::String(text) => format!("{name}: {text}\n"),
                serde_json::Value::Array(list) => {
                    let words: Vec<&str> = list.iter().filter_map(serde_json::Value::as_str).collect();
                    format!("{name}: {}\n", words.join(" "))
                }
                other => format!("{name}: {other}\n"),
            })
            .collect(),
        Some("json") => serde_json::to_string(&json).unwrap_or_default() + "\n",
        Some(source) => {
            let made = listing::parse(source)?.execute(&json.value(), &Scope::PLAIN);
            made.map_err(|error| Failure::usage(format!("failed to execute template: {error}")))? + "\n"
        }
    };
    output::data(&text).map(|()| 0)
}
