//! `create`: a container whose program waits for `start`.

use crate::arguments::{Parsed, Verb};
use crate::context::Context;
use crate::creation::{self, FLAGS, Request};
use crate::failure::Failure;

pub(super) static VERB: Verb = Verb {
    name: "create",
    usage: "ID",
    help: "Create a container whose program waits for start",
    flags: &FLAGS,
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    creation::create(context, &Request::of(parsed)?).map(|_| 0)
}
