//! Policies over images whose signatures are made here.

use std::fs;

use serde_json::{Value, json};

use super::source::SigstoreSignature;
use super::testing::openssl;
use super::*;
use crate::hash::sha256;

const MANIFEST: &[u8] = b"{\"schemaVersion\": 2}";
const IMAGE: &str = "r.io/ns/app:1";

/// Signatures that are there, and how often they were asked for.
#[derive(Default)]
struct Given {
    sigstore: Vec<Found<SigstoreSignature>>,
    simple: Vec<Found<Vec<u8>>>,
    asked: usize,
}

impl SignatureSource for Given {
    fn sigstore(&mut self, manifest: &Digest) -> Result<Vec<Found<SigstoreSignature>>, PolicyError> {
        assert_eq!(*manifest, sha256(MANIFEST));
        self.asked += 1;
        Ok(self.sigstore.clone())
    }

    fn simple(&mut self, manifest: &Digest) -> Result<Vec<Found<Vec<u8>>>, PolicyError> {
        assert_eq!(*manifest, sha256(MANIFEST));
        self.asked += 1;
        Ok(self.simple.clone())
    }
}

/// A key of cosign's kind.
struct Key {
    directory: tempfile::TempDir,
}

impl Key {
    fn new() -> Key {
        let key = Key { directory: tempfile::tempdir().unwrap() };
        let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        openssl(&[&["genpkey", "-out", &key.path("private")], &curve[..]].concat());
        openssl(&["pkey", "-in", &key.path("private"), "-pubout", "-out", &key.path("public")]);
        key
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn sign(&self, payload: &[u8]) -> Found<SigstoreSignature> {
        fs::write(self.path("payload"), payload).unwrap();
        let signature = openssl(&["dgst", "-sha256", "-sign", &self.path("private"), &self.path("payload")]);
        Ok(SigstoreSignature { payload: payload.to_vec(), signature: STANDARD.encode(signature) })
    }
}

fn payload(reference: &str, digest: &Digest) -> Vec<u8> {
    json!({"critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": digest},
        "identity": {"docker-reference": reference}}, "optional": null})
    .to_string()
    .into_bytes()
}

fn rules(policy: &Value) -> Rules {
    parse::rules(policy.to_string().as_bytes()).unwrap()
}

fn check(rules: &Rules, image: &str, given: &mut Given) -> Result<(), PolicyError> {
    let candidate =
        Candidate { image: &image.parse().unwrap(), digest: &sha256(MANIFEST), manifest: MANIFEST };
    rules.check(&candidate, given)
}

