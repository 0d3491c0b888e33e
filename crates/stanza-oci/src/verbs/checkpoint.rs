//! `checkpoint`: criu writes a container's processes into files; unless it is to go on running, the container is deleted.
//!
//! A failure leaves the container as it was.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::arguments::{Flag, Parsed, Verb, option, switch};
use crate::context::Context;
use crate::criu::{self, Places};
use crate::failure::{Doing, Failure};
use crate::state::{Container, Status};
use crate::teardown;

const FLAGS: [Flag; 17] = {
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
        option(&["parent-path"], "DIR", "an earlier image, relative to the new one"),
        switch(&["leave-running"], "let the container go on"),
        switch(&["pre-dump"], "write memory only, and let the container go on"),
        option(&["page-server"], "ADDRESS:PORT", "send memory there"),
        option(&["status-fd"], "N", "a descriptor that is told when lazy pages can be asked for"),
    ]
};

pub(super) static VERB: Verb = Verb {
    name: "checkpoint",
    usage: "ID",
    help: "Write a running container into files",
    flags: &FLAGS,
    own_words: usize::MAX,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let container = Container::open_locked(context, parsed.id()?)?;
    match container.status() {
        Status::Running | Status::Paused => {}
        status => {
            return Err(Failure::State(format!(
                "Container cannot be checkpointed in {} state",
                status.as_str()
            )));
        }
    }
    criu::check(&container.spec()?)?;
    let places = Places::of(parsed)?;
    let ahead = parsed.is_on("pre-dump");
    let words = words(&container, parsed)?;
    for directory in [&places.images, &places.work] {
        fs::create_dir_all(directory).doing("create", directory)?;
    }
    let links = [0, 1, 2].map(|number| {
        let path = format!("/proc/{}/fd/{number}", container.record.init_process_pid);
        fs::read_link(path).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
    });
    let file = places.images.join(criu::DESCRIPTORS);
    fs::write(&file, serde_json::to_vec(&links).map_err(Failure::below)?).doing("write", &file)?;
    criu::run(
        context,
        if ahead { "PRE_DUMP" } else { "DUMP" },
        &words,
        &places,
        "dump.log",
        criu::Descriptors::None,
    )?;
    if !ahead && !parsed.is_on("leave-running") {
        let mut errors = teardown::destroy(context, container, None).into_iter();
        if let Some(first) = errors.next() {
            return Err(first);
        }
    }
    Ok(0)
}

fn words(container: &Container, parsed: &Parsed) -> Result<Vec<String>, Failure> {
    let record = &container.record;
    let ahead = parsed.is_on("pre-dump");
    let mut words = vec![if ahead { "pre-dump" } else { "dump" }.to_owned()];
    let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
    add("--tree", record.init_process_pid.to_string());
    add("--root", record.rootfs.display().to_string());
    if let Some(freezer) = record.cgroup_paths.get("freezer").or_else(|| record.cgroup_paths.get("")) {
        add("--freeze-cgroup", freezer.display().to_string());
    }
    if let Some(parent) = parsed.value("parent-path").filter(|path| !path.is_empty()) {
        if parent.starts_with('/') {
            return Err(Failure::Usage("--parent-path must be relative".to_owned()));
        }
        add("--prev-images-dir", parent.to_owned());
    }
    if let Some(server) = parsed.value("page-server").filter(|server| !server.is_empty()) {
        let (address, port) = server.rsplit_once(':').ok_or_else(|| {
            Failure::Usage("Use --page-server ADDRESS:PORT to specify page server".to_owned())
        })?;
        words.push("--page-server".to_owned());
        words.extend(["--address", address, "--port", port].map(str::to_owned));
    }
    if let Some(descriptor) = parsed.number::<u32>("status-fd")? {
        words.extend(["--status-fd".to_owned(), descriptor.to_string()]);
    }
    let spec = container.spec()?;
    if let Some(path) = criu::external_network(&spec) {
        let inode = fs::metadata(path).doing("look at", path)?.ino();
        words.extend(["--external".to_owned(), format!("net[{inode}]:{}", criu::NETWORK)]);
    }
    for destination in criu::external_mounts(&spec) {
        let name = destination.display();
        words.extend(["--external".to_owned(), format!("mnt[{name}]:{name}")]);
    }
    if ahead || parsed.value("parent-path").is_some() {
        words.push("--track-mem".to_owned());
    }
    if parsed.is_on("leave-running") && !ahead {
        words.push("--leave-running".to_owned());
    }
    words.extend(criu::shared_words(parsed)?);
    Ok(words)
}
