//! From nodes and a value to text.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::{self, truth};
use super::lex::line;
use super::node::{Base, Branch, Command, Node, Operand, Pipe, Span, Template};
use super::{Scope, TemplateError, print};

/// Deepest nesting of parentheses and branches that is followed.
const MAX_DEPTH: u32 = 200;

/// A value, and whether it is a map whose missing keys are no errors.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    pub(super) value: Cow<'a, Value>,
    pub(super) map: bool,
}

impl<'a> Item<'a> {
    fn owned(value: Value) -> Item<'a> {
        Item { value: Cow::Owned(value), map: false }
    }
}

/// Why a list of nodes stopped before its end.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct State<'a> {
    template: &'a Template,
    scope: &'a Scope<'a>,
    variables: Vec<(String, Item<'a>)>,
    output: String,
    depth: u32,
}

impl Template {
    /// The text that the template makes of `data`.
    ///
    /// # Errors
    /// When a field does not exist or a function does not take its arguments.
    pub(crate) fn execute(&self, data: &Value, scope: &Scope<'_>) -> Result<String, TemplateError> {
        let top = Item { value: Cow::Borrowed(data), map: false };
        let mut state = State {
            template: self,
            scope,
            variables: vec![("$".to_owned(), top.clone())],
            output: String::new(),
            depth: 0,
        };
        state.list(&self.nodes, &top)?;
        Ok(state.output)
    }

    /// Whether the template reads a field of that name.
    pub(crate) fn uses(&self, field: &str) -> bool {
        uses_in(&self.nodes, field)
    }
}

fn uses_in(nodes: &[Node], field: &str) -> bool {
    nodes.iter().any(|node| match node {
        Node::Action(pipe) => uses_in_pipe(pipe, field),
        Node::If(b) | Node::With(b) | Node::Range(b) => {
            uses_in_pipe(&b.pipe, field) || uses_in(&b.body, field) || uses_in(&b.otherwise, field)
        }
        Node::Text(_) | Node::Break | Node::Continue => false,
    })
}

fn uses_in_pipe(pipe: &Pipe, field: &str) -> bool {
    pipe.commands.iter().flat_map(|command| &command.operands).any(|operand| {
        operand.fields.first().is_some_and(|name| name == field)
            || matches!(&operand.base, Base::Group(inner) if uses_in_pipe(inner, field))
    })
}

impl<'a> State<'a> {
    fn fail(&self, at: Span, message: &str) -> TemplateError {
        let source = &self.template.source;
        let column = at.position - source[..at.position].rfind('\n').map_or(0, |newline| newline + 1);
        let context = &source[at.start..at.end];
        let line = line(source, at.position);
        TemplateError(format!(":{line}:{column}: executing \"\" at <{context}>: {message}"))
    }

