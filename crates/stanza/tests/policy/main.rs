//! Which images a policy lets in, by its requirements and by what signs them; the verdicts are those of skopeo and podman.

mod home;
mod remote;

use std::fs;
use std::path::Path;

use home::{Home, peers};
use remote::{OCI_INDEX, OCI_MANIFEST, attachment, describe, image, pushed, with_signatures};
use serde_json::{Value, json};
use stanza_test::{
    Answer, FakeRegistry, Layout, Registry, Request, Running, Stanza, fixture, have, hex_sha256, skip,
};

/// The artifact type of signatures that refer to a manifest.
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// What a store holds, blobs and layers, finished or not.
fn stored(stanza: &Stanza) -> Vec<String> {
    let mut found = Vec::new();
    for directory in ["images/blobs/sha256", "images/ingest", "layers/sha256", "layers/ingest"] {
        for entry in fs::read_dir(stanza.root().join(directory)).into_iter().flatten() {
            found.push(format!("{directory}/{}", entry.expect("an entry").file_name().display()));
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

/// An image of a registry, and what signs it.
struct Signed<'a> {
    home: &'a Home,
    registry: &'a Registry,
    layout: Layout,
    other: Layout,
}

impl Signed<'_> {
    fn name(&self, repository: &str) -> String {
        self.registry.name(&format!("{repository}:1"))
    }

    fn digest(&self) -> String {
        format!("sha256:{}", hex_sha256(&self.layout.manifest))
    }

    /// By key and name.
    fn cosign(&self, key: &str, repository: &str) -> (Vec<u8>, String) {
        self.home.cosign(key, &self.name(repository), &self.digest())
    }

    /// Over another manifest.
    fn stolen(&self, repository: &str) -> (Vec<u8>, String) {
        let digest = format!("sha256:{}", hex_sha256(&self.other.manifest));
        self.home.cosign("first", &self.name(repository), &digest)
    }

    fn sign(&self, key: &str, repository: &str) -> Vec<u8> {
        self.home.standalone_sign(key, &self.layout.manifest, &self.name(repository))
    }

    /// Repositories with signatures of cosign.
    fn attach(&self) {
        let (payload, signature) = self.cosign("first", "good");
        let tampered = String::from_utf8_lossy(&payload).replace("/good:1", "/tampered:1").into_bytes();
        let bare = self.home.cosign("first", &self.registry.name("bare"), &self.digest());
        let mixed = vec![self.cosign("second", "mixed"), self.stolen("mixed"), self.cosign("first", "mixed")];
        for (repository, signatures) in [
            ("good", vec![(payload, signature.clone())]),
            ("bare", vec![bare]),
            ("strange", vec![self.cosign("second", "strange")]),
            ("tampered", vec![(tampered, signature)]),
            ("stolen", vec![self.stolen("stolen")]),
            ("renamed", vec![self.cosign("first", "good")]),
            ("mixed", mixed),
        ] {
            let target = pushed(self.registry, repository);
            target.image(&self.layout);
            target.attach(&self.layout.manifest, &signatures);
        }
    }

    /// Repositories with signatures of OpenPGP, and one with none.
    fn put_aside(&self) {
        let mut broken = self.sign("known", "gpg-broken");
        let last = broken.len() - 8;
        broken[last] ^= 1;
        let stolen = self.home.standalone_sign("known", &self.other.manifest, &self.name("gpg-stolen"));
        let tagged = self.registry.name("gpg-tagged:other");
        let tagged = self.home.standalone_sign("known", &self.layout.manifest, &tagged);
        let gone = json!({"critical": {"type": "atomic container signature",
            "image": {"docker-manifest-digest": self.digest()},
            "identity": {"docker-reference": self.name("gpg-gone")}}, "optional": {}});
        let gone = self.home.write("gone.payload", gone.to_string());
        let past = ["--faked-system-time", "20200101T000100", "-u", "gone", "--output", "-", "--sign", &gone];
        let mixed = vec![
            self.sign("unknown", "gpg-mixed"),
            self.sign("known", "gpg-good"),
            self.sign("known", "gpg-mixed"),
        ];
        for (repository, signatures) in [
            ("plain", vec![]),
            ("gpg-good", vec![self.sign("known", "gpg-good")]),
            ("gpg-unknown", vec![self.sign("unknown", "gpg-unknown")]),
            ("gpg-renamed", vec![self.sign("known", "gpg-good")]),
            ("gpg-tagged", vec![tagged]),
            ("gpg-stolen", vec![stolen]),
            ("gpg-broken", vec![broken]),
            ("gpg-gone", vec![self.home.gpg(&past)]),
            ("gpg-mixed", mixed),
        ] {
            pushed(self.registry, repository).image(&self.layout);
            self.home.put_aside(repository, &self.layout.manifest, &signatures);
        }
    }

    fn remap(&self, prefix: &str, signed: &str) -> Value {
        json!({"type": "remapIdentity", "prefix": self.registry.name(prefix),
            "signedPrefix": self.registry.name(signed)})
    }

    /// Requirements, an image, whether they let it in.
    fn table(&self) -> Vec<(Value, String, bool)> {
        let with = |mut requirement: Value, identity: Value| {
            requirement["signedIdentity"] = identity;
            requirement
        };
        let simple =
            |key: &str| json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": self.home.text(key)});
        let accept = json!({"type": "insecureAcceptAnything"});
        let default = json!({"type": "sigstoreSigned", "keyPath": self.home.text("first.pub")});
        let known = simple("known.gpg");
        let any_tag = json!({"type": "matchRepository"});
        let whole = json!({"type": "matchExact"});
        let exact = |name: &str| json!({"type": "exactReference", "dockerReference": self.name(name)});
        let within =
            |name: &str| json!({"type": "exactRepository", "dockerRepository": self.registry.name(name)});
        let digest = self.digest();
        let rows = [
            (json!([accept]), "plain:1", true),
            (json!([{"type": "reject"}]), "good:1", false),
            (json!([accept, {"type": "reject"}]), "good:1", false),
            (json!([default]), "good:1", true),
            (json!([default, accept]), "good:1", true),
            (json!([default, known]), "good:1", false),
            (json!([default]), "plain:1", false),
            (json!([default]), "bare:1", false),
            (json!([with(default.clone(), any_tag.clone())]), "bare:1", true),
            (json!([with(default.clone(), any_tag.clone())]), "good:1", true),
            (json!([default]), "strange:1", false),
            (json!([default]), "tampered:1", false),
            (json!([with(default.clone(), any_tag.clone())]), "stolen:1", false),
            (json!([default]), "renamed:1", false),
            (json!([with(default.clone(), exact("good"))]), "renamed:1", true),
            (json!([with(default.clone(), within("good"))]), "renamed:1", true),
            (json!([with(default.clone(), self.remap("renamed", "good"))]), "renamed:1", true),
            (json!([with(default.clone(), exact("good"))]), "mixed:1", false),
            (json!([default]), "mixed:1", true),
            (json!([default]), &format!("good@{digest}"), true),
            (json!([with(default.clone(), whole.clone())]), &format!("good@{digest}"), false),
            (json!([known]), "gpg-good:1", true),
            (json!([known]), &format!("gpg-good@{digest}"), true),
            (json!([with(known.clone(), whole.clone())]), "gpg-good:1", true),
            (json!([with(known.clone(), whole)]), &format!("gpg-good@{digest}"), false),
            (json!([known]), "plain:1", false),
            (json!([known]), "good:1", false),
            (json!([default]), "gpg-good:1", false),
            (json!([known]), "gpg-unknown:1", false),
            (json!([known]), "gpg-renamed:1", false),
            (json!([with(known.clone(), exact("gpg-good"))]), "gpg-renamed:1", true),
            (json!([with(known.clone(), exact("gpg-renamed"))]), "gpg-renamed:1", false),
            (json!([with(known.clone(), within("gpg-good"))]), "gpg-renamed:1", true),
            (json!([with(known.clone(), self.remap("gpg-renamed", "gpg-good"))]), "gpg-renamed:1", true),
            (json!([with(known.clone(), self.remap("gpg", "gpg-good"))]), "gpg-renamed:1", false),
            (json!([known]), "gpg-tagged:1", false),
            (json!([with(known.clone(), any_tag)]), "gpg-tagged:1", true),
            (json!([known]), &format!("gpg-tagged@{digest}"), true),
            (json!([known]), "gpg-stolen:1", false),
            (json!([known]), "gpg-broken:1", false),
            (json!([simple("gone.gpg")]), "gpg-gone:1", false),
            (json!([known]), "gpg-mixed:1", true),
            (json!([known, simple("unknown.gpg")]), "gpg-mixed:1", true),
            (json!([known, simple("gone.gpg")]), "gpg-mixed:1", false),
        ];
        rows.map(|(requirements, image, accepted)| (requirements, image.to_owned(), accepted)).to_vec()
    }
}

#[test]
fn verdicts_are_those_of_skopeo_and_podman() {
    let stanza = fixture!(Empty);
    let registry = registry!();
    let home = home!();
    home.cosign_key("first");
    home.cosign_key("second");
    home.gpg_key("known", &[], "0");
    home.gpg_key("unknown", &[], "0");
    home.gpg_key("gone", &["--faked-system-time", "20200101T000000"], "20200102T000000");
    let other = Layout::new(Vec::new(), &json!({}));
    let signed = Signed { home: &home, registry: &registry, layout: image(), other };
    signed.attach();
    signed.put_aside();
    let table = signed.table();
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
    home.gpg_key("known", &[], "0");
    let sigstore =
        home.policy("sigstore", &json!([{"type": "sigstoreSigned", "keyPath": home.text("first.pub")}]));
    let simple = json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": home.text("known.gpg")}]);
    let simple = home.policy("simple", &simple);
    for (repository, signed, accepted) in
        [("index", index.as_bytes(), false), ("instance", &layout.manifest[..], true)]
    {
        let target = pushed(&registry, repository);
        target.image(&layout);
        target.manifest("all", OCI_INDEX, index.as_bytes());
        let name = registry.name(&format!("{repository}:all"));
        let digest = format!("sha256:{}", hex_sha256(signed));
        target.attach(signed, &[home.cosign("first", &name, &digest)]);
        home.put_aside(repository, signed, &[home.standalone_sign("known", signed, &name)]);
        let by_digest = registry.name(&format!("{repository}@sha256:{}", hex_sha256(index.as_bytes())));
        for (policy, name) in [(&sigstore, &name), (&simple, &name), (&simple, &by_digest)] {
            let output = home.stanza(&stanza, &["pull", "--signature-policy", policy, name]);
            assert_eq!(output.code, i32::from(!accepted), "{name}: {}", output.stderr);
            assert_eq!(output.stderr.contains("cosign sign --recursive"), !accepted, "{}", output.stderr);
            for (peer, verdict) in peers(&home, policy, name) {
                assert_eq!(verdict, accepted, "{peer}: {policy} {name}");
            }
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
        command.env("HOME", home.directory()).env("PATH", path);
        let output = Running::start(command).finish();
        assert_eq!(output.code, code, "{}", output.stderr);
        assert_eq!(output.stderr.contains("cannot run `gpgv`"), code == 1, "{}", output.stderr);
        assert_eq!(output.stderr.contains("install `gpgv`"), code == 1, "{}", output.stderr);
    }
}

#[test]
fn a_layout_in_a_directory_is_another_transport_than_one_in_an_archive() {
    let stanza = fixture!(Empty);
    let home = home!();
    let archive = stanza.file("oci.tar", image().archive("room:1"));
    let directory = stanza.file("layout", b"");
    std::fs::remove_file(&directory).unwrap();
    std::fs::create_dir(&directory).unwrap();
    let status = std::process::Command::new("tar").args(["xf", &archive, "-C", &directory]).status();
    assert!(status.unwrap().success());
    let place = Path::new(&directory).canonicalize().unwrap().display().to_string();
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let reject = json!([{"type": "reject"}]);
    for (transport, path, accepted) in [
        ("oci", &directory, true),
        ("oci", &archive, false),
        ("oci-archive", &directory, false),
        ("oci-archive", &archive, true),
    ] {
        let above = Path::new(&place).parent().unwrap().display().to_string();
        let text = json!({"default": reject, "transports": {transport: {above: accept}}}).to_string();
        home.write(".config/containers/policy.json", &text);
        let output = home.stanza(&stanza, &["load", "-i", path]);
        assert_eq!(output.code, i32::from(!accepted), "{transport} {path}: {}", output.stderr);
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
