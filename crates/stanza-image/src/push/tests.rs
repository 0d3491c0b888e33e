//! Pushes to a registry on loopback that answers as it is told.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::document::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use crate::hash::sha256;
use crate::registry::testing::{Answer, Server};
use crate::registry::{CredentialFiles, Http, RetryPolicy};

const LAYER: &[u8] = b"the content of a layer";
const TAG: &str = "/v2/app/manifests/latest";
const UPLOADS: &str = "POST /v2/app/blobs/uploads/";

fn describe(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

/// An image in a store, and a registry that has nothing.
struct Fixture {
    server: Server,
    store: ImageStore,
    _directory: tempfile::TempDir,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&directory.path().join("images")).unwrap();
        let config = serde_json::json!({"architecture": Platform::host().architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha256(LAYER)]}})
        .to_string()
        .into_bytes();
        // Spaces and an unknown field: what goes out must be what came in.
        let manifest = format!(
            "{{ \"schemaVersion\": 2,  \"mediaType\":\"{OCI_MANIFEST}\", \"x\": 1, \"config\": {}, \"layers\": [{}] }}\n",
            describe(OCI_CONFIG, &config),
            describe(OCI_LAYER, LAYER),
        )
        .into_bytes();
        let fixture = Fixture { server: Server::start(), store, _directory: directory, config, manifest };
        for bytes in [LAYER, &fixture.config, &fixture.manifest] {
            fixture.keep(bytes);
        }
        fixture.name(&fixture.server.reference(""), OCI_MANIFEST, &fixture.manifest);
        fixture
    }

    fn keep(&self, bytes: &[u8]) {
        self.store.ingest().unwrap().store_bytes(&sha256(bytes), bytes).unwrap();
    }

    fn name(&self, name: &Reference, media_type: &str, document: &[u8]) {
        self.name_from(name, media_type, document, None);
    }

    /// Names a document that came from a registry as `source`.
    fn name_from(&self, name: &Reference, media_type: &str, document: &[u8], source: Option<Digest>) {
        let size = u64::try_from(document.len()).unwrap();
        let entry = NewEntry {
            descriptor: Descriptor::new(media_type, sha256(document), size),
            name: Some(name.clone()),
            id: sha256(&self.config),
            source,
        };
        self.store.update_index(|index| Ok::<_, crate::store::StoreError>(index.set(entry))).unwrap();
    }

    /// The registry takes whatever comes.
    fn takes_all(&self) -> &Server {
        let location = Answer::status(202).header("Location", "/up/1?state=a");
        self.server.answer(UPLOADS, [location]);
        self.server.answer("PUT /up/1", [Answer::status(201)]);
        self.takes_manifests()
    }

    fn takes_manifests(&self) -> &Server {
        self.server.answer(&format!("PUT {TAG}"), [Answer::status(201)]);
        &self.server
    }

    /// The registry has the configuration.
    fn has_config(&self) -> &Server {
        self.server.answer(&format!("/v2/app/blobs/{}", sha256(&self.config)), [Answer::ok(b"")]);
        &self.server
    }

    fn push(&self) -> Result<Recorder, PushError> {
        self.push_as(&self.server.reference(""), false, None)
    }

    fn push_as(
        &self,
        name: &Reference,
        all_tags: bool,
        platform: Option<&str>,
    ) -> Result<Recorder, PushError> {
        let mut recorder = Recorder::default();
        let surroundings = Surroundings {
            transport: &Http::default(),
            retry: RetryPolicy { sleep: |_| {}, ..RetryPolicy::default() },
            credentials: &CredentialFiles::default(),
            registries: &RegistriesConfig::default(),
        };
        let platform = platform.map(|text| text.parse().unwrap());
        let mut options = PushOptions { all_tags, platform, tls_verify: true, progress: &mut recorder };
        push_with(&self.store, name, &mut options, &surroundings)?;
        Ok(recorder)
    }
}

/// What was shown, without bytes.
#[derive(Default)]
struct Recorder {
    lines: Vec<String>,
    waits: Vec<Duration>,
}

