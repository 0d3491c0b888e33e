//! From tokens to nodes.

use super::TemplateError;
use super::functions;
use super::lex::{self, Kind, Token};
use super::node::{Base, Branch, Command, Node, Operand, Pipe, Span, Template};

/// How a list of nodes ended.
#[derive(PartialEq, Clone, Copy)]
enum Close {
    EndOfText,
    End,
    Else,
}

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    next: usize,
    /// Variables that can be seen, `$` first.
    variables: Vec<String>,
    range_depth: u32,
    /// Parentheses and branches that are open.
    depth: u32,
}

/// Deepest nesting that is followed: the parser calls itself, and templates may come from anywhere.
const MAX_DEPTH: u32 = 100;

impl Template {
    /// The template of `source`.
    ///
    /// # Errors
    /// When Go would refuse to parse it.
    pub(crate) fn parse(source: &str) -> Result<Template, TemplateError> {
        let tokens = lex::tokens(source)?;
        let mut parser =
            Parser { source, tokens, next: 0, variables: vec!["$".to_owned()], range_depth: 0, depth: 0 };
        let (nodes, close) = parser.list()?;
        match close {
            Close::EndOfText => Ok(Template { source: source.to_owned(), nodes }),
            Close::End => Err(parser.fail("unexpected {{end}}")),
            Close::Else => Err(parser.fail("unexpected {{else}}")),
        }
    }
}

