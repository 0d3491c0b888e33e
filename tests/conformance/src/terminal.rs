//! Terminals: made inside, sent to whoever asked, sized, owned; and who may ask for one.

use std::process::Stdio;

use serde_json::json;

use crate::case::{Need, Outcome, cases, contains, same};
use crate::container::Container;
use crate::exec::listening;
use crate::scene::Scene;

cases!("terminal":
    create_sends_the_terminal,
    the_program_has_it_on_all_three_streams,
    the_size_is_the_configurations,
    the_console_is_the_terminal,
    what_is_typed_reaches_the_program,
    the_interrupt_key_reaches_the_program,
    it_belongs_to_the_user,
    in_a_user_namespace,
    without_a_socket_is_refused,
    a_socket_without_a_terminal_is_refused [Need::Lacks("crun", "ignores it")],
    a_socket_that_is_not_there_is_refused,
    exec_sends_one [Need::Since("crun", "1.9")],
    exec_of_a_file_sends_one,
    exec_without_a_socket_is_refused [Need::Lacks("crun", "waits for it in the foreground")],
    run_in_the_foreground_passes_it_through [Need::Program("script")],
    exec_in_the_foreground_passes_it_through [Need::Program("script")],
    no_terminal_is_none,
);

/// A container with a terminal.
fn with_terminal<'a>(s: &'a Scene, script: &str) -> Outcome<Container<'a>> {
    let mut container = s.script(script)?;
    container.bundle.config["process"]["terminal"] = json!(true);
    Ok(container)
}

/// What comes out of the container's terminal until its end; `typing` is words for the probe.
fn out_of(s: &Scene, container: &Container, typing: &[&str]) -> Outcome<String> {
    let socket = s.text("console");
    let receiver = listening(s, &[&["console", &socket], typing].concat())?;
    container.create_with(&["--console-socket", &socket])?;
    container.start()?;
    Ok(receiver.finish()?.ok()?.replace('\r', ""))
}

fn create_sends_the_terminal(s: &Scene) -> Outcome {
    let container = with_terminal(s, "echo through the terminal")?;
    let seen = out_of(s, &container, &[])?;
    contains("output", &seen, "\nthrough the terminal")?;
    same("not to the caller", container.output(), "")
}

fn the_program_has_it_on_all_three_streams(s: &Scene) -> Outcome {
    let script = "tty; for fd in 0 1 2; do test -t $fd && echo stream $fd; done; readlink /proc/self/fd/2; echo own >/dev/tty";
    let seen = out_of(s, &with_terminal(s, script)?, &[])?;
    contains("output", &seen, "/dev/pts/0\nstream 0\nstream 1\nstream 2\n/dev/pts/0\nown")
}

fn the_size_is_the_configurations(s: &Scene) -> Outcome {
    let mut container = with_terminal(s, "stty size")?;
    container.bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    let seen = out_of(s, &container, &[])?;
    contains("what the program sees", &seen, "\n33 77")
}

fn the_console_is_the_terminal(s: &Scene) -> Outcome {
    let seen = out_of(
        s,
        &with_terminal(s, "stat -c %t:%T /dev/console /dev/pts/0; echo written >/dev/console")?,
        &[],
    )?;
    contains("numbers", &seen, "88:0\n88:0\nwritten")
}

fn what_is_typed_reaches_the_program(s: &Scene) -> Outcome {
    let seen = out_of(s, &with_terminal(s, "read line; echo got $line")?, &["typed\n"])?;
    contains("output", &seen, "got typed")
}

fn the_interrupt_key_reaches_the_program(s: &Scene) -> Outcome {
    let script = "trap 'echo interrupted; exit' INT; echo set; while :; do sleep 0.05; done";
    contains("output", &out_of(s, &with_terminal(s, script)?, &["\u{3}", "set"])?, "interrupted")
}

fn it_belongs_to_the_user(s: &Scene) -> Outcome {
    let mut container = with_terminal(s, "stat -c '%u %G %a' /dev/pts/0")?;
    container.bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let seen = out_of(s, &container, &[])?;
    contains("owner", &seen, "\n1000 ")
}

