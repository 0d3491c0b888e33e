//! `mounts add` and `mounts remove` on a running container: a file of mounts as the configuration has them.

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::container::Container;
use crate::scene::Scene;

const RUNC: Need = Need::Lacks("runc", "no mounts");
const CRUN: Need = Need::Since("crun", "1.20");

cases!("live_mounts":
    a_bind_is_added_and_removed [RUNC, CRUN],
    a_tmpfs_is_added_with_its_options [RUNC, CRUN],
    several_are_added_in_order [RUNC, CRUN],
    a_read_only_one_is_read_only [RUNC, CRUN],
    the_destination_is_made [RUNC, CRUN],
    a_destination_through_a_link_stays_inside [RUNC, CRUN],
    the_host_does_not_see_them [RUNC, CRUN],
    in_a_user_namespace [RUNC, CRUN],
    a_source_that_is_not_there_is_refused [RUNC, CRUN],
    a_file_that_is_no_json_is_refused [RUNC, CRUN],
    what_is_not_mounted_cannot_be_removed [RUNC, CRUN],
    on_a_stopped_container_is_refused [RUNC, CRUN],
    on_an_unknown_container_is_refused [RUNC, CRUN],
    an_unknown_word_is_refused [RUNC, CRUN],
);

fn mounts(container: &Container, verb: &str, list: &Value) -> Outcome<crate::runtime::Output> {
    let path = container.scene.file("mounts.json", &json!({"mounts": list}).to_string())?;
    container.scene.call(&["mounts", verb, &container.id, &path])
}

/// The verb does its work; after a refusal, that shows what was refused.
fn works(container: &Container) -> Outcome {
    let list = json!([{"destination": "/run", "type": "tmpfs", "source": "works"}]);
    mounts(container, "add", &list)?.ok()?;
    same("mounts", container.sh("grep -c '^works /run ' /proc/mounts")?, "1")
}

fn source(s: &Scene) -> Outcome<String> {
    let directory = s.directory("source")?;
    s.file("source/file", "from outside\n")?;
    Ok(directory)
}

fn a_bind_is_added_and_removed(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let list = json!([{"destination": "/mnt", "type": "bind", "source": source(s)?, "options": ["bind"]}]);
    mounts(&container, "add", &list)?.ok()?;
    same("file", container.sh("cat /mnt/file")?, "from outside")?;
    mounts(&container, "remove", &list)?.ok()?;
    same("files", container.sh("ls /mnt")?, "")
}

fn a_tmpfs_is_added_with_its_options(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let list = json!([{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "noexec", "size=1m", "mode=700"]}]);
    mounts(&container, "add", &list)?.ok()?;
    let seen = container.sh("grep ' /mnt ' /proc/self/mountinfo; stat -c %a /mnt")?;
    for part in ["nosuid", "noexec", "size=1024k", "\n700"] {
        contains("mount", &seen, part)?;
    }
    Ok(())
}

fn several_are_added_in_order(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let list = json!([
        {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/mnt/below", "type": "bind", "source": source(s)?, "options": ["rbind"]}
    ]);
    mounts(&container, "add", &list)?.ok()?;
    same("file", container.sh("cat /mnt/below/file")?, "from outside")
}

fn a_read_only_one_is_read_only(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let list =
        json!([{"destination": "/mnt", "type": "bind", "source": source(s)?, "options": ["bind", "ro"]}]);
    mounts(&container, "add", &list)?.ok()?;
    same("writing", container.sh("echo x 2>/dev/null >/mnt/new || echo refused")?, "refused")
}

fn the_destination_is_made(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let list =
        json!([{"destination": "/deep/er/place", "type": "bind", "source": source(s)?, "options": ["bind"]}]);
    mounts(&container, "add", &list)?.ok()?;
    same("file", container.sh("cat /deep/er/place/file")?, "from outside")
}

fn a_destination_through_a_link_stays_inside(s: &Scene) -> Outcome {
    let container = s.container(&["sleep", "1000"])?;
    let outside = s.directory("outside")?;
    std::os::unix::fs::symlink(&outside, container.bundle.rootfs().join("link"))
        .map_err(|error| error.to_string())?;
    container.up()?;
    let list = json!([{"destination": "/link/new", "type": "tmpfs", "source": "tmpfs"}]);
    mounts(&container, "add", &list)?;
    same("entries outside", std::fs::read_dir(&outside).map_err(|error| error.to_string())?.count(), 0)?;
    works(&container)
}

fn the_host_does_not_see_them(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let before = crate::scene::read("/proc/self/mountinfo").lines().count();
    mounts(&container, "add", &json!([{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}]))?.ok()?;
    same("mounts", crate::scene::read("/proc/self/mountinfo").lines().count(), before)?;
    holds("no file", !container.bundle.rootfs().join("mnt/file").exists())
}

fn in_a_user_namespace(s: &Scene) -> Outcome {
    let mut container = s.container(&["sleep", "1000"])?;
    container.bundle.namespace(json!({"type": "user"}));
    container.bundle.config["linux"]["uidMappings"] =
        json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    container.bundle.config["linux"]["gidMappings"] =
        json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    s.tool(&["chmod", "755", &s.text("")])?;
    s.tool(&["chown", "-Rh", "200000:200000", &container.bundle.rootfs().display().to_string()])?;
    container.up()?;
    let list = json!([{"destination": "/mnt", "type": "bind", "source": source(s)?, "options": ["bind"]}]);
    mounts(&container, "add", &list)?.ok()?;
    same("file", container.sh("cat /mnt/file")?, "from outside")
}

fn a_source_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let list = json!([{"destination": "/mnt", "type": "bind", "source": "/no/such", "options": ["bind"]}]);
    contains("what is said", &mounts(&container, "add", &list)?.refused()?, "/no/such")?;
    works(&container)
}

fn a_file_that_is_no_json_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    for text in ["", "{", "7"] {
        let path = s.file("mounts.json", text)?;
        s.call(&["mounts", "add", &container.id, &path])?
            .refused()
            .map_err(|error| format!("`{text}`: {error}"))?;
    }
    s.call(&["mounts", "add", &container.id, "/no/such/file"])?.refused()?;
    works(&container)
}

fn what_is_not_mounted_cannot_be_removed(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    let list = json!([{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}]);
    mounts(&container, "remove", &list)?.refused()?;
    mounts(&container, "add", &list)?.ok()?;
    mounts(&container, "remove", &list)?.ok()?;
    mounts(&container, "remove", &list)?.refused().map(drop)
}

fn on_a_stopped_container_is_refused(s: &Scene) -> Outcome {
    let container = s.script("true")?;
    container.up()?;
    container.wait_status("stopped")?;
    let list = json!([{"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}]);
    let said = mounts(&container, "add", &list)?.refused()?;
    crate::case::contains_any("what is said", &said, &["not running", "stopped"])
}

fn on_an_unknown_container_is_refused(s: &Scene) -> Outcome {
    let path = s.file("mounts.json", "{\"mounts\": []}")?;
    let said = s.call(&["mounts", "add", "nosuch", &path])?.refused()?;
    s.says(&said, &["container does not exist"])
}

fn an_unknown_word_is_refused(s: &Scene) -> Outcome {
    let container = s.waiting()?;
    contains("what is said", &mounts(&container, "change", &json!([]))?.refused()?, "change")?;
    works(&container)
}
