//! `restore`: makes a container whose processes criu reads from files.
//!
//! ```text
//!  bundle ─▶ directory, lock ─▶ record (no pid) ─▶ cgroups ─▶ criu in them ─▶ namespaces, record (pid), hooks
//!    ─▶ processes (children of this one) ─▶ terminal, pid file ─▶ hooks ─▶ end, or wait for the container's
//! ```
//!
//! A failure leaves no container.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, fchdir, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use stanza_cgroup::Cgroup;
use stanza_container::{Init, ensure_mount_points};
use stanza_spec::oci::runtime::Spec;
use stanza_sys::CloneFlags;

use super::run::WAITING_FLAGS;
use crate::arguments::{Flag, Parsed, Verb, join, option};
use crate::bundle::Bundle;
use crate::context::Context;
use crate::creation::{self, Request, check_terminal, hand_over, namespace_paths, new_record, process_of};
use crate::criu::files::{Supplies, mount_points};
use crate::criu::options::{Directories, Places, common, field};
use crate::criu::{self, Criu, Kind, Message, Notice, open_directory};
use crate::failure::{Doing, Failure};
use crate::hooks;
use crate::state::{Container, Place, Record, Status};
use crate::{cgroups, foreground, log, teardown};

const FLAGS: [Flag; 27] = {
    let kept: [Flag; 22] = join(&criu::options::FLAGS, &creation::FLAGS);
    let waiting: [Flag; 25] = join(&kept, &WAITING_FLAGS);
    join(
        &waiting,
        &[
            option(&["lsm-profile"], "TYPE:NAME", "another AppArmor profile or SELinux label"),
            option(&["lsm-mount-context"], "CONTEXT", "another SELinux label for mounts"),
        ],
    )
};

pub(super) static VERB: Verb = Verb {
    name: "restore",
    usage: "ID",
    help: "Make a container of the files that `checkpoint` wrote",
    flags: &FLAGS,
    own_words: usize::MAX,
    run,
};

const LOG: &str = "restore.log";

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let detached = parsed.is_on("detach");
    let request = Request { gated: false, detached, ..Request::of(parsed)? };
    let mut bundle = Bundle::load(request.bundle, request.config)?;
    let terminal = process_of(&mut bundle.spec)?.terminal().unwrap_or(false);
    check_terminal(terminal, detached, request.console_socket)?;
    let places = Places::of(parsed)?;
    let place = Place::create(context, request.id)?;
    let record = match ready(context, request.id, &bundle, &places, &place) {
        Ok(record) => record,
        Err(failure) => {
            // The first failure is what the caller is told.
            let _ = place.remove();
            return Err(failure);
        }
    };
    let mut restoration = Restoration {
        context,
        parsed,
        bundle: &bundle,
        places: &places,
        container: Container { place, record },
    };
    let restored = restoration.take().and_then(|init| {
        hand_over(&request, &init)?;
        restoration.container.place.commit_record()?;
        let state = restoration.container.record.state_text(Status::Running);
        hooks::run(&bundle.spec, hooks::Kind::Poststart, &state).map_err(Failure::below)?;
        Ok(init)
    });
    let container = restoration.container;
    let init = match restored {
        Ok(init) => init,
        Err(failure) => {
            clear(context, container, &bundle.spec);
            return Err(failure);
        }
    };
    if detached {
        return Ok(0);
    }
    // Whoever else changes the container may do so meanwhile.
    container.place.unlock()?;
    let code = foreground::attend(&init)?;
    if !parsed.is_on("keep") {
        container.place.lock()?;
        clear(context, container, &bundle.spec);
    }
    Ok(code)
}

fn clear(context: &Context, container: Container, spec: &Spec) {
    for error in teardown::destroy(context, container, Some(spec)) {
        log::warn(context, &error.chain());
    }
}

