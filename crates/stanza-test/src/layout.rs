//! OCI image layouts made by hand: for images with a configuration, and for broken ones.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Tarball;

/// The sha256 of `bytes` in hex.
#[must_use]
pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An image with its layers, configuration and manifest as bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Uncompressed layers, bottom first.
    pub layers: Vec<Vec<u8>>,
    /// The image configuration.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
}

impl Layout {
    /// An image for this machine of `layers` (bottom first), with the `config` object of the image specification
    /// (`{"Entrypoint": [...], "Env": [...]}`).
    #[must_use]
    pub fn new(layers: Vec<Vec<u8>>, config: &Value) -> Layout {
        Layout::for_architecture(layers, config, architecture())
    }

    /// The same for another architecture, by Go's name.
    ///
    /// # Panics
    /// Never: the documents are plain.
    #[must_use]
    pub fn for_architecture(layers: Vec<Vec<u8>>, config: &Value, architecture: &str) -> Layout {
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| format!("sha256:{}", hex_sha256(layer))).collect();
        let config = json!({
            "created": "2024-01-01T00:00:00Z",
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": layers.iter().map(|_| json!({ "created_by": "test" })).collect::<Vec<_>>(),
        });
        let config = serde_json::to_vec(&config).expect("JSON");
        let descriptors: Vec<Value> =
            layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": descriptors,
        });
        Layout { layers, config, manifest: serde_json::to_vec(&manifest).expect("JSON") }
    }

    /// All blobs with their digests in hex: layers, configuration, manifest.
    #[must_use]
    pub fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let all = self.layers.iter().chain([&self.config, &self.manifest]);
        all.map(|bytes| (hex_sha256(bytes), bytes.clone())).collect()
    }

    fn index(&self, name: &str) -> Vec<u8> {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] })).expect("JSON")
    }

    /// Writes it as a directory, under the reference name `name`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> io::Result<()> {
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        fs::write(directory.join("index.json"), self.index(name))?;
        for (digest, bytes) in self.blobs() {
            fs::write(directory.join("blobs/sha256").join(digest), bytes)?;
        }
        Ok(())
    }

    /// The same as an archive that `load` takes.
    #[must_use]
    pub fn archive(&self, name: &str) -> Vec<u8> {
        let mut tarball = Tarball::new()
            .file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", 0o644, self.index(name))
            .directory("blobs/", 0o755)
            .directory("blobs/sha256/", 0o755);
        for (digest, bytes) in self.blobs() {
            tarball = tarball.file(&format!("blobs/sha256/{digest}"), 0o644, bytes);
        }
        tarball.finish()
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", hex_sha256(bytes)), "size": bytes.len() })
}

/// This machine's architecture, by Go's name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
