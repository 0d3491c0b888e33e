//! The verbs and the authorisation, against a registry on loopback that answers as it is told.

use std::time::Duration;

use super::credentials::Credentials;
use super::testing::{Answer, Asked, Server};
use super::*;
use crate::hash::sha256;
use crate::pull::Surroundings;
use crate::remote::{Remote, RemoteError};

const TAG: &str = "/v2/app/manifests/latest";
const LIST: &str = "/v2/app/tags/list";

fn patient() -> RetryPolicy {
    RetryPolicy { sleep: |_| {}, ..RetryPolicy::default() }
}

/// Does something with the repository `app` of a server, as somebody.
fn with<T>(server: &Server, credentials: Credentials, work: impl FnOnce(&Registry<'_>) -> T) -> T {
    let (transport, files) = (Http::default(), CredentialFiles::default());
    let registry = Registry::new(&server.reference(""), true, &transport, patient(), &files);
    registry.keys.know(credentials);
    work(&registry)
}

/// Asks for the manifest `latest`.
fn ask(server: &Server, credentials: Credentials) -> Result<(), RegistryError> {
    with(server, credentials, |registry| registry.manifest("latest", &mut |_, _| {}).map(drop))
}

/// A server whose manifest wants a Bearer token, for each question anew.
fn guarded() -> Server {
    let server = Server::start();
    let challenge =
        format!("Bearer realm=\"{}\",service=\"a b\",scope=\"repository:app:pull\"", server.url("/token"));
    server.answer(TAG, [Answer::status(401).header("WWW-Authenticate", challenge), Answer::ok(b"{}")]);
    server
}

fn basic() -> Credentials {
    Credentials::Basic { user: "u&".to_owned(), secret: "p=w".to_owned() }
}

fn authorization(asked: &[Asked]) -> Vec<Option<&str>> {
    asked.iter().map(|one| one.headers.get("authorization").map(String::as_str)).collect()
}

#[test]
fn an_identity_token_is_exchanged_by_a_post() {
    let server = guarded();
    server.answer("POST /token", [Answer::ok(b"{\"access_token\":\"t\",\"expires_in\":60}")]);
    ask(&server, Credentials::IdentityToken("id+".to_owned())).unwrap();
    let asked = server.asked("/token");
    assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/token"));
    assert_eq!(
        String::from_utf8_lossy(&asked[0].body),
        "grant_type=refresh_token&refresh_token=id%2B&client_id=stanza&scope=repository:app:pull&service=a%20b"
    );
    assert_eq!(asked[0].headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(authorization(&server.asked(TAG)), [None, Some("Bearer t")]);
    // What OAuth 2 answers to wrong credentials.
    let server = guarded();
    server.answer("POST /token", [Answer { status: 400, ..Answer::ok(b"{\"error\":\"invalid_grant\"}") }]);
    let error = ask(&server, Credentials::IdentityToken("id".to_owned())).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }));
}

#[test]
fn a_password_becomes_a_grant_where_nothing_else_is_taken() {
    let server = guarded();
    server.answer("GET /token", [Answer::status(405)]);
    server.answer("POST /token", [Answer::ok(b"{\"access_token\":\"t\"}")]);
    ask(&server, basic()).unwrap();
    let asked = server.asked("/token");
    assert_eq!(authorization(&asked), [Some("Basic dSY6cD13"), None]);
    assert_eq!(
        String::from_utf8_lossy(&asked[1].body),
        "grant_type=password&username=u%26&password=p%3Dw&client_id=stanza&scope=repository:app:pull&service=a%20b"
    );
}

#[test]
fn secrets_do_not_follow_a_redirect_of_the_token_server() {
    let (server, other) = (guarded(), Server::start());
    other.answer("/token", [Answer::ok(b"{\"token\":\"t\"}")]);
    server.answer("/token", [Answer::status(307).header("Location", other.url("/token"))]);
    let error = ask(&server, Credentials::IdentityToken("id".to_owned())).unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error:?}");
    assert_eq!(other.all_asked(), [""; 0]);
    // A question goes on, without them.
    let server = guarded();
    server.answer("/token", [Answer::status(307).header("Location", other.url("/token"))]);
    ask(&server, basic()).unwrap();
    assert_eq!(authorization(&other.asked("/token")), [None]);
}

#[test]
fn a_registry_token_is_sent_as_it_is_and_only_once() {
    let server = guarded();
    ask(&server, Credentials::RegistryToken("mine".to_owned())).unwrap();
    assert_eq!(authorization(&server.asked(TAG)), [None, Some("Bearer mine")]);
    assert_eq!(server.asked("/token").len(), 0);
    let challenge = format!("Bearer realm=\"{}\"", server.url("/token"));
    server.answer(TAG, [Answer::status(401).header("WWW-Authenticate", challenge)]);
    let error = ask(&server, Credentials::RegistryToken("mine".to_owned())).unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }));
    assert_eq!(server.asked(TAG).len(), 4);
}

