//! Control groups of version 1.

pub(crate) mod apply;
pub(crate) mod devices;
pub(crate) mod events;
mod plan;
pub(crate) mod state;
pub(crate) mod stats;

pub(crate) use plan::{check_swap, limits, page_size, plan, rdma_limits, shares};
