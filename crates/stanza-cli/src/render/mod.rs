//! Docker's shapes for what the engine knows: JSON for `inspect`, rows for listings.

pub(crate) mod compare;
pub(crate) mod container;
pub(crate) mod container_network;
pub(crate) mod document;
pub(crate) mod image;
pub(crate) mod image_tree;
pub(crate) mod json;
pub(crate) mod markup;
pub(crate) mod network;
pub(crate) mod network_graph;
pub(crate) mod ports;
pub(crate) mod usage;
