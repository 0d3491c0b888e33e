//! The cases of `run.rs`, `lifecycle.rs` and `isolation.rs` once more, with containers in virtual machines.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stanza_test::{Stanza, fixture, wait_until};

fn exec(stanza: &Stanza, options: &[&str], script: &str) -> stanza_test::Output {
    stanza.output(&[&["exec"], options, &["c1", "sh", "-c", script]].concat())
}

#[test]
fn exit_codes_are_as_on_the_hosts_kernel() {
    let stanza = fixture!(Machines);
    let before = stanza.leftovers();
    for code in [0, 7, 255] {
        let output = stanza.shell(&[], &format!("exit {code}"));
        assert_eq!(output.code, code, "{}", output.stderr);
    }
    let run = ["run", "--rm", "--network", "none", "busybox"];
    let missing = stanza.fails(127, &[&run[..], &["no-such-command"]].concat());
    assert!(missing.contains("no-such-command"), "{missing}");
    let refused = stanza.fails(126, &[&run[..], &["/etc/not-executable"]].concat());
    assert!(refused.contains("/etc/not-executable"), "{refused}");
    stanza.fails(125, &["run", "--rm", "--network", "none", "--memory", "1", "busybox", "true"]);
    assert_eq!(stanza.shell(&[], "sh -c 'kill -TERM $$'; exit $?").code, 143);
    stanza.assert_clean(&before);
}

