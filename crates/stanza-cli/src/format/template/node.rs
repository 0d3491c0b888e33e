//! The parsed form of a template.

use serde_json::Value;

/// A template, ready to be executed.
#[derive(Debug)]
pub(crate) struct Template {
    /// The source, for positions in errors.
    pub(super) source: String,
    /// What it consists of.
    pub(super) nodes: Vec<Node>,
}

/// One piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Text that is copied.
    Text(String),
    /// `{{pipeline}}`.
    Action(Pipe),
    /// `{{if}}`.
    If(Branch),
    /// `{{with}}`.
    With(Branch),
    /// `{{range}}`.
    Range(Branch),
    /// `{{break}}`.
    Break,
    /// `{{continue}}`.
    Continue,
}

/// A pipeline with what follows when it is true and when not.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// `$x := command | command`.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Variables that take the value, with their `$`.
    pub(super) variables: Vec<String>,
    /// `=` in place of `:=`.
    pub(super) assign: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or value with its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) at: Span,
    pub(super) operands: Vec<Operand>,
}

/// Where in the source something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte of its text.
    pub(super) start: usize,
    /// After its last byte.
    pub(super) end: usize,
    /// The byte that errors name: of the last name in `.A.B`.
    pub(super) position: usize,
}

/// One word of a command.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: Span,
    pub(super) base: Base,
    /// Names after it: `.A.B`.
    pub(super) fields: Vec<String>,
}

/// What an operand starts with.
#[derive(Debug)]
pub(super) enum Base {
    /// `.`
    Dot,
    /// `nil`.
    Nil,
    /// A literal.
    Constant(Value),
    /// `$x`.
    Variable(String),
    /// A function's name.
    Function(String),
    /// `(pipeline)`.
    Group(Box<Pipe>),
}