    fn list(&mut self, nodes: &'a [Node], dot: &Item<'a>) -> Result<Flow, TemplateError> {
        for node in nodes {
            let flow = match node {
                Node::Text(text) => {
                    self.output.push_str(text);
                    Flow::On
                }
                Node::Action(pipe) => {
                    let item = self.pipe(pipe, dot)?;
                    if pipe.variables.is_empty() {
                        print::top(&mut self.output, &item.value);
                    }
                    Flow::On
                }
                Node::If(branch) => self.branch(branch, dot, false)?,
                Node::With(branch) => self.branch(branch, dot, true)?,
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn branch(&mut self, branch: &'a Branch, dot: &Item<'a>, with: bool) -> Result<Flow, TemplateError> {
        let outer = self.variables.len();
        let item = self.pipe(&branch.pipe, dot)?;
        let flow = if truth(&item.value) {
            self.list(&branch.body, if with { &item } else { dot })?
        } else {
            self.list(&branch.otherwise, dot)?
        };
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn range(&mut self, branch: &'a Branch, dot: &Item<'a>) -> Result<Flow, TemplateError> {
        let outer = self.variables.len();
        let item = self.pipe(&branch.pipe, dot)?;
        self.variables.truncate(outer);
        let elements: Vec<(Value, Item<'a>)> = match item.value {
            Cow::Borrowed(Value::Array(list)) => {
                let borrowed = |v| Item { value: Cow::Borrowed(v), map: false };
                list.iter().enumerate().map(|(i, v)| (i.into(), borrowed(v))).collect()
            }
            Cow::Borrowed(Value::Object(map)) => {
                let borrowed = |v| Item { value: Cow::Borrowed(v), map: false };
                map.iter().map(|(k, v)| (k.as_str().into(), borrowed(v))).collect()
            }
            Cow::Owned(Value::Array(list)) => {
                list.into_iter().enumerate().map(|(i, v)| (i.into(), Item::owned(v))).collect()
            }
            Cow::Owned(Value::Object(map)) => {
                map.into_iter().map(|(k, v)| (k.into(), Item::owned(v))).collect()
            }
            ref value => match &**value {
                Value::Null => Vec::new(),
                Value::Number(n) if n.is_i64() || n.is_u64() => (0..n.as_i64().unwrap_or(0).min(1 << 20))
                    .map(|i| (i.into(), Item::owned(i.into())))
                    .collect(),
                other => {
                    let text = print::nested(other);
                    return Err(
                        self.fail(branch.pipe.commands[0].at, &format!("range can't iterate over {text}"))
                    );
                }
            },
        };
        if elements.is_empty() {
            return self.list(&branch.otherwise, dot);
        }
        for (key, element) in elements {
            match &branch.pipe.variables[..] {
                [] => {}
                [value] => self.set(value, element.clone(), branch.pipe.assign),
                [index, value, ..] => {
                    self.set(index, Item::owned(key), branch.pipe.assign);
                    self.set(value, element.clone(), branch.pipe.assign);
                }
            }
            let flow = self.list(&branch.body, &element)?;
            self.variables.truncate(outer);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn set(&mut self, name: &str, item: Item<'a>, assign: bool) {
        match self.variables.iter_mut().rev().find(|(known, _)| assign && known == name) {
            Some((_, slot)) => *slot = item,
            None => self.variables.push((name.to_owned(), item)),
        }
    }

    fn pipe(&mut self, pipe: &'a Pipe, dot: &Item<'a>) -> Result<Item<'a>, TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fail(pipe.commands[0].at, "exceeded maximum template depth"));
        }
        let mut last: Option<Item<'a>> = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        self.depth -= 1;
        let item = last.unwrap_or_else(|| Item::owned(Value::Null));
        // A `range` sets its variables for each element itself; the value of the whole is dropped by it.
        for name in pipe.variables.iter().rev().take(1) {
            self.set(name, item.clone(), pipe.assign);
        }
        Ok(item)
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Item<'a>,
        last: Option<Item<'a>>,
    ) -> Result<Item<'a>, TemplateError> {
        let first = &command.operands[0];
        if let Base::Function(name) = &first.base {
            let item = self.call(name, command, dot, last)?;
            return self.fields(item, &first.fields, first.at, &[]);
        }
        let mut arguments = Vec::new();
        for operand in &command.operands[1..] {
            arguments.push(self.operand(operand, dot)?.value.into_owned());
        }
        arguments.extend(last.map(|item| item.value.into_owned()));
        if arguments.is_empty() {
            if matches!(first.base, Base::Nil) {
                return Err(self.fail(command.at, "nil is not a command"));
            }
            return self.operand(first, dot);
        }
        if first.fields.is_empty() {
            let text = &self.template.source[first.at.start..first.at.end];
            return Err(self.fail(first.at, &format!("can't give argument to non-function {text}")));
        }
        let base = self.base(first, dot)?;
        self.fields(base, &first.fields, first.at, &arguments)
    }

    fn call(
        &mut self,
        name: &str,
        command: &'a Command,
        dot: &Item<'a>,
        last: Option<Item<'a>>,
    ) -> Result<Item<'a>, TemplateError> {
        let count = command.operands.len() - 1 + usize::from(last.is_some());
        if matches!(name, "and" | "or") && count > 0 {
            // They stop at the first argument that decides.
            let mut item = Item::owned(Value::Null);
            for operand in &command.operands[1..] {
                item = self.operand(operand, dot)?;
                if truth(&item.value) == (name == "or") {
                    return Ok(item);
                }
            }
            return Ok(last.unwrap_or(item));
        }
        let mut arguments = Vec::with_capacity(count);
        for operand in &command.operands[1..] {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(last);
        let values: Vec<&Value> = arguments.iter().map(|item| &*item.value).collect();
        match functions::call(name, &values, self.scope.header) {
            Ok(value) => Ok(Item::owned(value)),
            Err(functions::Refusal::Count { want }) => {
                let message = format!("wrong number of args for {name}: want {want} got {}", values.len());
                Err(self.fail(command.operands[0].at, &message))
            }
            Err(functions::Refusal::Kind(message)) => Err(self.fail(command.at, &message)),
            Err(functions::Refusal::Call(message)) => {
                Err(self.fail(command.at, &format!("error calling {name}: {message}")))
            }
        }
    }

    fn base(&mut self, operand: &'a Operand, dot: &Item<'a>) -> Result<Item<'a>, TemplateError> {
        Ok(match &operand.base {
            Base::Dot => dot.clone(),
            Base::Nil => Item::owned(Value::Null),
            Base::Constant(value) => Item { value: Cow::Borrowed(value), map: false },
            Base::Variable(name) => match self.variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, item)) => item.clone(),
                None => return Err(self.fail(operand.at, &format!("undefined variable: {name}"))),
            },
            Base::Function(name) => match functions::call(name, &[], self.scope.header) {
                Ok(value) => Item::owned(value),
                Err(functions::Refusal::Count { want }) => {
                    let message = format!("wrong number of args for {name}: want {want} got 0");
                    return Err(self.fail(operand.at, &message));
                }
                Err(functions::Refusal::Call(message) | functions::Refusal::Kind(message)) => {
                    return Err(self.fail(operand.at, &format!("error calling {name}: {message}")));
                }
            },
            Base::Group(pipe) => self.pipe(pipe, dot)?,
        })
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Item<'a>) -> Result<Item<'a>, TemplateError> {
        let base = self.base(operand, dot)?;
        self.fields(base, &operand.fields, operand.at, &[])
    }

