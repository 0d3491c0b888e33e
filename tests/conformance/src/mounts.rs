//! What the container sees of file systems: every mount option, destination and kind.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::scene::{Scene, read};

cases!("mounts":
    the_usual_ones_are_there,
    options_of_the_vfs,
    options_of_the_vfs_undo_earlier_ones,
    options_of_access_times,
    options_of_the_file_system_are_passed_on,
    options_of_a_bind,
    options_of_a_bind_keep_the_rest,
    options_recursive_are_recursive [Need::Since("runc", "1.1"), Need::Lacks("crun", "1.8.1 knows rro alone"),],
    option_rro_is_recursive,
    option_ro_is_not_recursive,
    option_nosymfollow [Need::Since("runc", "1.1"), Need::Since("crun", "1.9")],
    option_tmpcopyup,
    option_tmpcopyup_with_links_and_modes,
    option_idmap_by_mappings [Need::Since("runc", "1.2")],
    option_idmap_by_mappings_is_not_recursive [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    option_ridmap_by_mappings_is_recursive [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    option_idmap_without_mappings_takes_the_containers [Need::Since("runc", "1.2"), Need::Since("crun", "1.9")],
    option_idmap_unknown_source_is_refused [Need::Since("runc", "1.2")],
    bind_of_a_file,
    bind_of_a_directory_with_what_is_below,
    bind_without_recursion_leaves_what_is_below_out,
    bind_of_a_relative_source_is_of_the_bundle,
    bind_of_a_source_that_is_not_there_is_refused,
    bind_over_a_file_of_the_image,
    bind_of_a_socket_and_a_fifo,
    destination_is_made,
    destination_that_is_relative [Need::Since("crun", "1.9")],
    destination_through_a_link_stays_inside,
    destination_through_a_link_upward_stays_inside,
    destination_with_dots,
    destination_over_an_earlier_one,
    order_is_the_configurations,
    tmpfs_has_its_size_and_mode,
    proc_over_a_link_is_refused,
    proc_elsewhere,
    sysfs_in_the_host_network_is_bound,
    cgroup_is_read_only,
    cgroup_writable_is_the_containers_own,
    cgroup_shows_each_controller,
    mqueue_is_the_containers,
    overlay_mount,
);

/// The options of a mount point as the container sees them: of the mount, then of the file system.
pub(crate) fn options(text: &str, point: &str) -> Outcome<Vec<String>> {
    let found = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(point));
    let line = found.ok_or_else(|| format!("no mount at `{point}` in {text}"))?;
    let (before, after) = line.split_once(" - ").ok_or("no mountinfo")?;
    let mut all: Vec<String> =
        before.split(' ').nth(5).unwrap_or_default().split(',').map(str::to_owned).collect();
    all.extend(after.split(' ').nth(2).unwrap_or_default().split(',').map(|option| format!("fs:{option}")));
    Ok(all)
}

/// Whether these options are shown, and those are not.
fn shown(s: &Scene, mount: Value, point: &str, with: &[&str], without: &[&str]) -> Outcome {
    let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| bundle.mount(mount.clone()))?;
    let options = options(&seen, point)?;
    for option in with {
        holds(&format!("`{option}` in {options:?} of {mount}"), options.iter().any(|seen| seen == option))?;
    }
    for option in without {
        holds(
            &format!("no `{option}` in {options:?} of {mount}"),
            !options.iter().any(|seen| seen == option),
        )?;
    }
    Ok(())
}

pub(crate) fn tmpfs(options: &[&str]) -> Value {
    json!({"destination": "/mnt/t", "type": "tmpfs", "source": "tmpfs", "options": options})
}

fn the_usual_ones_are_there(s: &Scene) -> Outcome {
    let seen = s.sh("cat /proc/self/mountinfo")?;
    for point in ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"] {
        options(&seen, point)?;
    }
    let shm = options(&seen, "/dev/shm")?;
    for option in ["nosuid", "nodev", "noexec", "fs:size=65536k"] {
        holds(&format!("{option} in {shm:?}"), shm.iter().any(|seen| seen == option))?;
    }
    holds("sys is read-only", options(&seen, "/sys")?.iter().any(|option| option == "ro"))
}

