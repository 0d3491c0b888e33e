//! How it comes: in parts, slowly, without end, not at all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use stanza_test::{
    Answer, FakeRegistry, Layout, Manner, Request, Tarball, fixture, good_answers, hex_sha256,
};

use super::{MANIFEST, is_blob, is_manifest, pulled, refused, refused_when, runnable};

/// Makes of a good answer to a range another one.
type Way = fn(&Request, Answer) -> Answer;

#[test]
fn storms_and_absurd_pauses_are_given_up() {
    let stanza = fixture!(Empty);
    for pause in ["86400", "99999999999999999999", "-1", "NaN", "Fri, 31 Dec 9999 23:59:59 GMT", "", "0"] {
        let registry = refused_when(&stanza, &["rate", "127.0.0.1"], move |request, good| {
            if is_manifest(request) { Answer::status(429).header("Retry-After", pause) } else { good }
        });
        assert!(registry.requests().len() <= 8, "{pause}: {}", registry.requests().len());
    }
    // A blob that is refused for a while comes in the end.
    let left = AtomicU32::new(3);
    let registry = FakeRegistry::of(&runnable(&stanza), move |request, good| {
        let again = |left: u32| left.checked_sub(1);
        if is_blob(request) && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, again).is_ok() {
            return Answer::status(503).header("Retry-After", "0");
        }
        good
    });
    pulled(&stanza, &registry);
}

#[test]
fn bodies_without_end_are_left() {
    let stanza = fixture!(Empty);
    let block = vec![b' '; 65_536];
    for (of, status) in [
        (is_manifest as fn(&Request) -> bool, 200),
        (is_manifest, 404),
        (is_manifest, 500),
        (is_blob, 200),
        (is_blob, 404),
    ] {
        for claimed in [None, Some(usize::MAX / 2)] {
            let block = block.clone();
            refused_when(&stanza, &[], move |request, good| {
                if !of(request) {
                    return good;
                }
                let mut answer = Answer::ok(MANIFEST, block.clone()).manner(Manner::Endless);
                (answer.status, answer.length) = (status, claimed);
                answer
            });
        }
    }
}

#[test]
fn ranges_answered_otherwise_do_no_harm() {
    let stanza = fixture!(Empty);
    let layout = runnable(&stanza);
    // The first connection breaks off; then the whole comes, another part, a part that claims another total, an error.
    let whole = |_: &Request, good: Answer| good;
    let from_start = |request: &Request, good: Answer| {
        let mut answer = good.clone().ranged(request);
        let length = answer.body.len();
        answer.body = good.body[..length].to_vec();
        answer
    };
    let shifted = |request: &Request, good: Answer| {
        let mut answer = good.ranged(request);
        answer.headers.last_mut().unwrap().1 = "bytes 7-100/1000".to_owned();
        answer
    };
    let nonsense = |request: &Request, good: Answer| {
        let mut answer = good.ranged(request);
        answer.headers.last_mut().unwrap().1 = "pages 1-2/3".to_owned();
        answer
    };
    let refusal = |_: &Request, _: Answer| Answer::status(416);
    let fault = |_: &Request, _: Answer| Answer::status(500);
    let ways: [(&str, Way); 6] = [
        ("whole", whole),
        ("from the start", from_start),
        ("shifted", shifted),
        ("nonsense", nonsense),
        ("refused", refusal),
        ("fault", fault),
    ];
    for (name, way) in ways {
        println!("{name}");
        let stanza = fixture!(Empty);
        let asked = AtomicU32::new(0);
        let registry = FakeRegistry::of(&layout, move |request, good| {
            if !is_blob(request) || good.body.len() < 100_000 {
                return good;
            }
            match (asked.fetch_add(1, Ordering::Relaxed), request.headers.contains_key("range")) {
                (0, _) => good.manner(Manner::Cut(70_000)),
                (1, true) => way(request, good),
                _ => good.ranged(request),
            }
        });
        pulled(&stanza, &registry);
    }
}

