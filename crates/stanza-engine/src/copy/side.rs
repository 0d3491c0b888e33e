//! This machine's files, or a container's by way of a process that stands among them.

use std::io::{self, Read, Seek, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stanza_sandbox::{View, VisitError, VisitPlace, Visitor};
use stanza_snapshot::{Files, FilesError, Found, OwnerMap, UnpackOptions, Unpacked};
use stanza_spec::oci::runtime::Spec;
use stanza_spec::{Classify, ContainerId, ErrorKind, Rootfs};

use super::{Copied, CopyEnd, CopyError};
use crate::Engine;
use crate::commit::owners;
use crate::container::State;
use crate::database::Record;
use crate::engine::Lock;
use crate::find::FindError;
use crate::vm::OwnDisk;

/// Bytes handed on at once.
const CHUNK: usize = 128 << 10;

/// What a visitor is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Stat { path: Vec<u8> },
    Pack { path: Vec<u8>, name: Vec<u8> },
    Unpack { path: Vec<u8>, options: UnpackOptions },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Found(Option<Found>),
    Packed(u64),
    Unpacked(Unpacked),
}

/// Why it does not.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("container rootfs is marked read-only")]
    ReadOnlyRoot,
    #[error("mounted volume is marked read-only")]
    ReadOnlyMount,
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("cannot go on with a descriptor")]
    Descriptor(#[from] io::Error),
}

impl Classify for Refusal {
    fn kind(&self) -> ErrorKind {
        match self {
            Refusal::ReadOnlyRoot | Refusal::ReadOnlyMount => ErrorKind::PermissionDenied,
            Refusal::Files(error) => error.kind(),
            Refusal::Descriptor(error) => ErrorKind::of_io(error),
        }
    }
}

type Guide = Visitor<Question, Answer>;

/// Files to copy from or to.
#[derive(Debug)]
pub(super) enum Side {
    Host(Files),
    Container { guide: Rc<Guide>, name: String },
}

/// The containers of a copy, each visited, and locked when it does not run.
#[derive(Debug, Default)]
pub(super) struct Visits {
    guides: Vec<(ContainerId, Rc<Guide>)>,
    _locks: Vec<Lock>,
}

/// A container that does not run, ready to be put together.
struct Standing {
    id: ContainerId,
    rootfs: Rootfs,
    spec: Spec,
    copy_up: Vec<stanza_container::CopyUp>,
    read_only: bool,
}

impl Visits {
    /// Sends a visitor to each container among `ends`.
    pub(super) fn of(engine: &mut Engine, ends: &[&CopyEnd]) -> Result<Visits, CopyError> {
        let mut visits = Visits::default();
        let mut standing = Vec::new();
        for end in ends {
            let CopyEnd::Container { id, .. } = end else { continue };
            if standing.iter().any(|record: &Record| record.id == *id) || visits.guide(id).is_some() {
                continue;
            }
            let record = engine.record(id)?;
            OwnDisk::check("cp", &record)?;
            let lock = engine
                .lock(id.as_str())
                .map_err(|source| CopyError::Prepare { action: "lock the container", source })?;
            let lock = lock.ok_or_else(|| FindError::NotFound(record.name.clone()))?;
            if matches!(engine.state(&record)?, Some(State::Running(_))) {
                let (run_dir, state_dir) =
                    (engine.options.run_dir(id.as_str()), engine.options.container_dir(id.as_str()));
                let place = VisitPlace::Running { run_dir: &run_dir, state_dir: &state_dir };
                let guide = send(place, OwnerMap::default(), record.config.read_only)?;
                visits.guides.push((id.clone(), Rc::new(guide)));
            } else {
                standing.push(record);
                visits._locks.push(lock);
            }
        }
        if !standing.is_empty() {
            // Now that no running container is to be entered any more, which only their maker outside may.
            stanza_container::rootless::enter(&engine.options.runroot).map_err(|error| {
                CopyError::Prepare {
                    action: "become root in a user namespace",
                    source: io::Error::other(error),
                }
            })?;
        }
        for record in standing {
            let standing = engine.stand(record)?;
            let place = VisitPlace::Standing {
                rootfs: &standing.rootfs,
                spec: &standing.spec,
                copy_up: &standing.copy_up,
                read_only: standing.read_only,
            };
            let guide = send(place, owners(&standing.spec), standing.read_only)?;
            visits.guides.push((standing.id, Rc::new(guide)));
        }
        Ok(visits)
    }

    fn guide(&self, id: &ContainerId) -> Option<Rc<Guide>> {
        self.guides.iter().find(|(visited, _)| visited == id).map(|(_, guide)| Rc::clone(guide))
    }

