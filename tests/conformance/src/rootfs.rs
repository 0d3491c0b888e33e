//! What becomes of the root: propagation, read-only, `pivot_root` or not, masked and read-only paths, settings of the kernel.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::bundle::Bundle;
use crate::case::{Outcome, cases, contains, holds, same};
use crate::mounts::{HostMount, bind, options, propagation, tmpfs};
use crate::scene::{Scene, mounts_below, read};

cases!("mounts":
    propagation_private_is_the_default,
    propagation_slave_receives,
    propagation_shared_gives,
    propagation_of_the_root,
    propagation_of_the_root_unbindable,
    propagation_unknown_is_refused,
    root_read_only,
    root_read_only_with_a_writable_mount,
    root_is_the_only_thing_seen,
    root_with_no_pivot,
    root_that_is_a_link,
    root_that_is_a_mount_point,
    masked_file_is_empty,
    masked_directory_is_empty_and_read_only,
    masked_path_that_is_not_there_is_left_out,
    masked_path_of_the_image,
    readonly_path_refuses_writers,
    readonly_path_that_is_not_there_is_left_out,
    readonly_path_keeps_the_other_options,
    nothing_of_it_is_seen_on_the_host,
    mount_label_is_refused_or_ignored_without_selinux,
    sysctl_is_set,
    sysctl_by_slashes,
    sysctl_of_the_host_is_refused,
    sysctl_unknown_is_refused,
    many_mounts,
);

fn propagation_private_is_the_default(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| {
        bundle.mount(tmpfs(&[]));
    })?;
    same("of a mount", propagation(&seen, "/mnt/t")?, "")?;
    same("of proc", propagation(&seen, "/proc")?, "")
}

fn propagation_slave_receives(s: &Scene) -> Outcome {
    let outer = shared(s)?;
    s.directory("shared/below")?;
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.mount(bind(&outer.0, &["rbind", "rslave"]));
    container.bundle.config["linux"]["rootfsPropagation"] = json!("rslave");
    container.up()?;
    same("propagation", propagation(&container.sh("cat /proc/self/mountinfo")?, "/mnt/t")?, "master")?;
    let later = HostMount::new(s, "shared/below", "mode=755")?;
    fs::write(format!("{}/late", later.0), "late\n").map_err(|error| error.to_string())?;
    same("what came later", container.sh("cat /mnt/t/below/late")?, "late")?;
    container.delete_force()
}

fn propagation_shared_gives(s: &Scene) -> Outcome {
    let outer = shared(s)?;
    s.directory("shared/below")?;
    let mut container = s.script("mount -t tmpfs none /mnt/t/below && echo mounted; exec sleep 1000")?;
    container.bundle.mount(bind(&outer.0, &["rbind", "rshared"]));
    container.bundle.config["linux"]["rootfsPropagation"] = json!("rshared");
    container.bundle.capabilities(&["CAP_SYS_ADMIN"]);
    container.up()?;
    container.expect("mounted")?;
    let seen = mounts_below(&s.path("shared/below"));
    let _ = rustix::mount::unmount(s.path("shared/below"), rustix::mount::UnmountFlags::DETACH);
    container.delete_force()?;
    same("what the host sees", seen.len(), 1)
}

fn propagation_of_the_root(s: &Scene) -> Outcome {
    for (word, expected) in [("private", ""), ("rprivate", ""), ("shared", "shared")] {
        let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| {
            bundle.config["linux"]["rootfsPropagation"] = json!(word);
        })?;
        same(word, propagation(&seen, "/")?, expected)?;
    }
    Ok(())
}

/// runc 1.1.5 cannot bind the root to itself then.
fn propagation_of_the_root_unbindable(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| {
        bundle.config["linux"]["rootfsPropagation"] = json!("unbindable");
    })?;
    same("propagation", propagation(&seen, "/")?, "unbindable")
}

fn propagation_unknown_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| bundle.config["linux"]["rootfsPropagation"] = json!("sideways")).map(drop)
}

