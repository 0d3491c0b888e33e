//! A user's home with keys and policies, and what other tools say about them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use stanza_test::{Output, Running, Stanza, have, hex_sha256};
use tempfile::TempDir;

/// Runs a tool to its end; its standard output.
pub(crate) fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("it can be started");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A user's home: keys, policies, `registries.d`.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Home {
        // The socket of gpg's agent has a short path.
        let home = Home(tempfile::Builder::new().prefix("home").tempdir_in("/tmp").expect("a directory"));
        fs::create_dir_all(home.path(".config/containers/registries.d")).expect("a directory");
        fs::create_dir(home.path("gnupg")).expect("a directory");
        run(Command::new("chmod").arg("700").arg(home.path("gnupg")));
        home
    }

    /// The home itself.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).expect("a file");
        self.text(name)
    }

    /// A policy file with these requirements for everything.
    pub(crate) fn policy(&self, name: &str, requirements: &Value) -> String {
        self.write(name, json!({ "default": requirements }).to_string())
    }

    /// `registries.d` with the signatures of `lookaside`.
    pub(crate) fn lookaside(&self, lookaside: &str) {
        let text = format!("default-docker:\n  lookaside: {lookaside}\n  use-sigstore-attachments: true\n");
        self.write(".config/containers/registries.d/test.yaml", text);
    }

    /// Makes the key pair `<name>.key`, `<name>.pub`, as cosign has them.
    pub(crate) fn cosign_key(&self, name: &str) {
        let (private, public) = (self.text(&format!("{name}.key")), self.text(&format!("{name}.pub")));
        let curve = "ec_paramgen_curve:P-256";
        run(Command::new("openssl").args([
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            curve,
            "-out",
            &private,
        ]));
        run(Command::new("openssl").args(["pkey", "-in", &private, "-pubout", "-out", &public]));
    }

    /// A payload and its signature in base64.
    pub(crate) fn cosign(&self, key: &str, reference: &str, digest: &str) -> (Vec<u8>, String) {
        let payload = json!({"critical": {"type": "cosign container image signature",
            "image": {"docker-manifest-digest": digest}, "identity": {"docker-reference": reference}},
            "optional": null});
        let payload = payload.to_string().into_bytes();
        let file = self.write("payload", &payload);
        let private = self.text(&format!("{key}.key"));
        self.write("raw", run(Command::new("openssl").args(["dgst", "-sha256", "-sign", &private, &file])));
        let text = run(Command::new("openssl").args(["base64", "-A", "-in", &self.text("raw")]));
        (payload, String::from_utf8(text).expect("base64"))
    }

    pub(crate) fn gpg(&self, args: &[&str]) -> Vec<u8> {
        let always = ["--batch", "--quiet", "--passphrase", "", "--homedir", &self.text("gnupg")];
        run(Command::new("gpg").args(always).args(args))
    }

    /// Makes an OpenPGP key, and `<name>.gpg` with its public part.
    pub(crate) fn gpg_key(&self, name: &str, more: &[&str], expiry: &str) {
        self.gpg(&[more, &["--quick-gen-key", name, "ed25519", "sign", expiry]].concat());
        self.write(&format!("{name}.gpg"), self.gpg(&["--export", name]));
    }

    /// Signs a manifest as `reference`, by skopeo.
    pub(crate) fn standalone_sign(&self, key: &str, manifest: &[u8], reference: &str) -> Vec<u8> {
        let manifest = self.write("manifest", manifest);
        let listed = String::from_utf8(self.gpg(&["--list-keys", "--with-colons", key])).expect("text");
        let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).expect("a key");
        let fingerprint = fingerprint.trim_end_matches(':');
        let output = self.text("signature");
        run(Command::new("skopeo")
            .args(["standalone-sign", &manifest, reference, fingerprint, "--output", &output])
            .env("GNUPGHOME", self.path("gnupg")));
        fs::read(output).expect("the signature")
    }

    /// Puts signatures where `registries.d` says they are.
    pub(crate) fn put_aside(&self, repository: &str, manifest: &[u8], signatures: &[Vec<u8>]) {
        let directory = self.path(&format!("aside/{repository}@sha256={}", hex_sha256(manifest)));
        fs::create_dir_all(&directory).expect("a directory");
        for (at, signature) in signatures.iter().enumerate() {
            fs::write(directory.join(format!("signature-{}", at + 1)), signature).expect("a file");
        }
    }

    pub(crate) fn stanza(&self, stanza: &Stanza, args: &[&str]) -> Output {
        let mut command = stanza.command(args);
        command.env("HOME", self.0.path());
        Running::start(command).finish()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let homedir = self.path("gnupg");
        let _ = Command::new("gpgconf").arg("--homedir").arg(homedir).args(["--kill", "all"]).output();
    }
}

/// Whether other tools of the same policies let the image in.
pub(crate) fn peers(home: &Home, policy: &str, name: &str) -> Vec<(&'static str, bool)> {
    let mut verdicts = Vec::new();
    let directory = TempDir::new().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--policy", policy, "copy", "--quiet", "--src-tls-verify=false", "--remove-signatures"]);
    skopeo.args([format!("docker://{name}"), format!("dir:{}", path("copy"))]);
    let mut podman = Command::new("podman");
    let (root, runroot) = (path("root"), path("runroot"));
    podman.args(["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs", "pull", "--quiet"]);
    podman.args(["--tls-verify=false", "--signature-policy", policy, name]);
    for (program, mut command) in [("skopeo", skopeo), ("podman", podman)] {
        if have(program) {
            let output = command.env("HOME", home.0.path()).output().expect("it can be started");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || text.contains("rejected"), "{program} {name}: {text}");
            // Debian 12 builds both without it.
            if text.contains("sigstore disabled") {
                continue;
            }
            verdicts.push((program, output.status.success()));
        }
    }
    verdicts
}
