//! `--label`.

use std::collections::BTreeMap;

use super::FlagError;

/// The labels of `name=value` texts; a bare name has an empty value; the last one wins.
pub(crate) fn labels<'a>(
    texts: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, FlagError> {
    texts
        .map(|text| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            if name.is_empty() {
                return Err(FlagError::new("--label", format!("`{text}` has no name")));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::labels;

    #[test]
    fn labels_have_names_and_perhaps_values() {
        let read = labels(["a=1", "b", "a=2=3"].into_iter()).unwrap();
        let pairs: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("a", "2=3"), ("b", "")]);
        assert!(labels(["=x"].into_iter()).is_err());
    }
}
