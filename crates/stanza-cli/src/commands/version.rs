//! `stanza version`.

use clap::{ArgMatches, Command};

use super::system_info::show;
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, value};
use crate::door::{Door, Outcome};
use crate::render::json::Json;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["version"],
    group: Group::Common,
    about: "Show the version",
    needs: Needs::Nothing,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "version",
        "stanza version [OPTIONS]",
        ENTRY.about,
        "Example:\n  stanza version --format '{{.Version}}'",
    )
    .arg(value("format", 'f', "FORMAT", "`json` or a Go template"))
}

fn run(_door: &mut Door, given: &ArgMatches) -> Outcome {
    // There is no daemon: client and server are one program, and scripts that ask for either get an answer.
    let platform = stanza_spec::Platform::host();
    let side = || {
        Json::object([
            ("Version", env!("CARGO_PKG_VERSION").into()),
            ("Os", platform.os.as_str().into()),
            ("Arch", platform.architecture.as_str().into()),
        ])
    };
    let format = given.text("format");
    if format.is_none_or(str::is_empty) {
        let fields =
            [("Version", env!("CARGO_PKG_VERSION").into()), ("OS/Arch", platform.to_string().into())];
        return show(None, &fields);
    }
    show(format, &[("Version", env!("CARGO_PKG_VERSION").into()), ("Client", side()), ("Server", side())])
}
