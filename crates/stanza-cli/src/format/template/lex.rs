//! From text to tokens.

use super::TemplateError;

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What sort of token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text outside of actions.
    Text(String),
    /// `{{`.
    Left,
    /// `}}`.
    Right,
    /// White space inside of an action.
    Space,
    /// `.Name`, without the dot.
    Field(String),
    /// `$name`, with the dollar.
    Variable(String),
    /// A keyword or a function's name.
    Word(String),
    /// A string, character or number as JSON.
    Constant(serde_json::Value),
    /// `.`, `|`, `(`, `)`, `,`, `=`, `:=`.
    Sign(&'static str),
    /// The end.
    End,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// The line of byte `position`, from 1.
pub(super) fn line(source: &str, position: usize) -> usize {
    1 + source[..position].matches('\n').count()
}

fn fail(source: &str, position: usize, message: &str) -> TemplateError {
    TemplateError(format!(":{}: {message}", line(source, position)))
}

/// All tokens of `source`; the last is [`Kind::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, TemplateError> {
    let mut tokens = Vec::new();
    let mut position = 0;
    let mut trim = false;
    loop {
        let rest = &source[position..];
        let open = rest.find("{{");
        let mut text = &rest[..open.unwrap_or(rest.len())];
        let start = position;
        if trim {
            text = text.trim_start_matches(SPACE);
        }
        let Some(open) = open else {
            push_text(&mut tokens, text, start);
            tokens.push(Token { kind: Kind::End, start: source.len(), end: source.len() });
            return Ok(tokens);
        };
        let left = position + open;
        position = left + 2;
        let inner = &source[position..];
        if inner.starts_with('-') && inner[1..].starts_with(SPACE) {
            text = text.trim_end_matches(SPACE);
            position += 2;
        }
        push_text(&mut tokens, text, start);
        if source[position..].starts_with("/*") {
            (position, trim) = comment(source, position)?;
            continue;
        }
        tokens.push(Token { kind: Kind::Left, start: left, end: position });
        (position, trim) = action(source, position, &mut tokens)?;
    }
}

fn push_text(tokens: &mut Vec<Token>, text: &str, start: usize) {
    if !text.is_empty() {
        tokens.push(Token { kind: Kind::Text(text.to_owned()), start, end: start + text.len() });
    }
}

/// Past a comment: where the text goes on, and whether its start is trimmed.
fn comment(source: &str, position: usize) -> Result<(usize, bool), TemplateError> {
    let Some(length) = source[position..].find("*/") else {
        return Err(fail(source, position, "unclosed comment"));
    };
    let end = position + length + 2;
    let rest = &source[end..];
    if rest.starts_with("}}") {
        Ok((end + 2, false))
    } else if rest.starts_with(SPACE) && rest[1..].starts_with("-}}") {
        Ok((end + 4, true))
    } else {
        Err(fail(source, position, "comment ends before closing delimiter"))
    }
}

