//! Name spaces that stand for a host of their own, and work inside them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Output, Running, have};

/// A network and a mount name space, held by a sleeping process; loopback is up. Gone when dropped.
#[derive(Debug)]
pub struct Network {
    holder: Child,
}

impl Network {
    /// Makes one.
    ///
    /// # Errors
    /// The reason why there is none.
    pub fn private() -> Result<Network, String> {
        for program in ["unshare", "nsenter", "ip"] {
            if !have(program) {
                return Err(format!("no `{program}` (packages util-linux, iproute2)"));
            }
        }
        let script = "ip link set lo up && echo ready && exec sleep 3600";
        let mut holder = Command::new("unshare")
            .args(["-n", "-m", "--propagation", "private", "--", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("`unshare` does not start: {error}"))?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        let network = Network { holder };
        if line.trim() == "ready" { Ok(network) } else { Err("name spaces may not be made here".to_owned()) }
    }

    /// The process that holds the name spaces.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// The words to put before a command that is to run inside.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        ["nsenter", "-n", "-m", "-t", &self.pid().to_string(), "--"].map(str::to_owned).to_vec()
    }

    /// Runs a program of this machine inside.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Output {
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(words);
        Running::start(command).finish()
    }

    /// Connects it with another by a veth pair called `name` on both sides.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn connect(&self, name: &str, address: &str, other: &Network, other_address: &str) {
        let pid = other.pid().to_string();
        for (network, words) in [
            (self, vec!["ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", &pid]),
            (self, vec!["ip", "address", "add", address, "dev", name]),
            (self, vec!["ip", "link", "set", name, "up"]),
            (other, vec!["ip", "address", "add", other_address, "dev", name]),
            (other, vec!["ip", "link", "set", name, "up"]),
        ] {
            let done = network.run(&words);
            assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
        }
    }

    /// Does `work` inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network_of(self.pid(), work)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Does `work` in the network name space of a process; sockets made there stay there.
///
/// # Panics
/// When the name space cannot be entered, or `work` panics.
pub fn in_network_of<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(format!("/proc/{pid}/ns/net")).expect("the process lives");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("the name space is entered");
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Does `work` inside `network`, or in the test's own network when there is none.
pub fn in_network<T: Send>(network: Option<&Network>, work: impl FnOnce() -> T + Send) -> T {
    match network {
        Some(network) => network.enter(work),
        None => work(),
    }
}
