//! Reading a policy: strictly, since what is misread lets something in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::identity::{Named, SignedIdentity, is_prefix};
use super::json::{Fields, Node};
use super::{Keys, Requirement, Rules, base64};

/// Fields of `sigstoreSigned` that mean certificates and transparency logs.
const UNSUPPORTED: [&str; 6] = [
    "fulcio",
    "pki",
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
];

/// Reads a whole policy file.
pub(super) fn rules(bytes: &[u8]) -> Result<Rules, String> {
    let mut top = Node::parse(bytes)?.object("policy")?;
    let default = requirements(top.need("default")?, "default")?;
    let mut transports = BTreeMap::new();
    if let Some(node) = top.take("transports") {
        for (transport, node) in node.object("transports")? {
            let mut scopes = BTreeMap::new();
            for (scope, node) in node.object(&transport)? {
                check_scope(&transport, &scope)?;
                let found = requirements(node, &scope)?;
                scopes.insert(scope, found);
            }
            transports.insert(transport, scopes);
        }
    }
    top.finish()?;
    Ok(Rules { default, transports })
}

/// A scope that could never fit would silently let the default rule.
fn check_scope(transport: &str, scope: &str) -> Result<(), String> {
    let reason = match transport {
        _ if scope.is_empty() => return Ok(()),
        "docker-archive" => "`docker-archive` has no scopes but the empty one",
        "oci" | "oci-archive" if !scope.starts_with('/') => "it is not an absolute path",
        "oci" | "oci-archive" if scope == "/" => "`/` is written as the empty scope",
        "oci" | "oci-archive" if scope[1..].split('/').any(|part| matches!(part, "" | "." | "..")) => {
            "it is not a path in its shortest form"
        }
        _ => return Ok(()),
    };
    Err(format!("the scope `{}` cannot be used: {reason}", scope.escape_debug()))
}

fn requirements(node: Node, scope: &str) -> Result<Vec<Requirement>, String> {
    let scope = scope.escape_debug();
    let items = node.list(&scope.to_string())?;
    if items.is_empty() {
        return Err(format!("the requirements for `{scope}` are an empty list"));
    }
    let read = |item: Node| requirement(item.object("requirement")?);
    items.into_iter().map(read).collect::<Result<_, _>>().map_err(|reason| format!("for `{scope}`, {reason}"))
}

fn requirement(mut fields: Fields) -> Result<Requirement, String> {
    let kind = fields.need_text("type")?;
    let requirement = match kind.as_str() {
        "insecureAcceptAnything" => Requirement::Accept,
        "reject" => Requirement::Reject,
        "signedBy" => match fields.need_text("keyType")?.as_str() {
            "GPGKeys" => Requirement::SignedBy {
                keys: keys(&mut fields, false)?,
                identity: signed_identity(&mut fields)?,
            },
            // Valid names, that containers/image does not verify either.
            other @ ("signedByGPGKeys" | "X509Certificates" | "signedByX509CAs") => {
                let field = format!("keyType {other}");
                keys(&mut fields, false)?;
                signed_identity(&mut fields)?;
                Requirement::Unsupported { field }
            }
            other => return Err(format!("the key type `{}` is unknown", other.escape_debug())),
        },
        "sigstoreSigned" => sigstore_signed(&mut fields)?,
        other => return Err(format!("the requirement `{}` is unknown", other.escape_debug())),
    };
    fields.finish()?;
    Ok(requirement)
}

fn sigstore_signed(fields: &mut Fields) -> Result<Requirement, String> {
    let identity = signed_identity(fields)?;
    let mut unsupported = None;
    for name in UNSUPPORTED {
        if fields.take(name).is_some() {
            unsupported.get_or_insert(name);
        }
    }
    match unsupported {
        None => Ok(Requirement::SigstoreSigned { keys: keys(fields, true)?, identity }),
        Some(name) => {
            if ["keyPath", "keyPaths", "keyData", "keyDatas"].iter().any(|key| fields.has(key)) {
                keys(fields, true)?;
            }
            Ok(Requirement::Unsupported { field: name.to_owned() })
        }
    }
}

/// The one field of four that says where the keys are.
fn keys(fields: &mut Fields, several_data: bool) -> Result<Keys, String> {
    let mut found = Vec::new();
    if let Some(path) = fields.text("keyPath")? {
        found.push(Keys::Paths(vec![PathBuf::from(path)]));
    }
    if let Some(paths) = fields.texts("keyPaths")? {
        found.push(Keys::Paths(paths.into_iter().map(PathBuf::from).collect()));
    }
    if let Some(text) = fields.text("keyData")? {
        found.push(Keys::Data(vec![decode("keyData", &text)?]));
    }
    if several_data && let Some(texts) = fields.texts("keyDatas")? {
        let decoded = texts.iter().map(|text| decode("keyDatas", text)).collect::<Result<_, _>>()?;
        found.push(Keys::Data(decoded));
    }
    match (found.pop(), found.is_empty()) {
        (Some(keys), true) => Ok(keys),
        _ => Err(format!(
            "exactly one of `keyPath`, `keyPaths`{} must be there",
            if several_data { ", `keyData` and `keyDatas`" } else { " and `keyData`" }
        )),
    }
}

fn decode(name: &str, text: &str) -> Result<Vec<u8>, String> {
    base64(text).ok_or_else(|| format!("`{name}` is not base64"))
}

