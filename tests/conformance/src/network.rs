//! Network devices that move into the container, the loopback, network settings of the kernel.
//!
//! The runtime is called in a network namespace that the case makes, so that the host's devices are never touched.

use serde_json::{Value, json};

use crate::case::{Need, Outcome, cases, contains, holds, same};
use crate::container::Container;
use crate::runtime::Output;
use crate::scene::{Running, Scene, kill};

cases!("network":
    a_device_moves_in [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    a_device_is_renamed [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    a_device_keeps_its_addresses_and_is_up [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    several_devices_move_in [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    a_device_that_is_not_there_is_refused [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    a_name_that_is_taken_is_refused [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    a_name_that_is_too_long_is_refused [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    a_device_without_a_network_namespace_is_refused [Need::Since("runc", "1.4"), Need::Since("crun", "1.23")],
    the_loopback_is_up,
    the_loopback_of_a_joined_namespace_is_left_alone,
    settings_are_the_containers_own,
    settings_of_the_callers_network_are_refused,
    a_device_of_the_caller_is_not_seen,
);

/// A network namespace with a pair of devices, `out` and `other`.
struct Outside<'a> {
    scene: &'a Scene,
    holder: Running,
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        kill(self.holder.pid());
        let _ = self.holder.child.wait();
    }
}

impl<'a> Outside<'a> {
    fn new(scene: &'a Scene) -> Outcome<Outside<'a>> {
        let mut command = std::process::Command::new("unshare");
        command.args([
            "--net",
            "sh",
            "-c",
            "ip link add out type veth peer name other && echo made && exec sleep 1000",
        ]);
        let outside = Outside { scene, holder: scene.spawn(command)? };
        crate::case::wait_for("the devices are made", || {
            Ok(crate::scene::read(&outside.holder.stdout).contains("made").then_some(()))
        })?;
        Ok(outside)
    }

    fn inside(&self, command: &std::process::Command) -> Outcome<Output> {
        let mut entered = std::process::Command::new("nsenter");
        entered.arg(format!("--net=/proc/{}/ns/net", self.holder.pid())).arg("--").arg(command.get_program());
        entered.args(command.get_args());
        self.scene.finish(entered)
    }

    fn ip(&self, words: &[&str]) -> Outcome<String> {
        let mut command = std::process::Command::new("ip");
        command.args(words);
        self.inside(&command)?.ok()
    }

    fn run(&self, container: &Container) -> Outcome<Output> {
        container.bundle.write()?;
        let bundle = container.bundle.directory.display().to_string();
        self.inside(&container.command("run", &["--bundle", &bundle], &[]))
    }
}

fn with_devices<'a>(s: &'a Scene, script: &str, devices: Value) -> Outcome<Container<'a>> {
    let mut container = s.script(script)?;
    container.bundle.config["linux"]["netDevices"] = devices;
    Ok(container)
}

fn a_device_moves_in(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let seen = outside.run(&with_devices(s, "ls /sys/class/net | grep -v lo", json!({"out": {}}))?)?.ok()?;
    same("devices", seen, "out")
}

fn a_device_is_renamed(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let container = with_devices(s, "ls /sys/class/net | grep -v lo", json!({"out": {"name": "eth0"}}))?;
    same("devices", outside.run(&container)?.ok()?, "eth0")
}

fn a_device_keeps_its_addresses_and_is_up(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    outside.ip(&["address", "add", "10.99.0.7/24", "dev", "out"])?;
    outside.ip(&["link", "set", "out", "mtu", "1300", "up"])?;
    let seen =
        outside.run(&with_devices(s, "ip address show eth0", json!({"out": {"name": "eth0"}}))?)?.ok()?;
    contains("address", &seen, "inet 10.99.0.7/24")?;
    contains("size", &seen, "mtu 1300")?;
    contains("state", &seen, "UP")
}

fn several_devices_move_in(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let container = with_devices(
        s,
        "ls /sys/class/net | grep -v lo",
        json!({"out": {"name": "a0"}, "other": {"name": "b0"}}),
    )?;
    same("devices", outside.run(&container)?.ok()?, "a0\nb0")
}

fn a_device_that_is_not_there_is_refused(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let said = outside.run(&with_devices(s, "echo ran", json!({"nosuch0": {}}))?)?.refused()?;
    contains("what is said", &said, "nosuch0")
}

fn a_name_that_is_taken_is_refused(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    outside.run(&with_devices(s, "echo ran", json!({"out": {"name": "lo"}}))?)?.refused()?;
    // It is where it was.
    contains("devices outside", &outside.ip(&["link"])?, "out")
}

fn a_name_that_is_too_long_is_refused(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    for name in ["sixteen-letters0", "with/slash", "with space", "..", "."] {
        let said = outside.run(&with_devices(s, "echo ran", json!({"out": {"name": name}}))?)?.refused();
        said.map_err(|error| format!("`{name}`: {error}"))?;
    }
    contains("devices outside", &outside.ip(&["link"])?, "out")
}

fn a_device_without_a_network_namespace_is_refused(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let mut container = with_devices(s, "echo ran", json!({"out": {}}))?;
    container.bundle.without_namespace("network");
    container.bundle.without_mount("/sys/fs/cgroup");
    container.bundle.without_mount("/sys");
    outside.run(&container)?.refused()?;
    contains("devices outside", &outside.ip(&["link"])?, "out")
}

fn the_loopback_is_up(s: &Scene) -> Outcome {
    let seen = s.sh_with("ip link show lo; ip address show lo; cat /proc/net/tcp >/dev/null; ping -c 1 -W 2 127.0.0.1 | grep -c '1 packets received'", |bundle| {
        bundle.capabilities(&["CAP_NET_RAW"]);
    })?;
    contains("state", &seen, "<LOOPBACK,UP,LOWER_UP>")?;
    contains("address", &seen, "inet 127.0.0.1/8")?;
    same("answers", seen.lines().last(), Some("1"))
}

fn the_loopback_of_a_joined_namespace_is_left_alone(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    let mut container = s.script("ip link show lo")?;
    let path = format!("/proc/{}/ns/net", outside.holder.pid());
    container.bundle.namespace(json!({"type": "network", "path": path}));
    let seen = container.run()?.ok()?;
    holds(&format!("down in {seen}"), !seen.contains("LOWER_UP"))
}

fn settings_are_the_containers_own(s: &Scene) -> Outcome {
    let path = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let before = crate::scene::read(path);
    let seen = s.sh_with(&format!("cat {path}"), |bundle| {
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    })?;
    same("inside", seen, "77")?;
    same("outside", crate::scene::read(path), before)
}

fn settings_of_the_callers_network_are_refused(s: &Scene) -> Outcome {
    s.refused_with(|bundle| {
        bundle.without_namespace("network");
        bundle.without_mount("/sys/fs/cgroup");
        bundle.without_mount("/sys");
        bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    })
    .map(drop)
}

fn a_device_of_the_caller_is_not_seen(s: &Scene) -> Outcome {
    let outside = Outside::new(s)?;
    same("devices", outside.run(&s.script("ls /sys/class/net")?)?.ok()?, "lo")
}
