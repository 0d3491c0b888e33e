//! `stanza image mount`.

use std::path::Path;

use clap::{ArgMatches, Command};
use stanza_engine::ImageMount;

use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, optional_word, value};
use crate::door::{Door, Outcome};
use crate::format::listing::{Row, render};
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["image mount"],
    group: Group::Image,
    about: "Make the files of an image visible, or list images that are",
    needs: Needs::Records,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "image mount",
        "stanza image mount [OPTIONS] [IMAGE [DIR]]",
        ENTRY.about,
        "Example:\n  ls $(stanza image mount busybox)\n\nRead-only, on this machine, until `stanza image unmount`. Needs root.",
    )
    .arg(value("format", None, "FORMAT", "`json`, or a Go template, or `table` and a template"))
    .arg(optional_word("IMAGE"))
    .arg(optional_word("DIR"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let mut engine = door.engine()?;
    match given.text("IMAGE") {
        Some(image) => {
            let mount = engine.mount_image(image, given.text("DIR").map(Path::new))?;
            output::line(&mount.path.display().to_string()).map(|()| 0)
        }
        None => {
            let rows: Vec<Row> = engine.image_mounts().iter().map(row).collect();
            let titles =
                [("ID", "IMAGE ID"), ("Repositories", "REPOSITORIES"), ("Mountpoint", "MOUNT POINT")];
            let default = "{{.ID}}\t{{.Repositories}}\t{{.Mountpoint}}";
            output::data(&render(given.text("format"), default, &titles, &rows)?).map(|()| 0)
        }
    }
}

fn row(mount: &ImageMount) -> Row {
    let names = if mount.names.is_empty() { "<none>".to_owned() } else { mount.names.join(", ") };
    Row::default()
        .with("ID", mount.id.short())
        .with("Repositories", names)
        .with("Mountpoint", mount.path.display().to_string())
}
