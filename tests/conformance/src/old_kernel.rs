//! A kernel of the oldest version that is supported, 5.4: calls that came later are answered as it answers them.
//!
//! The filter that does so is inherited by the containers.

use std::process::Command;

use serde_json::json;

use crate::case::{Outcome, cases, contains, holds, same};
use crate::container::Container;
use crate::runtime::Output;
use crate::scene::Scene;

cases!("old kernel":
    the_default_container_runs,
    paths_stay_hidden_and_read_only,
    links_in_the_root_stay_inside,
    a_read_only_bind_is_read_only,
    exec_is_inside,
    a_container_is_created_started_and_deleted,
    a_user_namespace,
    descriptors_are_closed,
);

fn call(container: &Container, verb: &str, options: &[&str], rest: &[&str]) -> Outcome<Output> {
    let plain = container.command(verb, options, rest);
    let mut command = Command::new(container.scene.probe()?);
    command.arg("linux54").arg(plain.get_program()).args(plain.get_args());
    container.scene.finish_reaping(command)
}

fn run(container: &Container, options: &[&str]) -> Outcome<Output> {
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    call(container, "run", &[options, &["--bundle", &bundle]].concat(), &[])
}

fn the_default_container_runs(s: &Scene) -> Outcome {
    let seen = run(&s.script("echo ran; hostname; ls /proc/self/ns | wc -l")?, &[])?.ok()?;
    contains("output", &seen, "ran\nconformance")
}

fn paths_stay_hidden_and_read_only(s: &Scene) -> Outcome {
    let script = "wc -c </proc/keys; ls /sys/firmware | wc -l; (echo 1 >/proc/sys/kernel/domainname) 2>/dev/null || echo refused";
    same("seen", run(&s.script(script)?, &[])?.ok()?, "0\n0\nrefused")
}

fn links_in_the_root_stay_inside(s: &Scene) -> Outcome {
    let outside = s.directory("outside")?;
    let mut container = s.script("echo inside >/link/made/file; cat /link/made/file")?;
    let link = container.bundle.rootfs().join("link");
    std::os::unix::fs::symlink(&outside, link).map_err(|error| error.to_string())?;
    container.bundle.mount(json!({"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"}));
    same("seen", run(&container, &[])?.ok()?, "inside")?;
    let made = std::fs::read_dir(&outside).map_err(|error| error.to_string())?.count();
    same("entries outside", made, 0)
}

fn a_read_only_bind_is_read_only(s: &Scene) -> Outcome {
    let volume = s.directory("volume")?;
    let script = "(echo x >/mnt/v/file) 2>/dev/null || echo refused; grep ' /mnt/v ' /proc/self/mountinfo";
    let mut container = s.script(script)?;
    container.bundle.mount(json!({
        "destination": "/mnt/v", "type": "bind", "source": volume, "options": ["bind", "ro", "nosuid", "noexec"]
    }));
    let seen = run(&container, &[])?.ok()?;
    contains("output", &seen, "refused")?;
    contains("options", &seen, "ro,nosuid,noexec")
}

fn exec_is_inside(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    run(&container, &["--detach"])?.ok()?;
    let seen =
        call(&container, "exec", &[], &["sh", "-c", "hostname; ls /proc | grep -c '^[0-9]*$'"])?.ok()?;
    contains("output", &seen, "conformance")?;
    call(&container, "delete", &["--force"], &[])?.ok().map(drop)
}

fn a_container_is_created_started_and_deleted(s: &Scene) -> Outcome {
    let container = s.script("echo ran; exec sleep 1000")?;
    container.bundle.write()?;
    let bundle = container.bundle.directory.display().to_string();
    call(&container, "create", &["--bundle", &bundle], &[])?.ok()?;
    same("status", container.status()?.as_str(), "created")?;
    call(&container, "start", &[], &[])?.ok()?;
    container.wait_status("running")?;
    call(&container, "kill", &[], &["KILL"])?.ok()?;
    container.wait_status("stopped")?;
    call(&container, "delete", &[], &[])?.ok()?;
    holds("nothing is left", container.status().is_err())
}

fn a_user_namespace(s: &Scene) -> Outcome {
    let mut container = s.script("cat /proc/self/uid_map; id -u")?;
    crate::namespaces::user(&mut container.bundle);
    crate::namespaces::reachable(s, &container.bundle)?;
    contains("output", &run(&container, &[])?.ok()?, "\n0")
}

fn descriptors_are_closed(s: &Scene) -> Outcome {
    let seen = run(&s.container(&["probe", "fds"])?, &[])?.ok()?;
    let numbers: Vec<&str> = seen.lines().filter_map(|line| line.split(' ').next()).collect();
    same("descriptors", numbers, vec!["0", "1", "2"])
}