impl Progress for Recorder {
    fn event(&mut self, event: ProgressEvent<'_>) {
        let line = match event {
            ProgressEvent::LayerPresent { digest, .. } => format!("present {digest}"),
            ProgressEvent::LayerMounted { digest, from, .. } => format!("mounted {digest} from {from}"),
            ProgressEvent::LayerSent { digest, size } => format!("sent {digest} {size}"),
            ProgressEvent::Pushed { name, digest, size } => {
                format!("pushed {} {digest} {size}", name.tag().unwrap())
            }
            ProgressEvent::Retrying { delay, .. } => {
                self.waits.push(delay);
                return;
            }
            _ => return,
        };
        self.lines.push(line);
    }
}

/// The bodies of the requests for `path`, in order.
fn bodies(server: &Server, path: &str) -> Vec<Vec<u8>> {
    server.asked(path).into_iter().map(|asked| asked.body).collect()
}

#[test]
fn everything_goes_byte_for_byte_and_the_tag_comes_last() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    let recorder = fixture.push().unwrap();
    assert_eq!(
        recorder.lines,
        [
            format!("sent {} {}", sha256(LAYER), LAYER.len()),
            format!("pushed latest {} {}", sha256(&fixture.manifest), fixture.manifest.len()),
        ]
    );
    let mut sent = bodies(server, "PUT /up/1");
    sent.sort();
    let mut expected = vec![LAYER.to_vec(), fixture.config.clone()];
    expected.sort();
    assert_eq!(sent, expected);
    let put = server.asked("PUT /up/1");
    for one in &put {
        assert_eq!(one.path, format!("/up/1?state=a&digest={}", sha256(&one.body)));
        assert_eq!(one.headers["content-type"], "application/octet-stream");
        assert_eq!(one.headers["content-length"], one.body.len().to_string());
    }
    let manifest = &server.asked(&format!("PUT {TAG}"))[0];
    assert_eq!(
        (&manifest.body, manifest.headers["content-type"].as_str()),
        (&fixture.manifest, OCI_MANIFEST)
    );
    let by_digest = server.reference("").with_digest(sha256(&fixture.manifest));
    assert_eq!(fixture.store.resolve(&by_digest.to_string()).unwrap().digests, [by_digest]);
    let all = server.all_asked();
    assert_eq!(
        (all[0].as_str(), all.last().unwrap().as_str()),
        (&*format!("HEAD {TAG}"), &*format!("PUT {TAG}"))
    );
    assert_eq!(all.len(), 1 + 2 + 2 + 2 + 1, "{all:?}");
}

#[test]
fn a_push_of_nothing_new_is_one_question() {
    let fixture = Fixture::new();
    let there = Answer::ok(b"").header("Docker-Content-Digest", sha256(&fixture.manifest).as_str());
    fixture.server.answer(&format!("HEAD {TAG}"), [there]);
    let recorder = fixture.push().unwrap();
    assert_eq!(recorder.lines[0], format!("present {}", sha256(LAYER)));
    assert_eq!(recorder.lines.len(), 2);
    assert_eq!(fixture.server.all_asked(), [format!("HEAD {TAG}")]);

    // A registry that does not tell the digest is asked for the blobs.
    fixture.server.answer(&format!("HEAD {TAG}"), [Answer::ok(b"")]);
    fixture.has_config();
    fixture.server.blob(LAYER);
    fixture.takes_manifests();
    assert_eq!(fixture.push().unwrap().lines.len(), 2);
    assert_eq!(fixture.server.asked(UPLOADS).len(), 0);
    assert_eq!(bodies(&fixture.server, &format!("PUT {TAG}"))[0], fixture.manifest);
}

#[test]
fn a_blob_is_mounted_from_a_repository_that_has_it() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    let other = format!("127.0.0.1:{}/team/base:1", server.port).parse().unwrap();
    fixture.name(&other, OCI_MANIFEST, &fixture.manifest);
    // A name at another registry is none to mount from.
    fixture.name(&"localhost:9/team/none:1".parse().unwrap(), OCI_MANIFEST, &fixture.manifest);
    server.answer(UPLOADS, [Answer::status(201).header("Location", "/v2/app/blobs/x")]);
    let recorder = fixture.push().unwrap();
    assert_eq!(recorder.lines[0], format!("mounted {} from team/base", sha256(LAYER)));
    let asked = server.asked(UPLOADS);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, format!("/v2/app/blobs/uploads/?mount={}&from=team/base", sha256(LAYER)));
    assert_eq!(server.asked("PUT /up/1").len(), 0);
}