fn options_of_the_vfs(s: &Scene) -> Outcome {
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime"] {
        shown(s, tmpfs(&[option]), "/mnt/t", &[option], &[])?;
    }
    shown(s, tmpfs(&["sync"]), "/mnt/t", &["fs:sync"], &[])?;
    shown(s, tmpfs(&[]), "/mnt/t", &["rw"], &["nosuid", "nodev", "noexec", "ro"])
}

fn options_of_the_vfs_undo_earlier_ones(s: &Scene) -> Outcome {
    for (first, second) in
        [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("noatime", "atime")]
    {
        shown(s, tmpfs(&[first, second]), "/mnt/t", &[], &[first])?;
        shown(s, tmpfs(&[second, first]), "/mnt/t", &[first], &[])?;
    }
    Ok(())
}

fn options_of_access_times(s: &Scene) -> Outcome {
    shown(s, tmpfs(&["strictatime"]), "/mnt/t", &[], &["noatime", "relatime"])?;
    shown(s, tmpfs(&["noatime"]), "/mnt/t", &["noatime"], &["relatime"])
}

fn options_of_the_file_system_are_passed_on(s: &Scene) -> Outcome {
    shown(
        s,
        tmpfs(&["size=1m", "mode=0700", "uid=7", "nr_inodes=100"]),
        "/mnt/t",
        &["fs:size=1024k", "fs:mode=700", "fs:uid=7", "fs:nr_inodes=100"],
        &[],
    )?;
    let said = s.refused_with(|bundle| bundle.mount(tmpfs(&["nosuchoption=1"])))?;
    contains("what is said", &said, "/mnt/t")
}

pub(crate) fn bind(source: &str, options: &[&str]) -> Value {
    let kind = if options.contains(&"rbind") { "rbind" } else { "bind" };
    let options: Vec<&str> = [&[kind], options].concat();
    json!({"destination": "/mnt/t", "type": "bind", "source": source, "options": options})
}

fn options_of_a_bind(s: &Scene) -> Outcome {
    let source = s.directory("source")?;
    for option in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
        shown(s, bind(&source, &[option]), "/mnt/t", &[option], &[])?;
    }
    shown(
        s,
        bind(&source, &["ro", "nosuid", "nodev", "noexec"]),
        "/mnt/t",
        &["ro", "nosuid", "nodev", "noexec"],
        &[],
    )?;
    let seen = s.sh_with("touch /mnt/t/x 2>/dev/null || echo refused", |bundle| {
        bundle.mount(bind(&source, &["ro"]))
    })?;
    same("a writer", seen, "refused")?;
    // The source keeps its own.
    fs::write(s.path("source/y"), "").map_err(|error| format!("the source is read-only: {error}"))
}

/// A tmpfs of the host's, gone when dropped.
pub(crate) struct HostMount(pub(crate) String);

impl HostMount {
    pub(crate) fn new(s: &Scene, name: &str, options: &str) -> Outcome<HostMount> {
        let path = s.directory(name)?;
        s.tool(&["mount", "-t", "tmpfs", "-o", options, "conformance", &path])?;
        Ok(HostMount(path))
    }
}

impl Drop for HostMount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.as_str(), rustix::mount::UnmountFlags::DETACH);
    }
}

fn options_of_a_bind_keep_the_rest(s: &Scene) -> Outcome {
    let source = HostMount::new(s, "source", "nosuid,nodev,noexec,noatime")?;
    shown(s, bind(&source.0, &[]), "/mnt/t", &["nosuid", "nodev", "noexec", "noatime", "rw"], &[])
}

