//! How a pull, push or load is shown: a line for every step; on a terminal one line for each layer, drawn again in place.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use serde_json::json;
use stanza_image::{Progress, ProgressEvent};
use stanza_spec::Digest;
use stanza_spec::units::human_size;

use crate::output;

/// Least time between two drawings of the same state.
const PAUSE: Duration = Duration::from_millis(100);
/// Characters of a bar.
const WIDTH: u64 = 30;

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Of `pull`, `push` and `load`, whose output it is.
    Stdout,
    /// Of `run` and `create`, whose output is another's.
    Stderr,
    /// Nowhere.
    Quiet,
}

/// In which form progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A line for every step.
    Lines,
    /// One line for each layer, drawn again in place.
    Bars,
    /// An object for every step, as Docker's API streams them.
    Json,
}

/// Shows the events of a pull, push or load.
#[derive(Debug)]
pub(crate) struct Display {
    stream: Stream,
    form: Form,
    layers: Vec<(Digest, String)>,
    /// Lines that are on the terminal already.
    drawn: usize,
    last: Option<Instant>,
    /// A line that goes before the first event.
    pub(crate) title: Option<String>,
    /// Whether there were events.
    told: bool,
    /// The digest that the registry told.
    pub(crate) digest: Option<Digest>,
    /// Whether the name means another image than before.
    pub(crate) changed: Option<bool>,
}

impl Display {
    /// A display on `stream`.
    pub(crate) fn new(stream: Stream) -> Display {
        let terminal = match stream {
            Stream::Stdout => std::io::stdout().is_terminal(),
            Stream::Stderr => std::io::stderr().is_terminal(),
            Stream::Quiet => false,
        };
        Display {
            stream,
            form: if terminal { Form::Bars } else { Form::Lines },
            layers: Vec::new(),
            drawn: 0,
            last: None,
            title: None,
            told: false,
            digest: None,
            changed: None,
        }
    }

    /// A display as `--progress` asks for; `None` for a word it does not know.
    pub(crate) fn of(word: Option<&str>) -> Option<Display> {
        let with = |form| Display { form, ..Display::new(Stream::Stdout) };
        match word {
            None | Some("auto") => Some(Display::new(Stream::Stdout)),
            Some("plain") => Some(with(Form::Lines)),
            Some("tty") => Some(with(Form::Bars)),
            Some("json") => Some(with(Form::Json)),
            Some("quiet") => Some(Display::new(Stream::Quiet)),
            Some(_) => None,
        }
    }

    /// The last line, when there was a first one.
    pub(crate) fn finish(&mut self) {
        if let (true, Some(digest)) = (self.told, self.digest.clone()) {
            self.line(&format!("Digest: {digest}"));
        }
    }

    /// One line below all layers.
    pub(crate) fn line(&mut self, text: &str) {
        // What stands above is not drawn again.
        self.drawn = 0;
        self.layers.clear();
        if self.form == Form::Json {
            return self.object(&json!({ "status": text }));
        }
        self.write(&format!("{}\n", output::escaped(text)));
    }

    fn object(&self, value: &serde_json::Value) {
        self.write(&format!("{value}\n"));
    }

    fn write(&self, text: &str) {
        match self.stream {
            // A pull goes on when nobody listens any more.
            Stream::Stdout => drop(output::raw(text.as_bytes())),
            Stream::Stderr => output::raw_talk(text.as_bytes()),
            Stream::Quiet => {}
        }
    }

    /// A layer's new state.
    fn layer(&mut self, digest: &Digest, text: &str) {
        match self.form {
            Form::Lines => self.write(&format!("{}: {text}\n", digest.short())),
            Form::Bars => self.bar(digest, text.to_owned(), false),
            Form::Json => {
                self.object(&json!({ "status": text, "progressDetail": {}, "id": digest.short() }));
            }
        }
    }

    /// How far a layer is: not worth a line of its own.
    fn moving(&mut self, digest: &Digest, text: &str, done: u64, size: u64) {
        match self.form {
            Form::Lines => {}
            Form::Bars => self.bar(digest, format!("{text} {}", bar(done, size)), true),
            Form::Json => {
                if self.last.is_some_and(|last| last.elapsed() < PAUSE) {
                    return;
                }
                self.last = Some(Instant::now());
                let detail = json!({ "current": done, "total": size });
                self.object(&json!({ "status": text, "progressDetail": detail, "id": digest.short() }));
            }
        }
    }

