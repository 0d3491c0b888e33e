//! The agent's processes, on this machine and in namespaces of their own. Needs root.

#![allow(clippy::print_stdout, reason = "it measures, too")]

mod common;

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use common::{Fixture, container, exec};
use stanza_agent::{Event, ExitStatus, GuestAddress, GuestError, GuestFile, Hex, Stream};
use stanza_spec::ErrorKind;

const CODE_0: ExitStatus = ExitStatus::Code(0);

#[test]
fn a_container_writes_to_both_outputs_and_its_code_comes_after_them() {
    let mut fixture = Fixture::new();
    let plan = container(&["sh", "-c", "echo out; echo err >&2; echo $$; exit 7"]);
    fixture.guest.create(1, plan).unwrap();
    fixture.started(1);
    let finished = fixture.finish(1);
    assert_eq!((finished.status, finished.text().as_str()), (ExitStatus::Code(7), "out\n1\n"));
    assert_eq!(finished.error, b"err\n");
}

#[test]
fn a_container_runs_again_after_it_has_ended_and_not_before() {
    let mut fixture = Fixture::with_container();
    fixture.guest.create(2, container(&["true"])).unwrap();
    let failed = fixture.wait("failed", |event| matches!(event, Event::Failed { task: 2, .. }));
    let Event::Failed { refusal, .. } = failed else { unreachable!("it was looked for") };
    assert_eq!(
        (refusal.message.as_str(), refusal.kind()),
        ("the container runs already", ErrorKind::Conflict)
    );
    fixture.guest.signal(1, 9, false).unwrap();
    assert_eq!(fixture.finish(1).status, ExitStatus::Signal(9));
    fixture.guest.exec(3, exec(&["true"])).unwrap();
    let failed = fixture.wait("failed", |event| matches!(event, Event::Failed { task: 3, .. }));
    let Event::Failed { refusal, .. } = failed else { unreachable!("it was looked for") };
    assert_eq!(refusal.message, "the container is not running");
    fixture.guest.create(1, container(&["true"])).unwrap();
    fixture.started(1);
    assert_eq!(fixture.finish(1).status, CODE_0);
}

#[test]
fn standard_input_reaches_the_program_and_its_end_too() {
    let mut fixture = Fixture::with_container();
    let mut plan = exec(&["sh", "-c", "cat; echo end"]);
    plan.open_stdin = true;
    fixture.guest.exec(2, plan).unwrap();
    assert_eq!(fixture.guest.write_stdin(2, b"before it has started\n"), 22);
    fixture.started(2);
    assert_eq!(fixture.guest.write_stdin(2, b"and after\n"), 10);
    fixture.guest.close_stdin(2);
    assert_eq!(fixture.finish(2).text(), "before it has started\nand after\nend\n");
}

#[test]
fn without_input_a_program_reads_the_end() {
    let mut fixture = Fixture::with_container();
    assert_eq!(fixture.exec(2, &["cat"]).status, CODE_0);
}

