//! The list of a repository's tags.

use serde::Deserialize;

use super::client::{OnRetry, Registry};
use super::error::RegistryError;

/// Most tags of one list.
const MAX_TAGS: usize = 1_000_000;
/// How many are asked for at once: the most that common registries give.
const PAGE: usize = 1000;

impl Registry<'_> {
    /// The tags of the repository, as the registry orders them; at most `limit`.
    pub(crate) fn tags(
        &self,
        limit: Option<usize>,
        on_retry: OnRetry<'_>,
    ) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            /// An empty repository says `null`.
            tags: Option<Vec<String>>,
        }
        let limit = limit.unwrap_or(MAX_TAGS);
        let mut tags = Vec::new();
        let path = format!("tags/list?n={}", limit.clamp(1, PAGE));
        self.pages(&path, &self.repository, on_retry, &mut |bytes| {
            let page: Page = serde_json::from_slice(bytes)
                .map_err(|error| format!("its list of tags is not one: {error}"))?;
            let page = page.tags.unwrap_or_default();
            // What is no tag cannot be asked for, and is not fit to be printed.
            tags.extend(page.into_iter().filter(|tag| is_tag(tag)));
            if tags.len() > MAX_TAGS {
                return Err(format!("it has more than {MAX_TAGS} tags"));
            }
            Ok(tags.len() < limit)
        })?;
        tags.truncate(limit);
        Ok(tags)
    }
}

/// Whether `text` has the form of a tag.
fn is_tag(text: &str) -> bool {
    format!("a:{text}").parse::<stanza_spec::Reference>().is_ok_and(|name| name.tag() == Some(text))
}

#[cfg(test)]
mod tests {
    use super::is_tag;

    #[test]
    fn what_is_no_tag_is_told() {
        assert!(is_tag("latest") && is_tag("1.0_x-y"));
        for text in ["", "a b", "\u{1b}[31m", "-a", "a/b", "a@sha256:00", "a:b"] {
            assert!(!is_tag(text), "{text}");
        }
    }
}
