//! Values as Go's `fmt` prints them.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// What `{{.}}` of a value prints.
pub(super) fn top(output: &mut String, value: &Value) {
    match value {
        Value::Null => output.push_str("<no value>"),
        Value::String(text) => output.push_str(text),
        other => write_nested(output, other),
    }
}

/// A value with verb `%v`.
pub(super) fn nested(value: &Value) -> String {
    let mut text = String::new();
    write_nested(&mut text, value);
    text
}

fn write_nested(output: &mut String, value: &Value) {
    match value {
        Value::Null => output.push_str("<nil>"),
        Value::Bool(yes) => output.push_str(if *yes { "true" } else { "false" }),
        Value::Number(n) => output.push_str(&number(n)),
        Value::String(text) => output.push_str(text),
        Value::Array(list) => {
            output.push('[');
            for (index, element) in list.iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                write_nested(output, element);
            }
            output.push(']');
        }
        Value::Object(map) => {
            output.push_str("map[");
            for (index, (key, element)) in map.iter().enumerate() {
                if index > 0 {
                    output.push(' ');
                }
                output.push_str(key);
                output.push(':');
                write_nested(output, element);
            }
            output.push(']');
        }
    }
}

/// A number with verb `%v`: `%g`, with an exponent from 10²¹ on, for floats.
pub(super) fn number(n: &Number) -> String {
    match n.as_f64() {
        Some(float) if n.is_f64() => general(float),
        _ => n.to_string(),
    }
}