    /// `.A.B` of `item`; the last one takes the arguments.
    fn fields(
        &mut self,
        mut item: Item<'a>,
        names: &[String],
        at: Span,
        arguments: &[Value],
    ) -> Result<Item<'a>, TemplateError> {
        for (index, name) in names.iter().enumerate() {
            let arguments = if index + 1 == names.len() { arguments } else { &[] };
            item = self.field(item, name, at, arguments)?;
        }
        Ok(item)
    }

    fn field(
        &mut self,
        item: Item<'a>,
        name: &str,
        at: Span,
        arguments: &[Value],
    ) -> Result<Item<'a>, TemplateError> {
        let map = self.scope.maps.contains(&name);
        let kind = print::type_name(&item.value);
        let found = match item.value {
            Cow::Borrowed(Value::Object(fields)) => fields.get(name).map(Cow::Borrowed),
            Cow::Owned(Value::Object(mut fields)) => fields.remove(name).map(Cow::Owned),
            ref value if value.is_null() => {
                return Err(self.fail(at, &format!("nil data; no entry for key {name:?}")));
            }
            _ => return Err(self.fail(at, &format!("can't evaluate field {name} in type {kind}"))),
        };
        if let Some(value) = found {
            if !arguments.is_empty() {
                return Err(self.fail(at, &format!("{name} is not a method but has arguments")));
            }
            return Ok(Item { value, map });
        }
        if let Some(value) = self.scope.method.and_then(|method| method(name, arguments)) {
            return Ok(Item::owned(value));
        }
        if item.map {
            return Ok(Item::owned(Value::Null));
        }
        Err(self.fail(at, &format!("map has no entry for key {name:?}")))
    }
}
