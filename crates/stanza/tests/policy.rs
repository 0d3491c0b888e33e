//! Which images a policy lets in, by its requirements and by what signs them; the verdicts are those of skopeo and podman.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use stanza_test::{
    Answer, FakeRegistry, Layout, Output, Registry, Request, Running, Stanza, Tarball, fixture, have,
    hex_sha256, skip,
};
use tempfile::TempDir;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Runs a tool to its end; its standard output.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A user's home: keys, policies, `registries.d`.
struct Home(TempDir);

impl Home {
    fn new() -> Home {
        // The socket of gpg's agent has a short path.
        let home = Home(tempfile::Builder::new().prefix("home").tempdir_in("/tmp").unwrap());
        fs::create_dir_all(home.path(".config/containers/registries.d")).unwrap();
        fs::create_dir(home.path("gnupg")).unwrap();
        run(Command::new("chmod").arg("700").arg(home.path("gnupg")));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        self.text(name)
    }

    /// A policy file with these requirements for everything.
    fn policy(&self, name: &str, requirements: &Value) -> String {
        self.write(name, json!({ "default": requirements }).to_string())
    }

    /// `registries.d` with the signatures of `lookaside`.
    fn lookaside(&self, lookaside: &str) {
        let text = format!("default-docker:\n  lookaside: {lookaside}\n  use-sigstore-attachments: true\n");
        self.write(".config/containers/registries.d/test.yaml", text);
    }

