//! Who is told what: redirects, challenges, token servers.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;
use stanza_test::{Answer, FakeRegistry, Manner, Network, Request, Running, Stanza, fixture, good_answers};

use super::{finish, is_blob, is_manifest, refused, refused_when, runnable, small};

/// A fixture's command with credentials for `registry`.
fn with_credentials(stanza: &Stanza, registry: &FakeRegistry, args: &[&str]) -> Running {
    let host = registry.name("").trim_end_matches('/').to_owned();
    // user:secret-of-the-user
    let config = json!({ "auths": { host: { "auth": "dXNlcjpzZWNyZXQtb2YtdGhlLXVzZXI=" } } });
    let directory = stanza.directory().join("docker");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let mut command = stanza.command(args);
    command.env("DOCKER_CONFIG", &directory).env_remove("REGISTRY_AUTH_FILE");
    Running::start(command)
}

const SECRET: &str = "Basic dXNlcjpzZWNyZXQtb2YtdGhlLXVzZXI=";

fn is_authorised(request: &Request) -> bool {
    request.headers.get("authorization").is_some_and(|value| value == SECRET)
}

/// Asks for the user's credentials, as they are.
fn challenge(request: &Request, good: Answer) -> Answer {
    if is_authorised(request) {
        good
    } else {
        Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"")
    }
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let stanza = fixture!(Empty);
    let layout = runnable(&stanza);
    let good = good_answers(&layout);
    let elsewhere = Arc::new(FakeRegistry::start(good));
    let to = Arc::clone(&elsewhere);
    let registry = FakeRegistry::of(&layout, move |request, good| match challenge(request, good) {
        good if good.status == 200 && is_blob(request) => Answer::redirect(&to.url(&request.path)),
        answer => answer,
    });
    let name = registry.name("room:1");
    let output = with_credentials(&stanza, &registry, &["pull", &name]).finish();
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(stanza.ok(&["run", "--rm", "--network", "none", &name]), "one");
    assert!(registry.requests().iter().any(is_authorised));
    assert!(elsewhere.requests().len() >= 2);
    for request in elsewhere.requests() {
        let text = format!("{request:?}");
        assert!(!text.contains("authorization") && !text.contains("secret"), "{text}");
    }
}

#[test]
fn redirects_to_other_schemes_and_without_end_are_refused() {
    let stanza = fixture!(Empty);
    let secret = stanza.file("secret", "secret-on-disk");
    for (target, words) in [
        (format!("file://{secret}"), ["redirects", "file:"]),
        (format!("file:{secret}"), ["redirects", "file:"]),
        ("ftp://127.0.0.1/x".to_owned(), ["redirects", "ftp:"]),
        ("gopher://127.0.0.1:70/x".to_owned(), ["redirects", "gopher:"]),
        ("unix:///run/docker.sock".to_owned(), ["redirects", "unix:"]),
        ("http://user:password@127.0.0.1/x".to_owned(), ["redirects", ""]),
        ("http://127.0.0.1:99999/x".to_owned(), ["redirects", "99999"]),
        ("http://127.0.0.1/\u{1b}[31mred".to_owned(), ["", ""]),
    ] {
        for of in [is_manifest as fn(&Request) -> bool, is_blob] {
            let to = target.clone();
            println!("{target:?}");
            let registry = FakeRegistry::of(
                &small(),
                move |request, good| {
                    if of(request) { Answer::redirect(&to) } else { good }
                },
            );
            let error = refused(&stanza, &registry, &words);
            assert!(!error.contains("secret-on-disk") && !error.contains('\u{1b}'), "{error:?}");
        }
    }
    // Round and round, and on and on.
    let number = AtomicU32::new(0);
    let registry = refused_when(&stanza, &["redirects"], move |request, good| {
        if is_blob(request) {
            Answer::redirect(&format!("{}?{}", request.path, number.fetch_add(1, Ordering::Relaxed)))
        } else {
            good
        }
    });
    assert!(registry.requests().len() < 60, "{}", registry.requests().len());
}

/// A network with addresses that are not loopback: nothing outside is needed.
fn addresses(stanza: &Stanza) -> &Network {
    let network = stanza.network().expect("asked for");
    for address in ["10.9.9.9/32", "10.9.9.8/32", "169.254.169.254/32"] {
        let done = network.run(&["ip", "address", "add", address, "dev", "lo"]);
        assert_eq!(done.code, 0, "{}", done.stderr);
    }
    network
}