#[test]
fn a_program_that_does_not_read_loses_what_it_is_sent() {
    let mut fixture = Fixture::with_container();
    let mut plan = exec(&["sh", "-c", "exec 0<&-; echo closed; sleep 1000"]);
    plan.open_stdin = true;
    fixture.guest.exec(2, plan).unwrap();
    fixture.wait("closed", |event| matches!(event, Event::Output { bytes, .. } if bytes == b"closed\n"));
    // Many windows full.
    let mut left = 4 << 20;
    while left > 0 {
        left -= fixture.guest.write_stdin(2, &vec![0; left.min(1 << 20)]);
        fixture.turn().unwrap();
    }
    fixture.guest.signal(2, 9, false).unwrap();
    assert_eq!(fixture.finish(2).status, ExitStatus::Signal(9));
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_be_executed_126() {
    let mut fixture = Fixture::with_container();
    fs::write(fixture.root().join("file"), "text").unwrap();
    for (task, command, kind) in
        [(2, "nowhere", ErrorKind::CommandNotFound), (3, "/file", ErrorKind::CommandNotExecutable)]
    {
        fixture.guest.exec(task, exec(&[command])).unwrap();
        let failed =
            fixture.wait("failed", |event| matches!(event, Event::Failed { task: of, .. } if *of == task));
        let Event::Failed { refusal, .. } = failed else { unreachable!("it was looked for") };
        assert_eq!(refusal.kind(), kind, "{refusal:?}");
        assert!(refusal.message.contains(command), "{refusal:?}");
    }
}

#[test]
fn an_exec_is_in_the_containers_namespaces_and_has_its_rights_alone() {
    let mut fixture = Fixture::with_container();
    let found = fixture.exec(2, &["sh", "-c", "readlink /proc/1/exe; grep CapEff /proc/self/status"]);
    assert_eq!(found.text(), "/bin/busybox\nCapEff:\t0000000000000020\n");
    let found = fixture.exec(3, &["sh", "-c", "ls /proc/self/fd"]);
    assert_eq!(found.text(), "0\n1\n2\n3\n", "0 to 2, and the directory itself");
}

#[test]
fn a_terminal_has_the_size_it_is_told_and_echoes() {
    let mut fixture = Fixture::with_container();
    let mut plan = exec(&["sh", "-c", "tty; stty size; read line; stty size; echo got $line"]);
    (plan.tty, plan.open_stdin, plan.console_size) = (true, true, Some((24, 80)));
    fixture.guest.exec(2, plan).unwrap();
    let sized = |event: &Event| matches!(event, Event::Output { bytes, .. } if bytes.ends_with(b"24 80\r\n"));
    fixture.wait("of that size", sized);
    fixture.guest.resize(2, 40, 132).unwrap();
    assert_eq!(fixture.guest.write_stdin(2, b"word\r"), 5);
    let text = fixture.finish(2).text();
    assert!(text.ends_with("word\r\n40 132\r\ngot word\r\n"), "{text:?}");
}

#[test]
fn signals_reach_a_process_and_its_end_is_told_by_them() {
    let mut fixture = Fixture::with_container();
    let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.01; done";
    fixture.guest.exec(2, exec(&["sh", "-c", script])).unwrap();
    fixture.wait("ready", |event| matches!(event, Event::Output { bytes, .. } if bytes == b"ready\n"));
    fixture.guest.signal(2, 10, false).unwrap();
    fixture.wait("trapped", |event| matches!(event, Event::Output { bytes, .. } if bytes == b"usr1\n"));
    fixture.guest.signal(2, 15, false).unwrap();
    let finished = fixture.finish(2);
    assert_eq!((finished.status, finished.status.code()), (ExitStatus::Signal(15), 143));
}

#[test]
fn a_process_in_the_background_does_not_hold_up_the_end() {
    let mut fixture = Fixture::with_container();
    let finished = fixture.exec(2, &["sh", "-c", "sleep 1000 & echo done"]);
    assert_eq!((finished.status, finished.text().as_str()), (CODE_0, "done\n"));
}

#[test]
fn orphans_are_collected() {
    let mut fixture = Fixture::with_container();
    for task in 2..12 {
        fixture.exec(task, &["sh", "-c", "(sleep 0.01 &) ; exit 0"]);
    }
    // In the container its own first process collects them; whoever else is left would be seen as a zombie here.
    let agent = fs::read_to_string(format!("/proc/{0}/task/{0}/children", fixture.child.id())).unwrap();
    let agent = agent.trim().to_owned();
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    assert_eq!(children.split_whitespace().count(), 1, "the container alone: {children}");
}

#[test]
fn a_hundred_megabytes_pass_while_another_stream_stands_still() {
    const SIZE: usize = 100 << 20;
    let mut fixture = Fixture::with_container();
    fixture.reading = false;
    fixture.guest.exec(2, exec(&["cat", "/dev/zero"])).unwrap_or_else(|error| panic!("{error}"));
    fixture.started(2);
    // Nobody reads task 2: it stops after one window.
    let mut stopped = 0;
    let count = format!("head -c {SIZE} /dev/zero | tee /dev/null; echo end >&2");
    fixture.guest.exec(3, exec(&["sh", "-c", &count])).unwrap();
    fixture.started(3);
    let start = Instant::now();
    let mut passed = 0;
    while passed < SIZE {
        fixture.turn().unwrap();
        stopped += fixture.take_output(2).len();
        let count = fixture.take_output(3).len();
        fixture.guest.consumed(3, Stream::Output, count);
        passed += count;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} MB/s", f64::from(u32::try_from(SIZE >> 20).unwrap()) / seconds);
    fixture.wait("ended", |event| matches!(event, Event::Exited { task: 3, .. }));
    let window = usize::try_from(stanza_agent::wire::WINDOW).unwrap();
    assert_eq!(stopped, window);
    // What it may send again, it sends.
    fixture.guest.consumed(2, Stream::Output, window);
    let mut more = 0;
    while more < window {
        fixture.turn().unwrap();
        more += fixture.take_output(2).len();
    }
    assert_eq!(more, window);
}

#[test]
fn a_hundred_megabytes_of_input_arrive_whole() {
    const SIZE: usize = 100 << 20;
    let mut fixture = Fixture::with_container();
    let mut plan = exec(&["md5sum"]);
    plan.open_stdin = true;
    fixture.guest.exec(2, plan).unwrap();
    let block: Vec<u8> = (0..1 << 20_u32).map(|number: u32| number.to_le_bytes()[0]).collect();
    let mut sent = 0;
    while sent < SIZE {
        sent += fixture.guest.write_stdin(2, &block[sent % block.len()..]);
        fixture.turn().unwrap();
    }
    fixture.guest.close_stdin(2);
    // `python3 -c 'import hashlib; print(hashlib.md5(bytes(range(256)) * (100 << 12)).hexdigest())'`
    assert_eq!(fixture.finish(2).text(), "14d349e71547488a2a21c99115a3260d  -\n");
}

#[test]
fn sixty_four_processes_run_at_once() {
    let mut fixture = Fixture::with_container();
    for task in 2..66 {
        let mut plan = exec(&["sh", "-c", "read line; echo $line"]);
        plan.open_stdin = true;
        fixture.guest.exec(task, plan).unwrap();
    }
    for task in 2..66 {
        fixture.started(task);
    }
    for task in (2..66).rev() {
        let line = format!("{task}\n");
        assert_eq!(fixture.guest.write_stdin(task, line.as_bytes()), line.len());
        fixture.guest.close_stdin(task);
        let finished = fixture.finish(task);
        assert_eq!((finished.status, finished.text()), (CODE_0, line));
    }
}

#[test]
fn files_are_there_before_the_container_is() {
    let mut fixture = Fixture::new();
    let path = fixture.root().join("etc/written");
    let mut plan = container(&["sh", "-c", "cat /etc/written; stat -c %a /etc/written"]);
    plan.files = vec![GuestFile { path, content: Hex(b"by the host\n".to_vec()), mode: 0o640 }];
    fixture.guest.create(1, plan).unwrap();
    fixture.started(1);
    assert_eq!(fixture.finish(1).text(), "by the host\n640\n");
}

#[test]
fn a_unix_socket_of_the_container_is_dialled() {
    let mut fixture = Fixture::with_container();
    let listener = UnixListener::bind(fixture.root().join("socket")).unwrap();
    std::os::unix::fs::symlink("/socket", fixture.root().join("link")).unwrap();
    fixture.guest.dial(2, GuestAddress::Unix("/link".into())).unwrap();
    fixture.started(2);
    let (mut server, _) = listener.accept().unwrap();
    assert_eq!(fixture.guest.write_stdin(2, b"question"), 8);
    fixture.guest.close_stdin(2);
    fixture.turn().unwrap();
    assert_eq!(std::io::read_to_string(&server).unwrap(), "question");
    std::io::Write::write_all(&mut server, b"answer").unwrap();
    drop(server);
    let finished = fixture.finish(2);
    assert_eq!((finished.status, finished.text().as_str()), (CODE_0, "answer"));
    fixture.guest.dial(3, GuestAddress::Unix("/nowhere".into())).unwrap();
    fixture.wait("failed", |event| matches!(event, Event::Failed { task: 3, .. }));
}

#[test]
fn a_connection_is_closed_by_a_signal_whatever_its_peer_does() {
    let mut fixture = Fixture::with_container();
    let listener = UnixListener::bind(fixture.root().join("socket")).unwrap();
    fixture.guest.dial(2, GuestAddress::Unix("/socket".into())).unwrap();
    fixture.started(2);
    let (mut server, _) = listener.accept().unwrap();
    fixture.guest.signal(2, 9, false).unwrap();
    assert_eq!(fixture.finish(2).status, CODE_0);
    assert_eq!(std::io::Read::read(&mut server, &mut [0]).unwrap(), 0);
}

#[test]
fn what_the_guest_has_used_is_told() {
    let mut fixture = Fixture::with_container();
    fixture.guest.stats().unwrap();
    let stats = fixture.wait("told", |event| matches!(event, Event::Stats(_)));
    let Event::Stats(Ok(stats)) = stats else { panic!("{stats:?}") };
    assert!(stats.memory_total > stats.memory_available && stats.memory_available > 0, "{stats:?}");
}

#[test]
fn a_shut_down_agent_ends_with_all_its_processes() {
    let mut fixture = Fixture::with_container();
    fixture.guest.shutdown().unwrap();
    while fixture.turn().is_ok() {}
    assert!(matches!(fixture.turn(), Err(GuestError::Gone | GuestError::Channel(_))));
    assert!(fixture.child.wait().unwrap().success());
}

#[test]
fn the_host_refuses_what_it_knows_to_be_wrong() {
    let mut fixture = Fixture::with_container();
    assert!(matches!(fixture.guest.exec(1, exec(&["true"])), Err(GuestError::Taken(1))));
    assert!(matches!(fixture.guest.signal(9, 9, false), Err(GuestError::NoTask(9))));
    assert!(matches!(fixture.guest.resize(9, 1, 1), Err(GuestError::NoTask(9))));
    let long = "x".repeat(17 << 20);
    assert!(matches!(fixture.guest.exec(2, exec(&[&long])), Err(GuestError::TooLong(_))));
}

#[test]
#[ignore = "a measurement: cargo test --release … -- --ignored --nocapture"]
fn how_long_an_exec_takes() {
    let mut fixture = Fixture::with_container();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(fixture.exec(2, &["true"]).status, CODE_0);
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("exec true: median {:?}, best {:?}", times[100], times[0]);
}
