//! Hostile bundles and containers: what broke runc, crun and youki before, one case or more for each.
//!
//! The numbers are those of advisories. A case that fails on a peer shows that it bites.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::case::{Outcome, cases, holds, same};
use crate::container::Container;
use crate::runtime::Output;
use crate::scene::{Scene, kill, read};

cases!("attacks":
    the_executable_of_the_runtime_as_interpreter_of_run,
    the_executable_of_the_runtime_as_interpreter_of_exec,
    the_executable_of_the_runtime_by_a_watcher,
    the_executable_of_the_runtime_as_a_hook_inside,
    the_working_directory_through_a_descriptor,
    the_working_directory_of_exec_through_a_descriptor,
    the_working_directory_through_a_link_of_the_image,
    the_working_directory_is_made_inside,
    descriptors_of_the_host_are_not_in_the_first_process,
    descriptors_of_the_host_are_not_in_an_executed_process,
    listen_fds_pass_what_they_say,
    null_of_the_image_is_a_link_when_paths_are_masked,
    null_of_the_image_is_a_file_when_paths_are_masked,
    the_console_of_the_image_is_a_link,
    settings_through_a_mount_over_proc_sys,
    proc_of_the_image_is_a_link_to_a_directory,
    a_volume_over_proc_is_refused_or_harmless,
    a_volume_over_the_labels_of_proc,
    dev_of_the_image_is_a_link_out,
    pts_and_shm_of_the_image_are_links_out,
    fd_and_stdin_of_the_image_are_links_out,
    a_device_of_the_configuration_through_a_link,
    a_masked_path_through_a_link,
    a_target_of_a_mount_that_is_swapped_meanwhile,
    a_volume_two_containers_share_that_is_swapped_meanwhile,
    a_copy_up_through_a_link,
);

/// A directory of the host that nothing may be made in.
pub(crate) struct Outside {
    pub(crate) path: PathBuf,
}

impl Outside {
    pub(crate) fn new(s: &Scene) -> Outcome<Outside> {
        let path = PathBuf::from(s.directory("outside")?);
        s.file("outside/marker", "untouched\n")?;
        Ok(Outside { path })
    }

    pub(crate) fn untouched(&self) -> Outcome {
        let entries = fs::read_dir(&self.path).map_err(|error| error.to_string())?;
        let names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        same("entries outside", names, ["marker"])?;
        same("the file outside", read(self.path.join("marker")), "untouched\n")
    }
}

pub(crate) fn link(target: impl AsRef<Path>, path: impl AsRef<Path>) -> Outcome {
    symlink(&target, &path).map_err(|error| format!("cannot link `{}`: {error}", path.as_ref().display()))
}

/// Replaces a directory of the root file system by a link.
fn replaced(bundle: &Bundle, name: &str, target: impl AsRef<Path>) -> Outcome {
    let path = bundle.rootfs().join(name);
    let _ = fs::remove_dir_all(&path);
    link(target, path)
}

/// A copy of the runtime that may come to harm.
fn copied(s: &Scene) -> Outcome<(PathBuf, Vec<u8>)> {
    let path = s.path("runtime-copy");
    fs::copy(&s.runtime.path, &path).map_err(|error| error.to_string())?;
    let bytes = fs::read(&path).map_err(|error| error.to_string())?;
    Ok((path, bytes))
}

fn with(s: &Scene, runtime: &Path, words: &[&str]) -> Outcome<Output> {
    let mut command = Command::new(runtime);
    command.arg("--root").arg(s.path("state")).args(words);
    s.finish(command)
}

fn intact(path: &Path, before: &[u8]) -> Outcome {
    let after = fs::read(path).map_err(|error| error.to_string())?;
    holds("the runtime's executable is as it was", after == before)
}

fn interpreted(bundle: &Bundle) -> Outcome {
    let path = bundle.rootfs().join("evil");
    fs::write(&path, "#!/proc/self/exe\n").map_err(|error| error.to_string())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).map_err(|error| error.to_string())
}