#[test]
fn a_mount_that_is_not_done_becomes_an_upload() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    let other = format!("127.0.0.1:{}/team/base:1", server.port).parse().unwrap();
    fixture.name(&other, OCI_MANIFEST, &fixture.manifest);
    // 202 opens an upload, which is used.
    let recorder = fixture.push().unwrap();
    assert_eq!(recorder.lines[0], format!("sent {} {}", sha256(LAYER), LAYER.len()));
    assert_eq!((server.asked(UPLOADS).len(), bodies(server, "PUT /up/1")), (1, vec![LAYER.to_vec()]));
    // A refusal is followed by an upload of its own.
    for refusal in [403, 404, 405] {
        let before = server.asked(UPLOADS).len();
        let location = Answer::status(202).header("Location", "/up/1");
        server.answer(UPLOADS, [Answer::status(refusal), location]);
        fixture.push().unwrap();
        assert_eq!(server.asked(UPLOADS).len() - before, 2, "{refusal}");
    }
}

/// The ranges and bodies of all PATCHes.
fn patches(server: &Server, path: &str) -> Vec<(String, Vec<u8>)> {
    let asked = server.asked(&format!("PATCH {path}"));
    asked.into_iter().map(|one| (one.headers["content-range"].clone(), one.body)).collect()
}

#[test]
fn an_upload_that_broke_off_goes_on_where_the_registry_stands() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    server.answer("PUT /up/1", [Answer::hang_up_after(9), Answer::status(201)]);
    let stands = Answer::status(204).header("Range", "0-6").header("Location", "/up/2");
    server.answer("GET /up/1", [stands]);
    // It takes less than it was sent, and says so.
    let some = Answer::status(202).header("Range", "0-9").header("Location", "/up/3");
    server.answer("PATCH /up/2", [some]);
    let rest = Answer::status(202).header("Range", "0-21").header("Location", "/up/1?state=b");
    server.answer("PATCH /up/3", [rest]);
    let recorder = fixture.push().unwrap();
    assert_eq!((recorder.waits.len(), recorder.lines.len()), (1, 2));
    assert_eq!(patches(server, "/up/2"), [("7-21".to_owned(), LAYER[7..].to_vec())]);
    assert_eq!(patches(server, "/up/3"), [("10-21".to_owned(), LAYER[10..].to_vec())]);
    let puts = server.asked("PUT /up/1");
    assert_eq!((puts.len(), puts[1].body.len()), (2, 0));
    assert_eq!(puts[1].path, format!("/up/1?state=b&digest={}", sha256(LAYER)));
    assert_eq!(server.asked(UPLOADS).len(), 1);
}

#[test]
fn an_upload_that_the_registry_forgot_starts_anew() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    server.answer("PUT /up/1", [Answer::hang_up_after(9), Answer::status(404), Answer::status(201)]);
    assert_eq!(fixture.push().unwrap().waits.len(), 2);
    assert_eq!(server.asked(UPLOADS).len(), 3);
    // Pieces that do not fit together: the registry says where it stands, and 416 is no reason to give up.
    server.answer("PUT /up/1", [Answer::hang_up_after(9), Answer::status(201)]);
    server.answer(
        "GET /up/1",
        [Answer::status(204).header("Range", "0-6"), Answer::status(204).header("Range", "0-1")],
    );
    server.answer("PATCH /up/1", [Answer::status(416), Answer::status(202)]);
    let before = server.asked("PATCH /up/1").len();
    fixture.push().unwrap();
    let ranges: Vec<String> =
        patches(server, "/up/1").into_iter().skip(before).map(|(range, _)| range).collect();
    assert_eq!(ranges, ["7-21", "2-21"]);
}

