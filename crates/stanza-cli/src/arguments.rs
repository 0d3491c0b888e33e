//! How arguments are declared and read: the forms that Docker's command line has, over `clap`'s builder.
//!
//! Long options have two dashes and may be given more than once, the last one wins. A switch takes `=true` or `=false`.
//! Options of `run`, `create` and `exec` end at the first word that is none.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::failure::Failure;
use crate::flags::refused;

/// The words of `path` as a command, with an example for its help.
pub(crate) fn command(
    path: &'static str,
    usage: &'static str,
    about: &'static str,
    example: &'static str,
) -> Command {
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print this help");
    // `-h` is the host name of `run` and `create`.
    let help = if matches!(path, "run" | "create" | "compare") { help } else { help.short('h') };
    Command::new(path)
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .args_override_self(true)
        .override_usage(usage)
        .about(about)
        .after_help(example)
        .arg(help)
}

/// A switch: `--name`, `--name=false`.
pub(crate) fn switch(name: &'static str, short: impl Into<Option<char>>, help: &'static str) -> Arg {
    let arg = Arg::new(name)
        .long(name)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(ValueParser::from(boolean))
        .hide_possible_values(true)
        .value_name("true|false")
        .help(help);
    match short.into() {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected `true` or `false`".to_owned()),
    }
}

/// An option with one value.
pub(crate) fn value(
    name: &'static str,
    short: impl Into<Option<char>>,
    kind: &'static str,
    help: &'static str,
) -> Arg {
    let arg = Arg::new(name).long(name).value_name(kind).allow_hyphen_values(true).help(help);
    match short.into() {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// An option that may be given many times, each one counting.
pub(crate) fn list(
    name: &'static str,
    short: impl Into<Option<char>>,
    kind: &'static str,
    help: &'static str,
) -> Arg {
    value(name, short, kind, help).action(ArgAction::Append)
}

/// One word.
pub(crate) fn word(name: &'static str) -> Arg {
    Arg::new(name).required(true)
}

/// One word or none.
pub(crate) fn optional_word(name: &'static str) -> Arg {
    Arg::new(name)
}

/// One word or more.
pub(crate) fn words(name: &'static str) -> Arg {
    Arg::new(name).required(true).num_args(1..).action(ArgAction::Append)
}

/// Any number of words.
pub(crate) fn optional_words(name: &'static str) -> Arg {
    Arg::new(name).num_args(0..).action(ArgAction::Append)
}

/// A word and all that follows it, options or not.
pub(crate) fn rest(name: &'static str) -> Arg {
    Arg::new(name).required(true).num_args(1..).trailing_var_arg(true).action(ArgAction::Append)
}

/// What was given.
pub(crate) trait Given {
    /// Whether a switch is on.
    fn on(&self, name: &str) -> bool;
    /// A switch, when it was given.
    fn choice(&self, name: &str) -> Option<bool>;
    /// An option's or word's value.
    fn text(&self, name: &str) -> Option<&str>;
    /// All values of an option or word.
    fn texts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str>;
}

impl Given for ArgMatches {
    fn on(&self, name: &str) -> bool {
        self.choice(name).unwrap_or(false)
    }

    fn choice(&self, name: &str) -> Option<bool> {
        self.get_one::<bool>(name).copied()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get_one::<String>(name).map(String::as_str)
    }

    fn texts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.get_many::<String>(name).into_iter().flatten().map(String::as_str)
    }
}

/// What the parser made of the words.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Arguments.
    Matches(ArgMatches),
    /// `--help` was given: the text.
    Help(String),
}

/// Parses the words behind the command's name.
///
/// # Errors
/// When a word is none of the command's.
pub(crate) fn parse(command: Command, arguments: &[OsString]) -> Result<Parsed, Failure> {
    let mut command = command;
    let path = command.get_name().to_owned();
    match command.try_get_matches_from_mut(arguments) {
        Ok(matches) => Ok(Parsed::Matches(matches)),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Parsed::Help(help_text(&command))),
        Err(error) => Err(explain(&path, &error)),
    }
}

/// The help of a command: usage, what it does, its options in their order, an example.
pub(crate) fn help_text(command: &Command) -> String {
    let mut text = String::new();
    // What was given to `override_usage` comes back with clap's title.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "Usage:  {usage}\n\n{about}\n");
    let lines: Vec<(String, String)> = command
        .get_arguments()
        .filter_map(|argument| {
            let short = argument.get_short().map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
            let kind = match argument.get_value_names().unwrap_or_default() {
                [name] if name != "true|false" => format!(" {name}"),
                _ => String::new(),
            };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            Some((format!("{short}--{}{kind}", argument.get_long()?), help))
        })
        .collect();
    let width = lines.iter().map(|(option, _)| option.len()).max().unwrap_or(0);
    text.push_str("\nOptions:\n");
    for (option, help) in lines {
        let _ = writeln!(text, "  {option:<width$}  {help}");
    }
    match command.get_after_help().map(ToString::to_string) {
        Some(after) if !after.is_empty() => text + "\n" + &after + "\n",
        _ => text,
    }
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        _ => String::new(),
    }
}

