//! What a hostile container may send.

use super::*;

#[test]
fn what_is_no_query_is_refused_or_ignored_and_the_next_one_is_answered() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    let good = query("web.", RecordType::A, None);
    let change = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    // Another operation; no question, two; a name that leads to itself; one that ends nowhere.
    let refused = [
        (change(2, 0x28), ResponseCode::NotImp),
        (change(5, 0), ResponseCode::FormErr),
        (change(5, 2), ResponseCode::FormErr),
        ([&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat(), ResponseCode::FormErr),
        ([&good[..12], &[63, b'a']].concat(), ResponseCode::FormErr),
    ];
    for (bad, code) in refused {
        let answer = Message::from_vec(&scene.exchange(&bad, PATIENCE).unwrap()).unwrap();
        assert_eq!(
            (answer.metadata.id.to_be_bytes().to_vec(), answer.metadata.response_code),
            (good[..2].to_vec(), code)
        );
    }
    for bad in [change(2, 0x81), good[..11].to_vec(), Vec::new()] {
        assert!(scene.exchange(&bad, SILENCE).is_err(), "{bad:?}");
    }
    let mut edns = query("web.", RecordType::A, Some(1_232));
    let version = edns.len() - 5;
    edns[version] = 1;
    let answer = Message::from_vec(&scene.exchange(&edns, PATIENCE).unwrap()).unwrap();
    // `BADVERS`; the number has two meanings.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]));
}

#[test]
fn idle_and_too_many_connections_go_and_the_resolver_goes_on() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    let mut idle = scene
        .container
        .run(|| (0..40).map(|_| TcpStream::connect((ADDRESS, 53)).unwrap()).collect::<Vec<TcpStream>>());
    let answers = scene.ask_stream(&[query("web.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["10.77.0.2"]));
    // The first has made room for the last.
    idle[0].set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(idle[0].read(&mut [0]).unwrap_or(0), 0);
    let last = idle.last_mut().unwrap();
    last.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    let start = Instant::now();
    assert_eq!(last.read(&mut [0]).unwrap(), 0, "closed when idle");
    assert!(start.elapsed() > Duration::from_secs(7), "{:?}", start.elapsed());
    // One that claims more than any query has is closed at once.
    let mut greedy = scene.container.run(|| TcpStream::connect((ADDRESS, 53)).unwrap());
    greedy.write_all(&[0xff, 0xff, 0]).unwrap();
    greedy.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(greedy.read(&mut [0]).unwrap_or(0), 0);
}

/// All that a hostile container may send at once; the monitor has other duties between turns.
#[test]
fn a_flood_is_dealt_with_in_short_turns_and_refused_where_it_would_pile_up() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    // Silence: every query to it stays on its way.
    let asked = serve(&scene.host, FIRST, |_, _| Vec::new());
    for number in 0..250_u8 {
        scene.announce("one", number, &["all"], &[&format!("10.77.1.{number}")]);
    }
    let (all, before) = (query("all.", RecordType::A, None), private_memory());
    let refused = scene.container.run(|| {
        let mut greedy: Vec<TcpStream> =
            (0..32).map(|_| TcpStream::connect((ADDRESS, 53)).unwrap()).collect();
        for stream in &mut greedy {
            stream.set_nonblocking(true).unwrap();
            // Answers are asked for and never read; the last query is never whole.
            let _ = stream.write_all(&[framed(&all).repeat(2_000), vec![1]].concat());
        }
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect((ADDRESS, 53)).unwrap();
        for number in 0..10_000_usize {
            let _ = socket.send(&all);
            let _ = socket.send(&all[..number % all.len()]);
        }
        // What was sent waits before it: whoever asks again is answered.
        let start = Instant::now();
        while scene.exchange(&all, Duration::from_secs(1)).is_err() {
            assert!(
                start.elapsed() < PATIENCE * 12,
                "the resolver goes on; slowest turn {:?} us",
                scene.slowest
            );
        }
        report(&format!("answered {:?} after the flood", start.elapsed()));
        // Answers that nobody read filled the first one's buffer.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect((ADDRESS, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut refused = 0;
        for number in 0..300 {
            socket.send(&query(&format!("q{number}.example."), RecordType::A, None)).unwrap();
            if number % 50 == 49 {
                while socket.recv(&mut [0; 512]).is_ok() {
                    refused += 1;
                }
            }
        }
        refused
    });
    let slowest = Duration::from_micros(scene.slowest.load(Ordering::Relaxed) as u64);
    report(&format!(
        "slowest turn {slowest:?}, {refused} refused, {} sent, {} KiB more",
        asked.load(Ordering::Relaxed),
        private_memory().saturating_sub(before)
    ));
    assert!(refused > 0, "no more than 128 are on their way");
    // Unbounded it took 15 s.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
}

/// This process's memory that is no other's, in KiB.
fn private_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}
