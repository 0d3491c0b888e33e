//! Manifests and indexes as text: the bytes that a registry has, indented.

use serde_json::json;
use stanza_engine::RemoteDocument;
use stanza_spec::Platform;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What `manifest inspect --verbose` shows of one document, in Docker's shape.
pub(crate) fn verbose(reference: &str, document: &RemoteDocument, platform: Option<&Platform>) -> String {
    let platform = platform.map_or_else(String::new, |platform| {
        let variant = platform
            .variant
            .as_ref()
            .map_or_else(String::new, |text| format!(",\"variant\":{}", json!(text)));
        let (architecture, os) = (json!(platform.architecture), json!(platform.os));
        format!(",\"platform\":{{\"architecture\":{architecture},\"os\":{os}{variant}}}")
    });
    let descriptor = format!(
        "{{\"mediaType\":{},\"digest\":\"{}\",\"size\":{}{platform}}}",
        json!(document.media_type),
        document.digest,
        document.bytes.len()
    );
    let field = match document.media_type.as_str() {
        DOCKER_MANIFEST => "SchemaV2Manifest",
        OCI_INDEX | DOCKER_LIST => "Index",
        _ => "OCIManifest",
    };
    let bytes = String::from_utf8_lossy(&document.bytes);
    format!("{{\"Ref\":{},\"Descriptor\":{descriptor},\"{field}\":{bytes}}}", json!(reference))
}

/// JSON, indented by tabs as Go's `json.Indent` does; fields keep their order, and every text its spelling.
pub(crate) fn indent(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let (mut quoted, mut escaped) = (false, false);
    // Whether a bracket has just been opened: an empty pair stays on its line.
    let mut opened = false;
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n('\t', depth));
    };
    for character in json.chars() {
        if quoted {
            text.push(character);
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        if character.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(character, '}' | ']');
        if opened && !closes {
            depth += 1;
            new_line(&mut text, depth);
        }
        match character {
            '{' | '[' => text.push(character),
            ',' => {
                text.push(',');
                new_line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            '}' | ']' => {
                if !opened {
                    depth = depth.saturating_sub(1);
                    new_line(&mut text, depth);
                }
                text.push(character);
            }
            _ => {
                quoted = character == '"';
                text.push(character);
            }
        }
        opened = matches!(character, '{' | '[');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_json_keeps_its_order_and_its_texts() {
        assert_eq!(
            indent(r#" {"b":[1,  {"x" : "a\",{\\"}],"a":{},"c":[ ] ,"d":"\u0041"}"#),
            "{\n\t\"b\": [\n\t\t1,\n\t\t{\n\t\t\t\"x\": \"a\\\",{\\\\\"\n\t\t}\n\t],\n\t\"a\": {},\n\t\"c\": [],\n\t\"d\": \
             \"\\u0041\"\n}"
        );
        assert_eq!(indent("1"), "1");
    }

    #[test]
    fn verbose_has_dockers_shape() {
        let bytes = br#"{"schemaVersion":2,"layers":[]}"#.to_vec();
        let digest: stanza_spec::Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        let document = RemoteDocument {
            digest: digest.clone(),
            media_type: DOCKER_MANIFEST.to_owned(),
            platform: None,
            bytes,
        };
        let platform: Platform = "linux/arm/v7".parse().unwrap();
        let value: serde_json::Value =
            serde_json::from_str(&verbose("docker.io/library/a:1", &document, Some(&platform))).unwrap();
        let expected = json!({
            "Ref": "docker.io/library/a:1",
            "Descriptor": { "mediaType": DOCKER_MANIFEST, "digest": digest, "size": 31,
                "platform": { "architecture": "arm", "os": "linux", "variant": "v7" } },
            "SchemaV2Manifest": { "schemaVersion": 2, "layers": [] },
        });
        assert_eq!(value, expected);
    }
}
