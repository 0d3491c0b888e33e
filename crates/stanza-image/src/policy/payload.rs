//! What is signed: a small JSON document that ties a name to a digest (containers-signature(5), and cosign's
//! SIGNATURE_SPEC with the same fields).

use super::json::{Fields, Node};

/// Which of the two documents, told apart so that a signature for one is none for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// "Simple signing", by OpenPGP.
    Simple,
    /// What cosign signs.
    Sigstore,
}

/// What the document says, believed once its signature fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) digest: String,
    pub(super) reference: String,
}

impl Claim {
    /// Reads a payload whose signature was verified.
    pub(super) fn parse(payload: &[u8], scheme: Scheme) -> Result<Claim, String> {
        read(payload, scheme).map_err(|reason| format!("its payload cannot be used: {reason}"))
    }
}

fn read(payload: &[u8], scheme: Scheme) -> Result<Claim, String> {
    let mut top = Node::parse(payload)?.object("payload")?;
    let mut critical = top.need("critical")?.object("critical")?;
    check_optional(top.need("optional")?, scheme)?;
    top.finish()?;
    let kind = critical.need_text("type")?;
    let expected = match scheme {
        Scheme::Simple => "atomic container signature",
        Scheme::Sigstore => "cosign container image signature",
    };
    if kind != expected {
        return Err(format!("its type is `{}`, not `{expected}`", kind.escape_debug()));
    }
    let digest = only(critical.need("image")?.object("image")?, "docker-manifest-digest")?;
    let reference = only(critical.need("identity")?.object("identity")?, "docker-reference")?;
    critical.finish()?;
    Ok(Claim { digest, reference })
}

fn only(mut fields: Fields, name: &str) -> Result<String, String> {
    let text = fields.need_text(name)?;
    fields.finish()?;
    Ok(text)
}

/// What is optional decides nothing, but must have its form. Cosign writes `null` when there is nothing.
fn check_optional(optional: Node, scheme: Scheme) -> Result<(), String> {
    if optional == Node::Null && scheme == Scheme::Sigstore {
        return Ok(());
    }
    let mut optional = optional.object("optional")?;
    optional.text("creator")?;
    match optional.take("timestamp") {
        None | Some(Node::Number { whole: true }) => Ok(()),
        Some(_) => Err("`timestamp` is not a whole number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"critical": {"type": "atomic container signature", "image": {"docker-manifest-digest": "sha256:00"},
        "identity": {"docker-reference": "r.io/a:1"}}, "optional": {"creator": "x", "timestamp": 1, "more": [1]}}"#;

    #[test]
    fn a_payload_ties_a_name_to_a_digest() {
        let claim = Claim { digest: "sha256:00".to_owned(), reference: "r.io/a:1".to_owned() };
        assert_eq!(Claim::parse(GOOD.as_bytes(), Scheme::Simple), Ok(claim));
        let cosign = GOOD
            .replace("atomic container", "cosign container image")
            .replace(r#"{"creator": "x", "timestamp": 1, "more": [1]}"#, "null");
        assert!(Claim::parse(cosign.as_bytes(), Scheme::Sigstore).is_ok());
    }

    #[test]
    fn anything_else_is_no_payload() {
        assert!(Claim::parse(GOOD.as_bytes(), Scheme::Sigstore).unwrap_err().contains("its type is"));
        for (from, to) in [
            (r#""creator": "x""#, r#""creator": 1"#),
            (r#""timestamp": 1"#, r#""timestamp": 1.5"#),
            (r#""timestamp": 1"#, r#""timestamp": "1""#),
            ("docker-reference", "docker-name"),
            (r#""identity""#, r#""who""#),
            (r#""sha256:00""#, "1"),
            (r#""sha256:00""#, r#""sha256:00", "x": 1"#),
            (r#""r.io/a:1""#, r#""r.io/a:1", "docker-reference": "r.io/b:1""#),
            (r#""optional""#, r#""extra": 1, "optional""#),
            (r#""critical""#, r#""Critical""#),
            (r#""image""#, r#""other": {}, "image""#),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD);
            assert!(Claim::parse(bad.as_bytes(), Scheme::Simple).is_err(), "{bad}");
        }
        assert!(Claim::parse(b"[]", Scheme::Simple).is_err());
        assert!(Claim::parse(br#"{"critical": null, "optional": {}}"#, Scheme::Simple).is_err());
    }
}
