//! `--filter`: `key=value` words, OR inside a key, AND across keys, as in Docker.

use std::collections::BTreeMap;

use stanza_spec::{Classify, ErrorKind};

/// Words of `--filter`, taken apart. Which keys there are is the business of what is filtered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// A filter that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// No `key=value`.
    #[error("invalid argument \"{0}\" for \"-f, --filter\" flag: invalid filter '{0}'")]
    Form(String),
    /// A key that is not known here.
    #[error("invalid filter '{0}'")]
    Key(String),
    /// A value that the key does not take.
    #[error("invalid filter '{key}={value}'")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
    },
    /// `before` or `since` of something that is not there.
    #[error("No such {what}: {name}")]
    NotFound {
        /// `container` or `image`.
        what: &'static str,
        /// What was given.
        name: String,
    },
}

impl Classify for FilterError {
    fn kind(&self) -> ErrorKind {
        match self {
            FilterError::NotFound { .. } => ErrorKind::NotFound,
            _ => ErrorKind::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            FilterError::Form(_) => Some("a filter is `key=value`, as `status=exited`".to_owned()),
            _ => None,
        }
    }
}

impl Filters {
    /// Takes `key=value` words apart. Keys are compared without case.
    ///
    /// # Errors
    /// When one has no `=` or no key.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for word in words.iter().map(AsRef::as_ref) {
            let (key, value) = word.split_once('=').ok_or_else(|| FilterError::Form(word.to_owned()))?;
            // `label!=x` is a key of its own.
            let key = key.trim().to_ascii_lowercase();
            if key.is_empty() {
                return Err(FilterError::Form(word.to_owned()));
            }
            filters.0.entry(key).or_default().push(value.trim().to_owned());
        }
        Ok(filters)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses keys that are not among `known`.
    pub(crate) fn check(&self, known: &[&str]) -> Result<(), FilterError> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(FilterError::Key(key.clone())),
            None => Ok(()),
        }
    }

    /// The values of a key; empty when it is not given.
    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Whether the key is not given, or `test` holds for one of its values.
    pub(crate) fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether labels fulfil `label` (all of them, as Docker) and no `label!`.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(holds) && !self.values("label!").iter().any(holds)
    }

    /// A key that takes true or false; `None` when it is not given.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, FilterError> {
        self.values(key).last().map_or(Ok(None), |value| match value.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" => Ok(Some(true)),
            "false" | "0" | "f" => Ok(Some(false)),
            _ => Err(FilterError::Value { key: key.to_owned(), value: value.clone() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_or_within_a_key_and_and_across_keys() {
        let filters = Filters::parse(&["Name=web", "name=db", "label=a=1", "label!=b"]).unwrap();
        assert!(filters.any("name", |value| value == "db") && !filters.any("name", |value| value == "x"));
        assert!(filters.any("status", |_| false));
        let labels = |list: &[(&str, &str)]| {
            list.iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(filters.labels(&labels(&[("a", "1")])));
        assert!(!filters.labels(&labels(&[("a", "2")])));
        assert!(!filters.labels(&labels(&[("a", "1"), ("b", "")])));
    }

    #[test]
    fn unknown_keys_and_broken_words_are_named() {
        assert!(matches!(Filters::parse(&["x"]), Err(FilterError::Form(_))));
        let filters = Filters::parse(&["colour=red"]).unwrap();
        assert_eq!(filters.check(&["name"]).unwrap_err().to_string(), "invalid filter 'colour'");
        let filters = Filters::parse(&["dangling=maybe"]).unwrap();
        assert_eq!(filters.boolean("dangling").unwrap_err().to_string(), "invalid filter 'dangling=maybe'");
    }
}
