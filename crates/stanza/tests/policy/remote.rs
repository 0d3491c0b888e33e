//! Images and signatures in registries.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};
use stanza_test::{Answer, FakeRegistry, Layout, Registry, Request, Tarball, hex_sha256};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// An image of one small layer.
pub(crate) fn image() -> Layout {
    Layout::new(vec![Tarball::new().file("file", 0o644, "content\n").finish()], &json!({ "Cmd": ["true"] }))
}

pub(crate) fn describe(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", hex_sha256(bytes)), "size": bytes.len()})
}

/// The manifest that cosign attaches: one layer for each payload, with its signature beside it.
pub(crate) fn attachment(signatures: &[(Vec<u8>, String)]) -> Vec<u8> {
    let layers: Vec<Value> = signatures
        .iter()
        .map(|(payload, signature)| {
            let mut layer = describe(PAYLOAD, payload);
            layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
            layer
        })
        .collect();
    let config = describe("application/vnd.oci.image.config.v1+json", b"{}");
    json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers})
        .to_string()
        .into_bytes()
}

/// One exchange with a registry; the `Location` of the answer.
fn send(authority: &str, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(authority).expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).expect("the request goes out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
    let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default();
    location.trim().to_owned()
}

/// Puts documents and blobs into a registry.
pub(crate) struct Pushed {
    authority: String,
    repository: String,
}

impl Pushed {
    pub(crate) fn blob(&self, bytes: &[u8]) {
        let uploads = format!("/v2/{}/blobs/uploads/", self.repository);
        let location = send(&self.authority, "POST", &uploads, "application/octet-stream", b"");
        let target = location.strip_prefix(&format!("http://{}", self.authority)).unwrap_or(&location);
        let path = format!("{target}&digest=sha256:{}", hex_sha256(bytes));
        send(&self.authority, "PUT", &path, "application/octet-stream", bytes);
    }

    pub(crate) fn manifest(&self, name: &str, media_type: &str, bytes: &[u8]) {
        let path = format!("/v2/{}/manifests/{name}", self.repository);
        send(&self.authority, "PUT", &path, media_type, bytes);
    }

    pub(crate) fn image(&self, layout: &Layout) {
        for (_, bytes) in layout.blobs() {
            self.blob(&bytes);
        }
        self.manifest("1", OCI_MANIFEST, &layout.manifest);
    }

    pub(crate) fn attach(&self, manifest: &[u8], signatures: &[(Vec<u8>, String)]) {
        self.blob(b"{}");
        for (payload, _) in signatures {
            self.blob(payload);
        }
        let tag = format!("sha256-{}.sig", hex_sha256(manifest));
        self.manifest(&tag, OCI_MANIFEST, &attachment(signatures));
    }
}

pub(crate) fn pushed(registry: &Registry, repository: &str) -> Pushed {
    let name = registry.name(repository);
    let (authority, repository) = name.split_once('/').expect("a host and a path");
    Pushed { authority: authority.to_owned(), repository: repository.to_owned() }
}

/// A registry that has the image, and answers as told about signatures.
pub(crate) fn with_signatures(
    layout: &Layout,
    answer: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> FakeRegistry {
    FakeRegistry::of(layout, move |request, good| match answer(request) {
        Some(answer) => answer,
        None if request.path.contains("sha256-") || request.path.contains("/referrers/") => {
            Answer::status(404)
        }
        None => good,
    })
}