#[test]
fn many_threads_share_one_token_and_fetch_another_when_it_has_expired() {
    let server = guarded();
    let challenge = format!("Bearer realm=\"{}\"", server.url("/token"));
    let denied = || Answer::status(401).header("WWW-Authenticate", challenge.clone());
    let blobs: Vec<_> = (0..16_u8).map(|number| sha256(&[number])).collect();
    for blob in &blobs {
        server.answer(&format!("/v2/app/blobs/{blob}"), [denied(), Answer::ok(b"x")]);
    }
    let token = |name: &str, life: u32| {
        Answer::ok(format!("{{\"token\":\"{name}\",\"expires_in\":{life}}}").as_bytes())
    };
    // The first one has no life left as soon as it is there.
    server.answer("/token", [token("old", 0), token("new", 300)]);
    with(&server, Credentials::Anonymous, |registry| {
        registry.manifest("latest", &mut |_, _| {}).unwrap();
        assert_eq!(authorization(&server.asked(TAG)), [None, Some("Bearer old")]);
        std::thread::scope(|scope| {
            for blob in &blobs {
                scope.spawn(|| assert!(registry.has_blob(blob, &mut |_, _| {}).unwrap()));
            }
        });
    });
    // Each blob refuses once, whatever was sent: who is refused with the newest token fetches one more. All first
    // questions go out with one token.
    let first: Vec<String> = blobs
        .iter()
        .map(|blob| server.asked(&format!("/v2/app/blobs/{blob}"))[0].headers["authorization"].clone())
        .collect();
    assert!(first.iter().all(|sent| sent == "Bearer new"), "{first:?}");

    // Without refusals, one token is all it takes.
    let server = guarded();
    server.answer("/token", [token("only", 300)]);
    for blob in &blobs {
        server.answer(&format!("/v2/app/blobs/{blob}"), [Answer::ok(b"x")]);
    }
    with(&server, Credentials::Anonymous, |registry| {
        registry.manifest("latest", &mut |_, _| {}).unwrap();
        std::thread::scope(|scope| {
            for blob in &blobs {
                scope.spawn(|| assert!(registry.has_blob(blob, &mut |_, _| {}).unwrap()));
            }
        });
    });
    assert_eq!(server.asked("/token").len(), 1);
}