/// `%v` of a float: shortest digits that read back the same, exponent below -4 and from 21.
pub(super) fn general(float: f64) -> String {
    if float == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) {
        return float.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Go's name for the type of a decoded JSON value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `%q` of a string, as `strconv.Quote`.
pub(crate) fn quote(text: &str) -> String {
    let mut output = String::with_capacity(text.len() + 2);
    output.push('"');
    for c in text.chars() {
        match c {
            '"' => output.push_str("\\\""),
            '\\' => output.push_str("\\\\"),
            '\n' => output.push_str("\\n"),
            '\t' => output.push_str("\\t"),
            '\r' => output.push_str("\\r"),
            '\u{7}' => output.push_str("\\a"),
            '\u{8}' => output.push_str("\\b"),
            '\u{b}' => output.push_str("\\v"),
            '\u{c}' => output.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(output, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                let _ = write!(output, "\\u{:04x}", u32::from(c));
            }
            c => output.push(c),
        }
    }
    output.push('"');
    output
}

/// One verb of a format: `%-10s`.
struct Verb {
    letter: char,
    left: bool,
    zero: bool,
    plus: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

impl Verb {
    /// The verb after a `%`, from the characters that follow.
    fn read(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Verb> {
        let mut verb = Verb {
            letter: ' ',
            left: false,
            zero: false,
            plus: false,
            sharp: false,
            width: 0,
            precision: None,
        };
        while let Some(c) = characters.peek() {
            match c {
                '-' => verb.left = true,
                '0' => verb.zero = true,
                '+' => verb.plus = true,
                '#' => verb.sharp = true,
                ' ' => {}
                _ => break,
            }
            characters.next();
        }
        verb.width = digits(characters).unwrap_or(0);
        if characters.next_if_eq(&'.').is_some() {
            verb.precision = Some(digits(characters).unwrap_or(0));
        }
        verb.letter = characters.next()?;
        Some(verb)
    }

    fn pad(&self, output: &mut String, text: &str) {
        let missing = self.width.saturating_sub(text.chars().count());
        let fill = |count: usize, c: char| std::iter::repeat_n(c, count);
        if self.left {
            output.push_str(text);
            output.extend(fill(missing, ' '));
        } else if self.zero {
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => text.split_at(text.len() - digits.len()),
                None => ("", text),
            };
            output.push_str(sign);
            output.extend(fill(missing, '0'));
            output.push_str(digits);
        } else {
            output.extend(fill(missing, ' '));
            output.push_str(text);
        }
    }

    fn apply(&self, value: &Value) -> String {
        let cut = |text: &str| match self.precision {
            Some(count) => text.chars().take(count).collect(),
            None => text.to_owned(),
        };
        let signed =
            |text: String| if self.plus && !text.starts_with('-') { format!("+{text}") } else { text };
        match (self.letter, value) {
            ('v', Value::String(text)) if self.sharp => quote(text),
            ('v' | 's', Value::String(text)) => cut(text),
            ('q', Value::String(text)) => quote(&cut(text)),
            ('x', Value::String(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
            ('v' | 't', Value::Bool(_)) => nested(value),
            ('v' | 'd', Value::Number(n)) if !n.is_f64() => signed(n.to_string()),
            ('x', Value::Number(n)) if n.is_i64() => format!("{:x}", n.as_i64().unwrap_or(0)),
            ('X', Value::Number(n)) if n.is_i64() => format!("{:X}", n.as_i64().unwrap_or(0)),
            ('o', Value::Number(n)) if n.is_i64() => format!("{:o}", n.as_i64().unwrap_or(0)),
            ('b', Value::Number(n)) if n.is_i64() => format!("{:b}", n.as_i64().unwrap_or(0)),
            ('c', Value::Number(n)) => {
                let code = n.as_u64().and_then(|n| u32::try_from(n).ok());
                code.and_then(char::from_u32).unwrap_or('\u{fffd}').to_string()
            }
            ('f' | 'F', Value::Number(n)) if n.is_f64() => {
                signed(format!("{:.*}", self.precision.unwrap_or(6), n.as_f64().unwrap_or(0.0)))
            }
            ('v' | 'g', Value::Number(n)) if n.is_f64() => signed(number(n)),
            ('v', other) => nested(other),
            ('s' | 'd' | 'q', Value::Array(list)) => {
                let elements: Vec<String> = list.iter().map(|element| self.apply(element)).collect();
                format!("[{}]", elements.join(" "))
            }
            (letter, Value::Null) => format!("%!{letter}(<nil>)"),
            (letter, other) => format!("%!{letter}({}={})", type_name(other), nested(other)),
        }
    }
}

fn digits(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number: Option<usize> = None;
    while let Some(digit) = characters.peek().and_then(|c| c.to_digit(10)) {
        // A width beyond a thousand is a mistake, or an attack on the memory.
        number = Some((number.unwrap_or(0) * 10 + usize::try_from(digit).unwrap_or(0)).min(1000));
        characters.next();
    }
    number
}

/// `fmt.Sprintf`.
pub(super) fn sprintf(format: &str, arguments: &[&Value]) -> String {
    let mut output = String::new();
    let mut characters = format.chars().peekable();
    let mut remaining = arguments.iter();
    while let Some(c) = characters.next() {
        if c != '%' {
            output.push(c);
            continue;
        }
        match Verb::read(&mut characters) {
            None => output.push_str("%!(NOVERB)"),
            Some(verb) if verb.letter == '%' => output.push('%'),
            Some(verb) => match remaining.next() {
                Some(value) => verb.pad(&mut output, &verb.apply(value)),
                None => {
                    let _ = write!(output, "%!{}(MISSING)", verb.letter);
                }
            },
        }
    }
    let extra: Vec<String> =
        remaining.map(|value| format!("{}={}", type_name(value), nested(value))).collect();
    if !extra.is_empty() {
        let _ = write!(output, "%!(EXTRA {})", extra.join(", "));
    }
    output
}

/// `fmt.Sprint`: blanks between operands of which neither is a string.
pub(super) fn sprint(arguments: &[&Value]) -> String {
    let mut output = String::new();
    for (index, value) in arguments.iter().enumerate() {
        if index > 0 && !value.is_string() && !arguments[index - 1].is_string() {
            output.push(' ');
        }
        write_nested(&mut output, value);
    }
    output
}

/// `fmt.Sprintln`: blanks between all operands, and a line's end.
pub(super) fn sprintln(arguments: &[&Value]) -> String {
    let words: Vec<String> = arguments.iter().map(|value| nested(value)).collect();
    words.join(" ") + "\n"
}
