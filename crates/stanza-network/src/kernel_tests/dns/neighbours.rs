//! Names of neighbours, and the resolver beside what else the container does.

use super::*;

#[test]
fn a_neighbour_is_told_by_every_name_of_both_families_and_by_udp_and_tcp() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web", "w"], &["10.77.0.2", "fd00::2"]);
    for name in ["web.", "WEB.", "w.", "web.one.", "Web.One."] {
        assert_eq!(told(&scene.ask(name, RecordType::A)), set(["10.77.0.2"]), "{name}");
        assert_eq!(told(&scene.ask(name, RecordType::AAAA)), set(["fd00::2"]), "{name}");
        assert_eq!(told(&scene.ask(name, RecordType::ANY)), set(["10.77.0.2", "fd00::2"]), "{name}");
    }
    let answer = scene.ask("wEb.", RecordType::A);
    assert_eq!(answer.queries[0].name().to_ascii(), "wEb.", "as it was written");
    assert!(answer.metadata.recursion_available && answer.answers[0].ttl <= 1);
    for name in ["2.0.77.10.in-addr.arpa.", &Name::from("fd00::2".parse::<IpAddr>().unwrap()).to_ascii()] {
        assert_eq!(told(&scene.ask(name, RecordType::PTR)), set(["web.one."]), "{name}");
    }
    let queries = [RecordType::A, RecordType::AAAA].map(|kind| query("web.", kind, None));
    let answers: BTreeSet<String> = scene
        .ask_stream(&queries)
        .iter()
        .flat_map(|bytes| told(&Message::from_vec(bytes).unwrap()))
        .collect();
    assert_eq!(answers, set(["10.77.0.2", "fd00::2"]));
}

#[test]
fn what_a_neighbour_has_not_is_an_empty_answer_and_nobody_else_is_asked() {
    let Some(scene) = Scene::new(&[FIRST]) else { return };
    let asked = serve(&scene.host, FIRST, |query, _| vec![honest(query, 1)]);
    scene.announce("one", 1, &["four"], &["10.77.0.2"]);
    for kind in [RecordType::AAAA, RecordType::MX, RecordType::TXT, RecordType::HTTPS] {
        let answer = scene.ask("four.", kind);
        assert_eq!(
            (answer.metadata.response_code, answer.answers.len()),
            (ResponseCode::NoError, 0),
            "{kind}"
        );
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_container_hears_of_its_own_networks_only_and_of_changes_at_once() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    scene.announce("two", 2, &["web", "db"], &["10.78.0.2"]);
    scene.announce("three", 3, &["secret"], &["10.79.0.2"]);
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]), "the first network counts");
    assert_eq!(told(&scene.ask("web.two.", RecordType::A)), set(["10.78.0.2"]));
    assert_eq!(told(&scene.ask("db.", RecordType::A)), set(["10.78.0.2"]));
    let networks = vec![network(&scene.directory, "one")];
    let plan = ResolverPlan { networks, forward: false, upstream: Upstream::Servers(Vec::new()) };
    scene.changes.send(plan).unwrap();
    let end = Instant::now() + PATIENCE;
    while scene.ask("db.", RecordType::A).metadata.response_code != ResponseCode::NXDomain {
        assert!(Instant::now() < end, "the network is left");
    }
    for name in ["db.", "web.two.", "secret.", "secret.three.", "2.0.79.10.in-addr.arpa."] {
        let answer = scene.ask(name, RecordType::ANY);
        assert_eq!(
            (answer.metadata.response_code, told(&answer)),
            (ResponseCode::NXDomain, set([])),
            "{name}"
        );
    }
    scene.announce("one", 1, &["web"], &["10.77.0.9"]);
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.9"]));
    let id = ContainerId::from_random([1; 32]);
    scene.names("one").withdraw(&id, &["web".to_owned()], &["10.77.0.9".parse().unwrap()]).unwrap();
    assert_eq!(scene.ask("web.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn the_container_may_serve_port_53_itself_on_every_address() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    serve_udp(&scene.container, Ipv4Addr::UNSPECIFIED, 53, "own");
    serve_tcp(&scene.container, Ipv4Addr::UNSPECIFIED, 53, "own");
    assert_eq!(ask_udp(&scene.container, LOCALHOST, 53).unwrap(), "own 127.0.0.1");
    assert_eq!(ask_tcp(&scene.container, LOCALHOST, 53).unwrap(), "own 127.0.0.1");
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]));
    let answers = scene.ask_stream(&[query("web.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["10.77.0.2"]));
}

/// The rules of a container's own firewall see one connection, both ways.
#[test]
fn a_container_that_drops_what_conntrack_does_not_know_is_answered() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    let rules = "table inet own { chain in { type filter hook input priority 0; ct state invalid drop; };
        chain out { type filter hook output priority 0; ct state invalid drop; }; }";
    let done = scene.container.run(|| std::process::Command::new("nft").arg(rules).status());
    let Ok(done) = done else { return skipped("no `nft` (package nftables)") };
    assert!(done.success());
    assert_eq!(told(&scene.ask("web.", RecordType::A)), set(["10.77.0.2"]));
    let answers = scene.ask_stream(&[query("web.", RecordType::A, None)]);
    assert_eq!(told(&Message::from_vec(&answers[0]).unwrap()), set(["10.77.0.2"]));
}

/// Another client than ours; checksums and all.
#[test]
fn dig_is_answered_by_udp_and_tcp() {
    let Some(scene) = Scene::new(&[]) else { return };
    scene.announce("one", 1, &["web"], &["10.77.0.2"]);
    for way in ["+notcp", "+tcp"] {
        let words = [way, "+short", "+tries=1", "@127.0.0.11", "web", "A"];
        let output = scene.container.run(|| std::process::Command::new("dig").args(words).output());
        let Ok(output) = output else { return skipped("no `dig` (package bind9-dnsutils)") };
        assert_eq!(String::from_utf8_lossy(&output.stdout), "10.77.0.2\n", "{way}");
    }
}
