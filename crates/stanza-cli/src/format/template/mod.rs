//! Go's `text/template`, as much of it as Docker's `--format` has users for, over JSON.
//!
//! ```text
//! text --lex--> tokens --parse--> nodes --execute(value)--> text
//! ```
//!
//! Actions: fields, variables, pipelines, parentheses, `if`/`else if`/`else`, `range` (with `break`, `continue`), `with`,
//! comments and trim markers; Go's built-in functions and Docker's (`json split join title lower upper pad truncate`).
//! Error texts are Go's, since scripts match on them. Not here: `define`, `template`, `block`, `call`, complex numbers.
//!
//! Go distinguishes structs, whose unknown field is an error, from maps, whose missing key is `<no value>`. JSON does
//! not, so the caller of [`Template::execute`] names the fields that hold maps ([`Scope::maps`]).

mod execute;
mod functions;
mod lex;
mod node;
mod parse;
mod print;

use serde_json::Value;

pub(crate) use node::Template;
pub(crate) use print::quote;

/// Why a template was refused or stopped: Go's own words, position first.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("template: {0}")]
pub(crate) struct TemplateError(String);

/// A method of the object that a template is executed on: its name and arguments; `None` when there is none of that name.
pub(crate) type Method<'a> = dyn Fn(&str, &[Value]) -> Option<Value> + 'a;

/// What a template sees beside its data.
pub(crate) struct Scope<'a> {
    /// Names of the fields that hold a map, whose missing keys are no errors.
    pub(crate) maps: &'a [&'a str],
    /// Methods of the top object, as `.Label "x"`.
    pub(crate) method: Option<&'a Method<'a>>,
    /// The line of column titles is being made: functions that change text leave it as it is, as Docker's do.
    pub(crate) header: bool,
}

impl Scope<'_> {
    /// Nothing but the data.
    pub(crate) const PLAIN: Scope<'static> = Scope { maps: &[], method: None, header: false };
}

#[cfg(test)]
mod tests;
