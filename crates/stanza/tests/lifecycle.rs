//! From `create` to `rm`, and all that is done between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use stanza_test::{Stanza, fixture, wait_until};

fn create(stanza: &Stanza, name: &str, script: &str) -> String {
    stanza.ok(&["create", "--network", "none", "--name", name, "busybox", "sh", "-c", script])
}

fn detached(stanza: &Stanza, name: &str, script: &str) -> String {
    stanza.ok(&["run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", script])
}

#[test]
fn a_container_goes_from_created_through_running_to_exited_and_away() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    let id = create(&stanza, "c1", "exec sleep 1000");
    assert_eq!(id.len(), 64);
    assert_eq!(stanza.state("c1"), "created");
    assert_eq!(stanza.ok(&["start", "c1"]), "c1");
    assert_eq!(stanza.state("c1"), "running");
    assert_eq!(stanza.ok(&["kill", "c1"]), "c1");
    stanza.wait_state("c1", "exited");
    assert_eq!(stanza.inspect("c1")["State"]["ExitCode"], 137);
    assert_eq!(stanza.ok(&["rm", "c1"]), "c1");
    // Not by `inspect`: `c1` may be the beginning of an image id.
    assert_eq!(stanza.ok(&["ps", "-aq", "--filter", "name=c1"]), "");
    stanza.assert_clean(&before);
}

#[test]
fn a_container_starts_again_with_its_files() {
    let stanza = fixture!();
    create(&stanza, "c1", "cat /count 2>/dev/null; echo x >> /count");
    assert_eq!(stanza.ok(&["start", "-a", "c1"]), "");
    assert_eq!(stanza.ok(&["start", "-a", "c1"]), "x");
    assert_eq!(stanza.ok(&["start", "-a", "c1"]), "x\nx");
}

#[test]
fn start_with_attach_gives_the_commands_exit_code() {
    let stanza = fixture!();
    create(&stanza, "c1", "echo out; exit 5");
    let output = stanza.output(&["start", "-a", "c1"]);
    assert_eq!((output.code, output.stdout.as_str()), (5, "out\n"));
}

#[test]
fn starting_a_running_container_is_no_error() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    let pid = stanza.pid("c1");
    stanza.ok(&["start", "c1"]);
    assert_eq!(stanza.pid("c1"), pid);
}

#[test]
fn stop_sends_the_stop_signal_first() {
    let stanza = fixture!();
    let script = "trap 'echo stopping; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    detached(&stanza, "c1", script);
    wait_until("it is ready", || stanza.ok(&["logs", "c1"]) == "ready");
    assert_eq!(stanza.ok(&["stop", "c1"]), "c1");
    assert_eq!(stanza.inspect("c1")["State"]["ExitCode"], 3);
    assert_eq!(stanza.ok(&["logs", "c1"]), "ready\nstopping");
}