/// A mount with another below it.
fn nested(s: &Scene) -> Outcome<(HostMount, HostMount)> {
    let outer = HostMount::new(s, "outer", "mode=755")?;
    let inner = HostMount::new(s, "outer/inner", "mode=755")?;
    Ok((inner, outer))
}

fn options_recursive_are_recursive(s: &Scene) -> Outcome {
    let (_inner, outer) = nested(s)?;
    for (option, plain) in [
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        shown(s, bind(&outer.0, &["rbind", option]), "/mnt/t", &[plain], &[])?;
        shown(s, bind(&outer.0, &["rbind", option]), "/mnt/t/inner", &[plain], &[])?;
    }
    Ok(())
}

fn option_rro_is_recursive(s: &Scene) -> Outcome {
    let (_inner, outer) = nested(s)?;
    shown(s, bind(&outer.0, &["rbind", "rro"]), "/mnt/t", &["ro"], &[])?;
    shown(s, bind(&outer.0, &["rbind", "rro"]), "/mnt/t/inner", &["ro"], &[])
}

fn option_ro_is_not_recursive(s: &Scene) -> Outcome {
    let (_inner, outer) = nested(s)?;
    shown(s, bind(&outer.0, &["rbind", "ro"]), "/mnt/t", &["ro"], &[])?;
    shown(s, bind(&outer.0, &["rbind", "ro"]), "/mnt/t/inner", &["rw"], &["ro"])
}

fn option_nosymfollow(s: &Scene) -> Outcome {
    let source = s.directory("source")?;
    symlink("/etc/passwd", s.path("source/link")).map_err(|error| error.to_string())?;
    let seen = s.sh_with("cat /mnt/t/link 2>&1 | head -n 1", |bundle| {
        bundle.mount(bind(&source, &["nosymfollow"]))
    })?;
    holds(&format!("the link is not followed: {seen}"), !seen.contains("root:"))
}

fn option_tmpcopyup(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /data/a/file; touch /data/new; ls /data", |bundle| {
        let data = bundle.rootfs().join("data/a");
        fs::create_dir_all(&data).and_then(|()| fs::write(data.join("file"), "content\n")).ok();
        bundle.mount(
            json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}),
        );
    })?;
    same("what is seen", seen, "content\na\nnew")
}

fn option_tmpcopyup_with_links_and_modes(s: &Scene) -> Outcome {
    let script = "stat -c '%a %u:%g %F' /data/file /data/dir; readlink /data/link";
    let mut container = s.script(script)?;
    let data = container.bundle.rootfs().join("data");
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(data.join("dir"))?;
        fs::write(data.join("file"), "x")?;
        fs::set_permissions(data.join("file"), fs::Permissions::from_mode(0o640))?;
        std::os::unix::fs::chown(data.join("file"), Some(7), Some(8))?;
        fs::set_permissions(data.join("dir"), fs::Permissions::from_mode(0o1711))?;
        symlink("/etc/nothing", data.join("link"))
    };
    make().map_err(|error| error.to_string())?;
    container
        .bundle
        .mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    same("what is seen", container.run()?.ok()?, "640 7:8 regular file\n1711 0:0 directory\n/etc/nothing")
}

/// A directory with a file of user 5 and group 6.
fn owned(s: &Scene, name: &str) -> Outcome<String> {
    let source = s.directory(name)?;
    let file = s.file(&format!("{name}/file"), "x")?;
    std::os::unix::fs::chown(&file, Some(5), Some(6)).map_err(|error| error.to_string())?;
    Ok(source)
}

