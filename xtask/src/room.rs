//! A room of its own for one caller or contender: name spaces, cgroups and directories that end with it.
//!
//! The room's first process holds its mount, network, pid and cgroup name spaces and reaps what is orphaned inside; when it is
//! killed, everything that runs in the room dies with it, and no mount is left. Every v1 hierarchy gets one cgroup below the one
//! this task runs in, seen inside as the root, so that whatever a caller forgets can be found and removed. The v2 tree of a
//! hybrid layout is not mounted inside, since podman and crun refuse it. `/run` and `/dev/shm` are empty. The network
//! has only the loopback device.
//!
//! It does not look after the directory on disk: that belongs to whoever asked for the room.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::shell::Janitor;

/// What a janitor does about cgroups, whose processes may still be dying.
const REMOVE_CGROUPS: &str = r#"
for try in 1 2 3 4 5 6 7 8 9 10; do
  left=
  for cgroup; do
    [ ! -d "$cgroup" ] || { left=1; find "$cgroup" -depth -type d -exec rmdir {} \;; }
  done
  [ -n "$left" ] || break
  sleep 0.2
done
"#;

/// One v1 hierarchy.
#[derive(Debug)]
struct Hierarchy {
    /// As `mount -t cgroup -o` takes it: `memory`, `cpu,cpuacct`, `none,name=systemd`.
    option: String,
    /// The directory's name below `/sys/fs/cgroup`.
    name: String,
    /// The room's cgroup, as seen from outside.
    cgroup: PathBuf,
}

/// A running room.
#[derive(Debug)]
pub(crate) struct Room {
    holder: Child,
    /// The first process inside, by its pid outside.
    first: u32,
    hierarchies: Vec<Hierarchy>,
    /// Removes the cgroups when this task is ended before it does.
    _janitor: Janitor,
}

/// How a script ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// The exit code; 124 when the time was up.
    pub(crate) code: i32,
    /// Standard output and standard error, as they came.
    pub(crate) output: String,
}

/// The v1 hierarchies of this machine: what `/proc/self/cgroup` says beside where `/proc/mounts` has them.
fn hierarchies(membership: &str, mounts: &str, name: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            continue;
        }
        let wanted: Vec<&str> = controllers.split(',').collect();
        let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| {
            let options = fields.get(3).map(|options| options.split(',').collect::<Vec<_>>());
            fields.get(2) == Some(&"cgroup")
                && options.is_some_and(|options| wanted.iter().all(|word| options.contains(word)))
        });
        let Some(point) = mount.and_then(|fields| fields.get(1).copied()) else { continue };
        let option = if controllers.starts_with("name=") {
            format!("none,{controllers}")
        } else {
            controllers.to_owned()
        };
        found.push(Hierarchy {
            option,
            name: Path::new(point).file_name().unwrap_or_default().to_string_lossy().into_owned(),
            cgroup: Path::new(point).join(path.trim_start_matches('/')).join(name),
        });
    }
    found
}

/// The same of this machine.
fn here(name: &str) -> Vec<Hierarchy> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    hierarchies(&membership, &mounts, name)
}

/// Whether this machine has what a room is made of.
pub(crate) fn is_possible() -> bool {
    !here("").is_empty()
}

fn make_cgroup(hierarchy: &Hierarchy) -> Result<(), String> {
    let cgroup = &hierarchy.cgroup;
    fs::create_dir(cgroup)
        .map_err(|error| format!("cannot make the cgroup `{}`: {error}", cgroup.display()))?;
    // A cpuset without processors takes no process.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let (true, Some(parent)) = (cgroup.join(file).exists(), cgroup.parent()) {
            fs::read(parent.join(file))
                .and_then(|text| fs::write(cgroup.join(file), text))
                .map_err(|error| format!("cannot set `{file}` of `{}`: {error}", cgroup.display()))?;
        }
    }
    Ok(())
}

