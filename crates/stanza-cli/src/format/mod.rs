//! How listings look: Go templates, tables, JSON, times.

pub(crate) mod listing;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod time;