/// The tokens up to `}}`: where the text goes on, and whether its start is trimmed.
fn action(
    source: &str,
    mut position: usize,
    tokens: &mut Vec<Token>,
) -> Result<(usize, bool), TemplateError> {
    let mut depth = 0u32;
    loop {
        let rest = &source[position..];
        let trims = rest.starts_with(SPACE) && rest[1..].starts_with("-}}");
        if trims || rest.starts_with("}}") {
            if depth > 0 {
                return Err(fail(source, position, "unclosed left paren"));
            }
            let end = position + if trims { 4 } else { 2 };
            tokens.push(Token { kind: Kind::Right, start: end - 2, end });
            return Ok((end, trims));
        }
        let Some(first) = rest.chars().next() else {
            return Err(fail(source, position, "unclosed action"));
        };
        let (kind, length) = match first {
            c if SPACE.contains(&c) => {
                let all = rest.len() - rest.trim_start_matches(SPACE).len();
                // The last blank belongs to a trim marker.
                let marked = rest[all..].starts_with("-}}");
                (Kind::Space, if marked { all - 1 } else { all })
            }
            '"' | '`' | '\'' => quoted(source, position, first)?,
            '$' | '.' if !starts_number(rest) => name(rest, first),
            '|' => (Kind::Sign("|"), 1),
            ',' => (Kind::Sign(","), 1),
            '=' => (Kind::Sign("="), 1),
            ':' if rest.starts_with(":=") => (Kind::Sign(":="), 2),
            ':' => return Err(fail(source, position, "expected :=")),
            '(' => {
                depth += 1;
                (Kind::Sign("("), 1)
            }
            ')' => {
                let Some(less) = depth.checked_sub(1) else {
                    return Err(fail(source, position, "unexpected right paren"));
                };
                depth = less;
                (Kind::Sign(")"), 1)
            }
            '+' | '-' | '.' | '0'..='9' => number(source, position)?,
            c if is_word(c) => {
                let length = word_length(rest);
                let kind = match &rest[..length] {
                    "true" => Kind::Constant(true.into()),
                    "false" => Kind::Constant(false.into()),
                    word => Kind::Word(word.to_owned()),
                };
                (kind, length)
            }
            other => {
                let text = format!("unrecognized character in action: U+{:04X} {other:?}", u32::from(other));
                return Err(fail(source, position, &text));
            }
        };
        tokens.push(Token { kind, start: position, end: position + length });
        position += length;
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn word_length(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

fn starts_number(rest: &str) -> bool {
    rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit())
}

fn name(rest: &str, first: char) -> (Kind, usize) {
    let length = word_length(&rest[1..]);
    let text = &rest[1..=length];
    match first {
        '$' => (Kind::Variable(format!("${text}")), length + 1),
        _ if text.is_empty() => (Kind::Sign("."), 1),
        _ => (Kind::Field(text.to_owned()), length + 1),
    }
}

fn number(source: &str, position: usize) -> Result<(Kind, usize), TemplateError> {
    let rest = &source[position..];
    let sign = usize::from(rest.starts_with(['+', '-']));
    let length = sign
        + rest[sign..]
            .find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_'))
            .unwrap_or(rest.len() - sign);
    let text = &rest[..length];
    let plain = text.replace('_', "");
    let digits = plain.trim_start_matches(['+', '-']);
    let negative = plain.starts_with('-');
    let radix = |prefix: [&str; 2], base| {
        let digits = digits.strip_prefix(prefix[0]).or_else(|| digits.strip_prefix(prefix[1]))?;
        i64::from_str_radix(digits, base).ok().map(|n| if negative { -n } else { n })
    };
    let value = plain
        .parse::<i64>()
        .ok()
        .or_else(|| radix(["0x", "0X"], 16))
        .or_else(|| radix(["0o", "0O"], 8))
        .or_else(|| radix(["0b", "0B"], 2))
        .map(serde_json::Value::from)
        .or_else(|| {
            let number = plain
                .parse::<f64>()
                .ok()
                .filter(|_| digits.starts_with(|c: char| c.is_ascii_digit() || c == '.'))?;
            number.is_finite().then(|| serde_json::Value::from(number))
        });
    match value {
        Some(value) => Ok((Kind::Constant(value), length)),
        None => Err(fail(source, position, &format!("bad number syntax: {text:?}"))),
    }
}

/// A string in double or back quotes, or a character in single ones, which is its number.
fn quoted(source: &str, position: usize, quote: char) -> Result<(Kind, usize), TemplateError> {
    let what = match quote {
        '"' => "unterminated quoted string",
        '`' => "unterminated raw quoted string",
        _ => "unterminated character constant",
    };
    let mut text = String::new();
    let mut characters = source[position + 1..].char_indices();
    while let Some((offset, c)) = characters.next() {
        match c {
            c if c == quote => {
                let length = offset + 2;
                let kind = if quote != '\'' {
                    Kind::Constant(text.into())
                } else if let (Some(only), 1) = (text.chars().next(), text.chars().count()) {
                    Kind::Constant(u32::from(only).into())
                } else {
                    let literal = &source[position..position + length];
                    return Err(fail(source, position, &format!("malformed character constant: {literal}")));
                };
                return Ok((kind, length));
            }
            '\\' if quote != '`' => match escape(&mut characters) {
                Some(c) => text.push(c),
                None => return Err(fail(source, position, "invalid syntax")),
            },
            '\n' if quote != '`' => break,
            c => text.push(c),
        }
    }
    Err(fail(source, position, what))
}

fn escape(characters: &mut std::str::CharIndices<'_>) -> Option<char> {
    let (_, c) = characters.next()?;
    let mut hex = |count: usize| {
        let digits: String = characters.by_ref().take(count).map(|(_, c)| c).collect();
        (digits.len() == count).then(|| u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32))?
    };
    match c {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'a' => Some('\u{7}'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'v' => Some('\u{b}'),
        '\\' | '"' | '\'' => Some(c),
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        _ => None,
    }
}
