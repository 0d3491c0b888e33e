//! QMP on the wire: one JSON object a line (`docs/interop/qmp-spec.rst` in QEMU's sources).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::QmpError;

/// The longest line that is taken: the answers to what is asked here have less than 2 KB.
pub(super) const LINE_LIMIT: usize = 64 << 10;

/// What QEMU tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The guest ended, or QEMU was told to end; the reason in QEMU's words (`guest-shutdown`, `guest-panic`, `host-qmp-quit`).
    Shutdown(String),
    /// The guest's kernel panicked.
    GuestPanicked,
    /// The guest started anew. With `-no-reboot` a [`Event::Shutdown`] follows.
    Reset,
    /// The machine stands still.
    Stop,
    /// The machine runs on.
    Resume,
    /// Another one, by name.
    Other(String),
}

/// A line from QEMU.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Greeting,
    Return(Value),
    Error(String),
    Event(Event),
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    // `null` would be nothing, but no command that is used returns it.
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Failure>,
    event: Option<String>,
    #[serde(default)]
    data: Map<String, Value>,
}

#[derive(Deserialize)]
struct Failure {
    desc: String,
}

pub(super) fn parse(line: &[u8]) -> Result<Message, QmpError> {
    let garbled =
        || QmpError::Garbled(String::from_utf8_lossy(&line[..line.len().min(200)]).trim_end().to_owned());
    let line: Line = serde_json::from_slice(line).map_err(|_| garbled())?;
    match line {
        Line { event: Some(name), data, .. } => Ok(Message::Event(event(name, &data))),
        Line { error: Some(failure), .. } => Ok(Message::Error(failure.desc.chars().take(1000).collect())),
        Line { returned: Some(value), .. } => Ok(Message::Return(value)),
        Line { greeting: Some(_), .. } => Ok(Message::Greeting),
        _ => Err(garbled()),
    }
}

fn event(name: String, data: &Map<String, Value>) -> Event {
    match name.as_str() {
        "SHUTDOWN" => {
            let reason = data.get("reason").and_then(Value::as_str).unwrap_or("unknown");
            Event::Shutdown(reason.chars().take(100).collect())
        }
        "GUEST_PANICKED" => Event::GuestPanicked,
        "RESET" => Event::Reset,
        "STOP" => Event::Stop,
        "RESUME" => Event::Resume,
        _ => Event::Other(name.chars().take(100).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let read = |text: &str| parse(text.as_bytes());
        assert_eq!(read(r#"{"QMP": {"version": {}, "capabilities": []}}"#).unwrap(), Message::Greeting);
        assert_eq!(read(r#"{"return": {}, "id": 1}"#).unwrap(), Message::Return(Value::Object(Map::new())));
        assert_eq!(
            read(r#"{"error": {"class": "GenericError", "desc": "no"}}"#).unwrap(),
            Message::Error("no".into())
        );
        let text = r#"{"timestamp": {"seconds": 1}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}"#;
        assert_eq!(read(text).unwrap(), Message::Event(Event::Shutdown("guest-panic".into())));
        assert_eq!(read(r#"{"event": "NEW"}"#).unwrap(), Message::Event(Event::Other("NEW".into())));
        for hostile in ["", "[]", "{}", "{\"event\": 1}", "null", "\u{0}", "{\"error\": {}}"] {
            assert!(read(hostile).is_err(), "{hostile}");
        }
    }
}