fn mapped(mut mount: Value) -> Value {
    mount["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    mount["gidMappings"] = json!([{"containerID": 0, "hostID": 2000, "size": 100}]);
    mount
}

fn option_idmap_by_mappings(s: &Scene) -> Outcome {
    let source = owned(s, "source")?;
    let mount = mapped(bind(&source, &["idmap"]));
    let seen = s.sh_with("stat -c %u:%g /mnt/t/file", |bundle| bundle.mount(mount))?;
    if s.runtime.is_crun() {
        // crun takes its own notation in the option alone in 1.8.1: the file is shown as it is.
        return same("owner", seen, "1005:2006");
    }
    same("owner", seen, "1005:2006")
}

fn idmapped_nested(s: &Scene, option: &str) -> Outcome<String> {
    let (inner, outer) = nested(s)?;
    for file in [format!("{}/file", outer.0), format!("{}/file", inner.0)] {
        fs::write(&file, "")
            .and_then(|()| std::os::unix::fs::chown(&file, Some(5), Some(6)))
            .map_err(|error| error.to_string())?;
    }
    let mount = mapped(bind(&outer.0, &["rbind", option]));
    s.sh_with("stat -c %u:%g /mnt/t/file /mnt/t/inner/file", |bundle| bundle.mount(mount))
}

fn option_idmap_by_mappings_is_not_recursive(s: &Scene) -> Outcome {
    same("owners", idmapped_nested(s, "idmap")?, "1005:2006\n5:6")
}

fn option_ridmap_by_mappings_is_recursive(s: &Scene) -> Outcome {
    same("owners", idmapped_nested(s, "ridmap")?, "1005:2006\n1005:2006")
}

fn option_idmap_without_mappings_takes_the_containers(s: &Scene) -> Outcome {
    let source = owned(s, "source")?;
    let mut container = s.script("stat -c %u:%g /mnt/t/file")?;
    let bundle = &mut container.bundle;
    bundle.namespace(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    bundle.mount(bind(&source, &["idmap"]));
    s.tool(&["chmod", "755", &s.text("")])?;
    s.tool(&["chown", "-Rh", "200000:200000", &bundle.rootfs().display().to_string()])?;
    same("owner inside", container.run()?.ok()?, "5:6")
}

fn option_idmap_unknown_source_is_refused(s: &Scene) -> Outcome {
    // proc cannot be shown with other owners.
    s.refused_with(|bundle| bundle.mount(mapped(bind("/proc", &["idmap"])))).map(drop)
}

fn bind_of_a_file(s: &Scene) -> Outcome {
    let file = s.file("source", "bound\n")?;
    let seen = s.sh_with("cat /etc/new/file; stat -c %F /etc/new/file", |bundle| {
        bundle.mount(
            json!({"destination": "/etc/new/file", "type": "bind", "source": file, "options": ["bind"]}),
        );
    })?;
    same("what is seen", seen, "bound\nregular file")
}

fn bind_of_a_directory_with_what_is_below(s: &Scene) -> Outcome {
    let (inner, outer) = nested(s)?;
    fs::write(format!("{}/deep", inner.0), "deep\n").map_err(|error| error.to_string())?;
    same(
        "below",
        s.sh_with("cat /mnt/t/inner/deep", |bundle| bundle.mount(bind(&outer.0, &["rbind"])))?,
        "deep",
    )
}

fn bind_without_recursion_leaves_what_is_below_out(s: &Scene) -> Outcome {
    let (inner, outer) = nested(s)?;
    fs::write(format!("{}/deep", inner.0), "deep\n").map_err(|error| error.to_string())?;
    same("below", s.sh_with("ls /mnt/t/inner", |bundle| bundle.mount(bind(&outer.0, &[])))?, "")
}

fn bind_of_a_relative_source_is_of_the_bundle(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /mnt/t", |bundle| {
        fs::write(bundle.directory.join("beside"), "beside\n").ok();
        bundle.mount(bind("beside", &[]));
    })?;
    same("what is seen", seen, "beside")
}

fn bind_of_a_source_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let said = s.refused_with(|bundle| bundle.mount(bind("/no/such/source", &[])))?;
    contains("what is said", &said, "no/such/source")?;
    contains("what is said", &said.to_lowercase(), "no such file or directory")
}

