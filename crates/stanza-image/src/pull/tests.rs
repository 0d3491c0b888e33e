//! Pulls from a registry on loopback that answers as it is told.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::document::{DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use crate::hash::sha256;
use crate::progress::Silent;
use crate::registry::testing::{Answer, Server};
use crate::registry::{Http, RegistryError};

/// An image on the server.
struct Fixture {
    server: Server,
    layer: Vec<u8>,
    manifest: String,
    layer_path: String,
}

fn describe(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": sha256(bytes), "size": bytes.len()})
}

fn manifest_answer(media_type: &str, text: &str) -> Answer {
    Answer::ok(text.as_bytes()).header("Content-Type", media_type)
}

const TAG: &str = "/v2/app/manifests/latest";

fn fixture_of(layer: &[u8]) -> Fixture {
    let server = Server::start();
    let config = serde_json::json!({"architecture": Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]}})
    .to_string();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": describe(OCI_CONFIG, config.as_bytes()), "layers": [describe(OCI_LAYER, layer)]})
    .to_string();
    server.blob(config.as_bytes());
    let layer_path = server.blob(layer);
    server.answer(TAG, [manifest_answer(OCI_MANIFEST, &manifest)]);
    server.answer(
        &format!("/v2/app/manifests/{}", sha256(manifest.as_bytes())),
        [manifest_answer(OCI_MANIFEST, &manifest)],
    );
    Fixture { server, layer: layer.to_vec(), manifest, layer_path }
}

fn fixture() -> Fixture {
    fixture_of(b"the content of a layer")
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&directory.path().join("images")).unwrap();
    (directory, store)
}

/// Pulls, with pauses that do not pause.
fn pull_as(
    store: &ImageStore,
    reference: &Reference,
    credentials: &CredentialFiles,
    progress: &mut dyn Progress,
) -> Result<Image, PullError> {
    let surroundings = Surroundings {
        transport: &Http::default(),
        retry: RetryPolicy { sleep: |_| {}, ..RetryPolicy::default() },
        credentials,
        registries: &RegistriesConfig::default(),
    };
    let mut options = PullOptions {
        platforms: Platforms::default(),
        tls_verify: true,
        signature_policy: None,
        sink: None,
        concurrency: 2,
        progress,
    };
    pull_with(store, reference, &mut options, &surroundings, &Gate::open())
}

fn pull_quietly(store: &ImageStore, server: &Server) -> Result<Image, PullError> {
    pull_as(store, &server.reference(""), &CredentialFiles::default(), &mut Silent)
}

fn refused(fixture: &Fixture) -> PullError {
    refused_and_kept(fixture, 0)
}

/// A pull that fails, and leaves nothing but so many bytes to go on with.
fn refused_and_kept(fixture: &Fixture, kept: u64) -> PullError {
    let (_keep, store) = store();
    let error = pull_quietly(&store, &fixture.server).unwrap_err();
    assert!(store.list().unwrap().is_empty());
    store.prune(&|_| false).unwrap();
    assert_eq!(store.disk_usage().unwrap(), crate::store::DiskUsage { kept, ..Default::default() });
    error
}

fn assert_pulled(fixture: &Fixture) {
    let (_keep, store) = store();
    let image = pull_quietly(&store, &fixture.server).unwrap();
    let mut content = Vec::new();
    store.open_layer(&image.layers[0]).unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, fixture.layer);
}

/// Keeps what is interesting.
#[derive(Default)]
struct Recorder {
    complete: Vec<bool>,
    exists: usize,
    retries: Vec<Duration>,
}

impl Progress for Recorder {
    fn event(&mut self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Complete { changed, .. } => self.complete.push(changed),
            ProgressEvent::LayerExists { .. } => self.exists += 1,
            ProgressEvent::Retrying { delay, .. } => self.retries.push(delay),
            _ => {}
        }
    }
}

