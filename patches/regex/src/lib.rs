//! The few words of the crate `regex` that `oci-spec` uses, spoken by `regex-lite`.
//!
//! `oci-spec` checks one field of a configuration (`execCPUAffinity`) by an expression of digits, commas and dashes. For that
//! the crate `regex` brings 0.4 MB of code and as much again of tables, where the agent of a guest has 2.0 MB without (`docs/vm-protocol.md`).

#![forbid(unsafe_code)]

pub use regex_lite::{Error, Regex};
