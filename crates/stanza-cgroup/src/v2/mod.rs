//! Control groups of version 2.

pub(crate) mod apply;
pub(crate) mod devices;
pub(crate) mod events;
mod plan;
pub(crate) mod state;
pub(crate) mod stats;

pub(crate) use plan::{plan, weight_of_shares};