#[test]
fn threads_that_are_refused_at_once_fetch_one_token() {
    let server = Server::start();
    let challenge = format!("Bearer realm=\"{}\"", server.url("/token"));
    let denied = || Answer::status(401).header("WWW-Authenticate", challenge.clone());
    server.answer("/token", [Answer::ok(b"{\"token\":\"t\",\"expires_in\":300}")]);
    let blobs: Vec<_> = (0..16_u8).map(|number| sha256(&[number])).collect();
    for blob in &blobs {
        // Asked without a token by every thread, or with it by who came late.
        server.answer(&format!("/v2/app/blobs/{blob}"), [denied(), Answer::ok(b"x")]);
    }
    let together = std::sync::Barrier::new(blobs.len());
    let done = with(&server, Credentials::Anonymous, |registry| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = blobs
                .iter()
                .map(|blob| {
                    let together = &together;
                    scope.spawn(move || {
                        together.wait();
                        registry.has_blob(blob, &mut |_, _| {}).is_ok()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        })
    });
    assert_eq!(done, [true; 16]);
    // Who was refused without a token takes the one that came meanwhile; who was refused with it asks for another.
    let refused_with_token = blobs
        .iter()
        .filter(|blob| {
            server.asked(&format!("/v2/app/blobs/{blob}"))[0].headers.contains_key("authorization")
        })
        .count();
    assert!(server.asked("/token").len() <= 1 + refused_with_token);
}

#[test]
fn tags_come_page_by_page_up_to_a_limit() {
    let server = Server::start();
    let page = |tags: &str| Answer::ok(format!("{{\"name\":\"app\",\"tags\":{tags}}}").as_bytes());
    let pages = || {
        [
            page("[\"a\",\"b\"]").header("Link", "</v2/app/tags/list?n=2&last=b>; rel=\"next\""),
            page("[\"c\",\"\\u001b[31m\",\"d\"]").header("Link", "<?n=2&last=d>; rel=next"),
            page("null"),
        ]
    };
    let tags = |limit| with(&server, Credentials::Anonymous, |r| r.tags(limit, &mut |_, _| {}));
    server.answer(LIST, pages());
    assert_eq!(tags(None).unwrap(), ["a", "b", "c", "d"]);
    let asked: Vec<String> = server.asked(LIST).into_iter().map(|asked| asked.path).collect();
    assert_eq!(asked, ["?n=1000", "?n=2&last=b", "?n=2&last=d"].map(|query| format!("{LIST}{query}")));
    server.answer(LIST, pages());
    assert_eq!(tags(Some(3)).unwrap(), ["a", "b", "c"]);
    server.answer(LIST, pages());
    assert_eq!(tags(Some(1)).unwrap(), ["a"]);
    assert_eq!(server.asked(LIST).len(), 6);
    server.answer(LIST, [page("[1]")]);
    assert!(matches!(tags(None), Err(RegistryError::Answer { .. })));
    server.answer(LIST, [Answer::status(404)]);
    assert!(matches!(tags(None), Err(RegistryError::NotFound { .. })));
}

#[test]
fn a_list_without_end_is_left_and_its_links_are_checked() {
    let server = Server::start();
    let page = || Answer::ok(b"{\"tags\":[\"a\"]}");
    let tags = || with(&server, Credentials::Anonymous, |r| r.tags(None, &mut |_, _| {}));
    server.answer(LIST, [page().header("Link", "</v2/app/tags/list?n=1000>; rel=next")]);
    assert!(matches!(tags(), Err(RegistryError::Redirect { .. })));
    for link in ["<file:///etc/passwd>; rel=next", "<http://u:p@h/>; rel=next"] {
        server.answer(LIST, [page().header("Link", link)]);
        assert!(matches!(tags(), Err(RegistryError::Redirect { .. })), "{link}");
    }
    let endless = Answer { length: None, endless: true, ..Answer::ok(&[b' '; 65536]) };
    server.answer(LIST, [endless]);
    assert!(matches!(tags(), Err(RegistryError::Answer { .. })));
    // The next page of another host is asked for without credentials.
    let other = Server::start();
    other.answer("/more", [Answer::ok(b"{\"tags\":[\"b\"]}")]);
    let denied = Answer::status(401).header("WWW-Authenticate", "Basic realm=x");
    server.answer(LIST, [denied, page().header("Link", format!("<{}>; rel=next", other.url("/more")))]);
    assert_eq!(with(&server, basic(), |r| r.tags(None, &mut |_, _| {})).unwrap(), ["a", "b"]);
    assert_eq!(authorization(&server.asked(LIST)).last().unwrap(), &Some("Basic dSY6cD13"));
    assert_eq!(authorization(&other.asked("/more")), [None]);
}

#[test]
fn referrers_are_listed_by_the_api_or_by_the_tag_in_its_place() {
    let server = Server::start();
    let subject = sha256(b"subject");
    let descriptor = |kind: &str, artifact_type: &str| {
        serde_json::json!({"mediaType": "m", "digest": sha256(kind.as_bytes()), "size": 1,
            "artifactType": artifact_type, "annotations": {"of": kind}})
    };
    let index =
        |list: &[serde_json::Value]| serde_json::json!({"schemaVersion": 2, "manifests": list}).to_string();
    let (sbom, signature) = (descriptor("a", "text/sbom"), descriptor("b", "text/sig"));
    let both = index(&[sbom, signature.clone()]);
    let api = format!("/v2/app/referrers/{subject}");
    let referrers = |kind: Option<&str>| {
        let found = with(&server, Credentials::Anonymous, |r| r.referrers(&subject, kind, &mut |_, _| {}));
        found.map(|found| found.into_iter().map(|one| one.annotations["of"].clone()).collect::<Vec<_>>())
    };
    // The registry need not filter.
    server.answer(&api, [Answer::ok(both.as_bytes())]);
    assert_eq!(referrers(None).unwrap(), ["a", "b"]);
    assert_eq!(referrers(Some("text/sig")).unwrap(), ["b"]);
    assert_eq!(server.asked(&api)[1].path, format!("{api}?artifactType=text/sig"));
    let next = format!("<{api}?next=1>; rel=\"next\"");
    let pages =
        [Answer::ok(both.as_bytes()).header("Link", next), Answer::ok(index(&[signature]).as_bytes())];
    server.answer(&api, pages);
    assert_eq!(referrers(None).unwrap(), ["a", "b", "b"]);

    let tag = format!("/v2/app/manifests/sha256-{}", subject.hex());
    server.answer(&api, [Answer::status(404)]);
    assert_eq!(referrers(None).unwrap(), [""; 0]);
    server.answer(&tag, [Answer::ok(both.as_bytes())]);
    assert_eq!(referrers(Some("text/sbom")).unwrap(), ["a"]);
    server.answer(&api, [Answer::ok(b"<html>")]);
    assert!(matches!(referrers(None), Err(RegistryError::Answer { .. })));
}

#[test]
fn a_document_is_shown_as_it_is_and_must_fit_its_digest() {
    let server = Server::start();
    let (transport, credentials) = (Http::default(), CredentialFiles::default());
    let surroundings = Surroundings {
        transport: &transport,
        retry: patient(),
        credentials: &credentials,
        registries: &RegistriesConfig::default(),
    };
    let config =
        br#"{"architecture":"arm","os":"linux","variant":"v7","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = format!(
        r#"{{"schemaVersion":2,  "config":{{"mediaType":"x","digest":"{}","size":{}}},"layers":[]}}"#,
        sha256(config),
        config.len()
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"s390x"}}}}]}}"#,
        sha256(manifest.as_bytes()),
        manifest.len()
    );
    server.blob(config);
    let child = format!("/v2/app/manifests/{}", sha256(manifest.as_bytes()));
    let typed = |text: &str, media_type: &str| Answer::ok(text.as_bytes()).header("Content-Type", media_type);
    server.answer(&child, [typed(&manifest, "application/vnd.oci.image.manifest.v1+json; charset=utf-8")]);
    server.answer(TAG, [typed(&index, crate::document::OCI_INDEX)]);
    let name = server.reference("");
    let remote = Remote::with(&name, true, &surroundings).unwrap();
    let found = remote.document().unwrap();
    assert_eq!((found.bytes.as_slice(), found.digest.clone()), (index.as_bytes(), sha256(index.as_bytes())));
    assert_eq!(found.media_type, crate::document::OCI_INDEX);
    let children = remote.children(&found).unwrap();
    assert_eq!(children.len(), 1);
    assert_eq!(children[0].bytes, manifest.as_bytes());
    assert_eq!(children[0].platform.as_ref().unwrap().to_string(), "linux/s390x");
    assert_eq!(children[0].media_type, crate::document::OCI_MANIFEST);
    assert_eq!(remote.platform(&children[0]).unwrap().unwrap().to_string(), "linux/arm/v7");

    server.answer(TAG, [Answer::ok(b"{}").header("Docker-Content-Digest", sha256(b"x").as_str())]);
    assert!(matches!(remote.document(), Err(RemoteError::Digest { .. })));
    server.answer(TAG, [Answer::ok(b"no")]);
    assert!(matches!(remote.document(), Err(RemoteError::Document { .. })));
    server.answer(TAG, [Answer::status(404)]);
    assert_eq!(remote.document().unwrap_err().to_string(), format!("no such manifest: {name}"));
    server.answer(&format!("/v2/app/blobs/{}", sha256(config)), [Answer::ok(&[b'x'; 91])]);
    assert!(matches!(remote.platform(&children[0]), Err(RemoteError::Digest { .. })));
}