#[test]
fn an_image_is_pulled_and_not_fetched_twice() {
    let fixture = fixture();
    let (_keep, store) = store();
    let mut recorder = Recorder::default();
    let reference = fixture.server.reference("");
    let files = CredentialFiles::default();
    let image = pull_as(&store, &reference, &files, &mut recorder).unwrap();
    assert_eq!(image.manifest, sha256(fixture.manifest.as_bytes()));
    assert_eq!((image.names, image.digests.len()), (vec![reference.clone()], 1));
    pull_as(&store, &reference, &files, &mut recorder).unwrap();
    assert_eq!((recorder.complete, recorder.exists), (vec![true, false], 1));
    assert_eq!(fixture.server.asked(&fixture.layer_path).len(), 1);
    assert_eq!(store.disk_usage().unwrap().unreferenced, 0);
    let digest = fixture.server.reference(&format!(":tag@{}", image.manifest));
    let image = pull_as(&store, &digest, &files, &mut Silent).unwrap();
    assert_eq!(image.names.len(), 2);
    assert_eq!(store.resolve(&digest.to_string()).unwrap().id, image.id);
}

#[test]
fn a_token_is_fetched_where_the_registry_says() {
    for field in ["token", "access_token"] {
        let fixture = fixture();
        let server = &fixture.server;
        let challenge = format!("Bearer realm=\"{}\",service=\"reg\"", server.url("/token"));
        let denied = Answer::status(401).header("WWW-Authenticate", challenge);
        server.answer(TAG, [denied, manifest_answer(OCI_MANIFEST, &fixture.manifest)]);
        server.answer("/token", [Answer::ok(format!("{{\"{field}\":\"tok\"}}").as_bytes())]);
        assert_pulled(&fixture);
        let asked = server.asked("/token");
        assert_eq!(asked[0].path, "/token?service=reg&scope=repository:app:pull");
        assert_eq!(asked[0].headers.get("authorization"), None);
        assert_eq!(server.asked(&fixture.layer_path)[0].headers["authorization"], "Bearer tok");
    }
}

#[test]
fn credentials_of_the_user_are_used() {
    let fixture = fixture();
    let server = &fixture.server;
    let denied = Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    server.answer(TAG, [denied, manifest_answer(OCI_MANIFEST, &fixture.manifest)]);
    let (keep, store) = store();
    let path = keep.path().join("config.json");
    let host = format!("127.0.0.1:{}", server.port);
    std::fs::write(&path, format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"dTpw\"}}}}}}")).unwrap();
    let files = CredentialFiles::at(vec![path]);
    pull_as(&store, &server.reference(""), &files, &mut Silent).unwrap();
    assert_eq!(server.asked(TAG)[1].headers["authorization"], "Basic dTpw");
}

#[test]
fn refusals_are_told_apart_and_loops_are_bounded() {
    let fixture = fixture();
    let server = &fixture.server;
    let challenge = format!("Bearer realm=\"{}\"", server.url("/token"));
    server.answer("/token", [Answer::ok(b"{\"token\":\"t\"}")]);
    server.answer(TAG, [Answer::status(401).header("WWW-Authenticate", challenge)]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Unauthorized { .. })));
    assert_eq!(server.asked(TAG).len(), 3);
    server.answer(TAG, [Answer::status(401)]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Unauthorized { .. })));
    server.answer(TAG, [Answer::status(403)]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Denied { .. })));
    server.answer(TAG, [Answer::status(404)]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::NotFound { .. })));
    server.answer(TAG, [Answer::status(418)]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Status { status: 418, .. })));
}

#[test]
fn a_token_realm_off_this_machine_must_be_https() {
    let fixture = fixture();
    for realm in ["http://auth.example/token", "file:///etc/passwd"] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        fixture.server.answer(TAG, [Answer::status(401).header("WWW-Authenticate", challenge)]);
        assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Redirect { .. })), "{realm}");
    }
}

