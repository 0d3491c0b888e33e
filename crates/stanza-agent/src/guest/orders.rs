//! What the host says, frame by frame.

use crate::wire::{Decoder, Kind, ProtocolError, Request, Side, Stream, TaskId};

/// One thing that the host said.
#[derive(Debug)]
pub(crate) enum Order {
    /// A request.
    Request(Request),
    /// Bytes for an input.
    Input(TaskId, Vec<u8>),
    /// An input has ended.
    InputEnd(TaskId),
    /// So many more bytes of an output may be sent.
    Credit(TaskId, Stream, u32),
    /// The answer to a DNS query.
    Answer(u32, Vec<u8>),
}

/// Reads orders off the bytes that come.
#[derive(Debug)]
pub(crate) struct Orders(Decoder);

impl Orders {
    pub(crate) fn new() -> Orders {
        Orders(Decoder::new(Side::Host))
    }

    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next order; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Order>, ProtocolError> {
        let Some(frame) = self.0.next()? else { return Ok(None) };
        let order = match frame.kind {
            Kind::Message => Order::Request(
                serde_json::from_slice(frame.body)
                    .map_err(|error| ProtocolError::Message(error.to_string()))?,
            ),
            Kind::Answer => Order::Answer(frame.number, frame.body.to_vec()),
            Kind::Query => return Err(ProtocolError::Kind(Kind::Query as u8)),
            Kind::Data | Kind::End | Kind::Credit => {
                let (task, stream) = Stream::of(frame.number)?;
                match (frame.kind, stream) {
                    (Kind::Credit, Stream::Output | Stream::Error) => {
                        Order::Credit(task, stream, frame.credit())
                    }
                    (Kind::Data, Stream::Input) => Order::Input(task, frame.body.to_vec()),
                    (Kind::End, Stream::Input) => Order::InputEnd(task),
                    _ => return Err(ProtocolError::Stream(frame.number)),
                }
            }
        };
        Ok(Some(order))
    }
}
