//! Go's built-in functions and Docker's.

use std::cmp::Ordering;

use serde_json::Value;

use super::print;

/// Why a function did not take its arguments.
pub(super) enum Refusal {
    /// The number of them.
    Count {
        /// What Go says it wants, as `at least 1`.
        want: &'static str,
    },
    /// A type, in Go's words for a wrong value.
    Kind(String),
    /// The function's own error.
    Call(String),
}

const NAMES: [&str; 25] = [
    "and", "eq", "ge", "gt", "html", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or",
    "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery",
];

/// Whether there is a function of that name.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Go's idea of truth: not zero, not empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// The value of `name` called with `arguments`.
pub(super) fn call(name: &str, arguments: &[&Value], header: bool) -> Result<Value, Refusal> {
    if header && matches!(name, "json" | "title" | "lower" | "upper" | "truncate") {
        return arguments.first().map(|first| (*first).clone()).ok_or(Refusal::Count { want: "1" });
    }
    match (name, arguments) {
        ("not", [value]) => Ok((!truth(value)).into()),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            for other in others {
                if equal(first, other)? {
                    return Ok(true.into());
                }
            }
            Ok(false.into())
        }
        ("ne", [a, b]) => Ok((!equal(a, b)?).into()),
        ("lt", [a, b]) => Ok((order(a, b)? == Ordering::Less).into()),
        ("le", [a, b]) => Ok((order(a, b)? != Ordering::Greater).into()),
        ("gt", [a, b]) => Ok((order(a, b)? == Ordering::Greater).into()),
        ("ge", [a, b]) => Ok((order(a, b)? != Ordering::Less).into()),
        ("len", [value]) => length(value),
        ("index", [value, keys @ ..]) => {
            keys.iter().try_fold((*value).clone(), |value, key| index(&value, key))
        }
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("print", _) => Ok(print::sprint(arguments).into()),
        ("println", _) => Ok(print::sprintln(arguments).into()),
        ("printf", [format, rest @ ..]) => Ok(print::sprintf(text(format)?, rest).into()),
        ("json", [value]) => Ok(serde_json::to_string(value).unwrap_or_default().into()),
        ("lower", [value]) => Ok(text(value)?.to_lowercase().into()),
        ("upper", [value]) => Ok(text(value)?.to_uppercase().into()),
        ("title", [value]) => Ok(title(text(value)?).into()),
        ("join", [list, separator]) => join(list, text(separator)?),
        ("split", [value, separator]) => Ok(split(text(value)?, text(separator)?)),
        ("pad", [value, before, after]) => {
            let value = text(value)?;
            let (before, after) = (count(before)?.min(1000), count(after)?.min(1000));
            let blanks = |n| " ".repeat(if value.is_empty() { 0 } else { n });
            Ok(format!("{}{value}{}", blanks(before), blanks(after)).into())
        }
        ("truncate", [value, limit]) => {
            let limit = count(limit)?;
            Ok(text(value)?.chars().take(limit).collect::<String>().into())
        }
        ("html", _) => Ok(html(&print::sprint(arguments)).into()),
        ("urlquery", _) => Ok(url_query(&print::sprint(arguments)).into()),
        _ => Err(Refusal::Count { want: wanted(name) }),
    }
}

fn wanted(name: &str) -> &'static str {
    match name {
        "and" | "or" | "index" | "slice" | "printf" | "eq" => "at least 1",
        "ne" | "lt" | "le" | "gt" | "ge" | "join" | "split" | "truncate" => "2",
        "pad" => "3",
        _ => "1",
    }
}

fn text(value: &Value) -> Result<&str, Refusal> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Refusal::Kind(format!(
            "wrong type for value; expected string; got {}",
            print::type_name(other)
        ))),
    }
}

fn count(value: &Value) -> Result<usize, Refusal> {
    match value.as_i64() {
        Some(n) => Ok(usize::try_from(n).unwrap_or(0)),
        None => {
            let kind = print::type_name(value);
            Err(Refusal::Kind(format!("wrong type for value; expected int; got {kind}")))
        }
    }
}