    /// The files at an end, and the path there; `None` for a stream.
    pub(super) fn side<'a>(&self, end: &'a CopyEnd) -> Result<Option<(Side, &'a str)>, CopyError> {
        match end {
            CopyEnd::Stream => Ok(None),
            CopyEnd::Host(path) => {
                let files = Files::of_host()
                    .map_err(|source| CopyError::Prepare { action: "open this machine's root", source })?;
                Ok(Some((Side::Host(files), path)))
            }
            CopyEnd::Container { id, name, path } => {
                let guide = self.guide(id).ok_or_else(|| FindError::NotFound(name.clone()))?;
                Ok(Some((Side::Container { guide, name: name.clone() }, path)))
            }
        }
    }
}

impl Engine {
    /// What a container that does not run is put together from: without what only a running one has.
    fn stand(&mut self, record: Record) -> Result<Standing, CopyError> {
        let state_dir = self.options.container_dir(record.id.as_str());
        let rootfs = self.plan_rootfs(&record).map_err(CopyError::Rootfs)?;
        let copy_up = self.copy_up(&record);
        let mut spec = self.plan_spec(&record)?.spec;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.retain(|mount| {
            let source = mount.source().as_deref().unwrap_or(Path::new(""));
            let kernels = ["/proc", "/sys", "/dev/shm"].iter().any(|place| source == Path::new(place));
            // stanza's own files are there after the first start only.
            let own = source.starts_with(&state_dir);
            mount.typ().as_deref() == Some("bind") && !kernels && (!own || source.exists())
        });
        spec.set_mounts(Some(mounts));
        Ok(Standing { rootfs, spec, copy_up, read_only: record.config.read_only, id: record.id })
    }
}

/// Starts a visitor.
fn send(place: VisitPlace<'_>, owners: OwnerMap, read_only: bool) -> Result<Guide, CopyError> {
    let refuse = move |error: FilesError| match &error {
        FilesError::Path { source, .. } if Errno::from_io_error(source) == Some(Errno::ROFS) => {
            if read_only {
                Refusal::ReadOnlyRoot
            } else {
                Refusal::ReadOnlyMount
            }
        }
        _ => Refusal::Files(error),
    };
    Ok(stanza_sandbox::visit(place, move |view: &View, data: &UnixStream, question: Question| {
        let owners = if view.stored_owners { owners.clone() } else { OwnerMap::default() };
        let files = Files::beneath(view.root.try_clone()?, view.descriptors.try_clone()?, owners);
        let answer = match question {
            Question::Stat { path } => Answer::Found(files.stat(&path).map_err(refuse)?),
            Question::Pack { path, name } => {
                let mut out = io::BufWriter::with_capacity(CHUNK, data);
                let packed = files.pack(&path, &name, &mut out).and_then(|bytes| {
                    out.flush().map_err(FilesError::Write)?;
                    Ok(bytes)
                });
                drop(out);
                let _ = data.shutdown(Shutdown::Write);
                Answer::Packed(packed.map_err(refuse)?)
            }
            Question::Unpack { path, options } => {
                let unpacked = files.unpack(&mut &*data, &path, &options);
                // Whoever still writes hears that nobody reads.
                let _ = data.shutdown(Shutdown::Both);
                Answer::Unpacked(unpacked.map_err(refuse)?)
            }
        };
        Ok::<_, Refusal>(answer)
    })?)
}

fn unexpected() -> CopyError {
    VisitError::Line(io::ErrorKind::InvalidData.into()).into()
}

impl Side {
    pub(super) fn stat(&self, path: &[u8]) -> Result<Option<Found>, CopyError> {
        match self {
            Side::Host(files) => Ok(files.stat(path)?),
            Side::Container { guide, .. } => {
                guide.ask(&Question::Stat { path: path.to_vec() })?;
                match guide.hear()? {
                    Answer::Found(found) => Ok(found),
                    _ => Err(unexpected()),
                }
            }
        }
    }

    /// A path for messages.
    pub(super) fn show(&self, path: &str) -> String {
        match self {
            Side::Host(_) => path.to_owned(),
            Side::Container { name, .. } => format!("{name}:{path}"),
        }
    }

    /// Says that there is no such path.
    pub(super) fn missing(&self, path: &str) -> String {
        match self {
            Side::Host(_) => format!("lstat {path}: no such file or directory"),
            Side::Container { name, .. } => format!("No such container:path: {name}:{path}"),
        }
    }

