//! Names that others tell: servers of the host's that are honest, dead, slow, or lie.

use super::*;

#[test]
fn other_names_are_asked_of_the_hosts_servers_on_its_loopback_also_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    std::fs::write(&file, format!("nameserver {FIRST}\n")).unwrap();
    let Some(scene) = Scene::with(Upstream::Host { file: file.clone() }) else { return };
    let [first, second] = [FIRST, SECOND].map(|at| serve(&scene.host, at, |query, _| vec![honest(query, 1)]));
    assert_eq!(told(&scene.ask("example.com.", RecordType::A)), set(["192.0.2.77"]));
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (1, 0));
    let new = directory.path().join("new");
    std::fs::write(&new, format!("nameserver {SECOND}\n")).unwrap();
    std::fs::rename(&new, &file).unwrap();
    assert_eq!(told(&scene.ask("example.com.", RecordType::A)), set(["192.0.2.77"]));
    assert_eq!((first.load(Ordering::Relaxed), second.load(Ordering::Relaxed)), (1, 1));
    // By TCP they are asked by TCP.
    let answers = scene.ask_stream(&[query("example.com.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["192.0.2.77"]));
    assert_eq!(second.load(Ordering::Relaxed), 2);
}

#[test]
fn an_answer_comes_as_the_server_wrote_it_but_for_the_id() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    let answer = |query: &[u8]| {
        let mut message = Message::from_vec(&honest(query, 2)).unwrap();
        let name = message.queries[0].name().clone();
        let text = TXT::new(vec!["x".repeat(99)]);
        message.add_additional(Record::from_rdata(name, 4_711, RData::TXT(text)));
        message.metadata.authentic_data = true;
        message.to_vec().unwrap()
    };
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = seen.clone();
    serve(&scene.host, FIRST, move |query, _| {
        kept.lock().unwrap().push(query[..2].to_vec());
        vec![answer(query)]
    });
    let mut differ = 0;
    for _ in 0..8 {
        let query = query("example.com.", RecordType::A, None);
        assert_eq!(scene.exchange(&query, PATIENCE).unwrap(), answer(&query));
        differ += usize::from(seen.lock().unwrap().pop().unwrap() != query[..2]);
    }
    assert!(differ >= 7, "ids are drawn anew");
}

/// Whoever guesses neither id nor question is not heard; who is behind the right ones is.
#[test]
fn answers_with_another_id_or_another_question_are_not_listened_to() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    serve(&scene.host, FIRST, |query, _| {
        let right = honest(query, 1);
        let change = |at: usize| {
            let mut wrong = honest(query, 3);
            wrong[at] ^= 1;
            wrong
        };
        let mut other_type = honest(query, 3);
        other_type[12 + 13 + 1] = 28;
        let not_an_answer = change(2);
        let mut query_again = query.to_vec();
        query_again[2] &= 0x7f;
        vec![
            change(1),
            change(13),
            other_type,
            vec![],
            vec![0; 5],
            query_again,
            not_an_answer[..11].to_vec(),
            right,
        ]
    });
    assert_eq!(scene.ask("example.com.", RecordType::A).answers.len(), 1);
}

#[test]
fn a_server_that_is_dead_slow_or_refuses_costs_its_time_once_and_the_next_one_answers() {
    let Some(scene) = Scene::new(&[FIRST, SECOND]) else { return };
    // Silence: nobody knows whether it comes.
    let first = serve(&scene.host, FIRST, |_, _| Vec::new());
    serve(&scene.host, SECOND, |query, _| vec![honest(query, 1)]);
    let start = Instant::now();
    assert_eq!(told(&scene.ask("a.example.", RecordType::A)), set(["192.0.2.77"]));
    let slow = start.elapsed();
    assert!(slow > Duration::from_millis(1_900) && slow < Duration::from_secs(4), "{slow:?}");
    let start = Instant::now();
    assert_eq!(told(&scene.ask("b.example.", RecordType::A)), set(["192.0.2.77"]));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(first.load(Ordering::Relaxed), 1);
}

#[test]
fn a_closed_port_and_a_refusal_lead_to_the_next_server_at_once() {
    let third = Ipv4Addr::new(127, 0, 0, 55);
    let Some(scene) = Scene::new(&[FIRST, SECOND, third]) else { return };
    // Nobody at the first; the second refuses, without repeating the question.
    serve(&scene.host, SECOND, |query, _| {
        let mut refusal = query[..12].to_vec();
        refusal[2] |= 0x80;
        refusal[3] = 5;
        refusal[4..12].fill(0);
        vec![refusal]
    });
    serve(&scene.host, third, |query, _| vec![honest(query, 1)]);
    let start = Instant::now();
    assert_eq!(told(&scene.ask("a.example.", RecordType::A)), set(["192.0.2.77"]));
    let answers = scene.ask_stream(&[query("b.example.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["192.0.2.77"]));
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
}

#[test]
fn without_any_server_that_can_tell_the_answer_is_servfail() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    let answer = scene.ask("a.example.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(answer.queries[0].name().to_ascii(), "a.example.");
}

#[test]
fn large_answers_are_cut_by_udp_to_what_the_client_takes_and_whole_by_tcp() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    // It sends more than it was asked for, as no server should.
    serve(&scene.host, FIRST, |query, _| vec![honest(query, 2_000)]);
    for number in 0..200_u8 {
        scene.announce("one", number, &["all"], &[&format!("10.77.1.{number}")]);
    }
    for (payload, limit) in [(None, 512), (Some(300), 512), (Some(1_232), 1_232)] {
        for name in ["all.", "big.example."] {
            let answer = scene.exchange(&query(name, RecordType::A, payload), PATIENCE).unwrap();
            assert!(answer.len() <= limit, "{name}: {} of {limit}", answer.len());
            let message = Message::from_vec(&answer).unwrap();
            assert!(message.metadata.truncation, "{name}");
            assert_eq!(message.queries[0].name().to_ascii(), name);
        }
    }
    // As many as fit.
    let count = scene.ask("all.", RecordType::A).answers.len();
    assert!((24..=31).contains(&count), "{count}");
    let queries = ["all.", "big.example."].map(|name| query(name, RecordType::A, None));
    let mut counts: Vec<usize> = scene
        .ask_stream(&queries)
        .iter()
        .map(|bytes| Message::from_vec(bytes).unwrap().answers.len())
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [200, 2_000]);
    let whole = scene.exchange(&query("big.example.", RecordType::A, Some(60_000)), PATIENCE).unwrap();
    assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 2_000);
}