#[test]
fn what_always_breaks_off_is_given_up() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    for name in ["PUT /up/1", "PATCH /up/1"] {
        server.answer(name, [Answer::hang_up_after(3)]);
    }
    let error = fixture.push().err().unwrap();
    assert!(
        matches!(error, PushError::Registry(crate::registry::RegistryError::Connect { .. })),
        "{error:?}"
    );
    assert_eq!(server.asked("PUT /up/1").len() + server.asked("PATCH /up/1").len(), 5);
    assert_eq!(server.asked(&format!("PUT {TAG}")).len(), 0);
}

#[test]
fn what_is_not_taken_as_a_whole_goes_in_pieces() {
    let fixture = Fixture::new();
    let big: Vec<u8> = (0..70_000_000_u32).map(|at| at.to_le_bytes()[at as usize % 4]).collect();
    let config = serde_json::json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(&big)]}})
    .to_string();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": describe(OCI_CONFIG, config.as_bytes()), "layers": [describe(OCI_LAYER, &big)]})
    .to_string();
    for bytes in [&big[..], config.as_bytes(), manifest.as_bytes()] {
        fixture.keep(bytes);
    }
    let name = fixture.server.reference(":big");
    fixture.name(&name, OCI_MANIFEST, manifest.as_bytes());
    let server = &fixture.server;
    server.blob(config.as_bytes());
    let location = |at: &str| Answer::status(202).header("Location", at);
    server.answer(UPLOADS, [location("/up/1"), location("/up/2").header("OCI-Chunk-Min-Length", "40000000")]);
    server.answer("PUT /up/1", [Answer::status(413)]);
    server.answer("PATCH /up/2", [location("/up/2").header("Range", "0-39999999"), location("/up/2")]);
    server.answer("PUT /up/2", [Answer::status(201)]);
    server.answer("PUT /v2/app/manifests/big", [Answer::status(201)]);
    fixture.push_as(&name, false, None).unwrap();
    let sent = patches(server, "/up/2");
    let ranges: Vec<&str> = sent.iter().map(|(range, _)| range.as_str()).collect();
    assert_eq!(ranges, ["0-39999999", "40000000-69999999"]);
    assert_eq!([&sent[0].1[..], &sent[1].1[..]].concat(), big);
    assert_eq!(bodies(server, "PUT /up/2"), [b""]);
}

#[test]
fn a_busy_registry_is_asked_again_and_a_wrong_answer_is_not() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    let busy = || Answer::status(429).header("Retry-After", "3");
    server.answer(UPLOADS, [busy(), Answer::status(202).header("Location", "/up/1")]);
    server.answer("PUT /up/1", [busy(), Answer::status(201)]);
    server.answer(&format!("PUT {TAG}"), [busy(), Answer::status(201)]);
    let three = Duration::from_secs(3);
    assert_eq!(fixture.push().unwrap().waits, [three; 3]);

    let body = br#"{"errors":[{"code":"DIGEST_INVALID","message":"it is \u001b wrong"}]}"#;
    let wrong = || Answer { status: 400, ..Answer::ok(body) };
    server.answer("PUT /up/1", [wrong()]);
    let before = server.asked("PUT /up/1").len();
    let error = fixture.push().err().unwrap().to_string();
    assert!(error.ends_with(": DIGEST_INVALID: it is \\u{1b} wrong"), "{error}");
    assert_eq!(server.asked("PUT /up/1").len() - before, 1);

    server.answer("PUT /up/1", [Answer::status(201).header("Docker-Content-Digest", sha256(b"x").as_str())]);
    assert!(fixture.push().err().unwrap().to_string().contains("instead of"));
    server.answer("PUT /up/1", [Answer::status(201)]);
    server.answer(&format!("PUT {TAG}"), [wrong()]);
    assert!(fixture.push().is_err());
    server.answer(UPLOADS, [Answer::status(202)]);
    assert!(fixture.push().err().unwrap().to_string().contains("where to send it"));
}