impl Parser<'_> {
    fn fail(&self, message: &str) -> TemplateError {
        let token = &self.tokens[self.next.saturating_sub(1).min(self.tokens.len() - 1)];
        TemplateError(format!(":{}: {message}", lex::line(self.source, token.start)))
    }

    fn unexpected(&self, token: &Token, context: &str) -> TemplateError {
        let text = match &token.kind {
            Kind::End => "unexpected EOF".to_owned(),
            Kind::Word(word) if is_keyword(word) => format!("unexpected <{word}> in {context}"),
            _ => format!("unexpected {:?} in {context}", &self.source[token.start..token.end]),
        };
        TemplateError(format!(":{}: {text}", lex::line(self.source, token.start)))
    }

    /// The next token; the end of the text is given again and again.
    fn take(&mut self) -> Token {
        let token = self.tokens[self.next.min(self.tokens.len() - 1)].clone();
        self.next += 1;
        token
    }

    fn peek(&self) -> &Kind {
        &self.tokens[self.next.min(self.tokens.len() - 1)].kind
    }

    fn skip_space(&mut self) {
        while *self.peek() == Kind::Space {
            self.next += 1;
        }
    }

    fn take_solid(&mut self) -> Token {
        self.skip_space();
        self.take()
    }

    fn list(&mut self) -> Result<(Vec<Node>, Close), TemplateError> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::Text(text) => nodes.push(Node::Text(text)),
                Kind::End => return Ok((nodes, Close::EndOfText)),
                _ => match self.action()? {
                    Ok(node) => nodes.push(node),
                    Err(close) => return Ok((nodes, close)),
                },
            }
        }
    }

    /// After `{{`: a node, or the end of the list that is being read.
    fn action(&mut self) -> Result<Result<Node, Close>, TemplateError> {
        self.skip_space();
        let word = match self.peek() {
            Kind::Word(word) if is_keyword(word) => word.clone(),
            _ => return Ok(Ok(Node::Action(self.pipe("command", &Kind::Right)?))),
        };
        self.next += 1;
        Ok(match word.as_str() {
            "if" => Ok(Node::If(self.branch("if")?)),
            "with" => Ok(Node::With(self.branch("with")?)),
            "range" => Ok(Node::Range(self.branch("range")?)),
            "end" => {
                self.expect_right("end")?;
                Err(Close::End)
            }
            "else" => {
                // `{{else if …}}` leaves its `if` for the caller.
                self.skip_space();
                if !matches!(self.peek(), Kind::Word(word) if word == "if" || word == "with") {
                    self.expect_right("else")?;
                }
                Err(Close::Else)
            }
            "break" | "continue" => {
                if self.range_depth == 0 {
                    return Err(self.fail(&format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                self.expect_right(&word)?;
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
            other => return Err(self.fail(&format!("{{{{{other}}}}} is not supported"))),
        })
    }

    fn expect_right(&mut self, context: &str) -> Result<(), TemplateError> {
        let token = self.take_solid();
        if token.kind == Kind::Right { Ok(()) } else { Err(self.unexpected(&token, context)) }
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(self.fail("exceeded maximum template depth")) } else { Ok(()) }
    }

    fn branch(&mut self, context: &'static str) -> Result<Branch, TemplateError> {
        self.deeper()?;
        let outer = self.variables.len();
        let pipe = self.pipe(context, &Kind::Right)?;
        if context == "range" {
            self.range_depth += 1;
        }
        let (body, close) = self.list()?;
        if context == "range" {
            self.range_depth -= 1;
        }
        let otherwise = match close {
            Close::EndOfText => return Err(self.fail("unexpected EOF")),
            Close::End => Vec::new(),
            Close::Else => self.otherwise(context)?,
        };
        self.variables.truncate(outer);
        self.depth -= 1;
        Ok(Branch { pipe, body, otherwise })
    }

    fn otherwise(&mut self, context: &'static str) -> Result<Vec<Node>, TemplateError> {
        if let Kind::Word(word) = self.peek().clone() {
            self.next += 1;
            return match (context, word.as_str()) {
                ("if", "if") => Ok(vec![Node::If(self.branch("if")?)]),
                ("with", "with") => Ok(vec![Node::With(self.branch("with")?)]),
                _ => Err(self.fail(&format!("unexpected <{word}> in else"))),
            };
        }
        match self.list()? {
            (nodes, Close::End) => Ok(nodes),
            (_, Close::Else) => Err(self.fail("expected end; found {{else}}")),
            (_, Close::EndOfText) => Err(self.fail("unexpected EOF")),
        }
    }

    /// A pipeline up to and with `end`.
    fn pipe(&mut self, context: &str, end: &Kind) -> Result<Pipe, TemplateError> {
        self.deeper()?;
        let (variables, assign) = self.declarations(context)?;
        let mut commands: Vec<Command> = Vec::new();
        loop {
            self.skip_space();
            let token = self.tokens[self.next.min(self.tokens.len() - 1)].clone();
            if token.kind == *end {
                self.next += 1;
                if commands.is_empty() {
                    return Err(self.fail(&format!("missing value for {context}")));
                }
                self.declare(&variables, assign)?;
                self.depth -= 1;
                return Ok(Pipe { variables, assign, commands });
            }
            if matches!(token.kind, Kind::End | Kind::Right)
                || matches!(token.kind, Kind::Sign(s) if s != "(" && s != ".")
            {
                return Err(self.unexpected(&token, context));
            }
            let first = commands.is_empty();
            let command = self.command(context)?;
            if !first
                && matches!(command.operands[0].base, Base::Dot | Base::Constant(_) | Base::Nil)
                && command.operands[0].fields.is_empty()
            {
                let stage = commands.len() + 1;
                return Err(self.fail(&format!("non executable command in pipeline stage {stage}")));
            }
            commands.push(command);
        }
    }

    /// `$a, $b :=` before a pipeline.
    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let start = self.next;
        let mut variables = Vec::new();
        loop {
            let token = self.take_solid();
            let Kind::Variable(name) = token.kind else { break };
            variables.push(name);
            let token = self.take_solid();
            match token.kind {
                Kind::Sign(sign @ (":=" | "=")) => return Ok((variables, sign == "=")),
                Kind::Sign(",") if context == "range" && variables.len() < 2 => {}
                Kind::Sign(",") => return Err(self.fail(&format!("too many declarations in {context}"))),
                _ => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn declare(&mut self, names: &[String], assign: bool) -> Result<(), TemplateError> {
        for name in names {
            if !assign {
                self.variables.push(name.clone());
            } else if !self.variables.contains(name) {
                return Err(self.fail(&format!("undefined variable {name:?}")));
            }
        }
        Ok(())
    }

    fn command(&mut self, context: &str) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            match self.operand()? {
                Some(operand) => operands.push(operand),
                None => {
                    let token = self.take();
                    if operands.is_empty() {
                        return Err(self.unexpected(&token, context));
                    }
                    match token.kind {
                        Kind::Sign("|") => {
                            self.skip_space();
                            if matches!(self.peek(), Kind::Right | Kind::Sign(")")) {
                                return Err(self.fail(&format!("missing value for {context}")));
                            }
                        }
                        Kind::Right | Kind::Sign(")") => self.next -= 1,
                        _ => return Err(self.unexpected(&token, "operand")),
                    }
                    break;
                }
            }
            if !matches!(self.peek(), Kind::Space | Kind::Right | Kind::Sign("|" | ")")) {
                let token = self.take();
                return Err(self.unexpected(&token, "operand"));
            }
        }
        let (first, last) = (operands[0].at, operands[operands.len() - 1].at);
        let at = Span {
            start: first.start,
            end: last.end,
            position: if operands.len() == 1 { first.position } else { first.start },
        };
        Ok(Command { at, operands })
    }

    /// The next operand with its fields; `None` when the next token starts none.
    fn operand(&mut self) -> Result<Option<Operand>, TemplateError> {
        let token = self.take();
        let (mut position, mut chained) = (token.start, false);
        let mut fields = Vec::new();
        let base = match token.kind {
            Kind::Sign(".") => Base::Dot,
            Kind::Field(name) => {
                fields.push(name);
                Base::Dot
            }
            Kind::Variable(name) => {
                if !self.variables.contains(&name) {
                    return Err(self.fail(&format!("undefined variable {name:?}")));
                }
                Base::Variable(name)
            }
            Kind::Constant(value) => Base::Constant(value),
            Kind::Word(word) if word == "nil" => Base::Nil,
            Kind::Word(ref word) if is_keyword(word) => return Err(self.unexpected(&token, "operand")),
            Kind::Word(word) => {
                if !functions::exists(&word) {
                    return Err(self.fail(&format!("function {word:?} not defined")));
                }
                Base::Function(word)
            }
            Kind::Sign("(") => Base::Group(Box::new(self.pipe("parenthesized pipeline", &Kind::Sign(")"))?)),
            _ => {
                self.next -= 1;
                return Ok(None);
            }
        };
        let mut end = self.tokens[self.next - 1].end;
        while let Kind::Field(name) = self.peek().clone() {
            if matches!(base, Base::Constant(_) | Base::Nil) {
                let text = self.source[token.start..end].to_owned();
                return Err(self.fail(&format!("unexpected . after term {text:?}")));
            }
            let token = self.take();
            // Go names the first field that follows the operand.
            if !chained {
                position = token.start;
                chained = true;
            }
            end = token.end;
            fields.push(name);
        }
        Ok(Some(Operand { at: Span { start: token.start, end, position }, base, fields }))
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "if" | "else" | "end" | "range" | "with" | "break" | "continue" | "define" | "template" | "block"
    )
}
