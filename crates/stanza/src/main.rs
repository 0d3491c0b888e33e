//! stanza
fn main() {}
