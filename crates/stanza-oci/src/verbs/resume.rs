//! `resume`: lets the processes of a paused container go on.

use crate::arguments::{Parsed, Verb};
use crate::context::Context;
use crate::failure::Failure;
use crate::state::{Container, Status};

pub(super) static VERB: Verb = Verb {
    name: "resume",
    usage: "ID",
    help: "Let the processes of a paused container go on",
    flags: &[],
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::open_locked(context, parsed.id()?)?;
    // A container that was paused before it was started counts, too.
    let frozen = container.cgroup().is_paused() && container.status() != Status::Stopped;
    if !frozen {
        return Err(Failure::State("container not paused".to_owned()));
    }
    container.cgroup().thaw().map_err(Failure::below)?;
    Ok(0)
}
