//! Tokens: what the server at a Bearer challenge's realm gives (distribution, "Token Authentication").

use std::io::Read;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::url::Url;

const MAX_ANSWER: u64 = 1024 * 1024;

/// How long a token lives when its server does not say (distribution, "Token Response").
const USUAL_LIFE: u64 = 60;
/// The longest that a token is believed to live.
const LONGEST_LIFE: u64 = 24 * 60 * 60;
/// A token that has so little left may expire on its way.
const MARGIN: Duration = Duration::from_secs(5);

/// What lets requests in for a while.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) value: String,
    /// By our own clock, counted from before it was asked for.
    expires: Instant,
}

impl Token {
    /// Whether it is worth to be sent.
    pub(super) fn is_fresh(&self) -> bool {
        Instant::now() + MARGIN < self.expires
    }
}

/// The URL to ask for a token.
pub(super) fn token_url(realm: &str, service: Option<&str>, scopes: &[String]) -> Result<Url, &'static str> {
    let mut url = Url::parse(realm)?;
    let mut mark = if url.target.contains('?') { '&' } else { '?' };
    let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
    for (name, value) in service.map(|service| ("service", service)).into_iter().chain(scopes) {
        url.target.push(mark);
        url.target.push_str(name);
        url.target.push('=');
        escape(value, &mut url.target);
        mark = '&';
    }
    Ok(url)
}

/// Our own scopes and those of a challenge, each resource once with all its actions.
pub(super) fn merge_scopes(own: &[String], challenged: &[String]) -> Vec<String> {
    let mut merged: Vec<(&str, Vec<&str>)> = Vec::new();
    for scope in own.iter().chain(challenged).filter(|scope| !scope.is_empty()) {
        // The actions follow the last colon: a resource's name may have a port.
        let (resource, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
        let at = merged.iter().position(|(known, _)| *known == resource).unwrap_or_else(|| {
            merged.push((resource, Vec::new()));
            merged.len() - 1
        });
        for action in actions.split(',') {
            if !merged[at].1.contains(&action) {
                merged[at].1.push(action);
            }
        }
    }
    merged.iter().map(|(resource, actions)| format!("{resource}:{}", actions.join(","))).collect()
}

/// The token in a token server's answer.
pub(super) fn read_token(body: &mut dyn Read, asked: Instant) -> Result<Token, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    let mut bytes = Vec::new();
    body.take(MAX_ANSWER + 1).read_to_end(&mut bytes).map_err(|error| format!("no token came: {error}"))?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_ANSWER) {
        return Err("the token's answer has more than 1 MiB".to_owned());
    }
    let answer: Answer =
        serde_json::from_slice(&bytes).map_err(|error| format!("the token's answer is not JSON: {error}"))?;
    let life = answer.expires_in.unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
    [answer.token, answer.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
        .map(|value| Token { value, expires: asked + Duration::from_secs(life) })
        .ok_or_else(|| "the token's answer has no token".to_owned())
}

/// The body of a form (`application/x-www-form-urlencoded`).
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        escape(value, &mut text);
    }
    text
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

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_token_url_carries_service_and_scopes() {
        let url = |realm, service, scopes: &[&str]| {
            token_url(realm, service, &strings(scopes)).map(|url| url.to_string())
        };
        assert_eq!(
            url("https://auth.io/token?x=1", Some("a b&c"), &["repository:a/b:pull"]).unwrap(),
            "https://auth.io/token?x=1&service=a%20b%26c&scope=repository:a/b:pull"
        );
        assert_eq!(
            url("https://auth.io/t", None, &["repository:a/b:pull,push", "repository:c:pull"]).unwrap(),
            "https://auth.io/t?scope=repository:a/b:pull,push&scope=repository:c:pull"
        );
        assert!(url("file:///x", None, &["s"]).is_err());
    }

    #[test]
    fn scopes_of_one_resource_become_one() {
        let merge = |own: &[&str], challenged: &[&str]| merge_scopes(&strings(own), &strings(challenged));
        assert_eq!(merge(&["repository:a:pull"], &["repository:a:pull"]), ["repository:a:pull"]);
        assert_eq!(merge(&["repository:a:pull,push"], &["repository:a:pull"]), ["repository:a:pull,push"]);
        assert_eq!(merge(&["repository:a:pull"], &["repository:a:pull,push"]), ["repository:a:pull,push"]);
        assert_eq!(
            merge(&["repository:h:5000/a:pull"], &["repository:b:pull", "registry:catalog:*", ""]),
            ["repository:h:5000/a:pull", "repository:b:pull", "registry:catalog:*"]
        );
    }

    #[test]
    fn either_name_of_the_token_is_taken_and_nonsense_is_refused() {
        let read = |mut body: &[u8]| read_token(&mut body, Instant::now()).map(|token| token.value);
        assert_eq!(read(br#"{"token":"a"}"#).unwrap(), "a");
        assert_eq!(read(br#"{"token":"","access_token":"b"}"#).unwrap(), "b");
        assert!(read(br#"{"token":"a\r\nX: y"}"#).is_err());
        assert!(read(b"<html>").is_err());
        assert!(read_token(&mut std::io::repeat(b' '), Instant::now()).is_err());
    }

    #[test]
    fn a_token_is_fresh_for_as_long_as_its_server_says_within_reason() {
        let token = |text: &str, ago| {
            let asked = Instant::now().checked_sub(Duration::from_secs(ago)).unwrap();
            read_token(&mut text.as_bytes(), asked).unwrap().is_fresh()
        };
        assert!(token(r#"{"token":"a","expires_in":100}"#, 90));
        assert!(!token(r#"{"token":"a","expires_in":100}"#, 96));
        assert!(token(r#"{"token":"a"}"#, 50));
        assert!(!token(r#"{"token":"a"}"#, 61));
        assert!(!token(r#"{"token":"a","expires_in":0}"#, 0));
        assert!(token(r#"{"token":"a","expires_in":18446744073709551615}"#, 0));
    }
}
