//! `stanza run`: what a container sees, gets and may not do.

use std::fs;

use stanza_test::{Layout, Stanza, fixture, tool};

/// An image called `name` made of busybox and a configuration.
fn image(stanza: &Stanza, name: &str, config: &serde_json::Value) {
    let archive = Layout::new(vec![stanza.busybox().to_vec()], config).archive(name);
    let loaded = stanza.output_with_input(&["load"], &archive);
    assert_eq!(loaded.code, 0, "{}", loaded.stderr);
}

#[test]
fn the_image_host_runs_a_program_of_this_machine() {
    let stanza = fixture!(Empty);
    let before = stanza.leftovers();
    let script = "echo hello from $(hostname), pid $$";
    let output = stanza.output(&["run", "--rm", "--network", "none", "host", "sh", "-c", script]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let name = output.stdout.strip_prefix("hello from ").and_then(|rest| rest.strip_suffix(", pid 1\n"));
    let name = name.unwrap_or_else(|| panic!("{}", output.stdout));
    assert_eq!(name.len(), 12);
    assert!(name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
    stanza.assert_clean(&before);
}

#[test]
fn writes_to_the_image_host_stay_in_the_container() {
    let stanza = fixture!(Empty);
    let file = format!("/opt/stanza-test-{}", std::process::id());
    stanza.ok(&[
        "run",
        "--network",
        "none",
        "--name",
        "c1",
        "host",
        "sh",
        "-c",
        &format!("echo x > {file} && rm /etc/passwd"),
    ]);
    assert!(!fs::exists(&file).unwrap());
    assert!(fs::exists("/etc/passwd").unwrap());
    let changes = stanza.ok(&["diff", "c1"]);
    assert!(changes.lines().any(|line| line == format!("A {file}")), "{changes}");
    assert!(changes.lines().any(|line| line == "D /etc/passwd"), "{changes}");
    stanza.ok(&["rm", "c1"]);
}

#[test]
fn stanzas_own_state_is_not_in_the_image_host() {
    let stanza = fixture!();
    let root = stanza.root().display().to_string();
    let output = stanza.output(&["run", "--rm", "--network", "none", "host", "ls", "-A", &root]);
    assert_eq!(output.stdout, "", "{}", output.stderr);
}

#[test]
fn the_exit_code_is_the_commands() {
    let stanza = fixture!();
    for code in [0, 1, 42, 125, 126, 127, 255] {
        assert_eq!(stanza.shell(&[], &format!("exit {code}")).code, code);
    }
}

#[test]
fn a_signal_gives_128_and_its_number() {
    let stanza = fixture!();
    assert_eq!(stanza.shell(&[], "sh -c 'kill -TERM $$'; exit $?").code, 143);
    // Init itself: signals from inside its own pid namespace do not kill it, so from outside.
    let mut running =
        stanza.spawn(&["run", "--rm", "--network", "none", "--name", "c1", "busybox", "sleep", "1000"]);
    stanza_test::wait_until("the container runs", || {
        stanza.output(&["ps", "-q"]).stdout.lines().count() == 1
    });
    stanza.ok(&["kill", "c1"]);
    assert_eq!(running.finish().code, 137);
}

#[test]
fn a_command_that_does_not_exist_gives_127() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    let error = stanza.fails(127, &["run", "--rm", "--network", "none", "busybox", "no-such-command"]);
    assert!(error.contains("no-such-command"), "{error}");
    stanza.assert_clean(&before);
}

#[test]
fn a_file_that_is_not_executable_gives_126() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    for path in ["/etc/not-executable", "/etc"] {
        let error = stanza.fails(126, &["run", "--rm", "--network", "none", "busybox", path]);
        assert!(error.contains(path), "{error}");
    }
    stanza.assert_clean(&before);
}

