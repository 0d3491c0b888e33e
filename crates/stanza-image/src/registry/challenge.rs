//! `WWW-Authenticate`: what a registry wants (RFC 9110, section 11.6.1).

/// One challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token, to be had at `realm`.
    Bearer {
        /// Where tokens are given.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what, as `repository:library/busybox:pull`.
        scope: Option<String>,
    },
}

/// The challenges in a header, Bearer first. Unknown schemes are left out.
pub(super) fn parse(headers: &[String]) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = headers.iter().flat_map(|header| parse_one(header)).collect();
    found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    found
}

fn parse_one(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    for token in tokens(header) {
        match token {
            Token::Scheme(name) => {
                found.extend(finish(&scheme, &parameters));
                parameters.clear();
                scheme = name;
            }
            Token::Parameter(name, value) => parameters.push((name, value)),
        }
    }
    found.extend(finish(&scheme, &parameters));
    found
}

fn finish(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |wanted: &str| {
        parameters.iter().find(|(name, value)| name == wanted && !value.is_empty()).map(|(_, v)| v.clone())
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
            scope: value("scope"),
        }),
        _ => None,
    }
}

enum Token {
    Scheme(String),
    Parameter(String, String),
}

/// Words are schemes, `word=value` are parameters; commas and spaces part both.
fn tokens(header: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            return tokens;
        }
        let end = rest.find(['=', ',', ' ', '\t']).unwrap_or(rest.len());
        let word = rest[..end].to_ascii_lowercase();
        rest = &rest[end..];
        let Some(value) = rest.strip_prefix('=') else {
            tokens.push(Token::Scheme(word));
            continue;
        };
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        tokens.push(Token::Parameter(word, value));
        rest = after;
    }
}

/// The text up to the closing quote (or the end), and what follows.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &text[at + 1..]),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn challenges_of_the_field_are_understood() {
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"Basic realm="x, y""#, vec![Challenge::Basic]),
            (
                r#"Negotiate abc==, Basic realm="r", bearer REALM=https://a/t"#,
                vec![bearer("https://a/t", None, None), Challenge::Basic],
            ),
            (r#"Bearer service="x""#, vec![]),
            ("", vec![]),
            (r#"Bearer realm="a\"b"#, vec![bearer("a\"b", None, None)]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(&[header.to_owned()]), expected, "{header}");
        }
    }
}