#[test]
fn busy_registries_are_asked_again_for_a_while() {
    let fixture = fixture();
    let server = &fixture.server;
    let good = manifest_answer(OCI_MANIFEST, &fixture.manifest);
    let busy = Answer::status(429).header("Retry-After", "7");
    server.answer(TAG, [busy, Answer::status(503), Answer::status(500), good]);
    let (_keep, store) = store();
    let mut recorder = Recorder::default();
    pull_as(&store, &server.reference(""), &CredentialFiles::default(), &mut recorder).unwrap();
    assert_eq!((recorder.retries.len(), recorder.retries[0]), (3, Duration::from_secs(7)));

    server.answer(TAG, [Answer::status(503)]);
    let before = server.asked(TAG).len();
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Status { status: 503, .. })));
    assert_eq!(server.asked(TAG).len() - before, 5);

    server.answer(TAG, [Answer::status(429).header("Retry-After", "99999999999999999999")]);
    let before = server.asked(TAG).len();
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::RateLimited { .. })));
    assert_eq!(server.asked(TAG).len() - before, 1);
}

#[test]
fn wrong_content_is_refused_by_digest() {
    let fixture = fixture();
    let mut wrong = fixture.layer.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fixture.server.answer(&fixture.layer_path, [Answer::ok(&wrong)]);
    match refused(&fixture) {
        PullError::Digest { expected, actual, .. } => {
            assert_eq!((expected, actual), (sha256(&fixture.layer), sha256(&wrong)));
        }
        other => panic!("{other:?}"),
    }
    let by_digest = format!("/v2/app/manifests/{}", sha256(fixture.manifest.as_bytes()));
    fixture.server.answer(&by_digest, [manifest_answer(OCI_MANIFEST, &format!("{} ", fixture.manifest))]);
    let (_keep, store) = store();
    let reference = fixture.server.reference(&format!("@{}", sha256(fixture.manifest.as_bytes())));
    let result = pull_as(&store, &reference, &CredentialFiles::default(), &mut Silent);
    assert!(matches!(result, Err(PullError::Digest { .. })));
}

#[test]
fn a_cut_download_is_resumed_at_every_byte() {
    let fixture = fixture();
    let layer = &fixture.layer;
    for at in 0..layer.len() {
        let rest = Answer { status: 206, ..Answer::ok(&layer[at..]) }
            .header("Content-Range", format!("bytes {at}-{}/{}", layer.len() - 1, layer.len()));
        let second = if at == 0 { Answer::ok(layer) } else { rest };
        fixture.server.answer(&fixture.layer_path, [Answer::ok(layer).cut(at), second]);
        assert_pulled(&fixture);
        let asked = fixture.server.asked(&fixture.layer_path);
        let range = asked.last().unwrap().headers.get("range").cloned();
        assert_eq!(range, (at > 0).then(|| format!("bytes={at}-")));
    }
}

#[test]
fn a_stalled_download_is_resumed() {
    let fixture = fixture();
    let layer = &fixture.layer;
    let rest = Answer { status: 206, ..Answer::ok(&layer[9..]) }
        .header("Content-Range", format!("bytes 9-{}/{}", layer.len() - 1, layer.len()));
    let stalled = Answer { stalled: true, ..Answer::ok(layer).cut(9) };
    fixture.server.answer(&fixture.layer_path, [stalled, rest]);
    let (_keep, store) = store();
    let surroundings = Surroundings {
        transport: &Http::new(Duration::from_millis(300)),
        retry: RetryPolicy { sleep: |_| {}, ..RetryPolicy::default() },
        credentials: &CredentialFiles::default(),
        registries: &RegistriesConfig::default(),
    };
    let mut options = PullOptions {
        platforms: Platforms::default(),
        tls_verify: true,
        signature_policy: None,
        sink: None,
        concurrency: 2,
        progress: &mut Silent,
    };
    pull_with(&store, &fixture.server.reference(""), &mut options, &surroundings, &Gate::open()).unwrap();
    assert_eq!(fixture.server.asked(&fixture.layer_path)[1].headers["range"], "bytes=9-");
}