fn bind_over_a_file_of_the_image(s: &Scene) -> Outcome {
    let file = s.file("source", "bound\n")?;
    let mut container = s.script("cat /etc/passwd")?;
    container
        .bundle
        .mount(json!({"destination": "/etc/passwd", "type": "bind", "source": file, "options": ["bind"]}));
    same("inside", container.run()?.ok()?, "bound")?;
    contains("the image", &read(container.bundle.rootfs().join("etc/passwd")), "root:x:0:0")
}

fn bind_of_a_socket_and_a_fifo(s: &Scene) -> Outcome {
    let _socket =
        std::os::unix::net::UnixListener::bind(s.path("socket")).map_err(|error| error.to_string())?;
    s.tool(&["mkfifo", &s.text("fifo")])?;
    let seen = s.sh_with("stat -c %F /run/socket /run/fifo", |bundle| {
        for name in ["socket", "fifo"] {
            bundle.mount(
                json!({"destination": format!("/run/{name}"), "source": s.text(name), "options": ["bind"]}),
            );
        }
    })?;
    same("kinds", seen, "socket\nfifo")
}

fn destination_is_made(s: &Scene) -> Outcome {
    let mount = json!({"destination": "/very/deep/one", "type": "tmpfs", "source": "tmpfs"});
    same("kind", s.sh_with("stat -c '%F %a' /very/deep", |bundle| bundle.mount(mount))?, "directory 755")
}

fn destination_that_is_relative(s: &Scene) -> Outcome {
    let mount = json!({"destination": "mnt/t", "type": "tmpfs", "source": "tmpfs"});
    let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| bundle.mount(mount))?;
    options(&seen, "/mnt/t").map(drop)
}

fn destination_through_a_link_stays_inside(s: &Scene) -> Outcome {
    let outside = s.directory("outside")?;
    let seen = s.sh_with("touch /link/x; cat /proc/self/mountinfo", |bundle| {
        symlink(&outside, bundle.rootfs().join("link")).ok();
        bundle.mount(json!({"destination": "/link", "type": "tmpfs", "source": "tmpfs"}));
    })?;
    options(&seen, &outside)?;
    same("outside", fs::read_dir(&outside).map_err(|error| error.to_string())?.count(), 0)
}

fn destination_through_a_link_upward_stays_inside(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| {
        symlink("../../../../../up", bundle.rootfs().join("link")).ok();
        bundle.mount(json!({"destination": "/link/below", "type": "tmpfs", "source": "tmpfs"}));
    })?;
    options(&seen, "/up/below").map(drop)
}

fn destination_with_dots(s: &Scene) -> Outcome {
    let seen = s.sh_with("cat /proc/self/mountinfo", |bundle| {
        bundle.mount(json!({"destination": "/mnt/../mnt/./t", "type": "tmpfs", "source": "tmpfs"}));
    })?;
    options(&seen, "/mnt/t").map(drop)
}

fn destination_over_an_earlier_one(s: &Scene) -> Outcome {
    let seen = s.sh_with("ls /mnt/t; df /mnt/t | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2", |bundle| {
        bundle.mount(tmpfs(&["size=1m"]));
        bundle.mount(tmpfs(&["size=2m"]));
    })?;
    same("size", seen, "2048")
}

fn order_is_the_configurations(s: &Scene) -> Outcome {
    let seen = s.sh_with("ls /mnt/t; ls /mnt/t/below", |bundle| {
        bundle.mount(tmpfs(&[]));
        bundle.mount(json!({"destination": "/mnt/t/below", "type": "tmpfs", "source": "tmpfs"}));
    })?;
    same("what is seen", seen, "below")
}

fn tmpfs_has_its_size_and_mode(s: &Scene) -> Outcome {
    let script = "stat -c %a /mnt/t; df -k /mnt/t | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2";
    same(
        "mode and size",
        s.sh_with(script, |bundle| bundle.mount(tmpfs(&["size=64k", "mode=1770"])))?,
        "1770\n64",
    )
}