    /// A layer's line on a terminal; `passing` states need not be seen all.
    fn bar(&mut self, digest: &Digest, text: String, passing: bool) {
        match self.layers.iter_mut().find(|(known, _)| known == digest) {
            Some((_, state)) => *state = text,
            None => self.layers.push((digest.clone(), text)),
        }
        if passing && self.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        self.draw();
    }

    fn draw(&mut self) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for (digest, state) in &self.layers {
            text.push_str(&format!("\r\x1b[K{}: {state}\n", digest.short()));
        }
        self.drawn = self.layers.len();
        self.write(&text);
    }
}

/// `[=====>    ]  1.2MB/3MB`.
fn bar(done: u64, size: u64) -> String {
    let filled = if size == 0 {
        WIDTH
    } else {
        (u128::from(done.min(size)) * u128::from(WIDTH) / u128::from(size)).try_into().unwrap_or(WIDTH)
    };
    let bar: String = (0..WIDTH)
        .map(|at| match at.cmp(&filled) {
            std::cmp::Ordering::Less => '=',
            std::cmp::Ordering::Equal => '>',
            std::cmp::Ordering::Greater => ' ',
        })
        .collect();
    format!("[{bar}]  {}/{}", human_size(done), human_size(size))
}

impl Progress for Display {
    fn event(&mut self, event: ProgressEvent<'_>) {
        self.told = true;
        if let Some(title) = self.title.take() {
            self.line(&title);
        }
        match event {
            ProgressEvent::Resolved { digest } => self.digest = Some(digest.clone()),
            ProgressEvent::PlatformDiffers { found, wanted } => {
                output::warning(&format!("the image is made for {found}, not for {wanted}"));
            }
            ProgressEvent::LayerExists { digest, .. } => self.layer(digest, "Already exists"),
            ProgressEvent::LayerPending { digest, .. } if self.form == Form::Bars => {
                self.layer(digest, "Waiting");
            }
            ProgressEvent::LayerWaiting { digest } => self.layer(digest, "Waiting for another process"),
            ProgressEvent::LayerStarted { digest, .. } => self.layer(digest, "Pulling fs layer"),
            ProgressEvent::LayerBytes { digest, done, size } => {
                self.moving(digest, "Downloading", done, size);
            }
            ProgressEvent::LayerDone { digest, .. } => self.layer(digest, "Pull complete"),
            ProgressEvent::LayerPresent { digest, .. } => self.layer(digest, "Layer already exists"),
            ProgressEvent::LayerMounted { digest, from, .. } => {
                self.layer(digest, &format!("Mounted from {from}"));
            }
            ProgressEvent::LayerSending { digest, done, size } => self.moving(digest, "Pushing", done, size),
            ProgressEvent::LayerSent { digest, .. } => self.layer(digest, "Pushed"),
            ProgressEvent::Pushed { name, digest, size } => {
                let tag = name.tag().unwrap_or_default();
                self.line(&format!("{tag}: digest: {digest} size: {size}"));
            }
            ProgressEvent::Retrying { attempt, delay } => {
                output::warning(&format!("trying again in {} s (attempt {attempt})", delay.as_secs()));
                self.drawn = 0;
            }
            ProgressEvent::Complete { changed, .. } => self.changed = Some(changed),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Display, bar};

    #[test]
    fn bars_fill_from_left_to_right() {
        assert_eq!(bar(0, 10), format!("[>{}]  0B/10B", " ".repeat(29)));
        assert_eq!(bar(5, 10), format!("[{}>{}]  5B/10B", "=".repeat(15), " ".repeat(14)));
        assert_eq!(bar(10, 10), format!("[{}]  10B/10B", "=".repeat(30)));
        assert_eq!(bar(7, 0), format!("[{}]  7B/0B", "=".repeat(30)));
    }
    #[test]
    fn only_known_forms_of_progress_are_taken() {
        for word in ["auto", "plain", "tty", "json", "quiet"] {
            assert!(Display::of(Some(word)).is_some(), "{word}");
        }
        assert!(Display::of(Some("fancy")).is_none());
    }
}
