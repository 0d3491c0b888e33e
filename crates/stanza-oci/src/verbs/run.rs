//! `run`: creates a container, starts it, waits for its end and deletes it; with `--detach` only the first two.

use crate::arguments::{Flag, Parsed, Verb, join, switch};
use crate::context::Context;
use crate::creation::{self, Request};
use crate::failure::Failure;
use crate::hooks::{self, Kind};
use crate::state::Status;
use crate::{foreground, log, teardown};

/// What the verbs that may wait for the container's end have besides.
pub(super) const WAITING_FLAGS: [Flag; 3] = [
    switch(&["detach", "d"], "do not wait for the container's end"),
    switch(&["keep"], "do not delete the container when it has ended"),
    switch(&["no-subreaper"], "accepted for runc's sake: orphans are never taken over"),
];

const FLAGS: [Flag; 11] = join(&creation::FLAGS, &WAITING_FLAGS);

pub(super) static VERB: Verb = Verb {
    name: "run",
    usage: "ID",
    help: "Create and start a container, wait for its end, delete it",
    flags: &FLAGS,
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let detached = parsed.is_on("detach");
    let request = Request { gated: false, detached, ..Request::of(parsed)? };
    let created = creation::create(context, &request)?;
    let state = created.container.record.state_text(Status::Running);
    if let Err(error) = hooks::run(&created.spec, Kind::Poststart, &state) {
        let errors = teardown::destroy(context, created.container, Some(&created.spec));
        errors.iter().for_each(|error| log::warn(context, &error.chain()));
        return Err(Failure::below(error));
    }
    if detached {
        return Ok(0);
    }
    // Whoever else changes the container may do so meanwhile.
    created.container.place.unlock()?;
    let code = foreground::attend(&created.init)?;
    if !parsed.is_on("keep") {
        created.container.place.lock()?;
        for error in teardown::destroy(context, created.container, Some(&created.spec)) {
            log::warn(context, &error.chain());
        }
    }
    Ok(code)
}