fn signed_identity(fields: &mut Fields) -> Result<SignedIdentity, String> {
    let Some(node) = fields.take("signedIdentity") else { return Ok(SignedIdentity::RepoDigestOrExact) };
    let mut fields = node.object("signedIdentity")?;
    let kind = fields.need_text("type")?;
    let identity = match kind.as_str() {
        "matchExact" => SignedIdentity::Exact,
        "matchRepoDigestOrExact" => SignedIdentity::RepoDigestOrExact,
        "matchRepository" => SignedIdentity::Repository,
        "exactReference" => {
            let text = fields.need_text("dockerReference")?;
            let named = Named::parse_whole(&text)
                .ok_or_else(|| format!("`{}` is no image with tag or digest", text.escape_debug()))?;
            SignedIdentity::ExactReference(named)
        }
        "exactRepository" => {
            let text = fields.need_text("dockerRepository")?;
            let named = Named::parse_bare(&text)
                .ok_or_else(|| format!("`{}` is no repository", text.escape_debug()))?;
            SignedIdentity::ExactRepository(named)
        }
        "remapIdentity" => {
            let prefix = prefix(&mut fields, "prefix")?;
            SignedIdentity::Remap { prefix, signed_prefix: self::prefix(&mut fields, "signedPrefix")? }
        }
        other => return Err(format!("the identity `{}` is unknown", other.escape_debug())),
    };
    fields.finish()?;
    Ok(identity)
}

fn prefix(fields: &mut Fields, name: &str) -> Result<String, String> {
    let text = fields.need_text(name)?;
    if is_prefix(&text) {
        return Ok(text);
    }
    Err(format!("`{name}` is `{}`, neither a host nor a name on one in full", text.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(requirement: &str) -> Result<Requirement, String> {
        let mut rules = rules(format!(r#"{{"default": [{requirement}]}}"#).as_bytes())?;
        Ok(rules.default.remove(0))
    }

    #[test]
    fn every_requirement_is_read() {
        let paths = |paths: &[&str]| Keys::Paths(paths.iter().map(PathBuf::from).collect());
        let identity = SignedIdentity::RepoDigestOrExact;
        for (text, requirement) in [
            (r#"{"type": "reject"}"#, Requirement::Reject),
            (r#"{"type": "insecureAcceptAnything"}"#, Requirement::Accept),
            (
                r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "/b"]}"#,
                Requirement::SignedBy { keys: paths(&["/a", "/b"]), identity: identity.clone() },
            ),
            (
                r#"{"type": "sigstoreSigned", "keyDatas": ["YQ==", "Y\ng=="], "signedIdentity": {"type": "matchExact"}}"#,
                Requirement::SigstoreSigned {
                    keys: Keys::Data(vec![b"a".to_vec(), b"b".to_vec()]),
                    identity: SignedIdentity::Exact,
                },
            ),
            (
                r#"{"type": "sigstoreSigned", "fulcio": {"caPath": "/x"}, "rekorPublicKeyPath": "/y"}"#,
                Requirement::Unsupported { field: "fulcio".to_owned() },
            ),
            (
                r#"{"type": "sigstoreSigned", "keyPath": "/x", "rekorPublicKeyData": "YQ=="}"#,
                Requirement::Unsupported { field: "rekorPublicKeyData".to_owned() },
            ),
        ] {
            assert_eq!(one(text), Ok(requirement), "{text}");
        }
    }

    #[test]
    fn whatever_is_not_understood_is_refused() {
        for bad in [
            r#"{}"#,
            r#"{"type": "accept"}"#,
            r#"{"type": "reject", "why": 1}"#,
            r#"{"type": "reject", "type": "reject"}"#,
            r#"{"type": "signedBy", "keyPath": "/a"}"#,
            r#"{"type": "signedBy", "keyType": "Keys", "keyPath": "/a"}"#,
            r#"{"type": "signedBy", "keyType": "GPGKeys"}"#,
            r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a", "keyData": "YQ=="}"#,
            r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []}"#,
            r#"{"type": "signedBy", "keyType": "GPGKeys", "keyDatas": ["YQ=="]}"#,
            r#"{"type": "signedBy", "keyType": "GPGKeys", "keyData": "?"}"#,
            r#"{"type": "sigstoreSigned"}"#,
            r#"{"type": "sigstoreSigned", "keyPath": 1}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "keyType": "GPGKeys"}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "fulcio": {}, "x": 1}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": "matchExact"}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "any"}}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "matchExact", "x": 1}}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "exactReference", "dockerReference": "r.io/a"}}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "exactRepository", "dockerRepository": "r.io/a:1"}}"#,
            r#"{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "remapIdentity", "prefix": "r.io"}}"#,
        ] {
            assert!(one(bad).is_err(), "{bad}");
        }
        for bad in [
            r#"[]"#,
            r#"{}"#,
            r#"{"default": []}"#,
            r#"{"default": [{"type": "reject"}], "other": 1}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"docker": []}}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"docker": {"": []}}}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"docker": {"": [{"type": "x"}]}}}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"docker-archive": {"/x": [{"type": "reject"}]}}}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"oci-archive": {"x": [{"type": "reject"}]}}}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"oci": {"x": [{"type": "reject"}]}}}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"oci-archive": {"/": [{"type": "reject"}]}}}"#,
            r#"{"default": [{"type": "reject"}], "transports": {"oci-archive": {"/a/../b": [{"type": "reject"}]}}}"#,
            r#"{"default": [{"type": "reject"}]} trailing"#,
            r#"{"default": [/* a comment */{"type": "reject"}]}"#,
        ] {
            assert!(rules(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