#[test]
fn a_range_answered_otherwise_starts_over() {
    let fixture = fixture();
    let layer = &fixture.layer;
    let cut = || Answer::ok(layer).cut(5);
    // With the whole; with a refusal; with another range.
    let other = Answer { status: 206, ..Answer::ok(&layer[3..]) }
        .header("Content-Range", format!("bytes 3-{}/{}", layer.len() - 1, layer.len()));
    for answers in [
        vec![cut(), Answer::ok(layer)],
        vec![cut(), Answer::status(416), Answer::ok(layer)],
        vec![cut(), other, Answer::ok(layer)],
        vec![cut(), Answer { status: 206, ..Answer::ok(&layer[5..]) }, Answer::ok(layer)],
    ] {
        fixture.server.answer(&fixture.layer_path, answers);
        assert_pulled(&fixture);
    }
}

#[test]
fn what_always_breaks_off_is_given_up() {
    let fixture = fixture();
    let before = fixture.server.asked(&fixture.layer_path).len();
    fixture.server.answer(&fixture.layer_path, [Answer::ok(&fixture.layer).cut(4)]);
    match refused_and_kept(&fixture, 4) {
        PullError::Truncated { received: 4, expected: 22, .. } => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.server.asked(&fixture.layer_path).len() - before, 5);
}

#[test]
fn a_body_without_end_stops_at_its_size() {
    let fixture = fixture();
    let endless = Answer { length: None, endless: true, ..Answer::ok(&fixture.layer) };
    fixture.server.answer(&fixture.layer_path, [endless.clone()]);
    assert!(matches!(refused(&fixture), PullError::Size { expected: 22, .. }));
    fixture.server.answer(&fixture.layer_path, [Answer::ok(&[b'x'; 30])]);
    assert!(matches!(refused(&fixture), PullError::Size { expected: 22, actual: 30, .. }));
    fixture.server.answer(TAG, [endless]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Answer { .. })));
}

#[test]
fn redirects_lose_the_authorization_and_are_bounded() {
    let fixture = fixture();
    let server = &fixture.server;
    let cdn = Server::start();
    cdn.answer("/layer", [Answer::ok(&fixture.layer)]);
    let challenge = format!("Bearer realm=\"{}\"", server.url("/token"));
    server.answer("/token", [Answer::ok(b"{\"token\":\"secret\"}")]);
    server.answer(
        TAG,
        [
            Answer::status(401).header("WWW-Authenticate", challenge),
            manifest_answer(OCI_MANIFEST, &fixture.manifest),
        ],
    );
    server.answer(&fixture.layer_path, [Answer::status(307).header("Location", cdn.url("/layer?sig=1"))]);
    assert_pulled(&fixture);
    assert_eq!(server.asked(&fixture.layer_path)[0].headers["authorization"], "Bearer secret");
    assert_eq!(cdn.asked("/layer")[0].headers.get("authorization"), None);

    server.answer(TAG, [manifest_answer(OCI_MANIFEST, &fixture.manifest)]);
    for location in ["file:///etc/passwd", "ftp://a/b", "http://user:pw@a/"] {
        server.answer(&fixture.layer_path, [Answer::status(302).header("Location", location)]);
        let error = refused(&fixture);
        assert!(matches!(error, PullError::Registry(RegistryError::Redirect { .. })), "{location} {error:?}");
    }
    let before = server.asked(&fixture.layer_path).len();
    server.answer(&fixture.layer_path, [Answer::status(302).header("Location", fixture.layer_path.clone())]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Redirect { .. })));
    assert_eq!(server.asked(&fixture.layer_path).len() - before, 6);
}

fn index_of(entries: &[serde_json::Value]) -> String {
    serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string()
}