    /// Packs into a stream.
    pub(super) fn pack_to(&self, path: &[u8], name: &[u8], out: &mut dyn Write) -> Result<Copied, CopyError> {
        let bytes = match self {
            Side::Host(files) => files.pack(path, name, out)?,
            Side::Container { guide, .. } => {
                guide.ask(&Question::Pack { path: path.to_vec(), name: name.to_vec() })?;
                relay(&mut guide.data(), out)?.map_err(CopyError::Output)?;
                packed(guide)?
            }
        };
        Ok(Copied { bytes, skipped_devices: 0 })
    }

    /// Unpacks a stream.
    pub(super) fn unpack_from(
        &self,
        path: &[u8],
        options: &UnpackOptions,
        input: &mut dyn Read,
    ) -> Result<Unpacked, CopyError> {
        match self {
            Side::Host(files) => Ok(files.unpack(input, path, options)?),
            Side::Container { guide, .. } => {
                guide.ask(&Question::Unpack { path: path.to_vec(), options: *options })?;
                let sent = relay(input, &mut guide.data());
                let _ = guide.data().shutdown(Shutdown::Write);
                let unpacked = unpacked(guide)?;
                // That it closed the stream early, the visitor would have said.
                sent?.or_else(|error| {
                    if error.kind() == io::ErrorKind::BrokenPipe {
                        Ok(())
                    } else {
                        Err(CopyError::Output(error))
                    }
                })?;
                Ok(unpacked)
            }
        }
    }
}

fn packed(guide: &Guide) -> Result<u64, CopyError> {
    match guide.hear()? {
        Answer::Packed(bytes) => Ok(bytes),
        _ => Err(unexpected()),
    }
}

fn unpacked(guide: &Guide) -> Result<Unpacked, CopyError> {
    match guide.hear()? {
        Answer::Unpacked(unpacked) => Ok(unpacked),
        _ => Err(unexpected()),
    }
}

/// Copies all of `from`; the outer failure is that of reading.
fn relay(from: &mut dyn Read, to: &mut dyn Write) -> Result<io::Result<()>, CopyError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(to.flush()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(CopyError::Prepare { action: "read the archive", source }),
        };
        if let Err(error) = to.write_all(&buffer[..count]) {
            return Ok(Err(error));
        }
    }
}

/// Packs on one side and unpacks on the other. What the packing side says goes before what became of its archive. `spool` is
/// a directory for an unnamed file, where both sides are the same.
pub(super) fn transfer(
    source: &Side,
    path: &[u8],
    name: &[u8],
    target: &Side,
    directory: &[u8],
    options: &UnpackOptions,
    spool: &Path,
) -> Result<Unpacked, CopyError> {
    match (source, target) {
        // One visitor does one thing after the other, so that a directory is not copied into itself for ever.
        (Side::Container { guide, .. }, Side::Container { guide: other, .. }) if Rc::ptr_eq(guide, other) => {
            let failed =
                |source: io::Error| CopyError::Prepare { action: "keep the archive meanwhile", source };
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let file = rustix::fs::open(spool, flags, Mode::RUSR | Mode::WUSR);
            let mut file = std::fs::File::from(file.map_err(|error| failed(error.into()))?);
            source.pack_to(path, name, &mut file)?;
            file.rewind().map_err(failed)?;
            target.unpack_from(directory, options, &mut file)
        }
        (Side::Container { guide, .. }, target) => {
            guide.ask(&Question::Pack { path: path.to_vec(), name: name.to_vec() })?;
            let result = target.unpack_from(directory, options, &mut guide.data());
            match result {
                Ok(unpacked) => packed(guide).map(|_| unpacked),
                Err(error) => {
                    // A visitor that still packs is told to stop, and then says nothing of interest.
                    let _ = guide.data().shutdown(Shutdown::Both);
                    match packed(guide) {
                        Err(CopyError::Visit(VisitError::Refused { message, kind, hint }))
                            if error.kind() == ErrorKind::Corrupt =>
                        {
                            Err(VisitError::Refused { message, kind, hint }.into())
                        }
                        _ => Err(error),
                    }
                }
            }
        }
        (Side::Host(files), Side::Container { guide, .. }) => {
            guide.ask(&Question::Unpack { path: directory.to_vec(), options: *options })?;
            let mut out = io::BufWriter::with_capacity(CHUNK, guide.data());
            let sent = files.pack(path, name, &mut out).and_then(|_| out.flush().map_err(FilesError::Write));
            // Nothing of what is left in the buffer after a failure is written.
            drop(out.into_parts());
            let _ = guide.data().shutdown(Shutdown::Write);
            match (sent, unpacked(guide)) {
                // That it closed the stream early, the visitor explains.
                (Ok(()) | Err(FilesError::Write(_)), unpacked) => unpacked,
                (Err(error), _) => Err(error.into()),
            }
        }
        (Side::Host(_), Side::Host(_)) => Err(CopyError::NoContainer),
    }
}