fn proc_over_a_link_is_refused(s: &Scene) -> Outcome {
    for name in ["proc", "sys"] {
        let said = s.refused_with(|bundle| {
            fs::remove_dir(bundle.rootfs().join(name)).ok();
            symlink("/tmp", bundle.rootfs().join(name)).ok();
        })?;
        s.says(&said, &["must be mounted on ordinary directory"])?;
    }
    Ok(())
}

fn proc_elsewhere(s: &Scene) -> Outcome {
    let mount =
        json!({"destination": "/mnt/t", "type": "proc", "source": "proc", "options": ["ro", "hidepid=0"]});
    same("proc", s.sh_with("cat /mnt/t/1/comm", |bundle| bundle.mount(mount))?, "cat")
}

fn sysfs_in_the_host_network_is_bound(s: &Scene) -> Outcome {
    let seen = s.sh_with("ls /sys/class/net; touch /sys/x 2>/dev/null || echo refused", |bundle| {
        bundle.without_namespace("network");
        bundle.without_mount("/sys/fs/cgroup");
        bundle.without_mount("/sys");
        bundle.mount(
            json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]}),
        );
    })?;
    contains("devices", &seen, "lo")?;
    contains("a writer", &seen, "refused")
}

fn cgroup_is_read_only(s: &Scene) -> Outcome {
    let seen = s.sh("mkdir /sys/fs/cgroup/pids/x 2>/dev/null || echo refused; echo 1 2>/dev/null >/sys/fs/cgroup/pids/pids.max || echo refused")?;
    same("writers", seen, "refused\nrefused")
}

fn cgroup_writable_is_the_containers_own(s: &Scene) -> Outcome {
    let mut container = s.script("mkdir /sys/fs/cgroup/pids/inside && rmdir /sys/fs/cgroup/pids/inside && echo made; cat /sys/fs/cgroup/pids/cgroup.procs | wc -l; exec sleep 1000")?;
    container.bundle.without_mount("/sys/fs/cgroup");
    container.bundle.mount(json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "rw"]}));
    container.up()?;
    container.expect("made\n3").or_else(|_| container.expect("made\n2")).map(drop)
}

fn cgroup_shows_each_controller(s: &Scene) -> Outcome {
    let seen = s.sh("for name in cpu cpuacct cpuset memory devices freezer blkio pids; do test -e /sys/fs/cgroup/$name/cgroup.procs || echo no $name; done")?;
    same("missing", seen, "")
}

fn mqueue_is_the_containers(s: &Scene) -> Outcome {
    same("queues", s.sh("touch /dev/mqueue/q && ls /dev/mqueue")?, "q")
}

fn overlay_mount(s: &Scene) -> Outcome {
    let _base = HostMount::new(s, "o", "mode=755")?;
    for name in ["o/lower", "o/upper", "o/work"] {
        s.directory(name)?;
    }
    s.file("o/lower/file", "lower\n")?;
    let data = ["lower", "upper", "work"].map(|name| format!("{name}dir={}", s.text(&format!("o/{name}"))));
    let seen = s.sh_with("cat /mnt/t/file; echo upper >/mnt/t/file", |bundle| {
        bundle
            .mount(json!({"destination": "/mnt/t", "type": "overlay", "source": "overlay", "options": data}));
    })?;
    same("what is seen", seen, "lower")?;
    same("upper", read(s.path("o/upper/file")), "upper\n")?;
    same("lower", read(s.path("o/lower/file")), "lower\n")
}

/// The optional fields of a mount point: its propagation.
pub(crate) fn propagation(text: &str, point: &str) -> Outcome<String> {
    let found = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(point));
    let line = found.ok_or_else(|| format!("no mount at `{point}`"))?;
    let fields = line.split(' ').skip(6).take_while(|field| *field != "-");
    Ok(fields.map(|field| field.split(':').next().unwrap_or_default()).collect::<Vec<_>>().join(" "))
}