fn with_platform(mut entry: serde_json::Value, os: &str, architecture: &str) -> serde_json::Value {
    entry["platform"] = serde_json::json!({"os": os, "architecture": architecture});
    entry
}

#[test]
fn an_index_gives_the_manifest_for_the_platform() {
    let fixture = fixture();
    let ours = describe(OCI_MANIFEST, fixture.manifest.as_bytes());
    let host = Platform::host().architecture;
    let index = index_of(&[
        with_platform(describe(OCI_MANIFEST, b"x"), "linux", "s390x"),
        with_platform(ours, "linux", &host),
        with_platform(describe(OCI_MANIFEST, b"y"), "unknown", "unknown"),
    ]);
    fixture.server.answer(TAG, [manifest_answer(OCI_INDEX, &index)]);
    let (_keep, store) = store();
    let image = pull_quietly(&store, &fixture.server).unwrap();
    assert_eq!(image.manifest, sha256(fixture.manifest.as_bytes()));
    // The registry's digest is that of the index, and finds the image too.
    let by_index = fixture.server.reference(&format!("@{}", sha256(index.as_bytes())));
    assert_eq!(image.digests, std::slice::from_ref(&by_index));
    assert_eq!(store.resolve(&by_index.to_string()).unwrap().id, image.id);

    let none = index_of(&[
        with_platform(describe(OCI_MANIFEST, b"x"), "linux", "s390x"),
        with_platform(describe(OCI_MANIFEST, b"y"), "windows", "amd64"),
    ]);
    fixture.server.answer(TAG, [manifest_answer(OCI_INDEX, &none)]);
    match refused(&fixture) {
        PullError::Platform { available, .. } => assert_eq!(available, ["linux/s390x", "windows/amd64"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nested_indexes_have_a_bound_and_cannot_be_cyclic() {
    let fixture = fixture();
    let mut text = fixture.manifest.clone();
    let mut media_type = OCI_MANIFEST;
    for depth in 1..=9 {
        text = index_of(&[describe(media_type, text.as_bytes())]);
        media_type = OCI_INDEX;
        let path = format!("/v2/app/manifests/{}", sha256(text.as_bytes()));
        fixture.server.answer(&path, [manifest_answer(OCI_INDEX, &text)]);
        fixture.server.answer(TAG, [manifest_answer(OCI_INDEX, &text)]);
        if depth <= 8 {
            assert_pulled(&fixture);
        }
    }
    assert!(matches!(refused(&fixture), PullError::Document { .. }));
    // An index that claims to hold itself would need the hash of itself.
    let fake = format!("sha256:{}", "0".repeat(64));
    let cyclic = index_of(&[serde_json::json!({"mediaType": OCI_INDEX, "digest": fake, "size": 1})]);
    fixture.server.answer(&format!("/v2/app/manifests/{fake}"), [manifest_answer(OCI_INDEX, &cyclic)]);
    fixture.server.answer(TAG, [manifest_answer(OCI_INDEX, &cyclic)]);
    assert!(matches!(refused(&fixture), PullError::Digest { .. }));
}

#[test]
fn documents_that_are_wrong_are_refused_by_name() {
    let fixture = fixture();
    let server = &fixture.server;
    server.answer(TAG, [manifest_answer(OCI_MANIFEST, &" ".repeat(5_000_000))]);
    assert!(matches!(refused(&fixture), PullError::Registry(RegistryError::Answer { .. })));
    let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    server.answer(TAG, [manifest_answer(schema1, "{\"schemaVersion\":1}")]);
    assert!(matches!(refused(&fixture), PullError::Schema1 { .. }));
    server.answer(TAG, [manifest_answer(DOCKER_MANIFEST, &fixture.manifest)]);
    assert!(matches!(refused(&fixture), PullError::Document { .. }));
    server.answer(TAG, [manifest_answer("text/html", "<html>")]);
    assert!(matches!(refused(&fixture), PullError::Document { .. }));
    let lie = manifest_answer(OCI_MANIFEST, &fixture.manifest)
        .header("Docker-Content-Digest", sha256(b"other").to_string());
    server.answer(TAG, [lie]);
    assert!(matches!(refused(&fixture), PullError::Digest { .. }));
    server.answer(TAG, [manifest_answer("application/json", &fixture.manifest)]);
    assert_pulled(&fixture);
}

#[test]
fn two_pulls_of_one_image_at_once_both_succeed() {
    let layer: Vec<u8> = (0..3_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    let fixture = fixture_of(&layer);
    let (_keep, store) = store();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| pull_quietly(&store, &fixture.server).unwrap());
        }
        scope.spawn(|| (0..20).for_each(|_| drop(store.prune(&|_| false).unwrap())));
    });
    assert_eq!(store.list().unwrap().len(), 1);
    assert_pulled(&fixture);
    let usage = store.disk_usage().unwrap();
    assert_eq!((usage.blobs, usage.unreferenced, usage.partial), (3, 0, 0));
}

#[test]
fn a_registry_that_is_not_there_is_told_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("127.0.0.1:{}/app", listener.local_addr().unwrap().port()).parse().unwrap();
    drop(listener);
    let (_keep, store) = store();
    let mut recorder = Recorder::default();
    let result = pull_as(&store, &reference, &CredentialFiles::default(), &mut recorder);
    assert!(matches!(result, Err(PullError::Registry(RegistryError::Connect { .. }))));
    assert!(recorder.retries.is_empty());
}