#[test]
fn input_output_and_errors_are_streams_of_their_own() {
    let stanza = fixture!(Machines);
    let output = stanza.shell(&[], "echo out; echo err >&2");
    assert_eq!(output.stdout, "out\n");
    assert!(output.stderr.ends_with("err\n"), "{}", output.stderr);
    let data: Vec<u8> =
        (0..100_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let args = ["run", "-i", "--rm", "--network", "none", "busybox", "cat"];
    let output = stanza.output_with_input(&args, &data);
    assert!(output.code == 0 && output.bytes == data, "{} {}", output.bytes.len(), output.stderr);
    assert_eq!(stanza.shell_ok(&[], "wc -c"), "0");
}

#[test]
fn what_was_asked_for_is_inside() {
    let stanza = fixture!(Machines);
    let options = ["-e", "A=1", "-w", "/not/there", "-u", "user", "-h", "attic", "--ulimit", "nofile=99:100"];
    let script = "echo $A; pwd; id -u; id -g; hostname; ulimit -n; grep -c attic /etc/hosts";
    assert_eq!(stanza.shell_ok(&options, script), "1\n/not/there\n1000\n1000\nattic\n99\n1");
    let entry = ["run", "--rm", "--network", "none", "--entrypoint", "echo", "busybox", "own"];
    assert_eq!(stanza.ok(&entry), "own");
    let file = stanza.file("given", "from the host\n");
    assert_eq!(stanza.shell_ok(&["-v", &format!("{file}:/given:ro")], "cat /given"), "from the host");
}

#[test]
fn a_read_only_root_takes_no_writes_but_its_memory_does() {
    let stanza = fixture!(Machines);
    let output = stanza.shell(
        &["--read-only", "--tmpfs", "/scratch:size=64k"],
        "echo x > /scratch/x && echo x > /dev/shm/x && touch /x; \
         dd if=/dev/zero of=/scratch/y bs=1k count=100",
    );
    assert!(output.stderr.contains("/x: Read-only file system"), "{}", output.stderr);
    assert!(output.stderr.contains("No space left"), "{}", output.stderr);
}

#[test]
fn the_locks_of_a_container_hold_inside() {
    let stanza = fixture!(Machines);
    let words = ["CapEff:", "NoNewPrivs:", "Seccomp:"];
    let told = |options: &[&str]| {
        let status = stanza.shell_ok(options, "cat /proc/self/status");
        words.map(|word| {
            let line = status.lines().find_map(|line| line.strip_prefix(word));
            line.unwrap_or_default().trim().to_owned()
        })
    };
    assert_eq!(told(&[]), ["00000000a80425fb", "0", "2"]);
    let options = ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    assert_eq!(told(&options), ["0000000000000000", "1", "2"]);
    assert_eq!(told(&["--security-opt", "seccomp=unconfined"])[2], "0");
}

#[test]
fn limits_hold_inside() {
    let stanza = fixture!(Machines);
    let hungry = ["run", "--network", "none", "--name", "c1", "--memory", "32m", "--memory-swap", "32m"];
    let eats = ["busybox", "sh", "-c", "x=a; while :; do x=$x$x; done"];
    let output = stanza.output(&[&hungry[..], &eats].concat());
    assert_eq!(output.code, 137, "{}", output.stderr);
    assert_eq!(stanza.inspect("c1")["State"]["OOMKilled"], true);
    let forks = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all";
    let output = stanza.shell(&["--pids-limit", "5"], forks);
    assert!(output.stderr.contains("can't fork"), "{}", output.stderr);
}

#[test]
fn a_terminal_has_its_size_and_ctrl_c() {
    let stanza = fixture!(Machines);
    let script = "tty; stty size; trap 'stty size; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal =
        stanza.terminal(&["run", "-it", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.expect("ready");
    terminal.resize(40, 100);
    std::thread::sleep(Duration::from_millis(300));
    terminal.send(b"\x03");
    terminal.expect("40 100");
    assert_eq!(terminal.finish(), 3);
}

#[test]
fn commands_run_in_a_machine_that_runs() {
    let stanza = fixture!(Machines);
    stanza.sleeper("c1");
    let output = exec(&stanza, &["-e", "A=2", "-u", "user", "-w", "/tmp"], "echo $A $(id -u) $(pwd); exit 5");
    assert_eq!((output.code, output.stdout.as_str()), (5, "2 1000 /tmp\n"));
    assert_eq!(stanza.output(&["exec", "c1", "no-such-command"]).code, 127);
    let output = stanza.output_with_input(&["exec", "-i", "c1", "wc", "-c"], b"12345");
    assert_eq!(output.stdout.trim(), "5");
    let mut terminal = stanza.terminal(&["exec", "-it", "c1", "tty"]);
    terminal.expect("/dev/pts/");
    assert_eq!(terminal.finish(), 0);
}

#[test]
fn a_container_is_stopped_started_waited_for_and_keeps_what_it_wrote() {
    let stanza = fixture!(Machines);
    let before = stanza.leftovers();
    let script = "trap 'echo bye; exit 4' TERM; echo x >> /kept; cat /kept; while :; do sleep 0.05; done";
    stanza.ok(&["run", "-d", "--network", "none", "--name", "c1", "busybox", "sh", "-c", script]);
    wait_until("it says so", || stanza.ok(&["logs", "c1"]).contains('x'));
    stanza.ok(&["stop", "c1"]);
    assert_eq!(stanza.ok(&["wait", "c1"]), "4");
    assert_eq!(stanza.ok(&["logs", "c1"]), "x\nbye");
    stanza.ok(&["start", "c1"]);
    wait_until("what it wrote is there", || stanza.ok(&["logs", "c1"]).ends_with("x\nx"));
    stanza.ok(&["kill", "c1"]);
    assert_eq!(stanza.ok(&["wait", "c1"]), "137");
    stanza.ok(&["rm", "c1"]);
    stanza.assert_clean(&before);
}

#[test]
fn machines_of_one_template_share_no_random_bytes_and_know_the_time() {
    let stanza = fixture!(Machines);
    let script = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid \
                  /proc/sys/kernel/random/boot_id; od -An -tx1 -j0 /proc/self/auxv | md5sum; date +%s";
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let text = stanza.shell_ok(&[], script);
        let (told, time) = text.rsplit_once('\n').unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(time.parse().unwrap()) <= 2, "{time}, but it is {now}");
        assert!(told.lines().count() == 4, "{told}");
        for line in told.lines() {
            assert!(seen.insert(line.to_owned()), "twice: {line}");
        }
    }
}
