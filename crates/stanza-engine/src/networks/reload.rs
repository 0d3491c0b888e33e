//! `network reload`: bridges, devices and rules of running containers made again, after somebody took them away.

use stanza_spec::{ContainerId, NetworkMode};

use super::{DEFAULT, NetworkError};
use crate::Engine;
use crate::container::State;
use crate::database::{Phase, Record};

impl Engine {
    /// Makes the networks of the containers again, of all that run with `all`; gives those that were reloaded and what failed.
    ///
    /// # Errors
    /// When there is no such container, or the database cannot be read.
    pub fn reload_networks(
        &mut self,
        containers: &[ContainerId],
        all: bool,
    ) -> Result<(Vec<ContainerId>, Vec<NetworkError>), NetworkError> {
        let records = if all {
            let rows = self.database()?.rows()?;
            let started = rows.iter().filter(|row| row.phase == Phase::Started);
            let database = self.database()?;
            started.map(|row| database.decode(row)).collect::<Result<Vec<_>, _>>()?
        } else {
            containers.iter().map(|id| self.record(id)).collect::<Result<Vec<_>, _>>()?
        };
        let (mut done, mut errors) = (Vec::new(), Vec::new());
        for record in records {
            match self.reload_one(&record) {
                Ok(true) => done.push(record.id),
                Ok(false) => {}
                Err(error) => errors.push(error),
            }
        }
        Ok((done, errors))
    }

    /// Makes the networks of all other containers again, whose rules somebody took away; what failed, in words.
    pub(crate) fn reload_others(&mut self, id: &ContainerId) -> Vec<String> {
        let rows = self.database().and_then(|database| database.rows()).unwrap_or_default();
        let mut warnings = Vec::new();
        for row in rows.iter().filter(|row| row.phase == Phase::Started && row.id != id.as_str()) {
            let Ok(record) = self.database().and_then(|database| database.decode(row)) else { continue };
            if let Err(error) = self.reload_one(&record) {
                warnings.push(format!(
                    "the host's rules were gone, and those of `{}` stay so: {error}",
                    record.name
                ));
            }
        }
        warnings
    }

    /// Tells the networks of a container that runs what it is called.
    pub(crate) fn announce_name(&mut self, id: &ContainerId) -> Result<(), NetworkError> {
        let record = self.record(id)?;
        // Nobody finds a container of the default network by its name.
        let is_found = record.config.networks.iter().any(|request| request.network != DEFAULT);
        if !is_found || !self.is_bridged(&record)? {
            return Ok(());
        }
        let locked = self.lock_container(id)?;
        if locked.running { self.tell_monitor(&locked.record, false) } else { Ok(()) }
    }

    /// Whether it runs, and is in networks.
    fn is_bridged(&mut self, record: &Record) -> Result<bool, NetworkError> {
        let bridged = self.network_mode(&record.config) == NetworkMode::Bridge;
        Ok(bridged && matches!(self.state(record)?, Some(State::Running(_))))
    }

    /// Whether there was something to do. A container that is in no network any more is told so too: a `disconnect` from its
    /// last one may have been killed after it was noted.
    fn reload_one(&mut self, record: &Record) -> Result<bool, NetworkError> {
        let is_ours = |mode| matches!(mode, NetworkMode::Bridge | NetworkMode::None);
        if !is_ours(self.network_mode(&record.config))
            || !matches!(self.state(record)?, Some(State::Running(_)))
        {
            return Ok(false);
        }
        let locked = self.lock_container(&record.id)?;
        if !locked.running {
            return Ok(false);
        }
        let mode = self.network_mode(&locked.record.config);
        if is_ours(mode.clone()) {
            self.tell_monitor(&locked.record, true)?;
        }
        Ok(mode == NetworkMode::Bridge)
    }
}
