//! The body of a request.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::driver::Event;

/// So much of a stream is read at once.
const CHUNK: usize = 256 * 1024;
/// How many chunks may be on their way to the driver.
pub(super) const CREDIT: u32 = 4;

/// The end into which the caller puts chunks.
pub(super) type Chunks = tokio::sync::mpsc::UnboundedSender<Bytes>;

/// A body, as the driver sends it.
pub(super) enum Upload {
    Whole(Option<Bytes>),
    /// Chunks that the caller reads when it is told that one was taken: that is what bounds them.
    Stream {
        chunks: tokio::sync::mpsc::UnboundedReceiver<Bytes>,
        events: mpsc::Sender<Event>,
        left: u64,
    },
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Upload::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Upload::Stream { left: 0, .. } => Poll::Ready(None),
            Upload::Stream { chunks, events, left } => chunks.poll_recv(context).map(|chunk| match chunk {
                Some(chunk) => {
                    *left = left.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
                    // A caller that has its answer does not read further.
                    let _ = events.send(Event::Taken);
                    Some(Ok(Frame::data(chunk)))
                }
                None => Some(Err(io::Error::other("the request was given up"))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Upload::Whole(None) | Upload::Stream { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Upload::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len().try_into().unwrap_or(0)))
            }
            Upload::Stream { left, .. } => SizeHint::with_exact(*left),
        }
    }
}

/// The next chunk of at most `left` bytes; an end before that is an error.
pub(super) fn read_chunk(reader: &mut dyn Read, left: u64) -> io::Result<Bytes> {
    let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
    let mut chunk = vec![0; size];
    reader.read_exact(&mut chunk).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            io::Error::new(error.kind(), "what was to be sent is shorter than announced")
        }
        _ => error,
    })?;
    Ok(chunk.into())
}
