//! Blobs: asked for and fetched.

use stanza_spec::Digest;

use super::client::{Ask, Content, OnRetry, Registry, Target};
use super::error::RegistryError;
use super::transport::{Method, ResponseBody};

/// A blob that is coming in.
pub(crate) struct Blob {
    /// The position of the first byte that comes.
    pub(crate) offset: u64,
    /// The size of the whole blob, when the answer tells.
    pub(crate) size: Option<u64>,
    pub(crate) body: ResponseBody,
}

impl Registry<'_> {
    /// Whether the repository has the blob.
    pub(crate) fn has_blob(&self, digest: &Digest, on_retry: OnRetry<'_>) -> Result<bool, RegistryError> {
        let path = format!("blobs/{digest}");
        let ask = Ask {
            method: Method::Head,
            target: Target::Path(&path),
            headers: &[],
            content: Content::Empty,
            access: self.access,
            success: &[200],
            what: digest.as_str(),
        };
        match self.ask(&ask, on_retry) {
            Ok(mut answer) => {
                answer.finish();
                Ok(true)
            }
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts to fetch a blob from `offset` on; the answer may begin earlier, at zero.
    pub(crate) fn blob(
        &self,
        digest: &Digest,
        offset: u64,
        on_retry: OnRetry<'_>,
    ) -> Result<Blob, RegistryError> {
        let mut headers = Vec::new();
        if offset > 0 {
            headers.push(("range", format!("bytes={offset}-")));
        }
        let path = format!("blobs/{digest}");
        let ask = Ask {
            method: Method::Get,
            target: Target::Path(&path),
            headers: &headers,
            content: Content::Empty,
            access: self.access,
            success: &[200, 206],
            what: digest.as_str(),
        };
        let response = self.ask(&ask, on_retry)?.response;
        if response.status != 206 {
            let size = response.header("content-length").and_then(|text| text.trim().parse().ok());
            return Ok(Blob { offset: 0, size, body: response.body });
        }
        let range = response.header("content-range").and_then(parse_content_range);
        match range {
            Some((start, size)) if start == offset => Ok(Blob { offset, size, body: response.body }),
            _ => Err(self.answer(digest.as_str(), "it sends another range than it was asked for".to_owned())),
        }
    }
}

/// `bytes 5-9/10` or `bytes 5-9/*`: the first position and the whole size.
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let size = match size {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    (start <= end && size.is_none_or(|size: u64| end < size)).then_some((start, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_and_nonsense_is_not() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["bytes 9-5/10", "bytes 5-10/10", "bytes */10", "5-9/10", "bytes -1-9/10"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
