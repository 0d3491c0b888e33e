//! Images: the store's verbs, with what only the engine knows: which containers use an image, which unpacked layers
//! nobody needs any more.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use stanza_image::{
    Admission, ArchiveForm, Image, ImportError, ImportOptions, LoadError, LoadOptions, Loaded, Platforms,
    Progress, PullError, PullOptions, PushError, PushOptions, Pushed, Removed, ResolveError, SaveError,
    Source, StoreError, Target,
};
use stanza_spec::{Classify, Digest, ErrorKind, Instant, Platform, Reference};

use crate::database::DatabaseError;
use crate::filters::{FilterError, Filters};
use crate::layers::Unpacking;
use crate::settings::SettingsError;
use crate::{Engine, collect};

/// An image in a listing.
#[derive(Clone, Debug)]
pub struct ImageRow {
    /// The image.
    pub image: Image,
    /// How many containers are made of it.
    pub containers: usize,
}

/// Why something was not done to images.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name means no image, or several.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store refuses to remove it.
    #[error(transparent)]
    Remove(#[from] stanza_image::RemoveError),
    /// A container is made of it.
    #[error(
        "conflict: unable to remove repository reference \"{name}\" (must force) - container {container} is using its referenced image {image}"
    )]
    InUse {
        /// What was given.
        name: String,
        /// The container's short id.
        container: String,
        /// The image's short id.
        image: String,
    },
    /// A running container is made of it.
    #[error(
        "conflict: unable to delete {image} (cannot be forced) - image is being used by running container {container}"
    )]
    Running {
        /// The image's short id.
        image: String,
        /// The container's short id.
        container: String,
    },
    /// It is mounted.
    #[error("conflict: unable to delete {image} (cannot be forced) - image is mounted at `{}`", path.display())]
    Mounted {
        /// The image's short id.
        image: String,
        /// Where.
        path: std::path::PathBuf,
    },
    /// A filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The configuration file.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A container's state cannot be read.
    #[error(transparent)]
    Status(#[from] stanza_sandbox::StatusError),
}

impl Classify for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            ImageError::Resolve(error) => error.kind(),
            ImageError::Store(error) => error.kind(),
            ImageError::Remove(error) => error.kind(),
            ImageError::InUse { .. } | ImageError::Running { .. } | ImageError::Mounted { .. } => {
                ErrorKind::Conflict
            }
            ImageError::Filter(error) => error.kind(),
            ImageError::Settings(error) => error.kind(),
            ImageError::Database(error) => error.kind(),
            ImageError::Status(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ImageError::Resolve(error) => error.hint(),
            ImageError::Store(error) => error.hint(),
            ImageError::Remove(error) => error.hint(),
            ImageError::InUse { container, .. } => {
                Some(format!("remove it with `stanza rm {container}`, or use `rmi -f`"))
            }
            ImageError::Running { container, .. } => Some(format!("stop it with `stanza rm -f {container}`")),
            ImageError::Mounted { image, .. } => {
                Some(format!("take it off with `stanza image unmount {image}`"))
            }
            ImageError::Filter(error) => error.hint(),
            ImageError::Settings(error) => error.hint(),
            ImageError::Database(error) => error.hint(),
            ImageError::Status(error) => error.hint(),
        }
    }
}

impl From<crate::ListError> for ImageError {
    fn from(error: crate::ListError) -> ImageError {
        match error {
            crate::ListError::Filter(error) => error.into(),
            crate::ListError::Status(error) => error.into(),
            crate::ListError::Database(error) => error.into(),
            crate::ListError::Find(crate::FindError::Database(error)) => error.into(),
            crate::ListError::Find(error) => {
                FilterError::NotFound { what: "container", name: error.to_string() }.into()
            }
        }
    }
}

const KEYS: [&str; 7] = ["before", "dangling", "label", "label!", "reference", "since", "until"];

impl Engine {
    /// Fetches an image from its registry and unpacks it.
    ///
    /// # Errors
    /// When the registry does not have it or does not answer, the policy does not let it in, or when the disk refuses.
    pub fn pull(
        &mut self,
        reference: &Reference,
        platforms: Platforms,
        tls_verify: bool,
        signature_policy: Option<&Path>,
        progress: &mut dyn Progress,
    ) -> Result<Image, PullError> {
        // A file that is wrong is told by whoever keeps the budget, after the pull.
        let concurrency = self
            .settings()
            .map_or(PullOptions::CONCURRENCY, |settings| settings.images.max_concurrent_downloads);
        let (images, layers) = self.stores::<PullError>()?;
        let mut options = PullOptions {
            platforms,
            tls_verify,
            signature_policy,
            sink: Some(&Unpacking(layers)),
            concurrency,
            progress,
        };
        stanza_image::pull(images, reference, &mut options)
    }