fn in_a_user_namespace(s: &Scene) -> Outcome {
    let mut container = with_terminal(s, "tty; stat -c %t:%T /dev/console")?;
    container.bundle.namespace(json!({"type": "user"}));
    container.bundle.config["linux"]["uidMappings"] =
        json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    container.bundle.config["linux"]["gidMappings"] =
        json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    s.tool(&["chmod", "755", &s.text("")])?;
    s.tool(&["chown", "-Rh", "200000:200000", &container.bundle.rootfs().display().to_string()])?;
    contains("output", &out_of(s, &container, &[])?, "/dev/pts/0\n88:0")
}

fn without_a_socket_is_refused(s: &Scene) -> Outcome {
    let container = with_terminal(s, "true")?;
    let said = container.try_create(&[])?.refused()?;
    s.says(&said, &["cannot allocate tty if runc will detach without setting console socket"])
}

fn a_socket_without_a_terminal_is_refused(s: &Scene) -> Outcome {
    let said = s.script("true")?.try_create(&["--console-socket", &s.text("console")])?.refused()?;
    s.says(&said, &["cannot use console socket if runc will not detach or allocate tty"])
}

fn a_socket_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let container = with_terminal(s, "true")?;
    container.try_create(&["--console-socket", &s.text("nosuch")])?.refused()?;
    same("cgroups left", s.cgroups(&container.id).len(), 0)
}

fn exec_sends_one(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let socket = s.text("console");
    let receiver = listening(s, &["console", &socket])?;
    container
        .exec(
            &["--tty", "--detach", "--console-socket", &socket],
            &["sh", "-c", "tty; test -t 0 && echo terminal"],
        )?
        .ok()?;
    contains("output", &receiver.finish()?.ok()?.replace('\r', ""), "/dev/pts/0\nterminal")
}

fn exec_of_a_file_sends_one(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let socket = s.text("console");
    let receiver = listening(s, &["console", &socket])?;
    let process = json!({
        "terminal": true, "consoleSize": {"height": 20, "width": 90}, "user": {"uid": 0, "gid": 0},
        "args": ["sh", "-c", "tty; stty size"], "cwd": "/", "env": ["PATH=/bin"]
    });
    let path = s.file("process.json", &process.to_string())?;
    container.exec(&["--process", &path, "--detach", "--console-socket", &socket], &[])?.ok()?;
    let seen = receiver.finish()?.ok()?.replace('\r', "");
    contains("terminal", &seen, "/dev/pts/0\n")?;
    contains("size", &seen, "20 90")
}

fn exec_without_a_socket_is_refused(s: &Scene) -> Outcome {
    let said = s.waiting()?.exec(&["--tty", "--detach"], &["true"])?.refused()?;
    s.says(&said, &["cannot allocate tty if runc will detach without setting console socket"])
}

/// Runs the runtime on a terminal of its own; what it showed.
fn on_a_terminal(s: &Scene, words: &[&str]) -> Outcome<crate::runtime::Output> {
    let mut line = format!("{} --root {}", s.runtime.path.display(), s.text("state"));
    for word in words {
        line.push_str(&format!(" '{word}'"));
    }
    let mut command = std::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    // Its input stays open: at its end `script` types the key for that, and what the terminal takes for this key before the
    // runtime has made it raw is read as a NUL afterwards.
    command.stdin(Stdio::piped());
    let mut running = s.spawn_into(command, s.path("terminal.out"), s.path("terminal.err"))?;
    let _input = running.child.stdin.take();
    running.finish()
}

fn run_in_the_foreground_passes_it_through(s: &Scene) -> Outcome {
    let container = with_terminal(s, "tty; echo shown; exit 7")?;
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    let output = on_a_terminal(s, &["run", "--bundle", &bundle, &container.id])?;
    contains("output", &output.stdout, "/dev/pts/0\r\nshown\r\n")?;
    same("code", output.code, 7)
}

fn exec_in_the_foreground_passes_it_through(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let output = on_a_terminal(s, &["exec", "--tty", &container.id, "sh", "-c", "tty; echo shown; exit 7"])?;
    contains("output", &output.stdout, "/dev/pts/0\r\nshown\r\n")?;
    same("code", output.code, 7)
}

fn no_terminal_is_none(s: &Scene) -> Outcome {
    let seen = s.sh("test -t 0 || echo none; test -e /dev/console || echo no console; ls /dev/pts")?;
    same("output", seen, "none\nno console\nptmx")
}