fn the_executable_of_the_runtime_as_interpreter_of_run(s: &Scene) -> Outcome {
    // CVE-2019-5736: the program is the runtime itself, which a process beside it then writes to.
    let (runtime, before) = copied(s)?;
    let first = s.container(&["probe", "overwrite", "2"])?;
    first.up()?;
    let pid = first.pid()?;
    for _ in 0..5 {
        let mut second = s.container(&["/evil"])?;
        interpreted(&second.bundle)?;
        second.bundle.namespace(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
        second.bundle.write()?;
        let bundle = second.bundle.directory.display().to_string();
        with(s, &runtime, &["run", "--bundle", &bundle, &second.id])?;
    }
    first.wait_status("stopped")?;
    holds(&format!("not written: {:?}", first.output()), !first.output().contains("written"))?;
    intact(&runtime, &before)
}

fn the_executable_of_the_runtime_as_interpreter_of_exec(s: &Scene) -> Outcome {
    let (runtime, before) = copied(s)?;
    let container = s.container(&["probe", "overwrite", "2"])?;
    interpreted(&container.bundle)?;
    container.up()?;
    for _ in 0..8 {
        with(s, &runtime, &["exec", &container.id, "/evil"])?;
    }
    container.wait_status("stopped")?;
    holds(&format!("not written: {:?}", container.output()), !container.output().contains("written"))?;
    intact(&runtime, &before)
}

fn the_executable_of_the_runtime_by_a_watcher(s: &Scene) -> Outcome {
    let (runtime, before) = copied(s)?;
    let mut container = s.container(&["probe", "overwrite", "2"])?;
    // Even one that may look at everything.
    container.bundle.capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_KILL"]);
    container.up()?;
    for _ in 0..8 {
        with(s, &runtime, &["exec", &container.id, "true"])?;
    }
    container.wait_status("stopped")?;
    holds(&format!("not written: {:?}", container.output()), !container.output().contains("written"))?;
    intact(&runtime, &before)
}

fn the_executable_of_the_runtime_as_a_hook_inside(s: &Scene) -> Outcome {
    let (runtime, before) = copied(s)?;
    let first = s.container(&["probe", "overwrite", "2"])?;
    first.up()?;
    let pid = first.pid()?;
    for path in ["/evil", "/proc/self/exe"] {
        for _ in 0..3 {
            let mut second = s.script("true")?;
            interpreted(&second.bundle)?;
            second.bundle.namespace(json!({"type": "pid", "path": format!("/proc/{pid}/ns/pid")}));
            second.bundle.config["hooks"]["startContainer"] = json!([{"path": path, "timeout": 5}]);
            second.bundle.write()?;
            let bundle = second.bundle.directory.display().to_string();
            with(s, &runtime, &["run", "--bundle", &bundle, &second.id])?;
        }
    }
    first.wait_status("stopped")?;
    holds(&format!("not written: {:?}", first.output()), !first.output().contains("written"))?;
    intact(&runtime, &before)
}

/// What a program prints that looks for the host's files from where it stands.
fn escape(s: &Scene) -> Outcome<(Outside, String)> {
    let outside = Outside::new(s)?;
    let up = "../".repeat(12);
    let script = format!("pwd; cat {up}{}/marker 2>/dev/null; echo done", outside.path.display());
    Ok((outside, script))
}

fn the_working_directory_through_a_descriptor(s: &Scene) -> Outcome {
    // CVE-2024-21626.
    let (_outside, script) = escape(s)?;
    for number in 3..=20 {
        let mut container = s.script(&script)?;
        container.bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let output = container.run()?;
        holds(&format!("{number}: {output:?}"), !output.stdout.contains("untouched"))?;
    }
    Ok(())
}

fn the_working_directory_of_exec_through_a_descriptor(s: &Scene) -> Outcome {
    let (_outside, script) = escape(s)?;
    let container = s.waiting()?;
    for number in 3..=20 {
        let output =
            container.exec(&["--cwd", &format!("/proc/self/fd/{number}")], &["sh", "-c", &script])?;
        holds(&format!("{number}: {output:?}"), !output.stdout.contains("untouched"))?;
    }
    Ok(())
}

fn the_working_directory_through_a_link_of_the_image(s: &Scene) -> Outcome {
    let (_outside, script) = escape(s)?;
    for number in [5, 6, 7, 8, 9] {
        let mut container = s.script(&script)?;
        link(format!("/proc/self/fd/{number}"), container.bundle.rootfs().join("work"))?;
        container.bundle.config["process"]["cwd"] = json!("/work");
        let output = container.run()?;
        holds(&format!("{number}: {output:?}"), !output.stdout.contains("untouched"))?;
    }
    Ok(())
}

fn the_working_directory_is_made_inside(s: &Scene) -> Outcome {
    // CVE-2019-18837.
    let outside = Outside::new(s)?;
    let mut container = s.script("true")?;
    link(&outside.path, container.bundle.rootfs().join("link"))?;
    container.bundle.config["process"]["cwd"] = json!("/link/new");
    container.run()?;
    outside.untouched()
}

fn descriptors_of_the_host_are_not_in_the_first_process(s: &Scene) -> Outcome {
    let seen = s.container(&["probe", "fds"])?.run()?.ok()?;
    let numbers: Vec<&str> = seen.lines().filter_map(|line| line.split(' ').next()).collect();
    same(&format!("descriptors in {seen:?}"), numbers, ["0", "1", "2"])
}

fn descriptors_of_the_host_are_not_in_an_executed_process(s: &Scene) -> Outcome {
    let seen = s.waiting()?.exec(&[], &["probe", "fds"])?.ok()?;
    let numbers: Vec<&str> = seen.lines().filter_map(|line| line.split(' ').next()).collect();
    same(&format!("descriptors in {seen:?}"), numbers, ["0", "1", "2"])
}

fn listen_fds_pass_what_they_say(s: &Scene) -> Outcome {
    for count in [0_usize, 1, 2] {
        let container = s.script("echo pid $LISTEN_PID fds $LISTEN_FDS; exec probe fds")?;
        container.bundle.write()?;
        let mut command = Command::new("sh");
        // The runtime takes them when the pid is its own, as systemd sets it.
        let script = format!(
            "exec 3</etc/passwd 4</etc/passwd 5</etc/passwd; LISTEN_FDS={count} LISTEN_PID=$$ exec \"$@\""
        );
        command.args(["-c", &script, "sh"]).arg(&s.runtime.path).arg("--root").arg(s.path("state"));
        command.arg("run").arg("--bundle").arg(&container.bundle.directory).arg(&container.id);
        let seen = s.finish(command)?.ok()?;
        let passed = seen.lines().filter(|line| line.ends_with("/etc/passwd")).count();
        same(&format!("passed of {count} in {seen:?}"), passed, count)?;
        if count > 0 {
            same("variables", seen.lines().next(), Some(&*format!("pid 1 fds {count}")))?;
        }
    }
    Ok(())
}

/// A container whose `/dev` is the image's own.
fn with_the_images_dev<'a>(s: &'a Scene, script: &str) -> Outcome<Container<'a>> {
    let mut container = s.script(script)?;
    for point in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        container.bundle.without_mount(point);
    }
    Ok(container)
}

