//! `start`: lets the program of a created container run.

use stanza_container::open_gate;

use crate::arguments::{Parsed, Verb};
use crate::context::Context;
use crate::failure::Failure;
use crate::hooks::{self, Kind};
use crate::state::{Container, Status};
use crate::teardown;

pub(super) static VERB: Verb = Verb {
    name: "start",
    usage: "ID",
    help: "Start the program of a created container",
    flags: &[],
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::open_locked(context, parsed.id()?)?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(Failure::State("cannot start a container that has stopped".to_owned()));
        }
        Status::Running | Status::Paused => {
            return Err(Failure::State("cannot start an already running container".to_owned()));
        }
        Status::Creating => {
            return Err(Failure::State("cannot start a container in the creating state".to_owned()));
        }
    }
    open_gate(&container.place.start_gate(), &container.place.result_gate())?;
    let record = &container.record;
    let spec = container.spec()?;
    if let Err(error) = hooks::run(&spec, Kind::Poststart, &record.state_text(Status::Running)) {
        if let Some(init) = container.init() {
            teardown::kill(&init, &container.cgroup())?;
        }
        return Err(Failure::below(error));
    }
    Ok(0)
}