#[test]
fn a_registry_outside_cannot_make_us_ask_this_machine() {
    let stanza = fixture!(Empty, PrivateNetwork);
    let network = addresses(&stanza);
    for (address, host) in [
        ([127, 0, 0, 1], "127.0.0.1"),
        ([127, 0, 0, 1], "localhost"),
        ([127, 0, 0, 1], "[::ffff:127.0.0.1]"),
        ([127, 0, 0, 1], "2130706433"),
        ([127, 0, 0, 1], "127.1"),
        ([127, 0, 0, 1], "0.0.0.0"),
        ([169, 254, 169, 254], "169.254.169.254"),
    ] {
        let layout = small();
        let victim =
            network.enter(|| FakeRegistry::start_at((Ipv4Addr::from(address), 0), good_answers(&layout)));
        let port = victim.name("").rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
        let to = format!("http://{host}:{port}/latest/meta-data");
        let good = good_answers(&layout);
        let registry = network.enter(|| {
            FakeRegistry::start_at((Ipv4Addr::new(10, 9, 9, 9), 0), move |request| {
                if is_blob(request) { Answer::redirect(&to) } else { good(request) }
            })
        });
        println!("{host}");
        let start = Instant::now();
        let running = stanza.spawn(&["pull", "--tls-verify=false", &registry.name("room:1")]);
        finish(running, &["10.9.9.9"], start, &stanza);
        assert_eq!(victim.requests(), [], "{host}");
    }
}

#[test]
fn credentials_go_to_no_token_server_in_the_clear() {
    let stanza = fixture!(Empty, PrivateNetwork);
    let network = addresses(&stanza);
    let layout = small();
    let thief = network.enter(|| {
        FakeRegistry::start_at((Ipv4Addr::new(10, 9, 9, 8), 0), |_| {
            Answer::ok("application/json", r#"{"token":"stolen"}"#)
        })
    });
    let (realm, good) = (thief.url("/token"), good_answers(&layout));
    let registry = network.enter(|| {
        FakeRegistry::start_at((Ipv4Addr::new(10, 9, 9, 9), 0), move |request| {
            if request.headers.contains_key("authorization") {
                return good(request);
            }
            Answer::status(401).header("WWW-Authenticate", &format!("Bearer realm=\"{realm}\",service=\"x\""))
        })
    });
    let name = registry.name("room:1");
    let start = Instant::now();
    let running = with_credentials(&stanza, &registry, &["pull", "--tls-verify=false", &name]);
    finish(running, &["10.9.9.9"], start, &stanza);
    for request in thief.requests() {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
    }
}

#[test]
fn realms_that_lead_nowhere_are_refused() {
    let stanza = fixture!(Empty);
    let secret = stanza.file("secret", "secret-on-disk");
    for realm in [&format!("file://{secret}"), "ftp://127.0.0.1/token", "", "no url at all", "http://a b/"] {
        let header = format!("Bearer realm=\"{realm}\",service=\"x\"");
        refused_when(&stanza, &["127.0.0.1"], move |_, _| {
            Answer::status(401).header("WWW-Authenticate", &header)
        });
    }
    for header in
        ["", "Negotiate", "Bearer", "Bearer realm", "Bearer realm=\"", &"x".repeat(20_000), "Digest a=b"]
    {
        let header = header.to_owned();
        refused_when(&stanza, &["127.0.0.1"], move |_, _| {
            Answer::status(401).header("WWW-Authenticate", &header)
        });
    }
}

#[test]
fn a_registry_that_is_never_content_with_who_we_are_is_left() {
    let stanza = fixture!(Empty);
    let registry =
        FakeRegistry::start(|_| Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""));
    let start = Instant::now();
    let running = with_credentials(&stanza, &registry, &["pull", &registry.name("room:1")]);
    finish(running, &["credentials", "127.0.0.1"], start, &stanza);
    assert!(registry.requests().len() <= 6, "{}", registry.requests().len());
    // Tokens are given and never taken; or none is given; or what is given has no end.
    for token in [
        r#"{"token":"t"}"#,
        "{}",
        "null",
        "no JSON",
        r#"{"token":"a\r\nX-Injected: 1"}"#,
        r#"{"token":7}"#,
        "endless",
    ] {
        let port = Arc::new(AtomicUsize::new(0));
        let known = Arc::clone(&port);
        let registry = FakeRegistry::start(move |request| {
            if request.path.starts_with("/token") {
                let answer = Answer::ok("application/json", token);
                return if token == "endless" { answer.manner(Manner::Endless) } else { answer };
            }
            let realm = format!("Bearer realm=\"http://127.0.0.1:{}/token\"", known.load(Ordering::Relaxed));
            Answer::status(401).header("WWW-Authenticate", &realm)
        });
        let number = registry.name("").rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
        port.store(number, Ordering::Relaxed);
        println!("{token}");
        refused(&stanza, &registry, &["127.0.0.1"]);
        assert!(registry.requests().len() <= 20, "{token}: {}", registry.requests().len());
        assert!(registry.requests().iter().all(|request| !request.headers.contains_key("x-injected")));
    }
}
