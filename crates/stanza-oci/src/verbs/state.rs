//! `state`: prints how a container is.

use std::io::Write;

use crate::arguments::{Parsed, Verb};
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::state::Container;

pub(super) static VERB: Verb = Verb {
    name: "state",
    usage: "ID",
    help: "Print the state of a container",
    flags: &[],
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::open(context, parsed.id()?)?;
    let mut text = serde_json::to_string_pretty(&container.details()).map_err(Failure::below)?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes()).step("write to standard output")?;
    Ok(0)
}