fn null_of_the_image_is_a_link_when_paths_are_masked(s: &Scene) -> Outcome {
    // CVE-2025-31133: what is mounted over a masked path is what `/dev/null` names.
    let before = read("/proc/sys/kernel/core_pattern");
    let script = "grep core_pattern /proc/self/mountinfo && echo mounted; cat /proc/kcore >/dev/zero 2>&1 && stat -c %t:%T /proc/kcore";
    let mut container = with_the_images_dev(s, script)?;
    link("/proc/sys/kernel/core_pattern", container.bundle.rootfs().join("dev/null"))?;
    container.bundle.config["linux"]["maskedPaths"] = json!(["/proc/kcore"]);
    let output = container.run()?;
    holds(&format!("{output:?}"), !output.stdout.contains("mounted"))?;
    same("the host's setting", read("/proc/sys/kernel/core_pattern"), before)
}

fn null_of_the_image_is_a_file_when_paths_are_masked(s: &Scene) -> Outcome {
    let mut container = with_the_images_dev(s, "cat /secret")?;
    fs::write(container.bundle.rootfs().join("dev/null"), "of the image\n")
        .map_err(|error| error.to_string())?;
    fs::write(container.bundle.rootfs().join("secret"), "secret\n").map_err(|error| error.to_string())?;
    container.bundle.config["linux"]["maskedPaths"] = json!(["/secret"]);
    let output = container.run()?;
    same("what the masked path shows", output.stdout, "")
}

