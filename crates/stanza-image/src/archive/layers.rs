//! The layers of an archive: copied and hashed on one thread while another unpacks them.
//!
//! Copying 120 MB and hashing it takes a third of the time that unpacking takes, and neither needs the other: both read
//! the archive, and each checks what it read, by the blob's digest or by the diff id. So for every layer there are two
//! tasks, and as many threads as processors (but no more than four) that take tasks from one queue, the longest first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::{num::NonZero, sync::Arc, thread};

use stanza_spec::{Classify as _, Digest, ErrorKind};

use super::contents::{Kept, Part, PartReader};
use super::error::LoadError;
use crate::compression::{Compression, Decoder};
use crate::document::{Descriptor, OCI_LAYER};
use crate::flow::flow;
use crate::hash::Hasher;
use crate::progress::{Progress, ProgressEvent};
use crate::sink::LayerSink;
use crate::store::{BlobWriter, ImageStore, Ingest, SpoolRoom, Spooled, StoreError};
use crate::unpack::{InflateError, pour};

/// Most threads.
const THREADS: usize = 4;
/// Read, hashed and written at once, so that it is still in the cache.
const CHUNK: usize = 128 * 1024;

/// Most different layers of one archive. Many images may share few blobs, but each may say another diff id of them.
const MAX_ARCHIVE_LAYERS: usize = 65_536;

/// Layers to be taken, each once.
#[derive(Default)]
pub(super) struct LayerList {
    layers: Vec<Wanted>,
    /// Where the layer of this path and diff id is.
    places: HashMap<(String, Digest), usize>,
}

/// A layer to be taken.
struct Wanted {
    /// How errors name it.
    path: String,
    part: Part,
    /// The blob's digest, when the archive's documents say.
    digest: Option<Digest>,
    compression: Compression,
    diff_id: Digest,
    /// The diff id belongs to the blob for no other reason than that the archive says so, and this is to be checked.
    unproven: bool,
}

/// A layer that is there.
#[derive(Clone)]
pub(super) struct LayerBlob {
    digest: Digest,
    size: u64,
    compression: Compression,
    /// Not a blob yet.
    pub(super) spooled: Option<Arc<Spooled>>,
}

impl LayerBlob {
    /// For a manifest made here.
    pub(super) fn descriptor(&self) -> Descriptor {
        let suffix = match self.compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        Descriptor::new(&format!("{OCI_LAYER}{suffix}"), self.digest.clone(), self.size)
    }
}

impl LayerList {
    /// Adds a layer whose digest a manifest has.
    pub(super) fn add(&mut self, part: Part, digest: &Digest, diff_id: &Digest) -> Result<(), LoadError> {
        let key = (digest.to_string(), diff_id.clone());
        if self.places.contains_key(&key) {
            return Ok(());
        }
        self.push(
            key,
            Wanted {
                path: digest.to_string(),
                part,
                digest: Some(digest.clone()),
                compression: Compression::None,
                diff_id: diff_id.clone(),
                unproven: false,
            },
        )
        .map(drop)
    }

    /// Adds a layer of which only the diff id is known; gives its place.
    pub(super) fn add_unknown(
        &mut self,
        part: Part,
        path: &str,
        diff_id: &Digest,
    ) -> Result<usize, LoadError> {
        let key = (path.to_owned(), diff_id.clone());
        if let Some(at) = self.places.get(&key) {
            return Ok(*at);
        }
        let decoder = Decoder::new(BufReader::with_capacity(512, part.reader()?))
            .map_err(|source| LoadError::Read { source })?;
        let compression = decoder.compression();
        // Without compression, the blob and what it holds are the same bytes.
        let plain = compression == Compression::None
            && part.kept.digest().is_none_or(|digest| digest.algorithm() == diff_id.algorithm());
        self.push(
            key,
            Wanted {
                path: path.to_owned(),
                part,
                digest: plain.then(|| diff_id.clone()),
                compression,
                diff_id: diff_id.clone(),
                unproven: !plain,
            },
        )
    }