#[test]
fn credentials_do_not_follow_an_upload_to_another_host() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    let cdn = Server::start();
    cdn.answer("/bucket/1", [Answer::status(201)]);
    let challenge = format!("Bearer realm=\"{}\",service=\"reg\"", server.url("/token"));
    let denied = Answer::status(401).header("WWW-Authenticate", challenge);
    server.answer(&format!("HEAD {TAG}"), [denied, Answer::status(404)]);
    server.answer("/token", [Answer::ok(b"{\"token\":\"secret\",\"expires_in\":300}")]);
    server.answer(UPLOADS, [Answer::status(202).header("Location", cdn.url("/bucket/1?sig=x"))]);
    fixture.push().unwrap();
    assert_eq!(server.asked(UPLOADS)[0].headers["authorization"], "Bearer secret");
    let sent = &cdn.asked("PUT /bucket/1")[0];
    assert_eq!((sent.headers.get("authorization"), &sent.body[..]), (None, LAYER));
    assert_eq!(sent.path, format!("/bucket/1?sig=x&digest={}", sha256(LAYER)));
    // Nor does a redirect in the middle, and the body is sent again there.
    server.answer(UPLOADS, [Answer::status(202).header("Location", "/up/1")]);
    server.answer("PUT /up/1", [Answer::status(307).header("Location", cdn.url("/bucket/1?sig=y"))]);
    fixture.push().unwrap();
    let sent = &cdn.asked("PUT /bucket/1")[1];
    assert_eq!((sent.headers.get("authorization"), &sent.body[..]), (None, LAYER));
    // What would turn the upload into a question is not followed.
    server.answer("PUT /up/1", [Answer::status(302).header("Location", cdn.url("/bucket/1"))]);
    assert!(fixture.push().err().unwrap().to_string().contains("307"));
    for location in ["file:///etc/passwd", "http://u:p@a/"] {
        server.answer(UPLOADS, [Answer::status(202).header("Location", location)]);
        let error = fixture.push().err().unwrap();
        assert!(matches!(error, PushError::Registry(crate::registry::RegistryError::Redirect { .. })));
    }
}

#[test]
fn one_token_serves_for_a_push_and_another_for_a_mount_and_an_expired_one_is_renewed() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    let other = format!("127.0.0.1:{}/team/base:1", server.port).parse().unwrap();
    fixture.name(&other, OCI_MANIFEST, &fixture.manifest);
    let challenge = format!("Bearer realm=\"{}\",service=\"reg\"", server.url("/token"));
    let denied = || Answer::status(401).header("WWW-Authenticate", challenge.clone());
    server.answer(&format!("HEAD {TAG}"), [denied(), Answer::status(404)]);
    let token = |name: &str| Answer::ok(format!("{{\"token\":\"{name}\",\"expires_in\":300}}").as_bytes());
    server.answer("/token", [token("push"), token("mount"), token("again")]);
    // The token for pushing is refused in the middle: by the manifest.
    server.answer(&format!("PUT {TAG}"), [denied(), Answer::status(201)]);
    fixture.push().unwrap();
    let scopes: Vec<String> = server.asked("/token").into_iter().map(|asked| asked.path).collect();
    let push = "/token?service=reg&scope=repository:app:pull,push";
    assert_eq!(scopes, [push.to_owned(), format!("{push}&scope=repository:team/base:pull"), push.to_owned()]);
    let puts = server.asked(&format!("PUT {TAG}"));
    assert_eq!(
        [&puts[0].headers["authorization"], &puts[1].headers["authorization"]],
        ["Bearer push", "Bearer again"]
    );
    assert_eq!(puts[1].body, fixture.manifest);
    assert_eq!(server.asked(UPLOADS)[0].headers["authorization"], "Bearer mount");
}