#[test]
fn output_and_errors_come_apart() {
    let stanza = fixture!();
    let output = stanza.shell(&[], "echo out; echo err >&2");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn input_goes_in_and_comes_out_byte_for_byte() {
    let stanza = fixture!();
    let data: Vec<u8> =
        (0..1_000_000u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let output =
        stanza.output_with_input(&["run", "-i", "--rm", "--network", "none", "busybox", "cat"], &data);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.bytes == data, "{} bytes came back of {}", output.bytes.len(), data.len());
}

#[test]
fn without_i_the_input_is_empty() {
    let stanza = fixture!();
    let output = stanza.output(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "wc -c"]);
    assert_eq!(output.stdout.trim(), "0");
}

#[test]
fn the_end_of_input_reaches_the_command() {
    let stanza = fixture!();
    let output = stanza
        .output_with_input(&["run", "-i", "--rm", "--network", "none", "busybox", "wc", "-c"], b"12345");
    assert_eq!(output.stdout.trim(), "5");
}

#[test]
fn the_environment_is_the_images_and_the_options_and_nothing_of_the_callers() {
    let stanza = fixture!();
    let mut command = stanza.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-h",
        "name",
        "-e",
        "A=1",
        "-e",
        "TAKEN",
        "-e",
        "ABSENT",
        "busybox",
        "env",
    ]);
    command.env("SECRET", "leaked").env("TAKEN", "from the caller");
    let output = stanza_test::Running::start(command).finish();
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["A=1", "HOME=/root", "HOSTNAME=name", path, "TAKEN=from the caller"]);
}

#[test]
fn an_environment_file_is_read_and_options_win_over_it() {
    let stanza = fixture!();
    let file = stanza.file("env", "# comment\nONE=1\n\nTWO=two words\n");
    let output = stanza.shell_ok(&["--env-file", &file, "-e", "ONE=option"], "echo $ONE,$TWO");
    assert_eq!(output, "option,two words");
}

#[test]
fn the_working_directory_is_made_when_missing() {
    let stanza = fixture!();
    assert_eq!(stanza.shell_ok(&["-w", "/not/there"], "pwd"), "/not/there");
    assert_eq!(stanza.shell_ok(&[], "pwd"), "/");
}

#[test]
fn users_come_by_name_and_number() {
    let stanza = fixture!();
    for (user, expected) in [
        ("user", "1000 1000 1000 2000"),
        ("1000", "1000 1000 1000 2000"),
        ("user:extra", "1000 2000 2000"),
        ("1234:5678", "1234 5678 5678"),
        ("0", "0 0 0"),
    ] {
        assert_eq!(stanza.shell_ok(&["-u", user], "echo $(id -u) $(id -g) $(id -G)"), expected, "{user}");
    }
    assert_eq!(stanza.shell_ok(&["-u", "user"], "echo $HOME"), "/home/user");
}

#[test]
fn the_host_name_is_the_options_or_the_id() {
    let stanza = fixture!();
    assert_eq!(
        stanza.shell_ok(&["-h", "attic"], "hostname; cat /etc/hostname; grep -c attic /etc/hosts"),
        "attic\nattic\n1"
    );
    let id = stanza.ok(&["run", "-d", "--network", "none", "--name", "c1", "busybox", "hostname"]);
    stanza.wait_state("c1", "exited");
    assert_eq!(stanza.ok(&["logs", "c1"]), id[..12]);
}

#[test]
fn entry_points_and_commands_combine_as_in_docker() {
    let stanza = fixture!(Empty);
    image(
        &stanza,
        "entry:1",
        &serde_json::json!({ "Entrypoint": ["echo", "entry"], "Cmd": ["command"], "Env": ["PATH=/bin"] }),
    );
    let run = |args: &[&str]| stanza.ok(&[&["run", "--rm", "--network", "none"], args].concat());
    assert_eq!(run(&["entry:1"]), "entry command");
    assert_eq!(run(&["entry:1", "other"]), "entry other");
    assert_eq!(run(&["--entrypoint", "echo", "entry:1"]), "");
    assert_eq!(run(&["--entrypoint", "echo", "entry:1", "own"]), "own");
    assert_eq!(run(&["--entrypoint=", "entry:1", "echo", "plain"]), "plain");
}