fn root_read_only(s: &Scene) -> Outcome {
    let seen = s.sh_with(
        "touch /x 2>&1; echo x 2>/dev/null >/etc/passwd || echo refused; touch /dev/shm/x && echo shm",
        read_only,
    )?;
    contains("a file", &seen, "Read-only file system")?;
    contains("an old file", &seen, "refused")?;
    contains("a mount", &seen, "shm")
}

fn root_read_only_with_a_writable_mount(s: &Scene) -> Outcome {
    let source = s.directory("source")?;
    s.sh_with("touch /mnt/t/x", |bundle| {
        read_only(bundle);
        bundle.mount(bind(&source, &["rw"]));
    })?;
    holds("written", s.path("source/x").exists())
}

fn root_is_the_only_thing_seen(s: &Scene) -> Outcome {
    let seen = s.sh("cat /proc/self/mountinfo; ls -d /..; cd ..; pwd; ls /proc/1/root")?;
    holds(
        "no path of the host",
        !seen.contains("/call-") && !seen.lines().any(|line| line.ends_with(" /home")),
    )?;
    let points = seen.lines().filter(|line| line.contains(" - ")).filter_map(|line| line.split(' ').nth(4));
    let outside: Vec<&str> = points
        .filter(|point| {
            !["/", "/proc", "/dev", "/sys"]
                .iter()
                .any(|top| point.starts_with(top) && (*top != "/" || *point == "/"))
        })
        .collect();
    same("mounts from outside", outside, Vec::<&str>::new())
}

fn root_with_no_pivot(s: &Scene) -> Outcome {
    let container = s.script("ls /; cat /proc/1/comm")?;
    let output = container.run_with(&["--no-pivot"])?;
    if output.code != 0 {
        // Refused where the caller's root is a ramdisk or not: the kernel decides.
        return Err(format!("it failed: {output:?}"));
    }
    contains("root", &output.stdout, "bin\n")
}

fn root_that_is_a_link(s: &Scene) -> Outcome {
    let mut container = s.script("echo linked")?;
    symlink("rootfs", container.bundle.directory.join("link")).map_err(|error| error.to_string())?;
    container.bundle.config["root"]["path"] = json!("link");
    let output = container.run()?;
    if s.runtime.is_runc() {
        // runc wants the real path.
        return output.refused().map(drop);
    }
    same("output", output.ok()?, "linked")
}

fn root_that_is_a_mount_point(s: &Scene) -> Outcome {
    let mut container = s.script("echo mounted")?;
    let _mount = HostMount::new(s, "other", "mode=755")?;
    s.tool(&["cp", "-a", &format!("{}/.", container.bundle.rootfs().display()), &s.text("other")])?;
    container.bundle.config["root"]["path"] = json!(s.text("other"));
    same("output", container.run()?.ok()?, "mounted")?;
    same("mounts", mounts_below(&s.path("other")).len(), 1)
}

fn masked_file_is_empty(s: &Scene) -> Outcome {
    let seen = s.sh_with("wc -c </proc/version; stat -c '%F %t:%T' /proc/version", |bundle| {
        masked(bundle, &["/proc/version"])
    })?;
    same("what is seen", seen, "0\ncharacter special file 1:3")
}

fn masked_directory_is_empty_and_read_only(s: &Scene) -> Outcome {
    let seen = s.sh_with("touch /proc/fs/x 2>&1; true", |bundle| masked(bundle, &["/proc/fs"]))?;
    contains("a writer", &seen, "Read-only file system")?;
    same("empty", s.sh_with("ls /proc/fs", |bundle| masked(bundle, &["/proc/fs"]))?, "")
}

fn masked_path_that_is_not_there_is_left_out(s: &Scene) -> Outcome {
    same("it runs", s.sh_with("echo ran", |bundle| masked(bundle, &["/nosuch/path", "/proc/nosuch"]))?, "ran")
}

fn masked_path_of_the_image(s: &Scene) -> Outcome {
    same(
        "what is seen",
        s.sh_with("cat /etc/passwd; ls /home", |bundle| masked(bundle, &["/etc/passwd", "/home"]))?,
        "",
    )
}

fn readonly_path_refuses_writers(s: &Scene) -> Outcome {
    let seen = s.sh_with("touch /home/x 2>&1; echo >/etc/passwd", |bundle| readonly(bundle, &["/home"]))?;
    contains("a writer", &seen, "Read-only file system")
}