#[test]
fn an_index_is_pushed_with_its_manifests_first_or_one_of_them_alone() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    let attestation = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": describe(OCI_CONFIG, b"{}"), "layers": [describe("application/vnd.in-toto+json", b"seen")]})
    .to_string();
    let mut ours = describe(OCI_MANIFEST, &fixture.manifest);
    ours["platform"] = serde_json::json!({"os": "linux", "architecture": Platform::host().architecture});
    let mut about = describe(OCI_MANIFEST, attestation.as_bytes());
    about["platform"] = serde_json::json!({"os": "unknown", "architecture": "unknown"});
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [ours, about]})
        .to_string();
    for bytes in ["{}", "seen", &attestation, &index] {
        fixture.keep(bytes.as_bytes());
    }
    let name = server.reference(":all");
    fixture.name(&name, OCI_INDEX, index.as_bytes());
    let tag = "/v2/app/manifests/all";
    let child = |bytes: &[u8]| format!("/v2/app/manifests/{}", sha256(bytes));
    let children = [child(&fixture.manifest), child(attestation.as_bytes())];
    for path in [tag, &children[0], &children[1]] {
        server.answer(&format!("PUT {path}"), [Answer::status(201)]);
    }
    fixture.push_as(&name, false, None).unwrap();
    let puts: Vec<String> =
        server.all_asked().into_iter().filter(|asked| asked.contains("PUT /v2")).collect();
    assert_eq!(puts, [&children[0], &children[1], tag].map(|path| format!("PUT {path}")));
    let sent = server.asked(&format!("PUT {tag}"));
    assert_eq!(
        (sent[0].body.as_slice(), sent[0].headers["content-type"].as_str()),
        (index.as_bytes(), OCI_INDEX)
    );
    assert_eq!(bodies(server, "PUT /up/1").len(), 4);

    fixture.push_as(&name, false, Some(&Platform::host().to_string())).unwrap();
    assert_eq!(server.asked(&format!("PUT {tag}"))[1].body, fixture.manifest);
    let nothing = fixture.push_as(&name, false, Some("linux/riscv64")).err().unwrap();
    assert!(matches!(nothing, PushError::Platform { .. }));
    let nothing = fixture.push_as(&server.reference(""), false, Some("linux/riscv64")).err().unwrap();
    assert!(matches!(nothing, PushError::Platform { .. }));
}

#[test]
fn all_tags_go_one_after_the_other_and_nothing_goes_twice() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    let second = server.reference(":second");
    fixture.name(&second, OCI_MANIFEST, &fixture.manifest);
    server.answer("PUT /v2/app/manifests/second", [Answer::status(201)]);
    let recorder = fixture.push_as(&server.reference(""), true, None).unwrap();
    let (digest, size) = (sha256(&fixture.manifest), fixture.manifest.len());
    assert_eq!(
        recorder.lines,
        [
            format!("sent {} {}", sha256(LAYER), LAYER.len()),
            format!("pushed latest {digest} {size}"),
            format!("present {}", sha256(LAYER)),
            format!("pushed second {digest} {size}"),
        ]
    );
    assert_eq!(server.asked("PUT /up/1").len(), 2);
}

#[test]
fn what_is_not_there_is_named_before_anything_is_sent() {
    let fixture = Fixture::new();
    let server = &fixture.server;
    let push = |name: &Reference, all| fixture.push_as(name, all, None).err().unwrap();
    assert_eq!(
        push(&server.reference(":x"), false).to_string(),
        format!("tag does not exist: 127.0.0.1:{}/app:x", server.port)
    );
    let other: Reference = "other".parse().unwrap();
    for all in [false, true] {
        let expected = "An image does not exist locally with the tag: other";
        assert_eq!(push(&other, all).to_string(), expected);
    }
    let digest = server.reference("").with_digest(sha256(&fixture.manifest));
    assert!(matches!(push(&digest, false), PushError::ByDigest { .. }));
    assert_eq!(server.all_asked(), [""; 0]);

    // A layer that is gone is no harm when the registry has it.
    std::fs::remove_file(fixture.store.blob_path(&sha256(LAYER))).unwrap();
    let server = fixture.takes_all();
    fixture.has_config();
    let error = fixture.push().err().unwrap();
    assert!(matches!(&error, PushError::Missing { digest, .. } if *digest == sha256(LAYER)), "{error:?}");
    assert!(stanza_spec::Classify::hint(&error).unwrap().contains("stanza pull 127.0.0.1"));
    assert_eq!(server.asked(&format!("PUT {TAG}")).len(), 0);
    server.blob(LAYER);
    assert_eq!(fixture.push().unwrap().lines[0], format!("present {}", sha256(LAYER)));
}

