//! `prune`: removes what is not in use.

use stanza_spec::{Classify, ContainerId, Digest, ErrorKind, Instant};

use super::SystemError;
use crate::container::State;
use crate::filters::{FilterError, Filters};
use crate::list::ListQuery;
use crate::{Engine, ImageError, size};

/// What to remove.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Containers that do not run.
    pub containers: bool,
    /// Images without a name that no container is made of.
    pub images: bool,
    /// With `images`: also images with a name, when no container is made of them.
    pub all_images: bool,
    /// Anonymous volumes that no container has.
    pub volumes: bool,
    /// `until` (only what was created before) and `label`, `label!`, and `dangling` of images; volumes heed none.
    pub filters: Filters,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Containers, by id.
    pub containers: Vec<String>,
    /// Names taken from images.
    pub untagged: Vec<String>,
    /// Images' documents and blobs.
    pub deleted: Vec<Digest>,
    /// Volumes, by name.
    pub volumes: Vec<String>,
    /// Bytes that are free again.
    pub reclaimed: u64,
}

impl Pruned {
    fn container(&mut self, id: &ContainerId, bytes: u64) {
        self.reclaimed += bytes;
        self.containers.push(id.to_string());
    }
}

impl Engine {
    /// Removes what is not in use, of the kinds asked for, and what crashed processes left in their directories.
    ///
    /// # Errors
    /// When a filter is wrong, or the database or image store cannot be used. What cannot be removed is left out, but for
    /// containers that a full disk keeps even after everything else is gone.
    pub fn prune(&mut self, options: &PruneOptions) -> Result<Pruned, SystemError> {
        let filters = &options.filters;
        filters.check(&["until", "label", "label!", "dangling"])?;
        // As in Docker, where `--all` is another way to say `dangling=false`.
        let only_dangling = filters.boolean("dangling")?.unwrap_or(!options.all_images);
        let until = match filters.values("until").last() {
            None => None,
            Some(text) => Some(
                Instant::parse(text, Instant::now())
                    .map_err(|_| FilterError::Value { key: "until".into(), value: text.clone() })?,
            ),
        };
        let old = |created: &str| {
            until.is_none_or(|until| Instant::parse_rfc3339(created).is_ok_and(|created| created < until))
        };
        let mut pruned = Pruned::default();
        // Containers whose removal a full disk did not let be noted, with the bytes of their files.
        let mut unnoted: Vec<(ContainerId, u64)> = Vec::new();
        if options.containers && self.has_database() {
            for container in self.list(&ListQuery { all: true, ..ListQuery::default() })? {
                let runs = matches!(container.state, State::Running(_));
                if runs || !old(&container.created_at) || !filters.labels(&container.labels) {
                    continue;
                }
                let bytes = size::of_tree(&self.options.container_dir(container.id.as_str()));
                match self.remove(&container.id, false, false) {
                    Ok(()) => pruned.container(&container.id, bytes),
                    Err(error) if error.kind() == ErrorKind::Exhausted => unnoted.push((container.id, bytes)),
                    Err(_) => {}
                }
            }
            pruned.reclaimed += self.clear_stray_directories();
        }
        if options.volumes && self.has_database() {
            let (volumes, bytes) = self.prune_volumes()?;
            pruned.volumes = volumes;
            pruned.reclaimed += bytes;
        }
        if options.images {
            // No container is made of an image between the look and the removal.
            let alone = self.alone_with_layers();
            let used = self.used_images()?;
            let unwanted = |image: &stanza_image::Image| {
                let labels =
                    image.config.labels_of_config().cloned().unwrap_or_default().into_iter().collect();
                !used.contains_key(&image.id)
                    && (!only_dangling || image.is_dangling())
                    && (until.is_none() || image.created.as_deref().is_some_and(old))
                    && filters.labels(&labels)
            };
            let removed =
                self.image_store().map_err(ImageError::from)?.prune(&unwanted).map_err(ImageError::from)?;
            pruned.untagged = removed.untagged;
            pruned.deleted = removed.deleted;
            pruned.reclaimed += removed.reclaimed;
            let taken = self.take_unused_layers()?;
            drop(alone);
            pruned.reclaimed += crate::collect::finish(taken);
            pruned.reclaimed += self.enforce_budget()?;
            if let Ok(store) = self.layer_store() {
                // What another process left half unpacked; a failure is shown by `check`.
                let _ = store.clear_leftovers();
            }
        }
        // What went since has made room.
        for (id, bytes) in unnoted {
            self.remove(&id, false, false)?;
            pruned.container(&id, bytes);
        }
        Ok(pruned)
    }
}