#[test]
fn a_pause_is_as_long_as_the_registry_asks_within_reason() {
    let server = Server::start();
    let date = |text: &str| {
        Answer::status(503).header("Retry-After", text).header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    server.answer(
        TAG,
        [date("Sun, 06 Nov 1994 08:49:57 GMT"), date("Sun, 06 Nov 2094 08:49:37 GMT"), Answer::ok(b"{}")],
    );
    let mut waits = Vec::new();
    with(&server, Credentials::Anonymous, |registry| {
        registry.manifest("latest", &mut |_, wait| waits.push(wait)).map(drop)
    })
    .unwrap();
    assert_eq!((waits.len(), waits[0]), (2, Duration::from_secs(20)));
    // A hundred years are not waited for.
    assert!(waits[1] < Duration::from_secs(2), "{waits:?}");
}

#[test]
fn a_name_is_deleted_by_its_digest() {
    let server = Server::start();
    let (transport, credentials) = (Http::default(), CredentialFiles::default());
    let surroundings = Surroundings {
        transport: &transport,
        retry: patient(),
        credentials: &credentials,
        registries: &RegistriesConfig::default(),
    };
    let name = server.reference("");
    let remote = Remote::with(&name, true, &surroundings).unwrap();
    let digest = sha256(b"document");
    server.answer(TAG, [Answer::ok(b"").header("Docker-Content-Digest", digest.as_str())]);
    let path = format!("/v2/app/manifests/{digest}");
    let challenge = format!("Bearer realm=\"{}\"", server.url("/token"));
    let denied = Answer::status(401).header("WWW-Authenticate", challenge);
    server.answer("/token", [Answer::ok(b"{\"token\":\"t\"}")]);
    server.answer(&format!("DELETE {path}"), [denied, Answer::status(202)]);
    assert_eq!(remote.delete().unwrap(), digest);
    assert_eq!(server.asked("/token")[0].path, "/token?scope=repository:app:pull,delete");
    assert_eq!(server.asked(&path).len(), 2);
    server.answer(&format!("DELETE {path}"), [Answer::status(405)]);
    let error = remote.delete().unwrap_err();
    assert!(matches!(error, RemoteError::Registry(RegistryError::Status { status: 405, .. })));
    assert!(stanza_spec::Classify::hint(&error).is_none());
}