#[test]
fn the_images_configuration_is_the_default() {
    let stanza = fixture!(Empty);
    let config = serde_json::json!({
        "User": "user", "WorkingDir": "/opt/work", "Env": ["PATH=/bin", "FROM=image"], "Cmd": ["sh", "-c", "id -un; pwd; echo $FROM"],
        "Labels": { "made-by": "test" }, "StopSignal": "SIGUSR1",
    });
    image(&stanza, "configured:1", &config);
    assert_eq!(
        stanza.ok(&["run", "--network", "none", "--name", "c1", "configured:1"]),
        "user\n/opt/work\nimage"
    );
    let container = stanza.inspect("c1");
    assert_eq!(container["Config"]["Labels"]["made-by"], "test");
    assert_eq!(container["Config"]["StopSignal"], "SIGUSR1");
}

#[test]
fn an_image_without_a_command_says_so() {
    let stanza = fixture!();
    let error = stanza.fails(125, &["run", "--rm", "--network", "none", "busybox"]);
    assert!(error.contains("no command"), "{error}");
}

#[test]
fn directories_of_the_host_are_mounted() {
    let stanza = fixture!();
    let data = stanza.directory().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("in"), "from the host").unwrap();
    let volume = format!("{}:/data", data.display());
    assert_eq!(stanza.shell_ok(&["-v", &volume], "cat /data/in; echo back > /data/out"), "from the host");
    assert_eq!(fs::read_to_string(data.join("out")).unwrap(), "back\n");
    let refused = stanza.shell(&["-v", &format!("{volume}:ro")], "echo x > /data/other");
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    let mount = format!("type=bind,source={},target=/mnt/deep,readonly", data.display());
    let output = stanza.shell(&["--mount", &mount], "cat /mnt/deep/in && touch /mnt/deep/x");
    assert_eq!((output.code, output.stdout.as_str()), (1, "from the host"));
}

#[test]
fn a_file_of_the_host_is_mounted_over_a_file() {
    let stanza = fixture!();
    let file = stanza.file("passwd", "root:x:0:0:replaced:/:/bin/sh\n");
    assert_eq!(
        stanza.shell_ok(&["-v", &format!("{file}:/etc/passwd:ro")], "cut -d: -f5 /etc/passwd"),
        "replaced"
    );
}

#[test]
fn a_named_volume_keeps_its_content_and_is_filled_from_the_image() {
    let stanza = fixture!();
    assert_eq!(
        stanza.shell_ok(&["-v", "vol:/etc"], "ls /etc/passwd && echo kept > /etc/kept"),
        "/etc/passwd"
    );
    assert_eq!(stanza.shell_ok(&["-v", "vol:/mnt"], "cat /mnt/kept; ls /mnt/passwd"), "kept\n/mnt/passwd");
}

#[test]
fn a_tmpfs_has_its_options() {
    let stanza = fixture!();
    let output = stanza.shell_ok(
        &["--tmpfs", "/scratch:size=1m,mode=0700"],
        "grep ' /scratch ' /proc/mounts; stat -c %a /scratch",
    );
    assert!(output.contains("tmpfs") && output.contains("size=1024k"), "{output}");
    assert!(output.ends_with("\n700"), "{output}");
    let full =
        stanza.shell(&["--tmpfs", "/scratch:size=64k"], "dd if=/dev/zero of=/scratch/x bs=1k count=100");
    assert!(full.stderr.contains("No space left"), "{}", full.stderr);
}

#[test]
fn a_read_only_root_takes_no_writes_but_its_mounts_do() {
    let stanza = fixture!();
    let output = stanza
        .shell(&["--read-only", "--tmpfs", "/tmp"], "echo x > /tmp/x && echo x > /dev/shm/x && touch /x");
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("/x: Read-only file system"), "{}", output.stderr);
}