fn the_console_of_the_image_is_a_link(s: &Scene) -> Outcome {
    // Beside CVE-2025-52565.
    let outside = Outside::new(s)?;
    for target in [
        outside.path.join("marker"),
        outside.path.join("new"),
        PathBuf::from("/proc/sys/kernel/core_pattern"),
    ] {
        let mut container = with_the_images_dev(s, "tty; true")?;
        container.bundle.mount(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
        link(&target, container.bundle.rootfs().join("dev/console"))?;
        container.bundle.config["process"]["terminal"] = json!(true);
        let socket = s.text("console");
        let _ = fs::remove_file(&socket);
        let receiver = crate::exec::listening(s, &["console", &socket])?;
        let created = container.try_create(&["--console-socket", &socket])?;
        if created.code == 0 {
            container.verb("start", &[], &[])?;
            container.wait_status("stopped")?;
        }
        kill(receiver.pid());
        receiver.finish()?;
        outside.untouched()?;
    }
    Ok(())
}

fn settings_through_a_mount_over_proc_sys(s: &Scene) -> Outcome {
    // CVE-2025-52881, CVE-2019-16884: a write to a setting goes where a volume says.
    let outside = Outside::new(s)?;
    let place = outside.path.join("../fake");
    fs::create_dir_all(place.join("net/ipv4")).map_err(|error| error.to_string())?;
    let file = place.join("net/ipv4/ip_unprivileged_port_start");
    fs::write(&file, "fake").map_err(|error| error.to_string())?;
    let mut container = s.script("true")?;
    container.bundle.mount(
        json!({"destination": "/proc/sys", "type": "bind", "source": place, "options": ["rbind", "rw"]}),
    );
    container.bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    container.bundle.config["linux"]["readonlyPaths"] = json!([]);
    container.run()?;
    same("the volume's file", read(&file), "fake")
}

fn proc_of_the_image_is_a_link_to_a_directory(s: &Scene) -> Outcome {
    // CVE-2019-19921, CVE-2023-27561, CVE-2023-28642.
    let container = s.script("echo ran; grep -c ' /elsewhere ' /proc/mounts")?;
    fs::create_dir(container.bundle.rootfs().join("elsewhere")).map_err(|error| error.to_string())?;
    replaced(&container.bundle, "proc", "/elsewhere")?;
    let said = container.run()?.refused()?;
    holds("the program has not run", !said.contains("ran\n"))
}

fn a_volume_over_proc_is_refused_or_harmless(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let mut container = s.script("echo ran")?;
    container.bundle.mount(
        json!({"destination": "/proc", "type": "bind", "source": outside.path, "options": ["rbind", "rw"]}),
    );
    container.run()?;
    outside.untouched()
}

fn a_volume_over_the_labels_of_proc(s: &Scene) -> Outcome {
    // CVE-2019-16884: what is to be written there must not go into the volume.
    let outside = Outside::new(s)?;
    let file = s.file("fake", "fake")?;
    for point in ["/proc/self/oom_score_adj", "/proc/1/oom_score_adj", "/proc/thread-self/oom_score_adj"] {
        let mut container = s.container(&["sleep", "1000"])?;
        container.bundle.config["process"]["oomScoreAdj"] = json!(100);
        container
            .bundle
            .mount(json!({"destination": point, "type": "bind", "source": file, "options": ["bind"]}));
        if container.try_create(&[])?.code == 0 {
            container.verb("start", &[], &[])?;
            let score = read(format!("/proc/{}/oom_score_adj", container.pid()?));
            same(point, score.trim(), "100")?;
            container.delete_force()?;
        }
        same("the volume's file", read(&file), "fake")?;
    }
    outside.untouched()
}

fn dev_of_the_image_is_a_link_out(s: &Scene) -> Outcome {
    // CVE-2026-41579, CVE-2026-47766.
    let outside = Outside::new(s)?;
    let container = with_the_images_dev(s, "true")?;
    replaced(&container.bundle, "dev", &outside.path)?;
    container.run()?;
    outside.untouched()?;
    // And below a directory that the runtime mounts itself.
    let container = s.script("true")?;
    replaced(&container.bundle, "dev", &outside.path)?;
    container.run()?;
    outside.untouched()
}

fn pts_and_shm_of_the_image_are_links_out(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    for name in ["pts", "shm", "mqueue"] {
        let mut container = s.script("true")?;
        container.bundle.without_mount("/dev");
        link(&outside.path, container.bundle.rootfs().join("dev").join(name))?;
        container.run()?;
        outside.untouched().map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn fd_and_stdin_of_the_image_are_links_out(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let container = with_the_images_dev(s, "true")?;
    for name in ["fd", "stdin", "stdout", "ptmx", "null", "zero", "tty", "console"] {
        link(outside.path.join(name), container.bundle.rootfs().join("dev").join(name))?;
    }
    container.run()?;
    outside.untouched()
}

fn a_device_of_the_configuration_through_a_link(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let mut container = s.script("true")?;
    link(&outside.path, container.bundle.rootfs().join("link"))?;
    container.bundle.config["linux"]["devices"] = json!([{"path": "/link/device", "type": "c", "major": 1, "minor": 3}, {"path": "/link/deep/er/device", "type": "p"}]);
    container.run()?;
    outside.untouched()
}

fn a_masked_path_through_a_link(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let mut container = s.script("true")?;
    link(&outside.path, container.bundle.rootfs().join("link"))?;
    container.bundle.config["linux"]["maskedPaths"] = json!(["/link/marker", "/link"]);
    container.bundle.config["linux"]["readonlyPaths"] = json!(["/link"]);
    container.run()?;
    outside.untouched()
}

/// Runs a container with a mount below a directory of its volume, which is exchanged with a link meanwhile.
fn swapped(s: &Scene, count: u32, kind: &Value) -> Outcome {
    let outside = Outside::new(s)?;
    let volume = s.directory("volume")?;
    s.directory("volume/a")?;
    link(&outside.path, s.path("volume/b"))?;
    let mut command = Command::new(s.probe()?);
    command.args(["swap", &format!("{volume}/a"), &format!("{volume}/b"), "20"]);
    let swapper = s.spawn(command)?;
    let mut done = Ok(());
    for _ in 0..count {
        let mut container = s.script("true")?;
        container.bundle.mount(
            json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "rw"]}),
        );
        let mut mount = kind.clone();
        mount["destination"] = json!("/volume/a/new/deep");
        container.bundle.mount(mount);
        done = container.run().map(drop).and_then(|()| outside.untouched());
        if done.is_err() {
            break;
        }
    }
    kill(swapper.pid());
    swapper.finish()?;
    done
}

fn a_target_of_a_mount_that_is_swapped_meanwhile(s: &Scene) -> Outcome {
    // CVE-2021-30465, CVE-2024-45310.
    swapped(s, 40, &json!({"type": "tmpfs", "source": "tmpfs"}))
}

fn a_volume_two_containers_share_that_is_swapped_meanwhile(s: &Scene) -> Outcome {
    let source = s.file("source", "text")?;
    swapped(s, 40, &json!({"type": "bind", "source": source, "options": ["bind"]}))
}

fn a_copy_up_through_a_link(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let mut container = s.script("ls /link/; cat /link/marker")?;
    link(&outside.path, container.bundle.rootfs().join("link"))?;
    container
        .bundle
        .mount(json!({"destination": "/link", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    let output = container.run()?;
    holds(&format!("{output:?}"), !output.stdout.contains("untouched"))?;
    outside.untouched()
}