#[test]
fn stop_kills_after_its_time() {
    let stanza = fixture!();
    detached(&stanza, "c1", "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    wait_until("it is ready", || stanza.ok(&["logs", "c1"]) == "ready");
    let start = Instant::now();
    stanza.ok(&["stop", "-t", "1", "c1"]);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(stanza.inspect("c1")["State"]["ExitCode"], 137);
}

#[test]
fn the_stop_signal_is_the_containers() {
    let stanza = fixture!();
    let script = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done";
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "--stop-signal",
        "USR1",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    wait_until("it is ready", || stanza.ok(&["logs", "c1"]) == "ready");
    stanza.ok(&["stop", "c1"]);
    assert_eq!(stanza.inspect("c1")["State"]["ExitCode"], 4);
}

#[test]
fn kill_sends_any_signal() {
    let stanza = fixture!();
    detached(&stanza, "c1", "trap 'echo got' HUP; echo ready; while :; do sleep 0.05; done");
    wait_until("it is ready", || stanza.ok(&["logs", "c1"]) == "ready");
    stanza.ok(&["kill", "-s", "HUP", "c1"]);
    wait_until("it got the signal", || stanza.ok(&["logs", "c1"]) == "ready\ngot");
    assert_eq!(stanza.state("c1"), "running");
    stanza.ok(&["kill", "--signal=9", "c1"]);
    stanza.wait_state("c1", "exited");
    assert!(stanza.fails(1, &["kill", "c1"]).contains("not running"));
}

#[test]
fn wait_gives_the_exit_code() {
    let stanza = fixture!();
    detached(&stanza, "c1", "while [ ! -e /go ]; do sleep 0.02; done; exit 6");
    let mut waiting = stanza.spawn(&["wait", "c1"]);
    assert!(waiting.is_running());
    // The container may end, and `touch` with it, before that has its own exit code.
    stanza.output(&["exec", "c1", "touch", "/go"]);
    assert_eq!(waiting.finish().stdout, "6\n");
    assert_eq!(stanza.ok(&["wait", "c1"]), "6");
}

#[test]
fn a_running_container_is_not_removed_without_force() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.sleeper("c1");
    let error = stanza.fails(1, &["rm", "c1"]);
    assert!(error.contains("running") && error.contains("hint"), "{error}");
    assert_eq!(stanza.state("c1"), "running");
    stanza.ok(&["rm", "-f", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn a_detached_container_with_rm_removes_itself() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.ok(&["run", "-d", "--rm", "--network", "none", "--name", "c1", "busybox", "true"]);
    wait_until("it is gone", || stanza.output(&["ps", "-aq"]).stdout.is_empty());
    stanza.assert_clean(&before);
}

#[test]
fn names_and_prefixes_of_ids_find_a_container() {
    let stanza = fixture!();
    let id = stanza.sleeper("attic");
    for name in ["attic", &id, &id[..12], &id[..4]] {
        assert_eq!(stanza.inspect(name)["Name"], "/attic", "{name}");
    }
    assert!(stanza.fails(1, &["inspect", "att"]).contains("att"));
}

#[test]
fn logs_have_both_streams_and_their_options() {
    let stanza = fixture!();
    stanza.output(&[
        "run",
        "--network",
        "none",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three",
    ]);
    let output = stanza.output(&["logs", "c1"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\nthree\n", "two\n"));
    assert_eq!(stanza.output(&["logs", "--tail", "1", "c1"]).stdout, "three\n");
    assert_eq!(stanza.output(&["logs", "-n", "0", "c1"]).stdout, "");
    let stamped = stanza.output(&["logs", "-t", "c1"]).stdout;
    for line in stamped.lines() {
        let time = line.split(' ').next().unwrap();
        assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
    }
    assert_eq!(stanza.output(&["logs", "--since", "2099-01-01T00:00:00Z", "c1"]).stdout, "");
    assert_eq!(stanza.output(&["logs", "--until", "2099-01-01T00:00:00Z", "c1"]).stdout, "one\nthree\n");
}

#[test]
fn logs_follow_until_the_end() {
    let stanza = fixture!();
    detached(&stanza, "c1", "echo first; while [ ! -e /go ]; do sleep 0.02; done; echo last");
    let mut following = stanza.spawn(&["logs", "-f", "c1"]);
    following.expect("first\n");
    // The container may end, and `touch` with it, before that has its own exit code.
    stanza.output(&["exec", "c1", "touch", "/go"]);
    let output = following.finish();
    assert_eq!((output.code, output.stdout.as_str()), (0, "first\nlast\n"));
}

#[test]
fn logs_are_dockers_json_and_rotate() {
    let stanza = fixture!();
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "--log-opt",
        "max-size=10k",
        "--log-opt",
        "max-file=2",
        "busybox",
        "sh",
        "-c",
        "for i in $(seq 1000); do echo line $i; done",
    ]);
    stanza.wait_state("c1", "exited");
    let path = stanza.inspect("c1")["LogPath"].as_str().unwrap().to_owned();
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((line["log"].as_str(), line["stream"].as_str()), (Some("line 1000\n"), Some("stdout")));
    let directory = std::path::Path::new(&path).parent().unwrap();
    let files: Vec<u64> =
        std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|size| *size <= 11_000), "{files:?}");
    assert_eq!(stanza.output(&["logs", "--tail", "1", "c1"]).stdout, "line 1000\n");
}

#[test]
fn long_lines_and_unfinished_lines_are_logged_whole() {
    let stanza = fixture!();
    stanza.output(&[
        "run",
        "--network",
        "none",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "head -c 100000 /dev/zero | tr '\\0' x; echo; printf end",
    ]);
    let text = stanza.output(&["logs", "c1"]).stdout;
    assert_eq!(text.len(), 100_004);
    assert!(text.ends_with("x\nend"));
}

