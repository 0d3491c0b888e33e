//! `pause`: freezes all processes of a container.

use crate::arguments::{Parsed, Verb};
use crate::context::Context;
use crate::failure::Failure;
use crate::state::{Container, Status};

pub(super) static VERB: Verb = Verb {
    name: "pause",
    usage: "ID",
    help: "Freeze all processes of a container",
    flags: &[],
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::open_locked(context, parsed.id()?)?;
    match container.status() {
        Status::Running | Status::Created => {}
        status => {
            return Err(Failure::State(format!("container not running or created: {}", status.as_str())));
        }
    }
    container.cgroup().freeze().map_err(Failure::below)?;
    Ok(0)
}