impl Room {
    /// Makes a room called `name`, unique on the machine.
    pub(crate) fn open(name: &str) -> Result<Room, String> {
        let hierarchies = here(name);
        let mut inside = "set -e; ip link set lo up; mount -t tmpfs tmpfs /run; \
                          mount -t tmpfs tmpfs /dev/shm; umount -R /sys/fs/cgroup; \
                          mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup; "
            .to_owned();
        let mut outside = "set -e; ".to_owned();
        for hierarchy in &hierarchies {
            let (name, option) = (&hierarchy.name, &hierarchy.option);
            let _ = write!(outside, "echo 0 >{}/tasks; ", hierarchy.cgroup.display());
            let _ = write!(
                inside,
                "mkdir /sys/fs/cgroup/{name}; mount -t cgroup -o {option} cgroup /sys/fs/cgroup/{name}; "
            );
        }
        // A shell that waits for a child again and again reaps the orphans as well.
        inside += "echo ready; exec >/dev/null; set +e; while :; do sleep 1; done";
        // Whoever ends this task in whatever way ends the room.
        outside += "exec setpriv --pdeathsig KILL unshare --net --mount --pid --cgroup --ipc --propagation private --fork --kill-child \
                    --mount-proc sh -c \"$1\"";
        let cgroups: Vec<_> = hierarchies.iter().map(|hierarchy| hierarchy.cgroup.clone()).collect();
        let janitor = Janitor::engage(REMOVE_CGROUPS, &cgroups)?;
        let made: Result<Vec<()>, String> = hierarchies.iter().map(make_cgroup).collect();
        let spawned = made.and_then(|_| {
            Command::new("sh")
                .args(["-c", &outside, "sh", &inside])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|error| format!("cannot run `sh`: {error}"))
        });
        let mut holder = match spawned {
            Ok(holder) => holder,
            Err(error) => {
                remove_cgroups(&hierarchies);
                return Err(error);
            }
        };
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let first = fs::read_to_string(children).unwrap_or_default();
        let first = first.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or_default();
        // From here on, dropping it clears up.
        let room = Room { holder, first, hierarchies, _janitor: janitor };
        if line.trim() == "ready" && first != 0 {
            Ok(room)
        } else {
            Err("the room cannot be made here".to_owned())
        }
    }

    /// The first process inside, by its pid outside.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// The words that lead inside: what follows them runs there.
    pub(crate) fn enter(&self) -> Vec<String> {
        let mut outside = "set -e; ".to_owned();
        for hierarchy in &self.hierarchies {
            let _ = write!(outside, "echo 0 >{}/tasks; ", hierarchy.cgroup.display());
        }
        let _ = write!(
            outside,
            "exec nsenter --target {} --net --mount --pid --cgroup --ipc -- \"$@\"",
            self.first
        );
        ["sh", "-c", &outside, "sh"].map(str::to_owned).to_vec()
    }

    /// Runs a shell script inside, its output kept in the file `log`, for at most `seconds`.
    pub(crate) fn run(&self, script: &str, log: &Path, seconds: u64) -> Result<Ending, String> {
        let enter = self.enter();
        let tell = |error: std::io::Error| format!("cannot write `{}`: {error}", log.display());
        let output = File::create(log).map_err(tell)?;
        let status = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["timeout", "--kill-after", "2", &seconds.to_string(), "bash", "-c", script])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(tell)?)
            .stderr(output)
            .status()
            .map_err(|error| format!("cannot run `sh`: {error}"))?;
        let output = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
        Ok(Ending { code: status.code().unwrap_or(-1), output })
    }

    /// The cgroups that were left behind and have `part` in their paths, as seen from outside.
    pub(crate) fn leftovers(&self, part: &str) -> Vec<String> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            let mut below = Vec::new();
            cgroups_below(&hierarchy.cgroup, &mut below);
            found.extend(
                below.iter().map(|path| path.display().to_string()).filter(|path| path.contains(part)),
            );
        }
        found
    }
}

/// The cgroups below one, the deepest first.
fn cgroups_below(cgroup: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            cgroups_below(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

fn remove_cgroups(hierarchies: &[Hierarchy]) {
    let end = Instant::now() + Duration::from_secs(10);
    for hierarchy in hierarchies {
        let mut all = Vec::new();
        cgroups_below(&hierarchy.cgroup, &mut all);
        all.push(hierarchy.cgroup.clone());
        for cgroup in all {
            // The processes were killed; the kernel may still be at it.
            while fs::remove_dir(&cgroup).is_err() && cgroup.exists() && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // With its end, `--kill-child` ends the room's first process, and the kernel all others.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // A frozen process dies only when thawed.
        for hierarchy in &self.hierarchies {
            let mut all = Vec::new();
            cgroups_below(&hierarchy.cgroup, &mut all);
            for cgroup in all {
                let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
            }
        }
        remove_cgroups(&self.hierarchies);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_where_they_are_mounted() {
        let membership = "5:memory:/some/where\n4:cpu,cpuacct:/\n1:name=systemd:/\n0::/\n";
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let found: Vec<_> = hierarchies(membership, mounts, "room")
            .into_iter()
            .map(|hierarchy| (hierarchy.option, hierarchy.name, hierarchy.cgroup.display().to_string()))
            .collect();
        let expected = [
            ("memory", "memory", "/sys/fs/cgroup/memory/some/where/room"),
            ("cpu,cpuacct", "cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/room"),
            ("none,name=systemd", "systemd", "/sys/fs/cgroup/systemd/room"),
        ]
        .map(|(option, name, cgroup)| (option.to_owned(), name.to_owned(), cgroup.to_owned()));
        assert_eq!(found, expected);
    }
}
