//! `network prune`: networks that no container has.

use stanza_spec::Instant;

use super::{DEFAULT, NetworkError};
use crate::Engine;
use crate::filters::{FilterError, Filters};

impl Engine {
    /// Removes the networks that no container, running or not, is in; gives their names. The filters are `label`, `label!` and
    /// `until`, a time or an age. In chains of CNI plugins what belongs to no container any more is given up, whatever the filters.
    ///
    /// # Errors
    /// When a filter is wrong, or the database not to be read.
    pub fn prune_networks(&mut self, filters: &Filters) -> Result<Vec<String>, NetworkError> {
        let refused = |error: FilterError| NetworkError::Refused(error.to_string());
        filters.check(&["label", "label!", "until"]).map_err(refused)?;
        let mut until = None;
        for value in filters.values("until") {
            let wrong = || refused(FilterError::Value { key: "until".into(), value: value.clone() });
            until = Some(Instant::parse(value, Instant::now()).map_err(|_| wrong())?);
        }
        self.clear_removed_networks();
        // What plugins refuse stays on record, and `system check` tells of it.
        let _ = self.collect_cni();
        let mut removed = Vec::new();
        for record in self.database()?.networks()? {
            let is_young = until.as_ref().is_some_and(|until| {
                Instant::parse_rfc3339(&record.created_at).is_ok_and(|created| created > *until)
            });
            if record.network.name == DEFAULT || is_young || !filters.labels(&record.labels) {
                continue;
            }
            if self.delete_network(&record.network)?.is_ok() {
                // A device that stays is noted, and taken away with the next network.
                let _ = self.clear_network_device(&record.network);
                removed.push(record.network.name);
            }
        }
        Ok(removed)
    }
}
