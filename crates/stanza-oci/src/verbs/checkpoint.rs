//! `checkpoint`: criu writes a container's processes into files; unless it is to go on running, the container is deleted.
//!
//! A failure leaves the container as it was.

use std::fs::{self, File};

use crate::arguments::{Flag, Parsed, Verb, join, option, switch};
use crate::context::Context;
use crate::criu::options::{Directories, Places, common, field};
use crate::criu::{self, Criu, Kind, Message, files, open_directory};
use crate::failure::{Doing, Failure};
use crate::state::{Container, Status};
use crate::teardown;

const FLAGS: [Flag; 18] = join(
    &criu::options::FLAGS,
    &[
        switch(&["leave-running"], "let the container go on"),
        switch(&["pre-dump"], "write memory only, and let the container go on"),
        option(&["page-server"], "ADDRESS:PORT", "send memory there"),
        option(&["status-fd"], "N", "a descriptor that is told when lazy pages can be asked for"),
    ],
);

pub(super) static VERB: Verb = Verb {
    name: "checkpoint",
    usage: "ID",
    help: "Write a running container into files",
    flags: &FLAGS,
    own_words: usize::MAX,
    run,
};

const LOG: &str = "dump.log";

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
    let places = Places::of(parsed)?;
    for directory in [&places.images, &places.work] {
        fs::create_dir_all(directory).doing("create", directory)?;
    }
    let (image, work) = (open_directory(&places.images)?, open_directory(&places.work)?);
    let ahead = parsed.is_on("pre-dump");
    let options = options(&container, parsed, &places, &image, &work)?;
    let mut criu = Criu::start(&context.criu, &[])?;
    let kind = if ahead { Kind::PreDump } else { Kind::Dump };
    if let Err(refusal) = criu.request(kind, &options, &mut |_| Ok(())) {
        return Err(criu.explain(refusal, &places.work.join(LOG)));
    }
    if !ahead && !parsed.is_on("leave-running") {
        let mut errors = teardown::destroy(context, container, None).into_iter();
        if let Some(first) = errors.next() {
            return Err(first);
        }
    }
    Ok(0)
}

fn options(
    container: &Container,
    parsed: &Parsed,
    places: &Places,
    image: &File,
    work: &File,
) -> Result<Message, Failure> {
    let (record, spec) = (&container.record, container.spec()?);
    let ahead = parsed.is_on("pre-dump");
    let directories = Directories { image, work, root: &record.rootfs, log: LOG };
    let mut options = common(parsed, &spec, &directories, false)?;
    options.number(field::PID, record.init_process_pid.unsigned_abs().into());
    // A dump ahead never stops anything.
    options.switch(field::LEAVE_RUNNING, parsed.is_on("leave-running") && !ahead);
    options.switch(field::TRACK_MEMORY, ahead || parsed.value("parent-path").is_some());
    if let Some(freezer) = record.cgroup_paths.get("freezer").or_else(|| record.cgroup_paths.get("")) {
        options.bytes(field::FREEZER, freezer.as_os_str().as_encoded_bytes());
    }
    if let Some(server) = parsed.value("page-server").filter(|server| !server.is_empty()) {
        options.message(field::PAGE_SERVER, &page_server(server)?);
    }
    if let Some(descriptor) = parsed.number::<u32>("status-fd")? {
        options.number(field::STATUS, descriptor.into());
    }
    let pids = container.cgroup().pids().map_err(Failure::below)?;
    let names = files::leave_out(&mut options, &spec, &record.rootfs, record.init_process_pid, &pids)?;
    if !ahead {
        let file = places.images.join(files::DESCRIPTORS);
        fs::write(&file, serde_json::to_vec(&names).map_err(Failure::below)?).doing("write", &file)?;
    }
    Ok(options)
}

fn page_server(server: &str) -> Result<Message, Failure> {
    let parts =
        server.rsplit_once(':').and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)));
    let (address, port) = parts
        .ok_or_else(|| Failure::Usage("Use --page-server ADDRESS:PORT to specify page server".to_owned()))?;
    let mut message = Message::default();
    message.text(1, address);
    message.number(2, port.into());
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        for good in ["127.0.0.1:9876", "[::1]:1", "host:65535"] {
            assert!(page_server(good).is_ok(), "{good}");
        }
        for bad in ["host", "host:", "host:65536", ":x"] {
            assert!(page_server(bad).is_err(), "{bad}");
        }
    }
}
