//! `stanza import`.

use clap::{ArgMatches, Command};
use stanza_image::ImportOptions;
use stanza_spec::Platform;

use super::load::archive;
use super::pull::platform;
use super::tag::reference;
use super::{Entry, Faults, Group, Needs, keep_budget};
use crate::arguments::{Given, command, list, optional_word, value, word};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["import", "image import"],
    group: Group::Image,
    about: "Make an image of a root file system's tarball",
    needs: Needs::Engine,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "import",
        "stanza import [OPTIONS] FILE|- [NAME[:TAG]]",
        ENTRY.about,
        "Example:\n  stanza import -c 'CMD [\"sh\"]' rootfs.tar.gz my/image",
    )
    .arg(list("change", 'c', "INSTRUCTION", "Apply a Dockerfile instruction"))
    .arg(value("message", 'm', "TEXT", "Set the commit message"))
    .arg(value("platform", None, "OS/ARCH", "Set the platform"))
    .arg(word("FILE"))
    .arg(optional_word("NAME"))
}

fn run(door: &mut Door, given: &ArgMatches) -> Outcome {
    let name = given.text("NAME").map(reference).transpose()?;
    let path = given.text("FILE").unwrap_or_default();
    if path.starts_with("http://") || path.starts_with("https://") {
        return Err(Failure::not_built("import from a URL")
            .with_hint("fetch it first and pipe it in, with `-` as file"));
    }
    let options = ImportOptions {
        changes: given.texts("change").map(str::to_owned).collect(),
        // Docker's client sends every source as its standard input.
        message: Some(given.text("message").unwrap_or("Imported from -").to_owned()),
        platform: platform(given)?.unwrap_or_else(Platform::host),
    };
    let archive = archive(Some(path))?;
    let mut engine = door.engine()?;
    let image = engine.import(Box::new(archive), name.as_ref(), &options)?;
    keep_budget(&mut engine);
    output::line(image.id.as_str()).map(|()| 0)
}