fn readonly_path_that_is_not_there_is_left_out(s: &Scene) -> Outcome {
    same("it runs", s.sh_with("echo ran", |bundle| readonly(bundle, &["/nosuch/path"]))?, "ran")
}

fn readonly_path_keeps_the_other_options(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| {
        bundle.mount(tmpfs(&["nosuid", "nodev", "noexec"]));
        readonly(bundle, &["/mnt/t"]);
    })?;
    let options = options(&seen, "/mnt/t")?;
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        holds(&format!("{option} in {options:?}"), options.iter().any(|seen| seen == option))?;
    }
    Ok(())
}

fn nothing_of_it_is_seen_on_the_host(s: &Scene) -> Outcome {
    let before = read("/proc/self/mountinfo");
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.mount(tmpfs(&[]));
    container.up()?;
    same("mounts of the host", read("/proc/self/mountinfo"), before)?;
    container.delete_force()
}

fn mount_label_is_refused_or_ignored_without_selinux(s: &Scene) -> Outcome {
    if std::path::Path::new("/sys/fs/selinux").exists() {
        return Err(crate::case::skip("the kernel has SELinux"));
    }
    let mut container = s.script("echo ran")?;
    container.bundle.config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
    let output = container.run()?;
    holds("refused or ran", output.code != 0 || output.stdout == "ran\n")
}

fn sysctl_is_set(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax", |bundle| {
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678"});
    })?;
    same("values", seen, "1\n12345678")
}

fn sysctl_by_slashes(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/sys/net/ipv4/conf/lo/forwarding", |bundle| {
        bundle.config["linux"]["sysctl"] = json!({"net/ipv4/conf/lo/forwarding": "1"});
    })?;
    same("value", seen, "1")
}

fn sysctl_of_the_host_is_refused(s: &Scene) -> Outcome {
    let before = read("/proc/sys/vm/swappiness");
    // What it is already, so that nothing changes where it is let through.
    let value = before.trim().to_owned();
    s.refused_with(|bundle| bundle.config["linux"]["sysctl"] = json!({"vm.swappiness": value}))?;
    s.refused_with(|bundle| {
        bundle.without_namespace("network");
        bundle.config["linux"]["sysctl"] =
            json!({"net.ipv4.ip_forward": read("/proc/sys/net/ipv4/ip_forward").trim()});
    })?;
    same("value", read("/proc/sys/vm/swappiness"), before)
}

fn sysctl_unknown_is_refused(s: &Scene) -> Outcome {
    for name in ["net.no.such.thing", "net.ipv4", "net.ipv4/../../vm/swappiness", "", "../x"] {
        s.refused_with(|bundle| bundle.config["linux"]["sysctl"] = json!({name: "1"}))
            .map_err(|error| format!("`{name}`: {error}"))?;
    }
    Ok(())
}

fn many_mounts(s: &Scene) -> Outcome {
    let source = s.directory("source")?;
    let long = "a-rather-long-name-for-a-directory-so-that-the-whole-list-of-mounts-is-long-too".repeat(2);
    let seen = s.sh_with("ls /mnt | wc -l; grep -c a-rather-long /proc/self/mountinfo", |bundle| {
        for number in 0..300 {
            bundle.mount(json!({"destination": format!("/mnt/{long}{number}"), "type": "bind", "source": source, "options": ["bind"]}));
        }
    })?;
    same("mounts", seen, "300\n300")
}

/// A shared tmpfs of the host's.
fn shared(s: &Scene) -> Outcome<HostMount> {
    let mount = HostMount::new(s, "shared", "mode=755")?;
    s.tool(&["mount", "--make-shared", &mount.0])?;
    Ok(mount)
}

fn read_only(bundle: &mut Bundle) {
    bundle.config["root"]["readonly"] = json!(true);
}

fn masked(bundle: &mut Bundle, paths: &[&str]) {
    bundle.config["linux"]["maskedPaths"] = json!(paths);
}

fn readonly(bundle: &mut Bundle, paths: &[&str]) {
    bundle.config["linux"]["readonlyPaths"] = json!(paths);
}
