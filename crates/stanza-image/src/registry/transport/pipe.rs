//! Frames on their way from the driver's thread to the one that reads, bounded by bytes.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

use super::body::Chunks;

/// What may wait in a pipe; the frame that goes past it is the last one.
const PIPE: usize = 1024 * 1024;

#[derive(Default)]
struct State {
    frames: VecDeque<Bytes>,
    /// In `frames`.
    bytes: usize,
    end: Option<io::Result<()>>,
    reader_waits: bool,
    reader_gone: bool,
}

#[derive(Default)]
struct Pipe {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Notify,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of a new pipe.
pub(super) fn pipe() -> (PipeWriter, ResponseBody) {
    let pipe = Arc::new(Pipe::default());
    let body = ResponseBody { pipe: Arc::clone(&pipe), frames: VecDeque::new(), ended: false, upload: None };
    (PipeWriter(pipe), body)
}

/// The driver's end.
pub(super) struct PipeWriter(Arc<Pipe>);

impl PipeWriter {
    /// Adds a frame and waits until there is room for another. `false`: nobody reads any more.
    pub(super) async fn push(&self, frame: Bytes) -> bool {
        let wake = {
            let mut state = self.0.lock();
            state.bytes += frame.len();
            state.frames.push_back(frame);
            std::mem::take(&mut state.reader_waits)
        };
        if wake {
            self.0.filled.notify_one();
        }
        loop {
            {
                let state = self.0.lock();
                if state.reader_gone {
                    return false;
                }
                if state.bytes < PIPE {
                    return true;
                }
            }
            self.0.emptied.notified().await;
        }
    }

    /// No frame follows.
    pub(super) fn end(&self, result: io::Result<()>) {
        let mut state = self.0.lock();
        if state.end.is_none() {
            state.end = Some(result);
        }
        drop(state);
        self.0.filled.notify_one();
    }
}

impl Drop for PipeWriter {
    /// A driver that ends takes its connections with it; nobody may wait for them.
    fn drop(&mut self) {
        self.end(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up")));
    }
}

/// The body of an answer. Frames come as they were read from the network: [`ResponseBody::frame`] gives them whole, so
/// that they are hashed where they lie; `Read` and `BufRead` cut them up.
pub(crate) struct ResponseBody {
    pipe: Arc<Pipe>,
    frames: VecDeque<Bytes>,
    ended: bool,
    /// What is left of a request that was answered before it was sent whole: ending it would end the answer too.
    pub(super) upload: Option<Chunks>,
}

impl ResponseBody {
    /// The next frame, never empty; `None` at the end.
    ///
    /// # Errors
    /// When the connection broke, or was silent for too long. What came before it has been given out by then.
    pub(crate) fn frame(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                if frame.has_remaining() {
                    return Ok(Some(frame));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            let mut state = self.pipe.lock();
            while state.frames.is_empty() && state.end.is_none() {
                state.reader_waits = true;
                state = self.pipe.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.frames.is_empty() {
                self.ended = true;
                return state.end.take().unwrap_or(Ok(())).map(|()| None);
            }
            std::mem::swap(&mut self.frames, &mut state.frames);
            state.bytes = 0;
            drop(state);
            self.pipe.emptied.notify_one();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.pipe.lock().reader_gone = true;
        self.pipe.emptied.notify_one();
        self.upload = None;
    }
}

impl BufRead for ResponseBody {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Some(frame) = self.frame()? {
            self.frames.push_front(frame);
        }
        Ok(self.frames.front().map_or(&[], |frame| frame.as_ref()))
    }

    fn consume(&mut self, amount: usize) {
        if let Some(frame) = self.frames.front_mut() {
            frame.advance(amount.min(frame.len()));
        }
    }
}

impl Read for ResponseBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