/// `openssl s_server`, ended with the test.
struct TlsServer(std::process::Child, u16);

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the files below `directory` with a certificate of its own making.
fn tls_server(directory: &std::path::Path) -> std::io::Result<TlsServer> {
    let openssl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        command.args(arguments).current_dir(directory);
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    };
    let key = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let rest = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"];
    assert!(openssl(&[&key[..], &rest[..]].concat()).status()?.success());
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let serve = ["s_server", "-accept", &address, "-cert", "cert.pem", "-key", "key.pem", "-WWW", "-quiet"];
    let server = TlsServer(openssl(&serve).spawn()?, port);
    let start = std::time::Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "the TLS server does not start");
        std::thread::yield_now();
    }
    Ok(server)
}

#[test]
fn a_tls_registry_on_loopback_is_found_and_its_certificate_checked() {
    let (keep, store) = store();
    let fixture = fixture();
    for (path, body) in fixture.server.bodies() {
        let path = keep.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, body).unwrap();
    }
    let server = match tls_server(keep.path()) {
        Ok(server) => server,
        Err(error) => return skip(&format!("openssl cannot be run here: {error}")),
    };
    let reference = format!("127.0.0.1:{}/app", server.1).parse().unwrap();
    let error = pull_as(&store, &reference, &CredentialFiles::default(), &mut Silent).unwrap_err();
    match &error {
        PullError::Registry(RegistryError::Connect { source, .. }) => {
            assert!(source.to_string().contains("certificate"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    assert!(stanza_spec::Classify::hint(&error).unwrap().contains("--tls-verify"));
    let surroundings = Surroundings {
        transport: &Http::default(),
        retry: RetryPolicy { sleep: |_| {}, ..RetryPolicy::default() },
        credentials: &CredentialFiles::default(),
        registries: &RegistriesConfig::default(),
    };
    let mut options = PullOptions {
        platforms: Platforms::default(),
        tls_verify: false,
        signature_policy: None,
        sink: None,
        concurrency: 2,
        progress: &mut Silent,
    };
    // The manifest comes; `s_server` refuses the paths of blobs, which have a colon.
    let result = pull_with(&store, &reference, &mut options, &surroundings, &Gate::open());
    assert!(!matches!(result, Err(PullError::Registry(_) | PullError::Document { .. })), "{result:?}");
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}
