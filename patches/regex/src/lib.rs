//! The few words of the crate `regex` that `oci-spec` uses, spoken by `regex-lite`.
//!
//! `oci-spec` checks one field of a configuration (`execCPUAffinity`) by an expression of digits, commas and dashes. For that
//! the crate `regex` brings half a megabyte of program, half as much as the agent of a guest may have (`docs/vm-protocol.md`).

#![forbid(unsafe_code)]

pub use regex_lite::{Error, Regex};
