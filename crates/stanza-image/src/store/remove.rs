//! Taking names and images away, by Docker's rules.
//!
//! By name, only that name goes; the image goes with its last name. By id, the image goes with all its names, which
//! needs force when they are in more than one repository.

use stanza_spec::{Digest, Reference};

use super::ImageStore;
use super::error::{RemoveError, ResolveError};
use super::index::Index;
use crate::document::Descriptor;

/// What a removal took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names taken away, as listings show them.
    pub untagged: Vec<String>,
    /// The ids of images that are gone, each followed by the blobs that went with it.
    pub deleted: Vec<Digest>,
}

/// What became of an image in the index.
struct Change {
    untagged: Vec<String>,
    gone: Option<Digest>,
}

impl ImageStore {
    /// Removes an image, or one of its names. With `force`, an id removes all names. Whether a container still uses
    /// the image is for the caller to know.
    ///
    /// # Errors
    /// When nothing has this name, the id has names in several repositories and `force` is not given, or the store
    /// fails.
    pub fn remove(&self, name: &str, force: bool) -> Result<Removed, RemoveError> {
        let change = self.update_index(|index| {
            let entry = self.find(index, name)?.clone();
            self.take(index, &entry, name, force)
        })?;
        let mut removed = Removed { untagged: change.untagged, deleted: Vec::new() };
        if let Some(id) = change.gone {
            let collected = self.collect()?;
            removed.deleted.push(id.clone());
            removed.deleted.extend(collected.deleted.into_iter().filter(|digest| *digest != id));
        }
        Ok(removed)
    }

    /// Takes one name away and keeps the image, dangling when it was its last: what a forced removal does to an
    /// image that a container uses.
    ///
    /// # Errors
    /// When nothing has this name or the index cannot be written.
    pub fn untag(&self, reference: &Reference) -> Result<(), RemoveError> {
        self.update_index(|index| {
            let name = self.find(index, &reference.to_string())?.name().map(str::to_owned);
            let name = name.ok_or_else(|| ResolveError::NotFound { name: reference.familiar() })?;
            index.unname(&name);
            Ok(())
        })
    }

    fn take(
        &self,
        index: &mut Index,
        entry: &Descriptor,
        name: &str,
        force: bool,
    ) -> Result<Change, RemoveError> {
        // The id is unknown when another tool entered the image and its manifest is damaged.
        let id = match entry.image_id() {
            Some(id) => Some(id),
            None => self.read_image(index, entry).ok().map(|image| image.id),
        };
        let same =
            |other: &Descriptor| other.digest == entry.digest || (id.is_some() && other.image_id() == id);
        let names: Vec<(String, Option<Reference>)> = index
            .manifests
            .iter()
            .filter(|other| same(other))
            .filter_map(|other| Some((other.name()?.to_owned(), other.reference())))
            .collect();
        let asked = name.parse::<Reference>().ok();
        let by_name = asked.filter(|asked| entry.reference().is_some_and(|own| means(asked, &own)));
        let mut going = names.clone();
        if by_name.is_some() {
            let own = entry.name().map(str::to_owned).unwrap_or_default();
            let others: Vec<_> = names.iter().filter(|(text, _)| *text != own).collect();
            // Names by digest go with the last tag of their repository.
            let repository = entry.reference().map(|own| own.repository());
            let only_digests = others.iter().all(|(_, reference)| {
                reference
                    .as_ref()
                    .is_some_and(|other| other.tag().is_none() && Some(other.repository()) == repository)
            });
            if !only_digests {
                going.retain(|(text, _)| *text == own);
            }
        } else {
            let mut repositories: Vec<_> =
                names.iter().filter_map(|(_, reference)| Some(reference.as_ref()?.repository())).collect();
            repositories.sort();
            repositories.dedup();
            let tags = names
                .iter()
                .filter(|(_, name)| name.as_ref().is_some_and(|name| name.tag().is_some()))
                .count();
            if !force && (repositories.len() > 1 || tags > 1) {
                let id = id.as_ref().unwrap_or(&entry.digest).short().to_owned();
                return Err(RemoveError::SeveralNames { id, count: names.len() });
            }
        }
        let whole = going.len() == names.len();
        if whole {
            index.manifests.retain(|other| !same(other));
        } else {
            for (text, _) in &going {
                index.unname(text);
            }
        }
        let untagged = going
            .into_iter()
            .map(|(text, reference)| reference.map_or(text, |reference| reference.familiar()))
            .collect();
        Ok(Change { untagged, gone: whole.then(|| id.unwrap_or_else(|| entry.digest.clone())) })
    }
}

/// Whether the asked reference names this entry (and not an id that looks like a reference).
fn means(asked: &Reference, own: &Reference) -> bool {
    asked == own || (asked.digest().is_some() && asked.repository() == own.repository())
}
