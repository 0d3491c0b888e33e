//! Standard output is data, standard error is talk.
//!
//! What comes from images, registries and containers' records may hold bytes that command a terminal. On a terminal they are
//! shown escaped; elsewhere data goes out as it is, since programs read it. No colour is used, so `NO_COLOR` is always
//! honoured.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use crate::failure::Failure;

/// 128 + SIGPIPE: what a shell shows of a program whose output was closed.
pub(crate) const CLOSED_OUTPUT: u8 = 141;

/// Prints data, with control characters escaped when a terminal reads it.
///
/// # Errors
/// When standard output cannot be written; a closed one makes a failure that is not printed.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let terminal = io::stdout().is_terminal();
    raw(if terminal { escaped(text) } else { Cow::Borrowed(text) }.as_bytes())
}

/// Prints one line of data.
///
/// # Errors
/// As [`data`].
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    data(&format!("{text}\n"))
}

/// Writes bytes as they are to standard output, past every buffer.
///
/// # Errors
/// As [`data`].
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::closed_output(),
        _ => Failure::io("cannot write to standard output", &error),
    })
}

/// Says something to the user, in one write; a closed standard error is nobody's concern.
pub(crate) fn talk(text: &str) {
    let _ = io::stderr().write_all(format!("{}\n", escaped(text)).as_bytes());
}

/// Writes bytes as they are to standard error.
pub(crate) fn raw_talk(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// Something that is not as asked, but no failure.
pub(crate) fn warning(text: &str) {
    talk(&format!("warning: {text}"));
}

/// Tells of a failure, with its hint.
pub(crate) fn failure(failure: &Failure) {
    if failure.is_silent() {
        return;
    }
    let hint = failure.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    talk(&format!("stanza: {failure}{hint}"));
}

/// Tells of a failure and ends this process: for what the engine calls back and cannot stop, when nobody reads any more.
#[expect(
    clippy::exit,
    reason = "a log that is followed has no other end; nothing is held that a drop must release"
)]
pub(crate) fn end(reason: &Failure) -> ! {
    failure(reason);
    std::process::exit(if reason.is_silent() { i32::from(CLOSED_OUTPUT) } else { 1 })
}

/// `text` with every control character but line ends and tabs written as an escape.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    let dangerous = |c: char| {
        // Marks that change the direction of writing make a name look like another one.
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if !text.contains(dangerous) {
        return Cow::Borrowed(text);
    }
    let mut output = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if dangerous(c) {
            output.extend(c.escape_default());
        } else {
            output.push(c);
        }
    }
    Cow::Owned(output)
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_commands_a_terminal_is_escaped() {
        assert_eq!(escaped("a\tb\n"), "a\tb\n");
        assert_eq!(escaped("\u{1b}[31mred\r\u{9b}x\u{7f}"), "\\u{1b}[31mred\\r\\u{9b}x\\u{7f}");
        assert_eq!(escaped("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(escaped("é 漢"), "é 漢");
    }
}