#[test]
fn what_refers_to_another_is_listed_when_the_registry_does_not_do_it() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    let subject = sha256(b"subject");
    let artifact = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "text/sbom",
        "config": describe("application/vnd.oci.empty.v1+json", b"{}"), "layers": [describe("text/plain", b"seen")],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7}, "annotations": {"a": "b"}})
    .to_string();
    for bytes in ["{}", "seen", &artifact] {
        fixture.keep(bytes.as_bytes());
    }
    let name = server.reference(":sbom");
    fixture.name(&name, OCI_MANIFEST, artifact.as_bytes());
    let accepted = Answer::status(201).header("OCI-Subject", subject.as_str());
    server.answer("PUT /v2/app/manifests/sbom", [accepted, Answer::status(201)]);
    let list = format!("/v2/app/manifests/sha256-{}", subject.hex());
    server.answer(&format!("PUT {list}"), [Answer::status(201)]);
    fixture.push_as(&name, false, None).unwrap();
    assert_eq!(server.asked(&list).len(), 0);
    let known = serde_json::json!({"manifests": [describe("other", b"other")]}).to_string();
    server.answer(&format!("GET {list}"), [Answer::ok(known.as_bytes())]);
    fixture.push_as(&name, false, None).unwrap();
    let put: serde_json::Value = serde_json::from_slice(&bodies(server, &format!("PUT {list}"))[0]).unwrap();
    let expected = serde_json::json!({"mediaType": OCI_MANIFEST, "digest": sha256(artifact.as_bytes()),
        "size": artifact.len(), "artifactType": "text/sbom", "annotations": {"a": "b"}});
    assert_eq!(put["manifests"], serde_json::json!([describe("other", b"other"), expected]));
    assert_eq!(put["mediaType"], OCI_INDEX);
}

#[test]
fn bytes_on_their_way_are_told_in_order() {
    struct Bytes(Mutex<Vec<u64>>);
    impl Progress for Bytes {
        fn event(&mut self, event: ProgressEvent<'_>) {
            if let ProgressEvent::LayerSending { done, .. } = event {
                self.0.lock().unwrap().push(done);
            }
        }
    }
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    let mut bytes = Bytes(Mutex::default());
    let mut options = PushOptions { all_tags: false, platform: None, tls_verify: true, progress: &mut bytes };
    push(&fixture.store, &server.reference(""), &mut options).unwrap();
    let told = bytes.0.into_inner().unwrap();
    assert_eq!((told[0], *told.last().unwrap()), (0, 22));
    assert!(told.is_sorted());
}

#[test]
fn a_blob_that_was_dropped_is_fetched_again_or_mounted() {
    let fixture = Fixture::new();
    let server = fixture.takes_all();
    fixture.has_config();
    let origin = Server::start();
    let path = origin.blob(LAYER);
    let index = Some(sha256(b"the index it came from"));
    fixture.name_from(&origin.reference(":1"), OCI_MANIFEST, &fixture.manifest, index);
    let blob = fixture.store.blob_path(&sha256(LAYER));
    std::fs::remove_file(&blob).unwrap();
    let recorder = fixture.push().unwrap();
    assert_eq!(recorder.lines[0], format!("sent {} {}", sha256(LAYER), LAYER.len()));
    assert_eq!(origin.all_asked(), [format!("GET {path}")]);
    assert_eq!(
        (bodies(server, "PUT /up/1"), std::fs::read(&blob).unwrap()),
        (vec![LAYER.to_vec()], LAYER.to_vec())
    );

    std::fs::remove_file(&blob).unwrap();
    origin.answer(&path, [Answer::status(404)]);
    let error = fixture.push().err().unwrap();
    assert!(matches!(&error, PushError::Fetch { digest, .. } if *digest == sha256(LAYER)), "{error:?}");

    // From the same registry it need not come through here.
    let other = format!("127.0.0.1:{}/team/base:1", server.port).parse().unwrap();
    fixture.name(&other, OCI_MANIFEST, &fixture.manifest);
    server.answer(UPLOADS, [Answer::status(201)]);
    assert_eq!(fixture.push().unwrap().lines[0], format!("mounted {} from team/base", sha256(LAYER)));
    assert!(!blob.exists());
}