    fn push(&mut self, key: (String, Digest), layer: Wanted) -> Result<usize, LoadError> {
        if self.layers.len() >= MAX_ARCHIVE_LAYERS {
            return Err(LoadError::Document {
                path: "archive".to_owned(),
                reason: format!("it has more than {MAX_ARCHIVE_LAYERS} layers"),
            });
        }
        self.places.insert(key, self.layers.len());
        self.layers.push(layer);
        Ok(self.layers.len() - 1)
    }
}

/// Takes layers.
pub(super) struct Worker<'a, 's> {
    pub(super) store: &'s ImageStore,
    pub(super) ingest: &'a Ingest<'s>,
    pub(super) sink: Option<&'a dyn LayerSink>,
    pub(super) progress: &'a mut dyn Progress,
}

/// One thing to do with the layer at a place of the list.
enum Task {
    Copy(usize, SpoolRoom),
    Unpack(usize),
    /// Compare what the layer holds with its diff id.
    Check(usize),
}

/// What a thread tells.
enum News {
    Copied(usize, BlobWriter),
    Bytes(usize, u64),
    Unpacked,
    Failed(LoadError),
}

impl Worker<'_, '_> {
    /// Takes all layers, or fails.
    pub(super) fn run(mut self, list: LayerList) -> Result<Vec<LayerBlob>, LoadError> {
        let layers = list.layers;
        let mut blobs: Vec<Option<LayerBlob>> = Vec::with_capacity(layers.len());
        let mut tasks: Vec<(u64, Task)> = Vec::new();
        // One blob may belong to several diff ids, if the archive is to be believed: it is copied once.
        let mut firsts: HashMap<&str, usize> = HashMap::new();
        let mut places = Vec::with_capacity(layers.len());
        let mut unpacked = HashSet::new();
        for (at, layer) in layers.iter().enumerate() {
            let size = layer.part.size;
            let name = layer.digest.as_ref().map_or(layer.path.as_str(), Digest::as_str);
            let place = *firsts.entry(name).or_insert(at);
            places.push(place);
            let blob = if place == at { self.kept(layer)? } else { None };
            if blob.is_none() && place == at {
                if let Some(digest) = &layer.digest {
                    self.progress.event(ProgressEvent::LayerStarted { digest, size });
                }
                self.ingest.check_room(size)?;
                let like = layer.digest.as_ref().unwrap_or(&layer.diff_id);
                tasks.push((size, Task::Copy(at, self.ingest.room(like))));
            }
            blobs.push(blob);
            // What takes longest comes first: unpacking is slower than copying.
            let longer = size.saturating_mul(4);
            let first = unpacked.insert(&layer.diff_id);
            match self.sink {
                Some(sink) if !sink.contains(&layer.diff_id) && (first || layer.unproven) => {
                    tasks.push((longer, Task::Unpack(at)));
                }
                _ if layer.unproven => tasks.push((longer, Task::Check(at))),
                _ => {}
            }
        }
        tasks.sort_by_key(|(effort, _)| std::cmp::Reverse(*effort));
        let queue: VecDeque<Task> = tasks.into_iter().map(|(_, task)| task).collect();
        self.work(&layers, queue, &mut blobs)?;
        let whole =
            |place: usize| blobs[place].clone().expect("every layer was copied, or a task has failed");
        Ok(places.into_iter().map(whole).collect())
    }

