//! Device nodes, and what the cgroup lets the container do with them.

use serde_json::json;

use crate::case::{Outcome, cases, contains, same};
use crate::scene::Scene;

cases!("devices":
    the_default_ones_are_there,
    the_default_links_are_there,
    the_default_ones_work,
    a_character_device_is_made,
    a_block_device_and_a_fifo_are_made,
    a_device_has_its_mode_and_owner,
    a_device_in_a_directory_that_is_missing,
    a_device_over_a_file_that_is_there,
    a_device_of_an_unknown_type_is_refused,
    devices_are_bound_in_a_user_namespace,
    rules_refuse_all_but_the_default_ones,
    rules_allow_one,
    rules_are_taken_in_order,
    rules_of_access_are_kept_apart,
    rules_without_numbers_are_for_all,
    no_device_can_be_made_without_mknod,
    dev_bound_from_the_host_is_left_as_it_is,
);

fn the_default_ones_are_there(s: &Scene) -> Outcome {
    let seen = s.sh("cd /dev; stat -c '%n %F %a %t:%T %u:%g' null zero full random urandom tty")?;
    let expected = [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ];
    let lines: Vec<String> = expected
        .iter()
        .map(|(name, numbers)| format!("{name} character special file 666 {numbers} 0:0"))
        .collect();
    same("devices", seen.lines().map(str::to_owned).collect::<Vec<_>>(), lines)
}

fn the_default_links_are_there(s: &Scene) -> Outcome {
    let seen = s.sh("cd /dev; for name in fd stdin stdout stderr ptmx; do readlink $name; done")?;
    same("links", seen, "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx")
}

fn the_default_ones_work(s: &Scene) -> Outcome {
    let seen = s.sh("echo x >/dev/null && head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x 2>/dev/null >/dev/full || echo full; test -c /dev/ptmx && probe open /dev/pts/ptmx rw; echo out >>/dev/stdout")?;
    same("what is seen", seen, "4\n4\nfull\nopened\nout")
}

fn a_character_device_is_made(s: &Scene) -> Outcome {
    let seen = s.sh_with("stat -c '%F %t:%T' /dev/mine; head -c 3 /dev/mine | wc -c", |bundle| {
        bundle.config["linux"]["devices"] = json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5}]);
        bundle.config["linux"]["resources"]["devices"] =
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw"}]);
    })?;
    same("device", seen, "character special file 1:5\n3")
}

fn a_block_device_and_a_fifo_are_made(s: &Scene) -> Outcome {
    let seen = s.sh_with("stat -c '%F %t:%T' /dev/blk /dev/pipe", |bundle| {
        bundle.config["linux"]["devices"] =
            json!([{"path": "/dev/blk", "type": "b", "major": 7, "minor": 200}, {"path": "/dev/pipe", "type": "p"}]);
    })?;
    same("devices", seen, "block special file 7:c8\nfifo 0:0")
}

fn a_device_has_its_mode_and_owner(s: &Scene) -> Outcome {
    let seen = s.sh_with("stat -c '%a %u:%g' /dev/mine", |bundle| {
        bundle.config["linux"]["devices"] =
            json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8}]);
    })?;
    same("mode and owner", seen, "640 7:8")
}

fn a_device_in_a_directory_that_is_missing(s: &Scene) -> Outcome {
    let seen = s.sh_with("stat -c %F /dev/deep/er/mine", |bundle| {
        bundle.config["linux"]["devices"] =
            json!([{"path": "/dev/deep/er/mine", "type": "c", "major": 1, "minor": 5}]);
    })?;
    same("kind", seen, "character special file")
}

fn a_device_over_a_file_that_is_there(s: &Scene) -> Outcome {
    let seen = s.sh_with("stat -c %t:%T /dev/null", |bundle| {
        // The default ones may be named again.
        bundle.config["linux"]["devices"] = json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0}]);
        bundle.config["linux"]["resources"]["devices"] =
            json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}]);
    })?;
    same("numbers", seen, "1:3")
}

fn a_device_of_an_unknown_type_is_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.config["linux"]["devices"] =
            json!([{"path": "/dev/mine", "type": "x", "major": 1, "minor": 5}]);
    })
    .map(drop)
}