#[test]
fn an_anonymous_volume_goes_with_rm() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    stanza.shell_ok(&["-v", "/data"], "echo x > /data/x");
    stanza.assert_clean(&before);
}

#[test]
fn the_shared_memory_has_the_asked_size() {
    let stanza = fixture!();
    assert_eq!(stanza.shell_ok(&[], "df -k /dev/shm | awk 'NR==2{print $2}'"), "65536");
    assert_eq!(stanza.shell_ok(&["--shm-size", "1m"], "df -k /dev/shm | awk 'NR==2{print $2}'"), "1024");
}

#[test]
fn a_terminal_is_given_and_has_the_callers_size() {
    let stanza = fixture!();
    let script = "tty; stty size; read line; echo \"got $line\"; stty size; exit 7";
    let mut terminal =
        stanza.terminal(&["run", "-it", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.resize(40, 100);
    // The new size travels on its own way; typing before it has arrived would race with it.
    std::thread::yield_now();
    terminal.send(b"words\r");
    terminal.expect("got words");
    assert_eq!(terminal.finish(), 7);
}

#[test]
fn ctrl_c_on_a_terminal_reaches_the_command() {
    let stanza = fixture!();
    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal =
        stanza.terminal(&["run", "-it", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    terminal.expect("ready");
    terminal.send(b"\x03");
    terminal.expect("caught");
    assert_eq!(terminal.finish(), 3);
}

#[test]
fn a_terminal_is_refused_when_the_input_is_none() {
    let stanza = fixture!();
    let error = stanza.fails(125, &["run", "-it", "--rm", "--network", "none", "busybox", "true"]);
    assert!(error.contains("not a TTY"), "{error}");
}

#[test]
fn signals_to_the_door_reach_the_command() {
    let stanza = fixture!();
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = stanza.spawn(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    running.expect("ready");
    running.signal(rustix::process::Signal::TERM);
    let output = running.finish();
    assert_eq!((output.code, output.stdout.as_str()), (9, "ready\ncaught\n"));
}

#[test]
fn the_id_is_written_to_a_new_file() {
    let stanza = fixture!();
    let path = stanza.directory().join("cid").display().to_string();
    let id = stanza.ok(&["run", "-d", "--network", "none", "--cidfile", &path, "busybox", "true"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), id);
    let error = stanza.fails(125, &["run", "-d", "--network", "none", "--cidfile", &path, "busybox", "true"]);
    assert!(error.contains(&path), "{error}");
}

#[test]
fn options_that_are_not_built_fail_by_name() {
    let stanza = fixture!();
    let before = stanza.leftovers();
    for option in ["--restart=always", "--device=/dev/null", "--health-cmd=true", "--init"] {
        let error = stanza.fails(125, &["run", "--rm", option, "busybox", "true"]);
        let name = option.split('=').next().unwrap();
        assert!(error.contains(name) && error.contains("not built"), "{error}");
    }
    let error = stanza.fails(125, &["run", "--no-such-option", "busybox", "true"]);
    assert!(error.contains("--no-such-option"), "{error}");
    stanza.assert_clean(&before);
}

#[test]
fn the_log_driver_none_keeps_nothing() {
    let stanza = fixture!();
    stanza.ok(&["run", "--network", "none", "--name", "c1", "--log-driver", "none", "busybox", "echo", "x"]);
    let error = stanza.fails(1, &["logs", "c1"]);
    assert!(error.contains("none"), "{error}");
}

#[test]
fn the_release_runs_without_any_library() {
    let stanza = fixture!(Empty);
    let file = tool(&["file", "-L", &stanza.binary().display().to_string()]);
    if file.code != 0 {
        stanza_test::skip!("no `file`");
    }
    assert!(
        file.stdout.contains("statically linked") || file.stdout.contains("static-pie"),
        "{}",
        file.stdout
    );
}