#[test]
fn exec_runs_beside_the_command() {
    let stanza = fixture!();
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "-e",
        "A=1",
        "-w",
        "/tmp",
        "busybox",
        "sleep",
        "1000",
    ]);
    let script = "echo $A; pwd; hostname; [ $(readlink /proc/1/ns/pid) = $(readlink /proc/self/ns/pid) ] && echo 1; tr '\\0' ' ' < /proc/1/cmdline";
    let id = stanza.inspect("c1")["Id"].as_str().unwrap().to_owned();
    assert_eq!(
        stanza.ok(&["exec", "c1", "sh", "-c", script]),
        format!("1\n/tmp\n{}\n1\nsleep 1000 ", &id[..12])
    );
    assert_eq!(
        stanza.ok(&[
            "exec",
            "-e",
            "A=2",
            "-w",
            "/etc",
            "-u",
            "user",
            "c1",
            "sh",
            "-c",
            "echo $A; pwd; id -un"
        ]),
        "2\n/etc\nuser"
    );
    assert_eq!(stanza.output(&["exec", "c1", "sh", "-c", "exit 42"]).code, 42);
    assert_eq!(stanza.output_with_input(&["exec", "-i", "c1", "cat"], b"input").stdout, "input");
    assert_eq!(stanza.output(&["exec", "c1", "sh", "-c", "kill -9 $$"]).code, 137);
}

#[test]
fn exec_has_the_containers_walls() {
    let stanza = fixture!();
    stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "--cap-drop",
        "ALL",
        "busybox",
        "sleep",
        "1000",
    ]);
    let fields = stanza.ok(&[
        "exec",
        "c1",
        "sed",
        "-n",
        "-e",
        "s/^CapEff:\\t//p",
        "-e",
        "s/^CapBnd:\\t//p",
        "-e",
        "s/^Seccomp:\\t//p",
        "/proc/self/status",
    ]);
    assert_eq!(fields, "0000000000000000\n0000000000000000\n2");
    assert_eq!(
        stanza.ok(&["exec", "c1", "cat", "/proc/self/cgroup"]),
        stanza.ok(&["exec", "c1", "cat", "/proc/1/cgroup"])
    );
    assert_eq!(stanza.ok(&["exec", "c1", "ls", "/proc/self/fd"]), "0\n1\n2\n3");
}

#[test]
fn exec_fails_with_dockers_codes() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    assert!(stanza.fails(127, &["exec", "c1", "no-such"]).contains("no-such"));
    stanza.fails(126, &["exec", "c1", "/etc/not-executable"]);
    create(&stanza, "c2", "true");
    assert!(stanza.fails(1, &["exec", "c2", "true"]).contains("not running"));
    assert!(stanza.fails(1, &["exec", "none", "true"]).contains("none"));
}

#[test]
fn exec_with_a_terminal_has_one() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    let mut terminal = stanza.terminal(&["exec", "-it", "c1", "sh", "-c", "tty; stty size; exit 4"]);
    terminal.expect("/dev/pts/");
    terminal.expect("24 80");
    assert_eq!(terminal.finish(), 4);
}

#[test]
fn a_detached_exec_goes_on_alone() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    assert_eq!(stanza.ok(&["exec", "-d", "c1", "sh", "-c", "sleep 0.1; touch /done"]), "");
    wait_until("it is done", || stanza.output(&["exec", "c1", "ls", "/done"]).code == 0);
}

#[test]
fn attach_gives_the_streams_of_a_running_container() {
    let stanza = fixture!();
    stanza.ok(&[
        "run",
        "-d",
        "-i",
        "--network",
        "none",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "while read word; do echo \"got $word\"; [ $word = quit ] && exit 3; done",
    ]);
    let mut first = stanza.spawn(&["attach", "c1"]);
    let mut second = stanza.spawn(&["attach", "--no-stdin", "c1"]);
    // Both must be attached before anything is said, which only an answer shows.
    wait_until("both hear", || {
        first.send(b"ping\n");
        first.has_said("got ping") && second.has_said("got ping")
    });
    first.send(b"words\n");
    first.expect("got words\n");
    second.expect("got words\n");
    first.send(b"quit\n");
    let output = first.finish();
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert_eq!(second.finish().code, 3);
}

#[test]
fn ctrl_p_ctrl_q_detaches_and_the_container_goes_on() {
    let stanza = fixture!();
    let mut terminal = stanza.terminal(&[
        "run",
        "-it",
        "--network",
        "none",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo ready; cat",
    ]);
    terminal.expect("ready");
    terminal.send(b"\x10\x11");
    assert_eq!(terminal.finish(), 0);
    assert_eq!(stanza.state("c1"), "running");
    let mut again = stanza.terminal(&["attach", "c1"]);
    again.wait_raw();
    again.send(b"hello\r");
    again.expect("hello");
    again.send(b"\x04");
    assert_eq!(again.finish(), 0);
    stanza.wait_state("c1", "exited");
}