    /// Makes the key pair `<name>.key`, `<name>.pub`, as cosign has them.
    fn cosign_key(&self, name: &str) {
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
    fn cosign(&self, key: &str, reference: &str, digest: &str) -> (Vec<u8>, String) {
        let payload = json!({"critical": {"type": "cosign container image signature",
            "image": {"docker-manifest-digest": digest}, "identity": {"docker-reference": reference}},
            "optional": null});
        let payload = payload.to_string().into_bytes();
        let file = self.write("payload", &payload);
        let private = self.text(&format!("{key}.key"));
        self.write("raw", run(Command::new("openssl").args(["dgst", "-sha256", "-sign", &private, &file])));
        let text = run(Command::new("openssl").args(["base64", "-A", "-in", &self.text("raw")]));
        (payload, String::from_utf8(text).unwrap())
    }

    fn gpg(&self, args: &[&str]) -> Vec<u8> {
        let always = ["--batch", "--quiet", "--passphrase", "", "--homedir", &self.text("gnupg")];
        run(Command::new("gpg").args(always).args(args))
    }

    /// Makes an OpenPGP key, and `<name>.gpg` with its public part.
    fn gpg_key(&self, name: &str, more: &[&str], expiry: &str) {
        self.gpg(&[more, &["--quick-gen-key", name, "ed25519", "sign", expiry]].concat());
        self.write(&format!("{name}.gpg"), self.gpg(&["--export", name]));
    }

    /// Signs a manifest as `reference`, by skopeo.
    fn standalone_sign(&self, key: &str, manifest: &[u8], reference: &str) -> Vec<u8> {
        let manifest = self.write("manifest", manifest);
        let listed = String::from_utf8(self.gpg(&["--list-keys", "--with-colons", key])).unwrap();
        let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
        let fingerprint = fingerprint.trim_end_matches(':');
        let output = self.text("signature");
        run(Command::new("skopeo")
            .args(["standalone-sign", &manifest, reference, fingerprint, "--output", &output])
            .env("GNUPGHOME", self.path("gnupg")));
        fs::read(output).unwrap()
    }

    /// Puts signatures where `registries.d` says they are.
    fn put_aside(&self, repository: &str, manifest: &[u8], signatures: &[Vec<u8>]) {
        let directory = self.path(&format!("aside/{repository}@sha256={}", hex_sha256(manifest)));
        fs::create_dir_all(&directory).unwrap();
        for (at, signature) in signatures.iter().enumerate() {
            fs::write(directory.join(format!("signature-{}", at + 1)), signature).unwrap();
        }
    }

    fn stanza(&self, stanza: &Stanza, args: &[&str]) -> Output {
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

/// An image of one small layer.
fn image() -> Layout {
    Layout::new(vec![Tarball::new().file("file", 0o644, "content\n").finish()], &json!({ "Cmd": ["true"] }))
}

fn describe(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", hex_sha256(bytes)), "size": bytes.len()})
}

/// The manifest that cosign attaches: one layer for each payload, with its signature beside it.
fn attachment(signatures: &[(Vec<u8>, String)]) -> Vec<u8> {
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
    let mut stream = TcpStream::connect(authority).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 20"), "{method} {path}: {answer}");
    let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default();
    location.trim().to_owned()
}

/// Puts documents and blobs into a registry.
struct Pushed {
    authority: String,
    repository: String,
}

impl Pushed {
    fn blob(&self, bytes: &[u8]) {
        let uploads = format!("/v2/{}/blobs/uploads/", self.repository);
        let location = send(&self.authority, "POST", &uploads, "application/octet-stream", b"");
        let target = location.strip_prefix(&format!("http://{}", self.authority)).unwrap_or(&location);
        let path = format!("{target}&digest=sha256:{}", hex_sha256(bytes));
        send(&self.authority, "PUT", &path, "application/octet-stream", bytes);
    }

    fn manifest(&self, name: &str, media_type: &str, bytes: &[u8]) {
        let path = format!("/v2/{}/manifests/{name}", self.repository);
        send(&self.authority, "PUT", &path, media_type, bytes);
    }

    fn image(&self, layout: &Layout) {
        for (_, bytes) in layout.blobs() {
            self.blob(&bytes);
        }
        self.manifest("1", OCI_MANIFEST, &layout.manifest);
    }

    fn attach(&self, manifest: &[u8], signatures: &[(Vec<u8>, String)]) {
        self.blob(b"{}");
        for (payload, _) in signatures {
            self.blob(payload);
        }
        let tag = format!("sha256-{}.sig", hex_sha256(manifest));
        self.manifest(&tag, OCI_MANIFEST, &attachment(signatures));
    }
}

fn pushed(registry: &Registry, repository: &str) -> Pushed {
    let name = registry.name(repository);
    let (authority, repository) = name.split_once('/').unwrap();
    Pushed { authority: authority.to_owned(), repository: repository.to_owned() }
}

/// What a store holds, blobs and layers, finished or not.
fn stored(stanza: &Stanza) -> Vec<String> {
    let mut found = Vec::new();
    for directory in ["images/blobs/sha256", "images/ingest", "layers/sha256", "layers/ingest"] {
        for entry in fs::read_dir(stanza.root().join(directory)).into_iter().flatten() {
            found.push(format!("{directory}/{}", entry.unwrap().file_name().display()));
        }
    }
    found.sort();
    found
}

/// Starts a registry, or ends the test; and ends it when a tool is missing.
macro_rules! registry {
    () => {
        match Registry::start() {
            Ok(registry) => registry,
            Err(reason) => skip!("{reason}"),
        }
    };
}

macro_rules! home {
    () => {{
        for (program, package) in [("openssl", "openssl"), ("gpg", "gnupg"), ("gpgv", "gpgv")] {
            if !have(program) {
                skip!("no `{program}` (package {package})");
            }
        }
        let home = Home::new();
        home.lookaside(&format!("file://{}", home.text("aside")));
        home
    }};
}

/// Whether other tools of the same policies let the image in.
fn peers(home: &Home, policy: &str, name: &str) -> Vec<(&'static str, bool)> {
    let mut verdicts = Vec::new();
    let directory = TempDir::new().unwrap();
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
            let output = command.env("HOME", home.0.path()).output().unwrap();
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

#[test]
fn verdicts_are_those_of_skopeo_and_podman() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let home = home!();
    let layout = image();
    let manifest = &layout.manifest;
    let digest = format!("sha256:{}", hex_sha256(manifest));
    for key in ["first", "second"] {
        home.cosign_key(key);
    }
    home.gpg_key("known", &[], "0");
    home.gpg_key("unknown", &[], "0");
    home.gpg_key("gone", &["--faked-system-time", "20200101T000000"], "20200102T000000");
    let other = Layout::new(Vec::new(), &json!({}));
    let other_digest = format!("sha256:{}", hex_sha256(&other.manifest));
    let name = |repository: &str| registry.name(&format!("{repository}:1"));

    // What is signed how, by repository.
    let cosign = |key: &str, reference: &str| home.cosign(key, reference, &digest);
    let (good_payload, good_signature) = cosign("first", &name("good"));
    let tampered = String::from_utf8(good_payload.clone()).unwrap().replace("/good:1", "/tampered:1");
    let attached = [
        ("good", vec![(good_payload, good_signature.clone())]),
        ("bare", vec![cosign("first", &registry.name("bare"))]),
        ("strange", vec![cosign("second", &name("strange"))]),
        ("tampered", vec![(tampered.into_bytes(), good_signature)]),
        ("stolen", vec![home.cosign("first", &name("stolen"), &other_digest)]),
        ("renamed", vec![cosign("first", &name("good"))]),
        (
            "mixed",
            vec![
                cosign("second", &name("mixed")),
                home.cosign("first", &name("mixed"), &other_digest),
                cosign("first", &name("mixed")),
            ],
        ),
    ];
    for (repository, signatures) in &attached {
        pushed(&registry, repository).image(&layout);
        pushed(&registry, repository).attach(manifest, signatures);
    }
    let sign = |key: &str, repository: &str| home.standalone_sign(key, manifest, &name(repository));
    let mut broken = sign("known", "gpg-broken");
    let last = broken.len() - 8;
    broken[last] ^= 1;
    let gone = home.write(
        "gone.payload",
        json!({"critical": {"type": "atomic container signature", "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": name("gpg-gone")}}, "optional": {}})
        .to_string(),
    );
    let past = ["--faked-system-time", "20200101T000100", "-u", "gone", "--output", "-", "--sign", &gone];
    let aside = [
        ("plain", vec![]),
        ("gpg-good", vec![sign("known", "gpg-good")]),
        ("gpg-unknown", vec![sign("unknown", "gpg-unknown")]),
        ("gpg-renamed", vec![sign("known", "gpg-good")]),
        ("gpg-stolen", vec![home.standalone_sign("known", &other.manifest, &name("gpg-stolen"))]),
        ("gpg-broken", vec![broken]),
        ("gpg-gone", vec![home.gpg(&past)]),
        (
            "gpg-mixed",
            vec![sign("unknown", "gpg-mixed"), sign("known", "gpg-good"), sign("known", "gpg-mixed")],
        ),
    ];
    for (repository, signatures) in &aside {
        pushed(&registry, repository).image(&layout);
        home.put_aside(repository, manifest, signatures);
    }

    let sigstore = |identity: Value| {
        let mut requirement = json!({"type": "sigstoreSigned", "keyPath": home.text("first.pub")});
        if !identity.is_null() {
            requirement["signedIdentity"] = identity;
        }
        requirement
    };
    let simple = |key: &str| json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": home.text(key)});
    let accept = json!({"type": "insecureAcceptAnything"});
    let default = sigstore(Value::Null);
    let repository = sigstore(json!({"type": "matchRepository"}));
    let exact = sigstore(json!({"type": "exactReference", "dockerReference": name("good")}));
    let exact_repository =
        sigstore(json!({"type": "exactRepository", "dockerRepository": registry.name("good")}));
    let authority = registry.name("x").replace("/x", "");
    let remapped = sigstore(json!({"type": "remapIdentity", "prefix": format!("{authority}/renamed"),
        "signedPrefix": format!("{authority}/good")}));
    let known = simple("known.gpg");
    let table: &[(Value, &str, bool)] = &[
        (json!([accept]), "plain:1", true),
        (json!([{"type": "reject"}]), "good:1", false),
        (json!([accept, {"type": "reject"}]), "good:1", false),
        (json!([default]), "good:1", true),
        (json!([default, accept]), "good:1", true),
        (json!([default, known]), "good:1", false),
        (json!([default]), "plain:1", false),
        (json!([default]), "bare:1", false),
        (json!([repository]), "bare:1", true),
        (json!([repository]), "good:1", true),
        (json!([default]), "strange:1", false),
        (json!([default]), "tampered:1", false),
        (json!([repository]), "stolen:1", false),
        (json!([default]), "renamed:1", false),
        (json!([exact]), "renamed:1", true),
        (json!([exact_repository]), "renamed:1", true),
        (json!([remapped]), "renamed:1", true),
        (json!([remapped]), "stolen:1", false),
        (json!([exact]), "mixed:1", false),
        (json!([default]), "mixed:1", true),
        (json!([default]), &format!("good@{digest}"), true),
        (json!([sigstore(json!({"type": "matchExact"}))]), &format!("good@{digest}"), false),
        (json!([known]), "gpg-good:1", true),
        (json!([known]), &format!("gpg-good@{digest}"), true),
        (json!([known]), "plain:1", false),
        (json!([known]), "good:1", false),
        (json!([default]), "gpg-good:1", false),
        (json!([known]), "gpg-unknown:1", false),
        (json!([known]), "gpg-renamed:1", false),
        (json!([known]), "gpg-stolen:1", false),
        (json!([known]), "gpg-broken:1", false),
        (json!([simple("gone.gpg")]), "gpg-gone:1", false),
        (json!([known]), "gpg-mixed:1", true),
        (json!([known, simple("unknown.gpg")]), "gpg-mixed:1", true),
        (json!([known, simple("gone.gpg")]), "gpg-mixed:1", false),
    ];
    for (at, (requirements, repository, accepted)) in table.iter().enumerate() {
        let policy = home.policy(&format!("policy-{at}"), requirements);
        let name = registry.name(repository);
        let row = format!("{requirements} {name}");
        let before = stored(&stanza);
        let output = home.stanza(&stanza, &["pull", "--quiet", "--signature-policy", &policy, &name]);
        assert_eq!(output.code, i32::from(!accepted), "{row}: {}", output.stderr);
        if !accepted {
            assert!(output.stderr.contains("Source image rejected: "), "{row}: {}", output.stderr);
            assert_eq!(stored(&stanza), before, "{row}");
        }
    }
    for rows in table.iter().enumerate().collect::<Vec<_>>().chunks(8) {
        std::thread::scope(|scope| {
            for (at, (requirements, repository, accepted)) in rows {
                let (home, name) = (&home, registry.name(repository));
                scope.spawn(move || {
                    for (peer, verdict) in peers(home, &home.text(&format!("policy-{at}")), &name) {
                        assert_eq!(verdict, *accepted, "{peer}: {requirements} {name}");
                    }
                });
            }
        });
    }
}

#[test]
fn the_manifest_of_the_platform_is_what_must_be_signed() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let home = home!();
    home.cosign_key("first");
    let layout = image();
    let config: Value = serde_json::from_slice(&layout.config).unwrap();
    let mut entry = describe(OCI_MANIFEST, &layout.manifest);
    entry["platform"] = json!({"architecture": config["architecture"], "os": "linux"});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).to_string();
    let policy =
        home.policy("policy", &json!([{"type": "sigstoreSigned", "keyPath": home.text("first.pub")}]));
    for (repository, signed, accepted) in
        [("index", index.as_bytes(), false), ("instance", &layout.manifest[..], true)]
    {
        let target = pushed(&registry, repository);
        target.image(&layout);
        target.manifest("all", OCI_INDEX, index.as_bytes());
        let name = registry.name(&format!("{repository}:all"));
        let digest = format!("sha256:{}", hex_sha256(signed));
        target.attach(signed, &[home.cosign("first", &name, &digest)]);
        let output = home.stanza(&stanza, &["pull", "--signature-policy", &policy, &name]);
        assert_eq!(output.code, i32::from(!accepted), "{name}: {}", output.stderr);
        assert_eq!(output.stderr.contains("cosign sign --recursive"), !accepted, "{}", output.stderr);
        for (peer, verdict) in peers(&home, &policy, &name) {
            assert_eq!(verdict, accepted, "{peer}: {name}");
        }
    }
}