fn reason(result: Result<(), PolicyError>) -> String {
    match result {
        Err(PolicyError::Rejected { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_most_specific_scope_decides_alone() {
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let reject = json!([{"type": "reject"}]);
    let digest = format!("sha256:{}", "0".repeat(64));
    let rules = rules(&json!({"default": reject, "transports": {
        "docker": {"r.io": accept, "r.io/bad": reject, "r.io/bad/good": accept, "r.io/bad/good:evil": reject,
            format!("r.io/bad@{digest}"): accept, "*.example.com": accept, "a.example.com": reject,
            "docker.io/library/busybox": accept},
        "other": {"": accept},
    }}));
    for (image, accepted) in [
        ("r.io/x:1", true),
        ("r.io/bad:1", false),
        ("r.io/bad/other:1", false),
        ("r.io/badger:1", true),
        ("r.io/bad/good:1", true),
        ("r.io/bad/good:evil", false),
        (&format!("r.io/bad@{digest}"), true),
        (&format!("r.io/bad:1@{digest}"), true),
        ("r.io:5000/x:1", false),
        ("b.example.com/x", true),
        ("b.c.example.com:5000/x", true),
        ("a.example.com/x", false),
        ("example.com/x", false),
        ("busybox", true),
        ("alpine", false),
    ] {
        assert_eq!(check(&rules, image, &mut Given::default()).is_ok(), accepted, "{image}");
    }
    let told = reason(check(&rules, "alpine", &mut Given::default()));
    assert_eq!(told, "running image `docker://docker.io/library/alpine:latest` is rejected by policy");
}

#[test]
fn a_transport_has_a_default_of_its_own() {
    let rules = rules(&json!({"default": [{"type": "reject"}],
        "transports": {"docker": {"": [{"type": "insecureAcceptAnything"}]}}}));
    let mut given = Given::default();
    assert!(check(&rules, IMAGE, &mut given).is_ok());
    assert_eq!(given.asked, 0);
}

#[test]
fn all_requirements_must_be_met() {
    let accept = json!({"type": "insecureAcceptAnything"});
    for (requirements, accepted) in [
        (json!([accept, accept]), true),
        (json!([accept, {"type": "reject"}]), false),
        (json!([{"type": "reject"}, accept]), false),
    ] {
        let rules = rules(&json!({"default": requirements}));
        assert_eq!(check(&rules, IMAGE, &mut Given::default()).is_ok(), accepted, "{requirements}");
    }
}

#[test]
fn a_sigstore_signature_must_fit_key_name_and_digest() {
    let (key, other) = (Key::new(), Key::new());
    let wanted = |identity: &str| {
        rules(&json!({"default": [{"type": "sigstoreSigned", "keyPath": key.path("public"),
            "signedIdentity": {"type": identity}}]}))
    };
    let digest = sha256(MANIFEST);
    let good = key.sign(&payload(IMAGE, &digest));
    let bare = key.sign(&payload("r.io/ns/app", &digest));
    let stolen = key.sign(&payload(IMAGE, &sha256(b"another")));
    let strange = other.sign(&payload(IMAGE, &digest));
    let renamed = key.sign(&payload("r.io/ns/other:1", &digest));
    let mut changed = good.clone().unwrap();
    changed.payload = payload("r.io/ns/app:1", &sha256(b"another"));
    let mut broken = good.clone().unwrap();
    broken.signature = "?".to_owned();
    let missing = || Err("its payload is missing".to_owned());
    let exact = wanted("matchRepoDigestOrExact");
    let repository = wanted("matchRepository");
    let table: &[(&Rules, &[Found<SigstoreSignature>], &str)] = &[
        (&exact, std::slice::from_ref(&good), ""),
        (&exact, &[], "a signature was required, but no signature exists"),
        (&exact, std::slice::from_ref(&bare), "signature for identity `r.io/ns/app` is not accepted"),
        (&repository, std::slice::from_ref(&bare), ""),
        (&exact, std::slice::from_ref(&strange), "it was not made by a key of the policy"),
        (&exact, &[Ok(changed.clone())], "it was not made by a key of the policy"),
        (&exact, &[Ok(broken)], "its signature is not base64"),
        (&exact, std::slice::from_ref(&renamed), "signature for identity `r.io/ns/other:1` is not accepted"),
        (&exact, &[missing()], "its payload is missing"),
        (&exact, &[strange.clone(), missing(), Ok(changed), stolen.clone(), good.clone()], ""),
        (
            &exact,
            &[missing(), renamed.clone()],
            "none of the 2 signatures were accepted, reasons: its payload is missing; signature for identity \
             `r.io/ns/other:1` is not accepted",
        ),
    ];
    for (rules, signatures, expected) in table {
        let result = check(rules, IMAGE, &mut Given { sigstore: signatures.to_vec(), ..Given::default() });
        match result {
            Ok(()) => assert_eq!(*expected, "", "{signatures:?}"),
            refused => assert_eq!(reason(refused), *expected),
        }
    }
    let told = reason(check(&exact, IMAGE, &mut Given { sigstore: vec![stolen], ..Given::default() }));
    assert_eq!(told, format!("signature for digest `{}` does not match", sha256(b"another")));
    let many = vec![missing(); 100];
    let told = reason(check(&exact, IMAGE, &mut Given { sigstore: many, ..Given::default() }));
    assert!(told.ends_with("; ...") && told.len() < 500, "{told}");
}

#[test]
fn any_of_several_keys_will_do_and_one_that_is_none_will_not() {
    let (first, second) = (Key::new(), Key::new());
    let signed = second.sign(&payload(IMAGE, &sha256(MANIFEST)));
    let mut given = Given { sigstore: vec![signed], ..Given::default() };
    let data = |key: &Key| STANDARD.encode(fs::read(key.path("public")).unwrap());
    let keys =
        |field: &str, value: Value| rules(&json!({"default": [{"type": "sigstoreSigned", field: value}]}));
    for (rules, accepted) in [
        (keys("keyPaths", json!([first.path("public"), second.path("public")])), true),
        (keys("keyDatas", json!([data(&first), data(&second)])), true),
        (keys("keyData", json!(data(&second))), true),
        (keys("keyData", json!(data(&first))), false),
        (keys("keyPath", json!(first.path("public"))), false),
    ] {
        assert_eq!(check(&rules, IMAGE, &mut given).is_ok(), accepted, "{rules:?}");
    }
    // Also beside a good one.
    let asked = given.asked;
    for (rules, is_read) in [
        (keys("keyPaths", json!([second.path("public"), second.path("nowhere")])), true),
        (keys("keyPaths", json!([second.path("public"), second.path("payload")])), false),
        (keys("keyData", json!("")), false),
    ] {
        match check(&rules, IMAGE, &mut given) {
            Err(PolicyError::Read { .. }) => assert!(is_read),
            Err(PolicyError::Key { .. }) => assert!(!is_read),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(given.asked, asked);
}

#[test]
fn a_signature_of_one_scheme_is_none_of_the_other() {
    let key = Key::new();
    let simple = String::from_utf8(payload(IMAGE, &sha256(MANIFEST))).unwrap();
    let simple = simple.replace("cosign container image", "atomic container").replace("null", "{}");
    let rules = rules(&json!({"default": [{"type": "sigstoreSigned", "keyPath": key.path("public")}]}));
    let mut given = Given { sigstore: vec![key.sign(simple.as_bytes())], ..Given::default() };
    assert!(reason(check(&rules, IMAGE, &mut given)).contains("its type is `atomic container signature`"));
}

#[test]
fn what_is_not_done_here_is_refused_by_name() {
    let rules = rules(&json!({"default": [{"type": "reject"}], "transports": {"docker": {
        "r.io": [{"type": "sigstoreSigned", "fulcio": {"caPath": "/x"}, "rekorPublicKeyPath": "/y"}],
        "x.io": [{"type": "insecureAcceptAnything"}]}}}));
    match check(&rules, IMAGE, &mut Given::default()) {
        Err(PolicyError::Unsupported { field, .. }) => assert_eq!(field, "fulcio"),
        other => panic!("{other:?}"),
    }
    assert!(check(&rules, "x.io/a:1", &mut Given::default()).is_ok());
}

#[test]
fn the_users_policy_comes_before_the_systems_and_a_bad_one_does_not_fall_through() {
    let directory = tempfile::tempdir().unwrap();
    let (user, system) = (directory.path().join("user"), directory.path().join("system"));
    let places = Places { user: Some(user.clone()), system: system.clone(), sigstore: PathBuf::new() };
    let load = |file: Option<&Path>| Gate::load_from(places.clone(), file);
    let (accept, reject) =
        (r#"{"default":[{"type":"insecureAcceptAnything"}]}"#, r#"{"default":[{"type":"reject"}]}"#);
    let first = |gate: Result<Gate, PolicyError>| gate.unwrap().rules.map(|rules| rules.default[0].clone());
    assert_eq!(first(load(None)), None);
    fs::create_dir(&system).unwrap();
    fs::write(system.join("policy.json"), reject).unwrap();
    assert_eq!(first(load(None)), Some(Requirement::Reject));
    fs::create_dir(&user).unwrap();
    assert_eq!(first(load(None)), Some(Requirement::Reject));
    fs::write(user.join("policy.json"), accept).unwrap();
    assert_eq!(first(load(None)), Some(Requirement::Accept));
    assert_eq!(first(load(Some(&system.join("policy.json")))), Some(Requirement::Reject));
    assert!(matches!(load(Some(&system.join("nowhere"))), Err(PolicyError::Read { .. })));
    for bad in
        ["", "{}", "x", r#"{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}"#]
    {
        fs::write(user.join("policy.json"), bad).unwrap();
        assert!(matches!(load(None), Err(PolicyError::File { .. })), "{bad}");
    }
    let huge = format!("{accept}{}", " ".repeat(1024 * 1024));
    fs::write(user.join("policy.json"), huge).unwrap();
    assert!(matches!(load(None), Err(PolicyError::Read { .. })));
    fs::remove_file(user.join("policy.json")).unwrap();
    fs::create_dir(user.join("policy.json")).unwrap();
    assert!(matches!(load(None), Err(PolicyError::Read { .. })));
}

#[test]
fn archives_are_let_in_by_the_rules_without_signatures() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let (good, bad) = (root.join("good.tar"), root.join("bad.tar"));
    fs::write(&good, b"").unwrap();
    fs::write(&bad, b"").unwrap();
    std::os::unix::fs::symlink(&bad, root.join("link.tar")).unwrap();
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let reject = json!([{"type": "reject"}]);
    let signed = json!([{"type": "sigstoreSigned", "keyPath": "/nowhere"}]);
    let gate = |policy: &Value| Gate { rules: Some(rules(policy)), places: Places::default() };
    let paths = gate(&json!({"default": reject, "transports": {
        "docker-archive": {"": accept},
        "oci-archive": {root.to_str().unwrap(): accept, bad.to_str().unwrap(): reject}}}));
    assert!(paths.admit_archive(ArchiveKind::Docker, None).is_ok());
    assert!(paths.admit_archive(ArchiveKind::Docker, Some(&bad)).is_ok());
    assert!(paths.admit_archive(ArchiveKind::Oci, Some(&good)).is_ok());
    assert!(paths.admit_archive(ArchiveKind::Oci, Some(&bad)).is_err());
    assert!(paths.admit_archive(ArchiveKind::Oci, Some(&root.join("link.tar"))).is_err());
    assert!(paths.admit_archive(ArchiveKind::Oci, None).is_err());
    let tagged = format!("{}:1", good.display());
    let tags = gate(&json!({"default": accept, "transports": {"oci-archive": {tagged: reject}}}));
    assert!(tags.admit_archive(ArchiveKind::Oci, Some(&good)).is_err());
    assert!(tags.admit_archive(ArchiveKind::Oci, Some(&bad)).is_ok());
    let wants = gate(&json!({"default": signed}));
    let told = reason(wants.admit_archive(ArchiveKind::Docker, None));
    assert_eq!(told, "a signature was required, but `docker-archive:-` can have none");
    assert!(Gate::open().admit_archive(ArchiveKind::Oci, None).is_ok());
}