#[test]
fn diff_shows_what_was_added_changed_and_deleted() {
    let stanza = fixture!();
    stanza.output(&[
        "run",
        "--network",
        "none",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo x > /new; mkdir /opt/dir; echo x >> /etc/passwd; rm /etc/group; rmdir /var/www",
    ]);
    let lines: BTreeSet<String> = stanza.ok(&["diff", "c1"]).lines().map(str::to_owned).collect();
    let expected =
        ["A /new", "A /opt/dir", "C /etc", "C /etc/passwd", "C /opt", "C /var", "D /etc/group", "D /var/www"];
    assert_eq!(lines, expected.map(str::to_owned).into());
}

#[test]
fn inspect_tells_what_was_asked_and_what_is() {
    let stanza = fixture!();
    let id = stanza.ok(&[
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        "c1",
        "-h",
        "attic",
        "-e",
        "A=1",
        "-l",
        "k=v",
        "--memory",
        "64m",
        "-u",
        "user",
        "busybox",
        "sleep",
        "1000",
    ]);
    let container = stanza.inspect("c1");
    assert_eq!(container["Id"], id.as_str());
    assert_eq!(container["Name"], "/c1");
    assert_eq!(container["State"]["Status"], "running");
    assert_eq!(container["State"]["Running"], true);
    assert_eq!(container["Config"]["Hostname"], "attic");
    assert_eq!(container["Config"]["User"], "user");
    assert_eq!(container["Config"]["Labels"]["k"], "v");
    assert_eq!(container["Config"]["Cmd"], serde_json::json!(["sleep", "1000"]));
    assert_eq!(container["HostConfig"]["Memory"], 67_108_864);
    assert_eq!(container["HostConfig"]["NetworkMode"], "none");
    assert!(container["Config"]["Env"].as_array().unwrap().contains(&"A=1".into()));
}

#[test]
fn of_two_runs_with_one_name_exactly_one_wins() {
    let stanza = fixture!();
    for round in 0..5 {
        let name = format!("n{round}");
        let args = ["run", "-d", "--network", "none", "--name", &name, "busybox", "sleep", "1000"];
        let mut both = [stanza.spawn(&args), stanza.spawn(&args)];
        let outputs = both.each_mut().map(stanza_test::Running::finish);
        let mut codes = outputs.clone().map(|output| output.code);
        codes.sort_unstable();
        assert_eq!(codes, [0, 125], "{outputs:?}");
        let loser = outputs.iter().find(|output| output.code == 125).unwrap();
        assert!(loser.stderr.contains(&name), "{}", loser.stderr);
    }
    assert_eq!(stanza.ok(&["ps", "-q"]).lines().count(), 5);
}

#[test]
fn a_hundred_parallel_runs_all_succeed() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    let mut all: Vec<_> = (0..100)
        .map(|number| {
            stanza.spawn(&["run", "--rm", "--network", "none", "busybox", "echo", &number.to_string()])
        })
        .collect();
    for (number, running) in all.iter_mut().enumerate() {
        let output = running.finish();
        assert_eq!((output.code, output.stdout), (0, format!("{number}\n")), "{}", output.stderr);
    }
    assert_eq!(stanza.ok(&["ps", "-aq"]), "");
    stanza.assert_clean(&before);
}

#[test]
fn the_container_outlives_the_door() {
    let stanza = fixture!();
    let script = "echo ready; while [ ! -e /go ]; do sleep 0.02; done; echo late; exit 2";
    let mut door = stanza.spawn(&["run", "--network", "none", "--name", "c1", "busybox", "sh", "-c", script]);
    door.expect("ready");
    stanza.kill_9(door.pid());
    assert_eq!(stanza.state("c1"), "running");
    // The container may end, and `touch` with it, before that has its own exit code.
    stanza.output(&["exec", "c1", "touch", "/go"]);
    assert_eq!(stanza.ok(&["wait", "c1"]), "2");
    assert_eq!(stanza.ok(&["logs", "c1"]), "ready\nlate");
}

#[test]
fn a_clogged_reader_does_not_lose_output() {
    let stanza = fixture!();
    let mut running =
        stanza.spawn(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "seq 200000"]);
    let output = running.finish();
    assert_eq!(output.stdout.lines().count(), 200_000);
    assert!(output.stdout.ends_with("\n200000\n"));
}

#[test]
fn a_container_is_renamed() {
    let stanza = fixture!();
    stanza.sleeper("c1");
    stanza.ok(&["rename", "c1", "c2"]);
    assert_eq!(stanza.state("c2"), "running");
    // Not by `inspect`: `c1` may be the beginning of an image id.
    assert_eq!(stanza.ok(&["ps", "-aq", "--filter", "name=c1"]), "");
}
