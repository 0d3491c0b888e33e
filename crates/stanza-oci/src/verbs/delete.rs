//! `delete`: clears a container that has ended, or was never started; with `--force` any.

use crate::arguments::{Parsed, Verb, switch};
use crate::context::Context;
use crate::failure::Failure;
use crate::state::{Container, Place, Status};
use crate::teardown;

pub(super) static VERB: Verb = Verb {
    name: "delete",
    usage: "ID",
    help: "Delete a container that has ended or was not started",
    flags: &[switch(&["force", "f"], "kill what runs; no container of that id is no error")],
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let (id, force) = (parsed.id()?, parsed.is_on("force"));
    let place = match Place::open(context, id) {
        Err(Failure::NoContainer) if force => return Ok(0),
        other => other?,
    };
    place.lock()?;
    let Some(record) = place.read_latest_record()? else {
        // Its maker died before anything but the directory was made, or another `delete` was here first.
        if !force {
            return Err(Failure::NoContainer);
        }
        return place.remove().map(|()| 0);
    };
    let container = Container { place, record };
    match container.status() {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            return Err(Failure::State(format!(
                "cannot delete container {id} that is not stopped: {}",
                status.as_str()
            )));
        }
    }
    match teardown::destroy(context, container, None).into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(0),
    }
}
