//! Blobs on their way to the registry (distribution-spec, "Pushing Blobs").
//!
//! ```text
//! mount: POST uploads/?mount=&from= --201--> there
//!                                   --202--> an upload, as from POST uploads/
//! whole: PUT location?digest=  (all bytes) --201--> there
//!          | broke off: GET location -> Range: so far; the rest by PATCH
//!          | refused (411, 413, ...): in pieces
//! in pieces: PATCH location (Content-Range) --202--> next piece, at the location of the answer
//!            PUT location?digest= --201--> there
//! ```
//!
//! The registry's word counts for how much it has: after each piece, and after a failure. An upload that it does not
//! know any more starts anew. Failures are counted; so much progress makes them start from zero, as in a download.

use std::fs::File;

use stanza_spec::Digest;

use super::client::{Access, Ask, Content, FilePart, Final, OnRetry, Registry, Target, Trouble};
use super::error::RegistryError;
use super::token::escape;
use super::transport::Method;
use super::url::Url;

/// So much new content makes the count of failures start anew.
const GAIN: u64 = 4 * 1024 * 1024;
/// The size of a piece, when the whole is not taken: proxies in front of registries often take no more than 100 MB.
const PIECE: u64 = 32 * 1024 * 1024;
/// Pieces do not get smaller than this; nginx takes 1 MiB when it is not told otherwise.
const LEAST_PIECE: u64 = 1024 * 1024;
/// After so many connections that broke the whole is not tried any more.
const WHOLE_TRIES: u32 = 2;

/// An upload that the registry has opened.
pub(crate) struct Upload {
    location: Url,
    /// `OCI-Chunk-Min-Length`: the least size of a piece but the last.
    least_piece: u64,
    /// How many bytes the registry has, by its own word.
    received: u64,
}

/// What became of the wish to mount a blob.
pub(crate) enum Mount {
    /// The repository has it now.
    Done,
    /// It must be sent; here is where.
    Upload(Upload),
    /// It must be sent.
    Refused,
}

/// A blob on its way to the registry.
pub(crate) struct OutgoingBlob<'r> {
    pub(crate) digest: &'r Digest,
    pub(crate) size: u64,
    pub(crate) file: &'r File,
    /// Is told how many bytes are on their way.
    pub(crate) on_sent: &'r (dyn Fn(u64) + Sync),
}

/// How the bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Pieces(u64),
}

/// What one step led to.
enum Step {
    /// The blob is there.
    Stored,
    /// The registry has so many bytes.
    Received(u64),
}