    /// Sends an image, or with `all_tags` all images of a repository, to the registry of its name; of an index, with
    /// `platform`, the manifest for it alone.
    ///
    /// # Errors
    /// When there is no such image, or the registry does not answer or refuses.
    pub fn push(
        &mut self,
        name: &Reference,
        all_tags: bool,
        platform: Option<Platform>,
        tls_verify: bool,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Pushed>, PushError> {
        let store = self.image_store()?;
        stanza_image::push(store, name, &mut PushOptions { all_tags, platform, tls_verify, progress })
    }

    /// Takes in the images of an archive, and unpacks them.
    ///
    /// # Errors
    /// When the archive is damaged or refused.
    pub fn load(
        &mut self,
        source: Source,
        platform: Option<Platform>,
        admission: &Admission<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Loaded>, LoadError> {
        let (images, layers) = self.stores::<LoadError>()?;
        let platform = platform.unwrap_or_else(Platform::host);
        let sink = Unpacking(layers);
        let mut options = LoadOptions { platform, admission: *admission, sink: Some(&sink), progress };
        stanza_image::load(images, source, &mut options)
    }

    /// Writes images to an archive. A name without a tag means all tags of its repository, an id the image without names.
    ///
    /// # Errors
    /// When a name leads nowhere, a blob is missing, or the target cannot be written.
    pub fn save(
        &mut self,
        names: &[&str],
        platform: Option<&Platform>,
        form: ArchiveForm,
        target: Target<'_>,
    ) -> Result<(), SaveError> {
        let store = self.image_store()?;
        let images = stanza_image::select(store, names, platform)?;
        stanza_image::save(store, &images, form, target)
    }

    /// Makes an image of a root file system's tarball.
    ///
    /// # Errors
    /// When the archive is damaged or refused, or a change is not one.
    pub fn import(
        &mut self,
        archive: Box<dyn Read>,
        reference: Option<&Reference>,
        options: &ImportOptions,
    ) -> Result<Image, ImportError> {
        stanza_image::import(self.image_store()?, archive, reference, options)
    }

    /// The image that `name` means: a reference, an id, or the beginning of one, or a short name with an alias.
    ///
    /// # Errors
    /// When it means none, or several.
    pub fn image(&mut self, name: &str) -> Result<Image, ImageError> {
        let full = self.full_name(name)?;
        Ok(self.image_store()?.resolve(&full)?)
    }

    /// `name`, or what it is an alias of when only that is in the store.
    fn full_name(&mut self, name: &str) -> Result<String, ImageError> {
        let store = self.image_store()?;
        // Settings that are wrong matter to a pull; here they are no alias. An error tells of the name as it was given.
        let alias = match store.resolve(name) {
            Err(ResolveError::NotFound { .. }) => stanza_image::expand_alias(name).ok().flatten(),
            _ => None,
        };
        Ok(alias.filter(|full| store.resolve(full).is_ok()).unwrap_or_else(|| name.to_owned()))
    }

    /// The images that the filters leave, the newest first.
    ///
    /// # Errors
    /// When a filter is wrong or the store damaged.
    pub fn images(&mut self, filters: &Filters) -> Result<Vec<ImageRow>, ImageError> {
        filters.check(&KEYS)?;
        let dangling = filters.boolean("dangling")?;
        let now = Instant::now();
        let created = |image: &Image| {
            image.created.as_deref().and_then(|text| Instant::parse_rfc3339(text).ok()).unwrap_or(Instant(0))
        };
        let bound = |engine: &mut Engine, key: &str| match filters.values(key).last() {
            None => Ok(None),
            Some(name) => engine.image(name).map(|image| Some(created(&image))),
        };
        let (before, since) = (bound(self, "before")?, bound(self, "since")?);
        let until = match filters.values("until").last() {
            None => None,
            Some(text) => Some(
                Instant::parse(text, now)
                    .map_err(|_| FilterError::Value { key: "until".to_owned(), value: text.clone() })?,
            ),
        };
        let used = self.used_images()?;
        let mut rows: Vec<ImageRow> = self
            .image_store()?
            .list()?
            .into_iter()
            .filter(|image| {
                let time = created(image);
                let labels: BTreeMap<String, String> =
                    image.config.labels_of_config().cloned().unwrap_or_default().into_iter().collect();
                dangling.is_none_or(|wanted| image.is_dangling() == wanted)
                    && before.is_none_or(|bound| time < bound)
                    && since.is_none_or(|bound| time > bound)
                    && until.is_none_or(|bound| time < bound)
                    && filters.labels(&labels)
                    && filters.any("reference", |pattern| {
                        image.names.iter().any(|name| reference_matches(name, pattern))
                    })
            })
            .map(|mut image| {
                // Of an image with several names those that were asked for are told.
                image
                    .names
                    .retain(|name| filters.any("reference", |pattern| reference_matches(name, pattern)));
                ImageRow { containers: used.get(&image.id).map_or(0, Vec::len), image }
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(created(&row.image)));
        Ok(rows)
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// When there is no such image, or the name has a digest.
    pub fn tag(&mut self, source: &str, target: &Reference) -> Result<(), ImageError> {
        Ok(self.image_store()?.tag(source, target)?)
    }

    /// Takes a name from an image, and with the last one the image. A container that is made of it protects it; `force`
    /// overrules one that does not run.
    ///
    /// # Errors
    /// When there is no such image, or something protects it.
    pub fn remove_image(&mut self, name: &str, force: bool) -> Result<Removed, ImageError> {
        let name = &self.full_name(name)?;
        let image = self.image(name)?;
        // No container is made of it between the look and the removal.
        let alone = self.alone_with_layers();
        let by_id = name.parse::<Reference>().map_or(true, |reference| !image.names.contains(&reference));
        // Taking one of several names away harms nobody.
        let deletes = image.names.len() <= 1 || by_id;
        if deletes && let Some(mount) = self.image_mounts().into_iter().find(|mount| mount.id == image.id) {
            return Err(ImageError::Mounted { image: image.id.short().to_owned(), path: mount.path });
        }
        if deletes && let Some(users) = self.used_images()?.get(&image.id).cloned() {
            let mut user = None;
            for id in &users {
                match self.inspect(id) {
                    Ok(container) if matches!(container.state, crate::State::Running(_)) => {
                        return Err(ImageError::Running {
                            image: image.id.short().to_owned(),
                            container: id.short().to_owned(),
                        });
                    }
                    // Removed since.
                    Err(crate::ListError::Find(crate::FindError::NotFound(_))) => {}
                    result => {
                        result?;
                        user = user.or(Some(id));
                    }
                }
            }
            if let (false, Some(user)) = (force, user) {
                return Err(ImageError::InUse {
                    name: name.to_owned(),
                    container: user.short().to_owned(),
                    image: image.id.short().to_owned(),
                });
            }
        }
        let removed = self.image_store()?.remove(name, force)?;
        if !removed.deleted.is_empty() {
            let taken = self.take_unused_layers()?;
            drop(alone);
            collect::finish(taken);
        }
        Ok(removed)
    }

    /// Images that containers are made of, with those containers, and images that are mounted.
    pub(crate) fn used_images(
        &mut self,
    ) -> Result<BTreeMap<Digest, Vec<stanza_spec::ContainerId>>, DatabaseError> {
        let mut used: BTreeMap<Digest, Vec<_>> =
            self.image_mounts().into_iter().map(|mount| (mount.id, Vec::new())).collect();
        for record in self.records()? {
            if let Some(image) = record.facts.image {
                used.entry(image).or_default().push(record.id);
            }
        }
        Ok(used)
    }
}

/// Docker's `reference` filter: a shell pattern over the familiar name with or without tag.
fn reference_matches(name: &Reference, pattern: &str) -> bool {
    [name.familiar(), name.familiar_repository(), name.to_string(), name.repository()]
        .iter()
        .any(|text| pattern_matches(pattern.as_bytes(), text.as_bytes()))
}

/// `*` stands for any run of bytes but `/`, `?` for one.
fn pattern_matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            pattern_matches(rest, text)
                || text
                    .split_first()
                    .is_some_and(|(byte, text)| *byte != b'/' && pattern_matches(pattern, text))
        }
        (Some((b'?', rest)), Some((byte, text))) => *byte != b'/' && pattern_matches(rest, text),
        (Some((wanted, rest)), Some((byte, text))) => wanted == byte && pattern_matches(rest, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_patterns_stop_at_slashes() {
        let name: Reference = "localhost:5000/team/app:v1".parse().unwrap();
        for (pattern, expected) in [
            ("localhost:5000/team/app", true),
            ("localhost:5000/*/app:v?", true),
            ("*app*", false),
            ("busybox", false),
        ] {
            assert_eq!(reference_matches(&name, pattern), expected, "{pattern}");
        }
        let name: Reference = "busybox:1.36".parse().unwrap();
        assert!(reference_matches(&name, "busy*") && reference_matches(&name, "busybox:1.*"));
    }
}