/// The parser's error in our words.
fn explain(path: &str, error: &clap::Error) -> Failure {
    let argument = context(error, ContextKind::InvalidArg);
    let name = argument.split([' ', '=', '[']).next().unwrap_or_default().to_owned();
    let help = format!("`stanza {path} --help` lists what it takes");
    match error.kind() {
        ErrorKind::UnknownArgument => {
            if let Some(refused) = refused::name_of(path, &argument) {
                return Failure::not_built(&format!("option `{refused}`"));
            }
            if !argument.starts_with('-') {
                return Failure::usage(format!("`{path}` does not take the word `{argument}`"))
                    .with_hint(help);
            }
            let close = context(error, ContextKind::SuggestedArg);
            let hint = if close.is_empty() { help } else { format!("did you mean `{close}`?") };
            Failure::usage(format!("unknown option `{argument}`")).with_hint(hint)
        }
        ErrorKind::MissingRequiredArgument => {
            let word = argument.trim_end_matches('.').trim_matches(['<', '>']);
            Failure::usage(format!("`{path}` needs a word {word}")).with_hint(help)
        }
        ErrorKind::ValueValidation => {
            let value = context(error, ContextKind::InvalidValue);
            Failure::usage(format!("option `{name}`: `{value}` is not its value: expected `true` or `false`"))
        }
        ErrorKind::InvalidValue => Failure::usage(format!("option `{name}` needs a value")).with_hint(help),
        ErrorKind::TooManyValues => {
            let value = context(error, ContextKind::InvalidValue);
            Failure::usage(format!("`{path}` does not take the word `{value}`")).with_hint(help)
        }
        ErrorKind::InvalidUtf8 => Failure::usage("an argument is not valid UTF-8"),
        _ => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            Failure::usage(first.trim_start_matches("error: ")).with_hint(help)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Parsed, Failure> {
        let command = command("run", "stanza run [OPTIONS] IMAGE [COMMAND] [ARG...]", "x", "y")
            .arg(switch("rm", None, "x"))
            .arg(switch("tty", 't', "x"))
            .arg(switch("interactive", 'i', "x"))
            .arg(list("env", 'e', "NAME", "x"))
            .arg(value("memory", 'm', "SIZE", "x"))
            .arg(rest("IMAGE"));
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        parse(command, &arguments)
    }

    fn matches(arguments: &[&str]) -> ArgMatches {
        match read(arguments) {
            Ok(Parsed::Matches(matches)) => matches,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn options_end_at_the_image() {
        let given = matches(&[
            "-it",
            "--rm",
            "-e",
            "A=1",
            "-eB=-2",
            "--memory=5",
            "img",
            "--rm=false",
            "-x",
            "--",
            "-e",
        ]);
        assert!(given.on("rm") && given.on("tty") && given.on("interactive"));
        assert_eq!(given.texts("env").collect::<Vec<_>>(), ["A=1", "B=-2"]);
        assert_eq!(given.text("memory"), Some("5"));
        assert_eq!(given.texts("IMAGE").collect::<Vec<_>>(), ["img", "--rm=false", "-x", "--", "-e"]);
        assert_eq!(matches(&["--", "img", "-t"]).texts("IMAGE").collect::<Vec<_>>(), ["img", "-t"]);
    }

    #[test]
    fn switches_take_a_truth_and_the_last_option_wins() {
        let given = matches(&["--rm", "--rm=false", "-m", "1", "-m", "2", "-t=0", "img"]);
        assert_eq!((given.choice("rm"), given.choice("tty")), (Some(false), Some(false)));
        assert_eq!((given.choice("interactive"), given.text("memory")), (None, Some("2")));
        assert_eq!(matches(&["-m", "-1", "img"]).text("memory"), Some("-1"));
    }

    #[test]
    fn wrong_words_are_named() {
        for (arguments, message) in [
            (&["--nope", "img"][..], "unknown option `--nope`"),
            (&["-Z", "img"], "unknown option `-Z`"),
            (&["--rmm", "img"], "unknown option `--rmm`"),
            (&["--health-cmd", "x", "img"], "option `--health-cmd` is not built yet"),
            (&["--init=true", "img"], "option `--init` is not built yet"),
            (&["-a", "img"], "option `-a` is not built yet"),
            (&["-ita", "img"], "option `-a` is not built yet"),
            (&["--rm=maybe", "img"], "option `--rm`: `maybe` is not its value: expected `true` or `false`"),
            (&["--memory"], "option `--memory` needs a value"),
            (&[], "`run` needs a word IMAGE"),
        ] {
            match read(arguments) {
                Err(failure) => assert_eq!(failure.to_string(), message),
                Ok(parsed) => panic!("{arguments:?}: {parsed:?}"),
            }
        }
        let close = read(&["--memor", "1", "img"]).unwrap_err();
        assert_eq!(close.hint(), Some("did you mean `--memory`?"));
    }

    #[test]
    fn help_is_no_failure() {
        assert!(
            matches!(read(&["--help"]), Ok(Parsed::Help(text)) if text.contains("stanza run [OPTIONS] IMAGE"))
        );
        // A command's own `--help` is the command's.
        assert_eq!(matches(&["img", "--help"]).texts("IMAGE").count(), 2);
    }
}