fn equal(a: &Value, b: &Value) -> Result<bool, Refusal> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Number(x), Value::Number(y)) if x.is_f64() == y.is_f64() => Ok(x == y),
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => Ok(a == b),
        (Value::Array(_) | Value::Object(_), _) => {
            Err(Refusal::Call(format!("non-comparable type {}: {}", print::nested(a), print::type_name(a))))
        }
        _ => Err(Refusal::Call("incompatible types for comparison".to_owned())),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, Refusal> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() == y.is_f64() => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Ok(x.cmp(&y)),
            _ => Ok(x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal)),
        },
        (Value::String(x), Value::String(y)) => Ok(x.cmp(y)),
        (Value::Number(_) | Value::String(_), Value::Number(_) | Value::String(_)) => {
            Err(Refusal::Call("incompatible types for comparison".to_owned()))
        }
        _ => Err(Refusal::Call("invalid type for comparison".to_owned())),
    }
}

fn length(value: &Value) -> Result<Value, Refusal> {
    match value {
        Value::String(text) => Ok(text.len().into()),
        Value::Array(list) => Ok(list.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        Value::Null => Ok(0.into()),
        other => Err(Refusal::Call(format!("len of type {}", print::type_name(other)))),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, Refusal> {
    match value {
        Value::Null => Err(Refusal::Call("index of untyped nil".to_owned())),
        Value::Object(map) => {
            let name = key.as_str().ok_or_else(|| {
                Refusal::Call(format!("value has type {}; should be string", print::type_name(key)))
            })?;
            // Go gives the zero value of the map's element type.
            let zero = || if map.values().all(Value::is_string) { "".into() } else { Value::Null };
            Ok(map.get(name).cloned().unwrap_or_else(zero))
        }
        Value::Array(_) | Value::String(_) => {
            let position = key.as_i64().ok_or_else(|| {
                Refusal::Call(format!("cannot index slice/array with type {}", print::type_name(key)))
            })?;
            let at = usize::try_from(position).ok();
            let found = match value {
                Value::Array(list) => at.and_then(|at| list.get(at)).cloned(),
                Value::String(text) => at.and_then(|at| text.as_bytes().get(at)).map(|byte| (*byte).into()),
                _ => None,
            };
            found.ok_or_else(|| Refusal::Call(format!("index out of range: {position}")))
        }
        other => Err(Refusal::Call(format!("can't index item of type {}", print::type_name(other)))),
    }
}

fn slice(value: &Value, bounds: &[&Value]) -> Result<Value, Refusal> {
    let size = match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        other => return Err(Refusal::Call(format!("can't slice item of type {}", print::type_name(other)))),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(key) => match key.as_i64().map(|n| (n, usize::try_from(n))) {
            Some((_, Ok(n))) if n <= size => Ok(n),
            Some((n, _)) => Err(Refusal::Call(format!("index out of range: {n}"))),
            None => {
                let kind = print::type_name(key);
                Err(Refusal::Call(format!("cannot index slice/array with type {kind}")))
            }
        },
    };
    let (start, end) = (bound(0, 0)?, bound(1, size)?);
    if start > end {
        return Err(Refusal::Call(format!("invalid slice index: {start} > {end}")));
    }
    Ok(match value {
        Value::String(text) => String::from_utf8_lossy(&text.as_bytes()[start..end]).into_owned().into(),
        Value::Array(list) => list[start..end].to_vec().into(),
        _ => Value::Null,
    })
}

fn join(list: &Value, separator: &str) -> Result<Value, Refusal> {
    match list {
        Value::Array(list) => {
            let words: Vec<String> = list.iter().map(print::nested).collect();
            Ok(words.join(separator).into())
        }
        Value::Null => Ok("".into()),
        other => {
            let kind = print::type_name(other);
            Err(Refusal::Kind(format!("wrong type for value; expected []string; got {kind}")))
        }
    }
}

fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return text.chars().map(String::from).collect::<Vec<_>>().into();
    }
    text.split(separator).map(str::to_owned).collect::<Vec<_>>().into()
}

/// `strings.Title`: the first letter of every word in upper case.
fn title(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        let part = c.is_alphanumeric() || c == '_' || c == '\'';
        if part && !inside {
            output.extend(c.to_uppercase());
        } else {
            output.push(c);
        }
        inside = part;
    }
    output
}

fn html(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => output.push_str("&#34;"),
            '\'' => output.push_str("&#39;"),
            '&' => output.push_str("&amp;"),
            '<' => output.push_str("&lt;"),
            '>' => output.push_str("&gt;"),
            '\0' => output.push('\u{fffd}'),
            c => output.push(c),
        }
    }
    output
}

fn url_query(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => output.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                output.push(char::from(byte))
            }
            _ => output.push_str(&format!("%{byte:02X}")),
        }
    }
    output
}