/// The record of what is to be made.
fn ready(
    context: &Context,
    id: &str,
    bundle: &Bundle,
    places: &Places,
    place: &Place,
) -> Result<Record, Failure> {
    let inventory = places.images.join("inventory.img");
    File::open(&inventory).doing("open the image that CRIU wrote,", &inventory)?;
    fs::create_dir_all(&places.work).doing("create", &places.work)?;
    let plan = cgroups::plan(context, &bundle.spec, id)?;
    let record = new_record(id, &bundle.spec, &bundle.directory, &bundle.rootfs, plan);
    place.write_new("config.json", &bundle.text)?;
    place.write_first_record(&record)?;
    Ok(record)
}

/// A container on its way back.
struct Restoration<'a> {
    context: &'a Context,
    parsed: &'a Parsed,
    bundle: &'a Bundle,
    places: &'a Places,
    container: Container,
}

impl Restoration<'_> {
    fn take(&mut self) -> Result<Init, Failure> {
        let spec = &self.bundle.spec;
        ensure_mount_points(&self.bundle.rootfs, &mount_points(spec))?;
        let id = self.container.record.id.clone();
        self.container.record.rdt = cgroups::make_rdt(spec, &id)?;
        stanza_cgroup::apply(&self.container.record.cgroup).map_err(Failure::below)?;
        let supplies = Supplies::open(spec, &self.places.images)?;
        let root = self.container.place.file("criu-root");
        let (mut criu, image, work) = self.start(&root, &supplies)?;
        let cgroup = self.place(criu.pid())?;
        let directories = Directories { image: &image, work: &work, root: &root, log: LOG };
        let options = self.options(&directories, &supplies, &cgroup, criu.pid())?;
        let mut controller = None;
        let mut notice = |notice: Notice| self.hear(notice, &mut controller);
        let restored = criu.request(Kind::Restore, &options, &mut notice);
        let pid = restored.map_err(|refusal| criu.explain(refusal, &self.places.work.join(LOG)))?;
        let pid = Pid::from_raw(pid).ok_or_else(|| Failure::State("criu told no pid".to_owned()))?;
        // It is this process's child, so the pid cannot be another's yet.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).step("open the restored process")?;
        self.write_down(pid)?;
        Ok(Init { pid, pidfd, controller })
    }

    /// Starts criu where the root file system is a mount, which it takes nothing else for a root, and one that nobody has
    /// covered. Hooks are to see the host's mounts, so this process goes back. The directories of the image and the work are opened
    /// where criu is: it mounts in the latter.
    fn start(&self, root: &Path, supplies: &Supplies) -> Result<(Criu, File, File), Failure> {
        let step = "make a mount namespace for criu";
        fs::create_dir(root).doing("create", root)?;
        let open = |path| File::open(path).map(OwnedFd::from).doing("open", path);
        let (home, top, here) = (open("/proc/self/ns/mnt")?, open("/")?, open(".")?);
        stanza_sys::unshare(CloneFlags::MOUNT).step(step)?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        let rootfs = &self.bundle.rootfs;
        let bind = |target: &Path| mount(rootfs, target, "", MountFlags::BIND | MountFlags::REC, None);
        // A root that was a slave at the dump is one of this, whoever its master was; criu makes any other of it, too.
        let started = mount_change("/", slave)
            .and_then(|()| bind(rootfs))
            .and_then(|()| mount_change(rootfs, shared))
            .and_then(|()| bind(root))
            .and_then(|()| mount_change(root, slave))
            .doing("mount", rootfs)
            .and_then(|()| {
                let criu = Criu::start(&self.context.criu, &supplies.descriptors())?;
                Ok((criu, open_directory(&self.places.images)?, open_directory(&self.places.work)?))
            });
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))
            .and_then(|()| fchdir(&top))
            .and_then(|()| rustix::process::chroot("."))
            .and_then(|()| fchdir(&here))
            .step("return from criu's mount namespace")?;
        started
    }

    /// Puts criu into the container's cgroups: what it makes is born there.
    fn place(&mut self, pid: u32) -> Result<Cgroup, Failure> {
        let record = &mut self.container.record;
        if let Some(rdt) = &record.rdt {
            rdt.join(pid).map_err(Failure::below)?;
        }
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Until systemd has made it, a unit of this name is another's, and not to be stopped when this fails; one with only criu
        // in it ends with criu.
        if let (Some(unit), Some(number)) = (record.systemd.take(), number) {
            record.cgroup = cgroups::start_unit(self.context, &unit, &self.bundle.spec, number)?;
            record.systemd = Some(unit);
            record.cgroup_paths = cgroups::paths(&stanza_cgroup::open(&record.cgroup));
            return Ok(stanza_cgroup::open(&record.cgroup));
        }
        let cgroup = stanza_cgroup::open(&record.cgroup);
        cgroup.join(pid).map_err(Failure::below)?;
        Ok(cgroup)
    }

    fn options(
        &self,
        directories: &Directories<'_>,
        supplies: &Supplies,
        cgroup: &Cgroup,
        criu: u32,
    ) -> Result<Message, Failure> {
        let (parsed, bundle) = (self.parsed, self.bundle);
        let mut options = common(parsed, &bundle.spec, directories, true)?;
        options.switch(field::EVASIVE_DEVICES, true);
        options.switch(field::SIBLING, true);
        for (name, number) in
            [("lsm-profile", field::LSM_PROFILE), ("lsm-mount-context", field::LSM_MOUNT_CONTEXT)]
        {
            if let Some(value) = parsed.value(name).filter(|value| !value.is_empty()) {
                options.text(number, value);
            }
        }
        supplies.tell(&mut options, &bundle.spec, &bundle.rootfs, cgroup)?;
        // What was below the container's cgroup at the dump is below this one's.
        let path = PathBuf::from(format!("/proc/{criu}/cgroup"));
        let table = fs::read_to_string(&path).doing("read", &path)?;
        for (controllers, path) in cgroup_roots(&table) {
            let mut root = Message::default();
            if !controllers.is_empty() {
                root.text(1, controllers);
            }
            root.text(2, path);
            options.message(field::CGROUP_ROOT, &root);
        }
        Ok(options)
    }

    fn hear(&mut self, notice: Notice, controller: &mut Option<OwnedFd>) -> Result<(), Failure> {
        log::debug(self.context, &format!("criu: {}", notice.name));
        match (notice.name.as_str(), notice.pid.and_then(Pid::from_raw)) {
            ("orphan-pts-master", _) => *controller = notice.descriptor,
            ("setup-namespaces", Some(pid)) => {
                self.write_down(pid)?;
                let spec = &self.bundle.spec;
                let state = self.container.record.state_text(Status::Creating);
                for kind in [hooks::Kind::Prestart, hooks::Kind::CreateRuntime] {
                    hooks::run(spec, kind, &state).map_err(Failure::below)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn write_down(&mut self, pid: Pid) -> Result<(), Failure> {
        let seen = stanza_sys::process_status(pid).step("look at the restored process")?;
        let record = &mut self.container.record;
        record.init_process_pid = pid.as_raw_nonzero().get();
        record.init_process_start = seen.start_time;
        record.namespace_paths = namespace_paths(&self.bundle.spec, pid);
        self.container.place.write_record_ahead(record)
    }
}

/// Controllers and path of each hierarchy that a process is in (cgroups(7), `/proc/[pid]/cgroup`).
fn cgroup_roots(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        Some((fields.nth(1)?, fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_told_with_their_paths() {
        let table = "9:name=systemd:/x\n2:cpu,cpuacct:/x/a:b\n0::/\nbroken\n";
        let roots: Vec<_> = cgroup_roots(table).collect();
        assert_eq!(roots, [("name=systemd", "/x"), ("cpu,cpuacct", "/x/a:b"), ("", "/")]);
    }
}
