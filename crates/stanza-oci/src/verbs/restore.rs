//! `restore`: makes a container whose processes criu reads from files.
//!
//! A failure leaves no container.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use stanza_container::Init;
use stanza_sys::CloneFlags;

use crate::arguments::{Flag, Parsed, Verb, option, switch};
use crate::bundle::Bundle;
use crate::context::Context;
use crate::creation::new_record;
use crate::criu::{self, Places};
use crate::failure::{Doing, Failure};
use crate::state::{Container, Place};
use crate::{cgroups, descriptors, foreground, log, teardown};

const FLAGS: [Flag; 20] = {
    let [image, work, established, close, in_flight, unix, shell, lazy, locks, cgroups, empty, dedup] =
        criu::FLAGS;
    [
        image,
        work,
        established,
        close,
        in_flight,
        unix,
        shell,
        lazy,
        locks,
        cgroups,
        empty,
        dedup,
        option(&["bundle", "b"], "DIR", "the bundle (default: the working directory)"),
        option(&["pid-file"], "FILE", "where to write the first process's pid"),
        option(&["console-socket"], "SOCKET", "accepted for runc's sake: a terminal cannot be restored"),
        switch(&["detach", "d"], "do not wait for the container's end"),
        switch(&["no-pivot"], "accepted for runc's sake: criu makes the root"),
        switch(&["no-subreaper"], "accepted for runc's sake: orphans are never taken over"),
        option(&["lsm-profile"], "TYPE:NAME", "another AppArmor profile or SELinux label"),
        option(&["lsm-mount-context"], "CONTEXT", "another SELinux label for mounts"),
    ]
};

pub(super) static VERB: Verb = Verb {
    name: "restore",
    usage: "ID",
    help: "Make a container of the files that `checkpoint` wrote",
    flags: &FLAGS,
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let bundle = Bundle::load(parsed.value("bundle"), None)?;
    criu::check(&bundle.spec)?;
    let places = Places::of(parsed)?;
    let id = parsed.id()?;
    let place = Place::create(context, id)?;
    let record = match ready(context, id, &bundle, &places, &place) {
        Ok(record) => record,
        Err(failure) => {
            // The first failure is what the caller is told.
            let _ = place.remove();
            return Err(failure);
        }
    };
    let mut container = Container { place, record };
    let init = match restore(context, parsed, &bundle, &places, &mut container) {
        Ok(init) => init,
        Err(failure) => {
            clear(context, container, &bundle);
            return Err(failure);
        }
    };
    if parsed.is_on("detach") {
        return Ok(0);
    }
    container.place.unlock()?;
    let code = foreground::attend(&init)?;
    container.place.lock()?;
    clear(context, container, &bundle);
    Ok(code)
}

fn clear(context: &Context, container: Container, bundle: &Bundle) {
    for error in teardown::destroy(context, container, Some(&bundle.spec)) {
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
) -> Result<crate::state::Record, Failure> {
    let inventory = places.images.join("inventory.img");
    File::open(&inventory).doing("open the image that CRIU wrote,", &inventory)?;
    fs::create_dir_all(&places.work).doing("create", &places.work)?;
    let plan = cgroups::plan(context, &bundle.spec, id)?;
    if matches!(plan, cgroups::Plan::Systemd(_)) {
        return Err(Failure::State("CRIU cannot restore into a unit of systemd".to_owned()));
    }
    let record = new_record(id, &bundle.spec, &bundle.directory, &bundle.rootfs, plan);
    place.write_new("config.json", &bundle.text)?;
    place.write_first_record(&record)?;
    Ok(record)
}

fn restore(
    context: &Context,
    parsed: &Parsed,
    bundle: &Bundle,
    places: &Places,
    container: &mut Container,
) -> Result<Init, Failure> {
    stanza_cgroup::apply(&container.record.cgroup).map_err(Failure::below)?;
    // criu takes nothing but a mount for a root; in a mount namespace of this process's own it ends with the process.
    let root = &bundle.rootfs;
    stanza_sys::unshare(CloneFlags::MOUNT).step("create a mount namespace")?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).step("take the mounts out of their peer groups")?;
    mount(root, root, "", MountFlags::BIND | MountFlags::REC, None).doing("mount", root)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(root, private).doing("make private", root)?;
    let pid = call(context, parsed, bundle, places, &container.place.file("criu.pid"))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).step("open the restored process")?;
    let seen = stanza_sys::process_status(pid).step("look at the restored process")?;
    container.record.init_process_pid = pid.as_raw_nonzero().get();
    container.record.init_process_start = seen.start_time;
    container.place.write_first_record(&container.record)?;
    if let Some(path) = parsed.value("pid-file").filter(|path| !path.is_empty()) {
        descriptors::write_pid_file(Path::new(path), pid.as_raw_nonzero().get())?;
    }
    Ok(Init { pid, pidfd, controller: None })
}

/// Lets criu make the processes; the pid of the first.
fn call(
    context: &Context,
    parsed: &Parsed,
    bundle: &Bundle,
    places: &Places,
    pid_file: &Path,
) -> Result<Pid, Failure> {
    let mut words =
        vec!["restore".to_owned(), "--restore-detached".to_owned(), "--restore-sibling".to_owned()];
    let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
    add("--root", bundle.rootfs.display().to_string());
    add("--pidfile", pid_file.display().to_string());
    for name in ["lsm-profile", "lsm-mount-context"] {
        if let Some(value) = parsed.value(name).filter(|value| !value.is_empty()) {
            add(&format!("--{name}"), value.to_owned());
        }
    }
    for mount in bundle.spec.mounts().iter().flatten() {
        let bound = criu::external_mounts(&bundle.spec).any(|destination| destination == mount.destination());
        if let (true, Some(source)) = (bound, mount.source()) {
            add("--external", format!("mnt[{}]:{}", mount.destination().display(), source.display()));
        }
    }
    let links = fs::read(places.images.join(criu::DESCRIPTORS)).unwrap_or_default();
    let links: Vec<String> = serde_json::from_slice(&links).unwrap_or_default();
    for (number, link) in links.iter().enumerate().filter(|(_, link)| link.starts_with("pipe:")) {
        add("--inherit-fd", format!("fd[{number}]:{link}"));
    }
    let network = match criu::external_network(&bundle.spec) {
        Some(path) => {
            let file = File::open(path).doing("open", path)?;
            fcntl_setfd(&file, FdFlags::empty()).doing("pass on", path)?;
            add("--inherit-fd", format!("fd[{}]:{}", file.as_raw_fd(), criu::NETWORK));
            Some(file)
        }
        None => None,
    };
    words.extend(criu::shared_words(parsed)?);
    criu::run(context, "RESTORE", &words, places, "restore.log", criu::Descriptors::Callers)?;
    drop(network);
    let text = fs::read_to_string(pid_file).doing("read", pid_file)?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw);
    let _ = fs::remove_file(pid_file);
    pid.ok_or_else(|| Failure::State("criu told no pid".to_owned()))
}
