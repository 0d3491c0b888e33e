//! `mounts`.

use crate::arguments::{Parsed, Verb};
use crate::context::Context;
use crate::failure::Failure;

pub(super) static VERB: Verb =
    Verb { name: "mounts", usage: "ID", help: "", flags: &[], own_words: usize::MAX, run };

fn run(_context: &Context, _parsed: &Parsed) -> Result<u8, Failure> {
    Err(Failure::State("being written".to_owned()))
}