impl Registry<'_> {
    /// Asks the registry to take a blob over from its repository `from`. A refusal is no error: then it is sent.
    pub(crate) fn mount(
        &self,
        digest: &Digest,
        from: &str,
        on_retry: OnRetry<'_>,
    ) -> Result<Mount, RegistryError> {
        let mut path = "blobs/uploads/?mount=".to_owned();
        escape(digest.as_str(), &mut path);
        path.push_str("&from=");
        escape(from, &mut path);
        let ask = self.post(&path, Access::Mount(from), &[201, 202], digest.as_str());
        let mut answer = match self.ask(&ask, on_retry) {
            Ok(answer) => answer,
            // The registry is there but does not do this, or not for us.
            Err(
                RegistryError::Unauthorized { .. }
                | RegistryError::Denied { .. }
                | RegistryError::NotFound { .. }
                | RegistryError::Status { status: 400..=499, .. },
            ) => return Ok(Mount::Refused),
            Err(error) => return Err(error),
        };
        answer.finish();
        if answer.response.status == 201 {
            self.check_digest(answer.response.header("docker-content-digest"), digest, digest.as_str())?;
            return Ok(Mount::Done);
        }
        Ok(Mount::Upload(self.upload_of(&answer, digest.as_str())?))
    }

    /// Tells the registry that an upload will not go on. It would notice by itself, later.
    pub(crate) fn cancel_upload(&self, upload: &Upload) {
        let ask = Ask {
            method: Method::Delete,
            target: Target::Location(&upload.location),
            headers: &[],
            content: Content::Empty,
            access: self.access,
            success: &[204],
            what: "upload",
        };
        // Politeness, not a need.
        if let Ok(mut answer) = self.ask_once(&ask) {
            answer.finish();
        }
    }

    /// Sends a blob; `started` is an upload that a mount has left.
    pub(crate) fn send_blob(
        &self,
        blob: &OutgoingBlob<'_>,
        started: Option<Upload>,
        on_retry: OnRetry<'_>,
    ) -> Result<(), RegistryError> {
        let mut upload = started;
        let mut way = Way::Whole;
        let (mut failures, mut reached, mut restarted) = (0, 0, false);
        loop {
            let current = match upload.take() {
                Some(upload) => upload,
                None => self.start_upload(blob.digest.as_str(), on_retry)?,
            };
            let current = upload.insert(current);
            let before = current.received;
            let trouble = match self.advance(current, blob, way) {
                Ok(Step::Stored) => return Ok(()),
                Ok(Step::Received(received)) if received > before => {
                    if received >= reached + GAIN {
                        (failures, reached) = (0, received);
                    }
                    current.received = received;
                    continue;
                }
                Ok(Step::Received(_)) => Trouble {
                    error: self.answer(blob.digest.as_str(), "it takes no more of it".to_owned()),
                    passing: true,
                    wait: None,
                },
                Err(trouble) => trouble,
            };
            match remedy(&trouble, way, current) {
                Remedy::Smaller(next) => {
                    way = next;
                    upload = None;
                    continue;
                }
                // Two halves of different content, or a registry that lost some: once more from the start.
                Remedy::None if before > 0 && !restarted && is_status(&trouble.error, 400) => {
                    restarted = true;
                    upload = None;
                    continue;
                }
                Remedy::None => return Err(trouble.error),
                Remedy::Resume => {}
            }
            failures += 1;
            if failures >= self.retry.tries {
                return Err(trouble.error);
            }
            self.pause(failures, trouble.wait, on_retry);
            let broke = matches!(trouble.error, RegistryError::Connect { .. });
            if way == Way::Whole && broke && failures >= WHOLE_TRIES {
                way = Way::Pieces(PIECE);
            }
            match self.ask_progress(current, blob) {
                Some(received) => current.received = received,
                None => upload = None,
            }
        }
    }

    fn post<'r>(&self, path: &'r str, access: Access<'r>, success: &'r [u16], what: &'r str) -> Ask<'r> {
        Ask {
            method: Method::Post,
            target: Target::Path(path),
            headers: &[],
            content: Content::Empty,
            access,
            success,
            what,
        }
    }

    fn start_upload(&self, what: &str, on_retry: OnRetry<'_>) -> Result<Upload, RegistryError> {
        let ask = self.post("blobs/uploads/", self.access, &[202], what);
        let mut answer = self.ask(&ask, on_retry)?;
        answer.finish();
        self.upload_of(&answer, what)
    }

    /// The upload that an answer opens.
    fn upload_of(&self, answer: &Final, what: &str) -> Result<Upload, RegistryError> {
        let location = answer
            .location(&self.origin())
            .ok_or_else(|| self.answer(what, "it does not say where to send it".to_owned()))??;
        let least = answer.response.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok());
        Ok(Upload { location, least_piece: least.unwrap_or(0), received: 0 })
    }

    /// Does the next step of an upload.
    fn advance(&self, upload: &mut Upload, blob: &OutgoingBlob<'_>, way: Way) -> Result<Step, Trouble> {
        let from = upload.received;
        let left = blob.size - from;
        // The last request of all carries the digest; alone it carries the whole blob too.
        if left == 0 || (way == Way::Whole && from == 0) {
            return self.put_blob(upload, blob, left);
        }
        let length = match way {
            Way::Whole => left,
            Way::Pieces(piece) => left.min(piece.max(upload.least_piece)),
        };
        self.patch_blob(upload, blob, length)
    }

    /// The last `length` bytes, and the digest.
    fn put_blob(&self, upload: &Upload, blob: &OutgoingBlob<'_>, length: u64) -> Result<Step, Trouble> {
        let mut location = upload.location.clone();
        location.target.push(if location.target.contains('?') { '&' } else { '?' });
        location.target.push_str("digest=");
        escape(blob.digest.as_str(), &mut location.target);
        let part = part(upload, blob, length);
        let ask = Ask {
            method: Method::Put,
            target: Target::Location(&location),
            headers: &[("content-type", "application/octet-stream".to_owned())],
            content: if length == 0 { Content::Empty } else { Content::File(&part) },
            access: self.access,
            success: &[200, 201, 204],
            what: blob.digest.as_str(),
        };
        let mut answer = self.ask_once(&ask)?;
        answer.finish();
        let stored = answer.response.header("docker-content-digest");
        self.check_digest(stored, blob.digest, blob.digest.as_str())?;
        Ok(Step::Stored)
    }

    /// The next `length` bytes.
    fn patch_blob(&self, upload: &mut Upload, blob: &OutgoingBlob<'_>, length: u64) -> Result<Step, Trouble> {
        let from = upload.received;
        let part = part(upload, blob, length);
        let headers = [
            ("content-type", "application/octet-stream".to_owned()),
            ("content-range", format!("{from}-{}", from + length - 1)),
        ];
        let location = upload.location.clone();
        let ask = Ask {
            method: Method::Patch,
            target: Target::Location(&location),
            headers: &headers,
            content: Content::File(&part),
            access: self.access,
            success: &[202, 204],
            what: blob.digest.as_str(),
        };
        let mut answer = self.ask_once(&ask)?;
        answer.finish();
        if let Some(location) = answer.location(&self.origin()) {
            upload.location = location?;
        }
        match answer.response.header("range") {
            None => Ok(Step::Received(from + length)),
            Some(text) => match parse_range(text, from + length) {
                Some(received) if received <= from + length => Ok(Step::Received(received)),
                _ => {
                    let reason = format!("it says to have the bytes `{}`", text.escape_debug());
                    Err(self.answer(blob.digest.as_str(), reason).into())
                }
            },
        }
    }

    /// How much the registry has of an upload; `None` when it does not know or tell.
    fn ask_progress(&self, upload: &mut Upload, blob: &OutgoingBlob<'_>) -> Option<u64> {
        let location = upload.location.clone();
        let ask = Ask {
            method: Method::Get,
            target: Target::Location(&location),
            headers: &[],
            content: Content::Empty,
            access: self.access,
            success: &[204],
            what: blob.digest.as_str(),
        };
        let mut answer = self.ask_once(&ask).ok()?;
        answer.finish();
        if let Some(location) = answer.location(&self.origin()) {
            upload.location = location.ok()?;
        }
        let received = parse_range(answer.response.header("range")?, 0)?;
        (received <= blob.size).then_some(received)
    }
}