#[test]
fn a_refused_image_is_not_asked_for_and_leaves_nothing() {
    let stanza = fixture!(Empty);
    let home = home!();
    let layout = image();
    let registry = FakeRegistry::of(&layout, |request, good| {
        if request.path.contains(".sig") || request.path.contains("sha256-") {
            Answer::status(404)
        } else {
            good
        }
    });
    home.cosign_key("first");
    let before = stored(&stanza);
    let name = registry.name("room:1");
    let file = home.policy(
        ".config/containers/policy.json",
        &json!([{"type": "sigstoreSigned", "keyPath": home.text("first.pub")}]),
    );
    for (code, args) in [
        (1, &["pull", &name][..]),
        (1, &["pull", "--signature-policy", &file, &name]),
        (125, &["run", "--rm", "--network", "none", &name]),
        (1, &["create", &name]),
    ] {
        let output = home.stanza(&stanza, args);
        assert_eq!(output.code, code, "{args:?}: {}", output.stderr);
        let told = "Source image rejected: a signature was required, but no signature exists";
        assert!(output.stderr.contains(told), "{args:?}: {}", output.stderr);
    }
    assert_eq!(stored(&stanza), before);
    let blobs: Vec<Request> =
        registry.requests().into_iter().filter(|request| request.path.contains("/blobs/")).collect();
    assert_eq!(blobs, []);
    assert_eq!(stanza.ok(&["images", "-q"]), "");
    // The same with a policy that does not ask for signatures: nobody looks for any.
    home.policy(".config/containers/policy.json", &json!([{"type": "insecureAcceptAnything"}]));
    let asked = registry.requests().len();
    let output = home.stanza(&stanza, &["pull", &name]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(registry.requests()[asked..].iter().all(|request| !request.path.contains("sha256-")));
}

#[test]
fn a_policy_that_is_not_understood_lets_nothing_in() {
    let stanza = fixture!(Empty);
    let home = home!();
    let registry = FakeRegistry::of(&image(), |_, good| good);
    let name = registry.name("room:1");
    for (text, reason) in [
        ("", "cannot use the policy"),
        ("{", "cannot use the policy"),
        (r#"{"default": [{"type": "insecureAcceptAnything", "x": 1}]}"#, "the field `x` is unknown"),
        (
            r#"{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}"#,
            "there twice",
        ),
        (r#"{"default": [{"type": "sigstoreSigned", "fulcio": {}}]}"#, "`fulcio`, which is not supported"),
        (r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/nowhere"}]}"#, "cannot read `/nowhere`"),
        (r#"{"default": [{"type": "sigstoreSigned", "keyData": "eA=="}]}"#, "cannot use the key `keyData`"),
    ] {
        let file = home.write(".config/containers/policy.json", text);
        for args in [&["pull", &name][..], &["pull", "--signature-policy", &file, &name]] {
            let output = home.stanza(&stanza, args);
            assert_eq!(output.code, 1, "{text}: {}", output.stdout);
            assert!(output.stderr.contains(reason), "{text}: {}", output.stderr);
        }
    }
    let output = home.stanza(&stanza, &["pull", "--signature-policy", "/nowhere", &name]);
    assert_eq!(
        (output.code, output.stderr.contains("cannot read `/nowhere`")),
        (1, true),
        "{}",
        output.stderr
    );
    assert_eq!(stanza.ok(&["images", "-q"]), "");
}

/// A registry that has the image, and answers as told about signatures.
fn with_signatures(
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

#[test]
fn signatures_that_refer_to_the_manifest_are_found() {
    let stanza = fixture!(Empty);
    let home = home!();
    home.cosign_key("first");
    let layout = image();
    let digest = format!("sha256:{}", hex_sha256(&layout.manifest));
    let signature = home.cosign("first", "signed.io/room:1", &digest);
    let attachment = attachment(std::slice::from_ref(&signature));
    let mut entry = describe(OCI_MANIFEST, &attachment);
    entry["artifactType"] = json!(ARTIFACT);
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).to_string();
    let policy = home.policy(
        "policy",
        &json!([{"type": "sigstoreSigned", "keyPath": home.text("first.pub"),
            "signedIdentity": {"type": "exactReference", "dockerReference": "signed.io/room:1"}}]),
    );
    let api = format!("/referrers/{digest}");
    let tag = format!("/manifests/{}", digest.replace(':', "-"));
    for (place, accepted) in [(api, true), (tag, true), ("/nowhere".to_owned(), false)] {
        let (attachment, signature, index) = (attachment.clone(), signature.clone(), index.clone());
        let registry = with_signatures(&layout, move |request| {
            let path = request.path.split('?').next().unwrap_or_default();
            if path.ends_with(&place) {
                return Some(Answer::ok(OCI_INDEX, index.clone()));
            }
            if path.ends_with(&hex_sha256(&attachment)) {
                return Some(Answer::ok(OCI_MANIFEST, attachment.clone()));
            }
            path.ends_with(&hex_sha256(&signature.0))
                .then(|| Answer::ok("application/octet-stream", signature.0.clone()))
        });
        let name = registry.name("room:1");
        let output = home.stanza(&stanza, &["pull", "--signature-policy", &policy, &name]);
        assert_eq!(output.code, i32::from(!accepted), "{}", output.stderr);
    }
}

#[test]
fn a_registry_that_does_not_tell_its_signatures_lets_nothing_in() {
    let stanza = fixture!(Empty);
    let home = home!();
    home.cosign_key("first");
    let layout = image();
    let policy =
        home.policy("policy", &json!([{"type": "sigstoreSigned", "keyPath": home.text("first.pub")}]));
    for (place, answer, reason) in [
        (".sig", Answer::status(403), "cannot fetch the signatures"),
        ("/referrers/", Answer::status(403), "cannot fetch the signatures"),
        (".sig", Answer::ok(OCI_MANIFEST, "{"), "its manifest cannot be read"),
        (".sig", Answer::ok(OCI_MANIFEST, "{}"), "no signature exists"),
        (".sig", Answer::ok(OCI_MANIFEST, layout.manifest.clone()), "no signature exists"),
        (".sig", Answer::ok(OCI_MANIFEST, vec![b' '; 5 * 1024 * 1024]), "cannot fetch the signatures"),
    ] {
        let registry =
            with_signatures(&layout, move |request| request.path.contains(place).then(|| answer.clone()));
        let output = home.stanza(&stanza, &["pull", "--signature-policy", &policy, &registry.name("room:1")]);
        assert_eq!(output.code, 1, "{place} {reason}");
        assert!(output.stderr.contains(reason), "{place}: {}", output.stderr);
        let asked = registry.requests();
        assert!(asked.iter().all(|request| !request.path.contains("/blobs/")), "{place}");
    }
    assert_eq!(stanza.ok(&["images", "-q"]), "");
}

#[test]
fn signatures_are_bounded_in_number_and_size() {
    let stanza = fixture!(Empty);
    let home = home!();
    home.cosign_key("first");
    home.gpg_key("known", &[], "0");
    let layout = image();
    let digest = format!("sha256:{}", hex_sha256(&layout.manifest));
    let good = home.cosign("first", "signed.io/room:1", &digest);
    let huge = (vec![b' '; 10 * 1024 * 1024], good.1.clone());
    // It says that it is small.
    let lying: Value = serde_json::from_slice(&attachment(std::slice::from_ref(&huge))).unwrap();
    let mut lying = lying;
    lying["layers"][0]["size"] = json!(100);
    let identity = json!({"type": "exactReference", "dockerReference": "signed.io/room:1"});
    let sigstore = home.policy(
        "sigstore",
        &json!([{"type": "sigstoreSigned", "keyPath": home.text("first.pub"), "signedIdentity": identity}]),
    );
    let simple = home.policy(
        "simple",
        &json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": home.text("known.gpg"),
            "signedIdentity": identity}]),
    );
    for (manifest, accepted, reason) in [
        (attachment(&vec![good.clone(); 1000]), false, "has more than 128 signatures"),
        (attachment(&vec![good.clone(); 128]), true, ""),
        (attachment(std::slice::from_ref(&huge)), false, "more than 131072 bytes"),
        (lying.to_string().into_bytes(), false, "more than 131072 bytes"),
        (attachment(&[huge.clone(), good.clone()]), true, ""),
    ] {
        let (payloads, manifest) = ([good.0.clone(), huge.0.clone()], manifest);
        let registry = with_signatures(&layout, move |request| {
            if request.path.ends_with(".sig") {
                return Some(Answer::ok(OCI_MANIFEST, manifest.clone()));
            }
            let payload = payloads.iter().find(|payload| request.path.ends_with(&hex_sha256(payload)));
            payload.map(|payload| Answer::ok("application/octet-stream", payload.clone()))
        });
        let name = registry.name("room:1");
        let output = home.stanza(&stanza, &["pull", "--signature-policy", &sigstore, &name]);
        assert_eq!(output.code, i32::from(!accepted), "{}", output.stderr);
        assert!(output.stderr.contains(reason), "{}", output.stderr);
    }

    let signed = home.standalone_sign("known", &layout.manifest, "signed.io/room:1");
    for (count, size, accepted, reason) in [
        (usize::MAX, 10, false, "has more than 128 signatures"),
        (1, 10 * 1024 * 1024, true, ""),
        (0, 0, true, ""),
    ] {
        let signed = signed.clone();
        let registry = with_signatures(&layout, move |request| {
            let number = request.path.rsplit_once("/signature-")?.1.parse::<usize>().ok()?;
            Some(match number {
                number if number <= count => Answer::ok("application/octet-stream", vec![0x90; size]),
                number if number == count + 1 => Answer::ok("application/octet-stream", signed.clone()),
                _ => Answer::status(404),
            })
        });
        let name = registry.name("room:1");
        home.lookaside(&format!("http://{}", registry.name("aside")));
        let output = home.stanza(&stanza, &["pull", "--signature-policy", &simple, &name]);
        assert_eq!(output.code, i32::from(!accepted), "{}", output.stderr);
        assert!(output.stderr.contains(reason), "{}", output.stderr);
        let asked = registry.requests();
        let asked = asked.iter().filter(|request| request.path.contains("/signature-"));
        assert!(asked.count() <= 129);
    }
}

#[test]
fn a_lookaside_that_does_not_answer_lets_nothing_in() {
    let stanza = fixture!(Empty);
    let home = home!();
    home.gpg_key("known", &[], "0");
    let layout = image();
    let policy = home.policy(
        "policy",
        &json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": home.text("known.gpg")}]),
    );
    let registry = with_signatures(&layout, |request| {
        request.path.contains("/signature-").then(|| {
            if request.path.contains("loop") {
                Answer::status(302).header("Location", &request.path)
            } else {
                Answer::status(500)
            }
        })
    });
    let pull = || home.stanza(&stanza, &["pull", "--signature-policy", &policy, &registry.name("room:1")]);
    for lookaside in [
        format!("http://{}", registry.name("aside")),
        format!("http://{}", registry.name("loop")),
        "http://127.0.0.1:1/aside".to_owned(),
        "ftp://127.0.0.1/aside".to_owned(),
        "file://relative".to_owned(),
    ] {
        home.lookaside(&lookaside);
        let output = pull();
        assert_eq!(output.code, 1, "{lookaside}");
        assert!(output.stderr.contains("cannot fetch the signature `"), "{lookaside}: {}", output.stderr);
    }
    home.write(".config/containers/registries.d/test.yaml", "docker: [");
    let output = pull();
    assert_eq!((output.code, output.stderr.contains("test.yaml")), (1, true), "{}", output.stderr);
    // A link to something that never ends is read as far as a signature may go.
    let directory = home.path(&format!("aside/room@sha256={}", hex_sha256(&layout.manifest)));
    fs::create_dir_all(&directory).unwrap();
    std::os::unix::fs::symlink("/dev/zero", directory.join("signature-1")).unwrap();
    home.lookaside(&format!("file://{}", home.text("aside")));
    let output = pull();
    assert_eq!((output.code, output.stderr.contains("131072")), (1, true), "{}", output.stderr);
}

#[test]
fn without_gpgv_nothing_is_let_in_that_openpgp_must_sign() {
    let stanza = fixture!(Empty);
    let home = home!();
    home.gpg_key("known", &[], "0");
    let layout = image();
    let registry = with_signatures(&layout, |_| None);
    let name = registry.name("room:1");
    home.put_aside("room", &layout.manifest, &[home.standalone_sign("known", &layout.manifest, &name)]);
    let policy = home.policy(
        "policy",
        &json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": home.text("known.gpg")}]),
    );
    for (path, code) in [("/nowhere", 1), ("/usr/bin:/bin", 0)] {
        let mut command = stanza.command(&["pull", "--signature-policy", &policy, &name]);
        command.env("HOME", home.0.path()).env("PATH", path);
        let output = Running::start(command).finish();
        assert_eq!(output.code, code, "{}", output.stderr);
        assert_eq!(output.stderr.contains("cannot run `gpgv`"), code == 1, "{}", output.stderr);
        assert_eq!(output.stderr.contains("install `gpgv`"), code == 1, "{}", output.stderr);
    }
}

#[test]
fn archives_must_be_let_in_too() {
    let stanza = fixture!(Empty);
    let home = home!();
    let layout = image();
    let archive = stanza.file("oci.tar", layout.archive("room:1"));
    let before = stored(&stanza);
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let reject = json!([{"type": "reject"}]);
    let signed = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nowhere"}]);
    let directory = Path::new(&archive).canonicalize().unwrap().parent().unwrap().display().to_string();
    for (default, transports, accepted) in [
        (&reject, json!({}), false),
        (&signed, json!({}), false),
        (&accept, json!({"oci-archive": {"": reject}}), false),
        (&accept, json!({"oci-archive": {directory.clone(): reject}}), false),
        (&accept, json!({"docker-archive": {"": reject}}), true),
        (&reject, json!({"oci-archive": {directory: accept}}), true),
    ] {
        let text = json!({"default": default, "transports": transports}).to_string();
        let file = home.write(".config/containers/policy.json", &text);
        for args in [&["load", "-i", &archive][..], &["load", "-i", &archive, "--signature-policy", &file]] {
            let output = home.stanza(&stanza, args);
            assert_eq!(output.code, i32::from(!accepted), "{text}: {}", output.stderr);
            if accepted {
                stanza.ok(&["rmi", "room:1"]);
            } else {
                assert!(output.stderr.contains("Source image rejected: "), "{text}: {}", output.stderr);
            }
            assert_eq!(stored(&stanza), before, "{text}");
        }
    }
}
