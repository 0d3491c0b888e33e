//! `stanza logout`.

use clap::{ArgMatches, Command};
use stanza_image::LoginOptions;

use super::login::{HUB, authfile};
use super::{Entry, Faults, Group, Needs};
use crate::arguments::{Given, command, optional_word, switch, value};
use crate::door::{Door, Outcome};
use crate::failure::Failure;
use crate::output;

pub(super) const ENTRY: &Entry = &Entry {
    paths: &["logout"],
    group: Group::Common,
    about: "Forget the credentials for a registry",
    needs: Needs::Nothing,
    faults: Faults::Plain,
    build,
    run,
};

fn build() -> Command {
    command(
        "logout",
        "stanza logout [OPTIONS] [REGISTRY]",
        ENTRY.about,
        "Example:\n  stanza logout registry.example.com",
    )
    .arg(switch("all", 'a', "Forget the credentials for all registries"))
    .arg(value(
        "authfile",
        None,
        "FILE",
        "They are there (default $REGISTRY_AUTH_FILE or ~/.docker/config.json)",
    ))
    .arg(optional_word("REGISTRY"))
}

fn run(_: &mut Door, given: &ArgMatches) -> Outcome {
    let options = LoginOptions { authfile: authfile(given)?, tls_verify: true };
    let registry = given.text("REGISTRY");
    if given.on("all") {
        if registry.is_some() {
            return Err(Failure::usage("option `--all` and a registry exclude each other"));
        }
        output::line("Removing login credentials for all registries")?;
        stanza_image::logout_all(&options)?;
        return Ok(0);
    }
    let registry = registry.unwrap_or(HUB);
    // As in Docker, also when there were none.
    output::line(&format!("Removing login credentials for {registry}"))?;
    let done = stanza_image::logout(registry, &options)?;
    if !done.found {
        output::warning(&format!("there were no credentials for {registry}"));
    }
    for path in done.elsewhere {
        output::warning(&format!(
            "`{}` has credentials for {registry} too; `--authfile` names it",
            path.display()
        ));
    }
    Ok(0)
}
