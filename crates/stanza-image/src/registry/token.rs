//! Tokens: what the server at a Bearer challenge's realm gives (distribution, "Token Authentication").

use std::io::Read;

use serde::Deserialize;

use super::url::Url;

const MAX_ANSWER: u64 = 1024 * 1024;

/// The URL to ask for a token.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(realm)?;
    let mut mark = if url.target.contains('?') { '&' } else { '?' };
    for (name, value) in [("service", service), ("scope", Some(scope))] {
        if let Some(value) = value {
            url.target.push(mark);
            url.target.push_str(name);
            url.target.push('=');
            escape(value, &mut url.target);
            mark = '&';
        }
    }
    Ok(url)
}

/// The token in a token server's answer.
pub(super) fn read_token(body: &mut dyn Read) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
    }
    let mut bytes = Vec::new();
    body.take(MAX_ANSWER + 1).read_to_end(&mut bytes).map_err(|error| format!("no token came: {error}"))?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_ANSWER) {
        return Err("the token's answer has more than 1 MiB".to_owned());
    }
    let answer: Answer =
        serde_json::from_slice(&bytes).map_err(|error| format!("the token's answer is not JSON: {error}"))?;
    [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
        .ok_or_else(|| "the token's answer has no token".to_owned())
}

/// Percent-encodes everything but unreserved characters and the `:`, `/`, `,` of scopes.
pub(super) fn escape(value: &str, into: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_url_carries_service_and_scope() {
        let url = |realm, service| token_url(realm, service, "repository:a/b:pull").unwrap().to_string();
        assert_eq!(
            url("https://auth.io/token?x=1", Some("a b&c")),
            "https://auth.io/token?x=1&service=a%20b%26c&scope=repository:a/b:pull"
        );
        assert_eq!(url("https://auth.io/t", None), "https://auth.io/t?scope=repository:a/b:pull");
        assert!(token_url("file:///x", None, "s").is_err());
    }

    #[test]
    fn either_name_of_the_token_is_taken_and_nonsense_is_refused() {
        assert_eq!(read_token(&mut &br#"{"token":"a"}"#[..]).unwrap(), "a");
        assert_eq!(read_token(&mut &br#"{"token":"","access_token":"b"}"#[..]).unwrap(), "b");
        assert!(read_token(&mut &br#"{"token":"a\r\nX: y"}"#[..]).is_err());
        assert!(read_token(&mut &b"<html>"[..]).is_err());
        assert!(read_token(&mut std::io::repeat(b' ')).is_err());
    }
}
