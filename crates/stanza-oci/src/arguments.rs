//! The words of a command line, as runc's callers write them: `-flag` or `--flag`, `--flag value` or `--flag=value`, before
//! or after the container's id. A verb's options are data ([`Flag`]); so are the verbs ([`Verb`]).

use crate::context::Context;
use crate::failure::Failure;

/// One option of a verb.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Without dashes; the first is the name that it is asked by, the others are aliases.
    pub(crate) names: &'static [&'static str],
    /// What its value is called in the help; `None` for a switch.
    pub(crate) value: Option<&'static str>,
    /// One line.
    pub(crate) help: &'static str,
}

/// A switch.
pub(crate) const fn switch(names: &'static [&'static str], help: &'static str) -> Flag {
    Flag { names, value: None, help }
}

/// An option with a value.
pub(crate) const fn option(names: &'static [&'static str], value: &'static str, help: &'static str) -> Flag {
    Flag { names, value: Some(value), help }
}

/// Two lists of options as one of `N`, which is the sum of their lengths; the compiler refuses any other.
pub(crate) const fn join<const N: usize>(first: &[Flag], then: &[Flag]) -> [Flag; N] {
    assert!(first.len() + then.len() == N, "the sum of both lengths");
    let mut all = [switch(&[], ""); N];
    let mut at = 0;
    while at < N {
        all[at] = if at < first.len() { first[at] } else { then[at - first.len()] };
        at += 1;
    }
    all
}

/// One verb.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    /// The words after the options, as the help shows them.
    pub(crate) usage: &'static str,
    /// One line.
    pub(crate) help: &'static str,
    pub(crate) flags: &'static [Flag],
    /// How many words are read before all that follows belongs to the container's command: usually all.
    pub(crate) own_words: usize,
    /// Runs it; the exit code.
    pub(crate) run: fn(&Context, &Parsed) -> Result<u8, Failure>,
}

/// The words of one verb, read.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    options: Vec<(&'static str, String)>,
    /// The words that are no options.
    pub(crate) words: Vec<String>,
}

impl Parsed {
    /// Whether a switch is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value == "true")
    }

    /// The last value of an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).last()
    }

    /// All values of an option, in order.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.options.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The only word, which is the container's id.
    pub(crate) fn id(&self) -> Result<&str, Failure> {
        match self.words.as_slice() {
            [id] => Ok(id),
            words => {
                Err(Failure::Usage(format!("expected the container's id alone, got {} words", words.len())))
            }
        }
    }

    /// A value that is a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        self.value(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Failure::Usage(format!("invalid value `{text}` for --{name}: expected a number"))
                })
            })
            .transpose()
    }
}

/// Reads `words` by `flags` until `own_words` words that are no options were seen; returns how many were taken.
pub(crate) fn parse(
    words: &[String],
    flags: &'static [Flag],
    own_words: usize,
) -> Result<(Parsed, usize), Failure> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    while at < words.len() && parsed.words.len() < own_words {
        let word = &words[at];
        at += 1;
        if word == "--" {
            break;
        }
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else {
            parsed.words.push(word.clone());
            continue;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value)));
        let flag = flags
            .iter()
            .find(|flag| flag.names.contains(&name))
            .ok_or_else(|| Failure::Usage(format!("flag provided but not defined: -{name}")))?;
        let value = match (flag.value, value) {
            (None, None) => "true".to_owned(),
            (None, Some("true" | "1")) => "true".to_owned(),
            (None, Some("false" | "0")) => "false".to_owned(),
            (None, Some(other)) => {
                return Err(Failure::Usage(format!(
                    "invalid value `{other}` for --{name}: expected true or false"
                )));
            }
            (Some(_), Some(value)) => value.to_owned(),
            (Some(_), None) => {
                let value = words
                    .get(at)
                    .ok_or_else(|| Failure::Usage(format!("flag needs an argument: -{name}")))?;
                at += 1;
                value.clone()
            }
        };
        parsed.options.push((flag.names[0], value));
    }
    Ok((parsed, at))
}

/// Reads the words of a verb.
pub(crate) fn parse_verb(verb: &Verb, words: &[String]) -> Result<Parsed, Failure> {
    let (mut parsed, taken) = parse(words, verb.flags, verb.own_words)?;
    parsed.words.extend_from_slice(&words[taken..]);
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    static FLAGS: [Flag; 3] = [
        option(&["bundle", "b"], "DIR", ""),
        switch(&["detach", "d"], ""),
        option(&["env", "e"], "NAME=VALUE", ""),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_stand_before_and_after_the_id_in_every_spelling() {
        let (parsed, taken) = parse(&words("-b x id --detach -env=A=1 -e B=2"), &FLAGS, usize::MAX).unwrap();
        assert_eq!((parsed.value("bundle"), parsed.is_on("detach"), taken), (Some("x"), true, 7));
        assert_eq!(parsed.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(parsed.words, ["id"]);
        let (parsed, _) = parse(&words("-d=false id"), &FLAGS, usize::MAX).unwrap();
        assert!(!parsed.is_on("detach"));
    }

    #[test]
    fn after_the_own_words_everything_is_the_commands() {
        let (parsed, taken) = parse(&words("--detach id ls -b"), &FLAGS, 1).unwrap();
        assert_eq!((parsed.words.as_slice(), taken), (["id".to_owned()].as_slice(), 2));
        let (parsed, taken) = parse(&words("-- -b"), &FLAGS, 1).unwrap();
        assert!(parsed.words.is_empty() && taken == 1);
    }

    #[test]
    fn what_is_no_option_is_refused() {
        for bad in ["--nope", "-b", "--detach=maybe"] {
            assert!(parse(&words(bad), &FLAGS, usize::MAX).is_err(), "{bad}");
        }
    }
}
