//! `--env` and `--env-file`.

use super::FlagError;

/// Looks a variable of the caller up.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One `--env` value: `NAME=VALUE` as it is; a bare `NAME` takes the caller's value, and stays bare without one.
pub(crate) fn variable(option: &'static str, text: &str, lookup: Lookup<'_>) -> Result<String, FlagError> {
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    if name.is_empty() {
        return Err(FlagError::new(option, format!("`{text}` has no variable name")));
    }
    if text.contains('\0') {
        return Err(FlagError::new(option, format!("the value of `{name}` has a zero byte")));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(lookup(name).map_or_else(|| name.to_owned(), |value| format!("{name}={value}")))
}

/// The variables of an environment file, by Docker's rules: a line each, `#` starts a comment at a line's start only,
/// quotes and blanks behind the `=` are kept, a bare name takes the caller's value and is left out without one.
pub(crate) fn file(path: &str, content: &[u8], lookup: Lookup<'_>) -> Result<Vec<String>, FlagError> {
    let fail = |line: usize, what: &str| {
        FlagError::new("--env-file", format!("`{}`, line {line}: {what}", path.escape_debug()))
    };
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut variables = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| fail(number, "not valid UTF-8"))?;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(fail(number, "no variable name before `=`"));
        }
        if name.contains(char::is_whitespace) {
            return Err(fail(number, &format!("variable name `{}` has a blank in it", name.escape_debug())));
        }
        if line.contains('\0') {
            return Err(fail(number, "a zero byte"));
        }
        if line.contains('=') {
            variables.push(line.to_owned());
        } else if let Some(value) = lookup(name) {
            variables.push(format!("{name}={value}"));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    #[test]
    fn bare_names_take_the_callers_value() {
        let read = |text| variable("--env", text, &caller);
        assert_eq!(read("A=b=c"), Ok("A=b=c".to_owned()));
        assert_eq!(read("A="), Ok("A=".to_owned()));
        assert_eq!(read("HOME"), Ok("HOME=/root".to_owned()));
        assert_eq!(read("NONE"), Ok("NONE".to_owned()));
        assert!(read("=x").is_err() && read("").is_err());
    }

    #[test]
    fn files_follow_dockers_rules() {
        let text = b"\xef\xbb\xbf# comment\n\nA=1\n  B=\"two\" \r\nHOME\nNONE\nC=#no comment\n";
        assert_eq!(file("f", text, &caller).unwrap(), ["A=1", "B=\"two\" ", "HOME=/root", "C=#no comment"]);
        for (bad, what) in [
            (&b"ok=1\n=x"[..], "option `--env-file`: `f`, line 2: no variable name before `=`"),
            (b"a b=1", "option `--env-file`: `f`, line 1: variable name `a b` has a blank in it"),
            (b"\xff=1", "option `--env-file`: `f`, line 1: not valid UTF-8"),
        ] {
            assert_eq!(file("f", bad, &caller).unwrap_err().to_string(), what);
        }
    }
}