fn part<'r>(upload: &Upload, blob: &OutgoingBlob<'r>, length: u64) -> FilePart<'r> {
    FilePart { file: blob.file, offset: upload.received, length, on_sent: blob.on_sent }
}

/// What may help after a failure.
enum Remedy {
    /// To ask how far it came and go on, after a pause.
    Resume,
    /// To start anew, in pieces or in smaller ones.
    Smaller(Way),
    None,
}

fn remedy(trouble: &Trouble, way: Way, upload: &Upload) -> Remedy {
    let status = match &trouble.error {
        RegistryError::Status { status, .. } => *status,
        // The registry has forgotten the upload.
        RegistryError::NotFound { .. } => return Remedy::Resume,
        _ if trouble.passing => return Remedy::Resume,
        _ => return Remedy::None,
    };
    let least = LEAST_PIECE.max(upload.least_piece);
    match (status, way) {
        (_, _) if trouble.passing => Remedy::Resume,
        (416, _) => Remedy::Resume,
        (405 | 411 | 413 | 501, Way::Whole) => Remedy::Smaller(Way::Pieces(PIECE)),
        (413, Way::Pieces(piece)) if piece > least => Remedy::Smaller(Way::Pieces((piece / 4).max(least))),
        _ => Remedy::None,
    }
}

fn is_status(error: &RegistryError, wanted: u16) -> bool {
    matches!(error, RegistryError::Status { status, .. } if *status == wanted)
}

/// The count of bytes in a registry's `Range`: `0-9` is ten. `0-0` is what some say for none and all for one: it is
/// one when `expected` is.
fn parse_range(text: &str, expected: u64) -> Option<u64> {
    let text = text.trim();
    let (start, end) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let end: u64 = (start == "0").then(|| end.parse().ok()).flatten()?;
    if end == 0 && expected != 1 {
        return Some(0);
    }
    end.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_count_of_bytes() {
        for (text, expected, count) in [
            ("0-9", 10, Some(10)),
            ("bytes=0-9", 10, Some(10)),
            ("0-0", 0, Some(0)),
            ("0-0", 1, Some(1)),
            ("1-9", 10, None),
            ("0-x", 10, None),
            ("9", 10, None),
            ("0-18446744073709551615", 10, None),
        ] {
            assert_eq!(parse_range(text, expected), count, "{text}");
        }
    }
}