fn devices_are_bound_in_a_user_namespace(s: &Scene) -> Outcome {
    let mut container =
        s.script("stat -c '%F %t:%T' /dev/null /dev/zero; echo x >/dev/null && head -c 3 /dev/zero | wc -c")?;
    let bundle = &mut container.bundle;
    bundle.namespace(json!({"type": "user"}));
    bundle.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    bundle.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]);
    s.tool(&["chmod", "755", &s.text("")])?;
    s.tool(&["chown", "-Rh", "200000:200000", &bundle.rootfs().display().to_string()])?;
    same("devices", container.run()?.ok()?, "character special file 1:3\ncharacter special file 1:5\n3")
}

/// Opens nodes that a container with `CAP_MKNOD` makes itself; what each attempt ends with.
fn attempts(s: &Scene, rules: serde_json::Value, script: &str) -> Outcome<String> {
    s.sh_with(script, |bundle| {
        bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
        bundle.config["linux"]["resources"]["devices"] = rules;
    })
}

const DENIED: &str = "errno=1";

fn rules_refuse_all_but_the_default_ones(s: &Scene) -> Outcome {
    let script = "mknod /tmp/kmsg c 1 11 && probe open /tmp/kmsg r; mknod /tmp/loop b 7 0 && probe open /tmp/loop r; \
                  mknod /tmp/zero c 1 5 && probe open /tmp/zero rw";
    let seen = attempts(s, json!([{"allow": false, "access": "rwm"}]), script)?;
    same("attempts", seen.lines().collect::<Vec<_>>(), [DENIED, DENIED, "opened"])
}

fn rules_allow_one(s: &Scene) -> Outcome {
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]);
    let seen = attempts(s, rules, "mknod /tmp/kmsg c 1 11; probe open /tmp/kmsg r; probe open /tmp/kmsg w")?;
    same("attempts", seen.lines().collect::<Vec<_>>(), ["opened", DENIED])
}

fn rules_are_taken_in_order(s: &Scene) -> Outcome {
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "access": "rwm"},
        {"allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    ]);
    let script = "mknod /tmp/a c 1 2 2>/dev/null; mknod /tmp/kmsg c 1 11 2>&1; echo made; mknod /tmp/full c 1 7; probe open /tmp/full r";
    let seen = attempts(s, rules, script);
    if s.runtime.is_crun() {
        // crun cannot say this with version 1 of cgroups either: rules without a wildcard's exception are written in order.
        return seen.map(drop);
    }
    match seen {
        Ok(seen) => contains("attempts", &seen, "made\nopened"),
        // An exception within a wildcard cannot be said in cgroup version 1, so a refusal is as good.
        Err(_) => Ok(()),
    }
}

fn rules_of_access_are_kept_apart(s: &Scene) -> Outcome {
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "m"}]);
    let seen = attempts(s, rules, "mknod /tmp/fuse c 10 229 && echo made; probe open /tmp/fuse r")?;
    same("attempts", seen.lines().collect::<Vec<_>>(), ["made", DENIED])
}

fn rules_without_numbers_are_for_all(s: &Scene) -> Outcome {
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "access": "rwm"}]);
    let seen = attempts(
        s,
        rules,
        "mknod /tmp/kmsg c 1 11; probe open /tmp/kmsg r; mknod /tmp/loop b 7 0; probe open /tmp/loop r",
    )?;
    same("attempts", seen.lines().collect::<Vec<_>>(), ["opened", DENIED])
}

fn no_device_can_be_made_without_mknod(s: &Scene) -> Outcome {
    same("attempt", s.sh("mknod /tmp/x c 1 3 2>/dev/null || echo refused")?, "refused")
}

fn dev_bound_from_the_host_is_left_as_it_is(s: &Scene) -> Outcome {
    let before = std::fs::read_dir("/dev").map_err(|error| error.to_string())?.count();
    let seen = s.sh_with("test -c /dev/null && echo null", |bundle| {
        for point in ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"] {
            bundle.without_mount(point);
        }
        bundle.mount(
            json!({"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "ro"]}),
        );
    })?;
    same("device", seen, "null")?;
    same("nodes of the host", std::fs::read_dir("/dev").map_err(|error| error.to_string())?.count(), before)
}