#[test]
fn a_blob_cut_at_every_byte_comes_whole() {
    let stanza = fixture!(Empty);
    // One name for each place: the configuration, which is cut there, differs.
    let layouts: Vec<Layout> = (0..400)
        .map(|number| {
            let layers = vec![Tarball::new().file("etc/release", 0o644, "one\n").finish()];
            Layout::new(layers, &json!({ "Cmd": ["true"], "Labels": { "number": format!("{number:03}") } }))
        })
        .collect();
    let length = layouts[0].config.len();
    assert!(length < layouts.len(), "{length}");
    let configs: Vec<String> = layouts.iter().map(|layout| hex_sha256(&layout.config)).collect();
    let answers: Vec<_> = layouts.iter().map(good_answers).collect();
    let registry = FakeRegistry::start(move |request| {
        if let Some((_, number)) = request.path.split_once("/manifests/") {
            // A digest never comes here: the tag is all that is asked.
            return answers[number.parse::<usize>().unwrap_or(0)](request);
        }
        let hex = request.path.rsplit(':').next().unwrap_or_default();
        let Some(number) = configs.iter().position(|config| config == hex) else {
            return answers[0](request);
        };
        let good = answers[number](request);
        if request.headers.contains_key("range") || number == 0 {
            good.ranged(request)
        } else {
            good.manner(Manner::Cut(number))
        }
    });
    let numbers: Vec<usize> = (1..length).collect();
    std::thread::scope(|scope| {
        for part in numbers.chunks(length.div_ceil(24)) {
            let (stanza, registry) = (&stanza, &registry);
            scope.spawn(move || {
                for number in part {
                    let name = registry.name(&format!("room:{number}"));
                    stanza.ok(&["pull", "-q", &name]);
                    let label =
                        stanza.ok(&["image", "inspect", "--format", "{{.Config.Labels.number}}", &name]);
                    assert_eq!(label, format!("{number:03}"));
                }
            });
        }
    });
}

#[test]
fn what_breaks_off_always_is_given_up_and_taken_up_again() {
    let stanza = fixture!(Empty);
    let layout = runnable(&stanza);
    let registry = FakeRegistry::of(&layout, |request, good| {
        // A few bytes each time: that is no progress worth waiting for.
        if is_blob(request) && good.body.len() > 100_000 {
            good.ranged(request).manner(Manner::Cut(9))
        } else {
            good
        }
    });
    refused(&stanza, &registry, &["breaks off", "sha256:"]);
    assert!(registry.requests().len() < 30, "{}", registry.requests().len());
    let registry =
        FakeRegistry::of(&layout, |request, good| if is_blob(request) { good.ranged(request) } else { good });
    pulled(&stanza, &registry);
}

#[test]
fn a_stalled_download_is_resumed() {
    let stanza = fixture!(Empty);
    let stalled = AtomicU32::new(0);
    let registry = FakeRegistry::of(&runnable(&stanza), move |request, good| {
        if is_blob(request) && good.body.len() > 100_000 && stalled.fetch_add(1, Ordering::Relaxed) == 0 {
            return good.manner(Manner::Stall(50_000));
        }
        if is_blob(request) { good.ranged(request) } else { good }
    });
    // The silence that counts as a broken connection is 30 s.
    pulled(&stanza, &registry);
    assert!(registry.requests().iter().any(|request| request.headers.contains_key("range")));
}

#[test]
fn what_comes_slowly_or_in_chunks_comes() {
    let stanza = fixture!(Empty);
    let registry = FakeRegistry::of(&runnable(&stanza), |request, good| match good.body.len() {
        0..1000 if is_blob(request) => good.manner(Manner::Trickle(Duration::from_millis(5))),
        _ => good.manner(Manner::Chunked),
    });
    pulled(&stanza, &registry);
}

#[test]
fn heads_that_are_none_are_refused() {
    let stanza = fixture!(Empty);
    let flood: String = (0..200_000).map(|number| format!("X-{number}: y\r\n")).collect();
    for head in [
        format!("HTTP/1.1 200 OK\r\n{flood}\r\n"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(20 << 20)),
        format!("HTTP/1.1 {}\r\n\r\n", "2".repeat(1 << 20)),
        "HTTP/9.9 200 OK\r\n\r\n".to_owned(),
        "no http at all\r\n\r\n".to_owned(),
        String::new(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{}".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x08zz".to_owned(),
    ] {
        println!("{:?}", head.chars().take(60).collect::<String>());
        let body = head.into_bytes();
        let registry = FakeRegistry::start(move |_| Answer::ok("", body.clone()).manner(Manner::Raw));
        let error = refused(&stanza, &registry, &[]);
        assert!(error.contains("127.0.0.1") || error.contains("room"), "{error}");
    }
}
