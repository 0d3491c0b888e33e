//! The verbs, one file each.

use crate::arguments::Verb;

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
pub(crate) mod help;
mod kill;
mod list;
mod mounts;
mod pause;
mod ps;
mod restore;
mod resume;
mod run;
mod spec;
mod start;
mod state;
mod update;

/// All verbs, as the help lists them.
pub(crate) static VERBS: [&Verb; 18] = [
    &checkpoint::VERB,
    &create::VERB,
    &delete::VERB,
    &events::VERB,
    &exec::VERB,
    &features::VERB,
    &kill::VERB,
    &list::VERB,
    &mounts::VERB,
    &pause::VERB,
    &ps::VERB,
    &restore::VERB,
    &resume::VERB,
    &run::VERB,
    &spec::VERB,
    &start::VERB,
    &state::VERB,
    &update::VERB,
];

/// The verb of that name.
pub(crate) fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().copied().find(|verb| verb.name == name)
}
