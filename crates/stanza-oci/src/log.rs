//! The log: logrus' text and JSON lines, which callers of runc parse.

use std::fs::OpenOptions;
use std::io::{self, Write};

use serde::Serialize;
use stanza_spec::Instant;

use crate::context::{Context, LogFormat};
use crate::failure::Failure;

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    msg: &'a str,
    time: &'a str,
}

/// Logs why the verb failed, also to standard error when the log is a file; the exit code.
pub(crate) fn fatal(context: Option<&Context>, failure: &Failure) -> u8 {
    let text = failure.chain();
    write(context, "error", &text);
    if context.is_some_and(|context| context.log.is_some()) {
        let _ = writeln!(io::stderr(), "{text}");
    }
    1
}

/// Logs something that does not stop the verb.
pub(crate) fn warn(context: &Context, text: &str) {
    write(Some(context), "warning", text);
}

/// Logs what is done, with `--debug`.
pub(crate) fn debug(context: &Context, text: &str) {
    if context.debug {
        write(Some(context), "debug", text);
    }
}

fn write(context: Option<&Context>, level: &str, text: &str) {
    let time = Instant::now().rfc3339();
    let line = line(context.map_or(LogFormat::Text, |context| context.log_format), level, text, &time);
    let file = context.and_then(|context| context.log.as_ref());
    // A log that cannot be written must not hide what it was to say.
    let written = file.is_some_and(|path| {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .is_ok()
    });
    if !written {
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

fn line(format: LogFormat, level: &str, text: &str, time: &str) -> String {
    match format {
        LogFormat::Json => serde_json::to_string(&Line { level, msg: text, time }).unwrap_or_default() + "\n",
        LogFormat::Text => format!("time={time:?} level={level} msg={text:?}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_logrus() {
        let (text, time) = ("container \"x\" is gone", "2026-01-02T03:04:05Z");
        assert_eq!(
            line(LogFormat::Json, "error", text, time),
            "{\"level\":\"error\",\"msg\":\"container \\\"x\\\" is gone\",\"time\":\"2026-01-02T03:04:05Z\"}\n"
        );
        assert_eq!(
            line(LogFormat::Text, "error", text, time),
            "time=\"2026-01-02T03:04:05Z\" level=error msg=\"container \\\"x\\\" is gone\"\n"
        );
    }
}