    /// What the store has of a layer already; announced.
    fn kept(&mut self, layer: &Wanted) -> Result<Option<LayerBlob>, LoadError> {
        let size = layer.part.size;
        let found = |digest: &Digest, spooled| LayerBlob {
            digest: digest.clone(),
            size,
            compression: layer.compression,
            spooled,
        };
        match &layer.part.kept {
            Kept::Spooled(spooled) => {
                let digest = &spooled.digest;
                check_digest(layer, digest)?;
                self.progress.event(ProgressEvent::LayerStarted { digest, size });
                self.progress.event(ProgressEvent::LayerDone { digest, size });
                return Ok(Some(found(digest, Some(Arc::clone(spooled)))));
            }
            Kept::Blob(digest) => {
                check_digest(layer, digest)?;
                self.progress.event(ProgressEvent::LayerExists { digest, size });
                return Ok(Some(found(digest, None)));
            }
            Kept::No => {}
        }
        let Some(digest) = &layer.digest else { return Ok(None) };
        if !self.store.has_blob(digest, size) {
            return Ok(None);
        }
        self.ingest.protect([digest])?;
        // Looked at again: from now on it stays.
        if !self.store.has_blob(digest, size) {
            return Ok(None);
        }
        self.progress.event(ProgressEvent::LayerExists { digest, size });
        Ok(Some(found(digest, None)))
    }

    fn work(
        &mut self,
        layers: &[Wanted],
        queue: VecDeque<Task>,
        blobs: &mut [Option<LayerBlob>],
    ) -> Result<(), LoadError> {
        let threads =
            thread::available_parallelism().map_or(1, NonZero::get).clamp(2, THREADS).min(queue.len());
        let (sink, queue, stop) = (self.sink, Mutex::new(queue), AtomicBool::new(false));
        let (send, receive) = mpsc::channel();
        let mut failure = None;
        thread::scope(|scope| {
            for _ in 0..threads {
                let send = send.clone();
                let (queue, stop) = (&queue, &stop);
                scope.spawn(move || {
                    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    while let Some(task) = next().filter(|_| !stop.load(Ordering::Relaxed)) {
                        let news = perform(task, layers, sink, stop, &send).unwrap_or_else(News::Failed);
                        if send.send(news).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            while let Ok(news) = receive.recv() {
                let outcome = match news {
                    News::Copied(at, writer) => {
                        self.copied(&layers[at], writer).map(|blob| blobs[at] = Some(blob))
                    }
                    News::Bytes(at, done) => {
                        let size = layers[at].part.size;
                        if let Some(digest) = &layers[at].digest {
                            self.progress.event(ProgressEvent::LayerBytes { digest, done, size });
                        }
                        Ok(())
                    }
                    News::Unpacked => Ok(()),
                    News::Failed(error) => Err(error),
                };
                if let Err(error) = outcome {
                    stop.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    fn copied(&mut self, layer: &Wanted, writer: BlobWriter) -> Result<LayerBlob, LoadError> {
        let spooled = self.ingest.finish(writer)?;
        if spooled.size != layer.part.size {
            return Err(LoadError::path(&layer.path, "it became shorter while it was read"));
        }
        check_digest(layer, &spooled.digest)?;
        let (digest, size) = (spooled.digest.clone(), spooled.size);
        self.progress.event(ProgressEvent::LayerDone { digest: &digest, size });
        Ok(LayerBlob { digest, size, compression: layer.compression, spooled: Some(Arc::new(spooled)) })
    }
}

fn check_digest(layer: &Wanted, actual: &Digest) -> Result<(), LoadError> {
    match &layer.digest {
        Some(expected) if expected.algorithm() == actual.algorithm() && expected != actual => {
            Err(LoadError::Digest {
                path: layer.path.clone(),
                expected: expected.clone(),
                actual: actual.clone(),
            })
        }
        _ => Ok(()),
    }
}

fn perform(
    task: Task,
    layers: &[Wanted],
    sink: Option<&dyn LayerSink>,
    stop: &AtomicBool,
    send: &mpsc::Sender<News>,
) -> Result<News, LoadError> {
    match task {
        Task::Copy(at, room) => {
            let mut writer = room.open()?;
            copy(layers[at].part.reader()?, &mut writer, stop, |done| {
                drop(send.send(News::Bytes(at, done)))
            })?;
            Ok(News::Copied(at, writer))
        }
        Task::Unpack(at) => {
            if let Some(sink) = sink {
                unpack(&layers[at], sink, stop).map_err(|error| told(&layers[at], stop, error))?;
            }
            Ok(News::Unpacked)
        }
        Task::Check(at) => {
            let layer = &layers[at];
            let mut hasher = Hasher::like(&layer.diff_id);
            read_all(&mut plain(layer.part.reader()?, stop)?, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            let actual = hasher.finish();
            if actual == layer.diff_id {
                return Ok(News::Unpacked);
            }
            let (path, expected) = (layer.path.clone(), layer.diff_id.clone());
            Err(LoadError::Digest { path, expected, actual })
        }
    }
}

/// What is said of a layer that cannot be unpacked: when it is not the one that was promised, that, whichever of the threads
/// that copy and unpack it fails first.
fn told(layer: &Wanted, stop: &AtomicBool, error: LoadError) -> LoadError {
    let Some(promised) = layer.digest.as_ref().filter(|_| error.kind() == ErrorKind::Corrupt) else {
        return error;
    };
    let mut hasher = Hasher::like(promised);
    let read = layer.part.reader().and_then(|reader| {
        read_all(&mut Stoppable { reader, stop }, |bytes| {
            hasher.update(bytes);
            Ok(())
        })
    });
    match read {
        Ok(()) => check_digest(layer, &hasher.finish()).err().unwrap_or(error),
        Err(_) => error,
    }
}

/// Unpacks a layer; what is compressed is decompressed on a thread of its own, which takes nearly as long.
fn unpack(layer: &Wanted, sink: &dyn LayerSink, stop: &AtomicBool) -> Result<(), LoadError> {
    let refused = |source| LoadError::Unpack { layer: layer.diff_id.clone(), source };
    let mut stream = plain(layer.part.reader()?, stop)?;
    if stream.get_ref().compression() == Compression::None {
        return sink.unpack(&layer.diff_id, &mut stream).map_err(refused);
    }
    let (writer, mut tar) = flow();
    thread::scope(|scope| {
        let inflating = scope.spawn(move || match pour(stream.get_mut(), writer) {
            Err(InflateError::Content(source)) => Err(LoadError::Read { source }),
            // A sink that does not read on has failed, and tells itself.
            Ok(()) | Err(InflateError::Gone) => Ok(()),
        });
        let unpacked = sink.unpack(&layer.diff_id, &mut tar);
        drop(tar);
        // What is behind a stream that was cut off is told rather than that it was.
        inflating.join().unwrap_or(Ok(())).and_then(|()| unpacked.map_err(refused))
    })
}

/// The uncompressed tar stream of a layer.
fn plain(reader: PartReader, stop: &AtomicBool) -> Result<Plain<'_>, LoadError> {
    let reader = BufReader::with_capacity(CHUNK, Stoppable { reader, stop });
    let decoder = Decoder::new(reader).map_err(|source| LoadError::Read { source })?;
    Ok(BufReader::with_capacity(CHUNK, decoder))
}

fn copy(
    reader: PartReader,
    writer: &mut BlobWriter,
    stop: &AtomicBool,
    mut told: impl FnMut(u64),
) -> Result<(), LoadError> {
    /// Bytes between two messages.
    const STEP: u64 = 4 << 20;
    let mut next = STEP;
    read_all(&mut Stoppable { reader, stop }, |bytes| {
        writer.append(bytes)?;
        if writer.written() >= next {
            next += STEP;
            told(writer.written());
        }
        Ok(())
    })
}

fn read_all(
    reader: &mut impl Read,
    mut take: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), LoadError> {
    let mut buffer = vec![0_u8; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(LoadError::Read { source }),
        }
    }
}

type Plain<'a> = BufReader<Decoder<BufReader<Stoppable<'a>>>>;

/// Fails as soon as another thread has failed.
struct Stoppable<'a> {
    reader: PartReader,
    stop: &'a AtomicBool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        self.reader.read(buffer)
    }
}
