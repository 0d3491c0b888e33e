//! What `check` says of chains of CNI plugins: files that are wrong, plugins that are not ready, networks of running containers
//! that are not as they were made, and attachments that nobody owns.

use stanza_spec::Classify;

use super::check::{Finding, FindingStatus};
use super::leftovers::leftover;
use crate::Engine;

const AREA: &str = "cni";

fn warning(error: &(impl Classify + 'static), otherwise: Option<&str>) -> Finding {
    let mut what = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        what = format!("{what}: {error}");
        source = error.source();
    }
    let advice = error.hint().or_else(|| otherwise.map(str::to_owned));
    Finding { area: AREA, status: FindingStatus::Warning, what, advice }
}

impl Engine {
    pub(super) fn check_chains(&mut self, repair: bool, findings: &mut Vec<Finding>) {
        match self.cni_networks() {
            Ok((_, wrong)) => findings.extend(wrong.iter().map(|error| warning(error, None))),
            Err(error) => findings.push(warning(&error, None)),
        }
        let lost = self.lost_cni();
        if repair {
            let errors = self.collect_cni().unwrap_or_default();
            findings.extend(errors.iter().map(|error| warning(error, None)));
        }
        let still = if repair { self.lost_cni() } else { lost.clone() };
        findings.extend(lost.into_iter().map(|lost| {
            let (container, network) = (lost.container.short(), &lost.network);
            let what =
                format!("container {container}, which does not run, is in the CNI network `{network}`");
            leftover(what, !still.contains(&lost))
        }));
        let otherwise = "restart the container; `disableCheck` in the configuration switches this off";
        let broken = self.broken_cni().unwrap_or_default();
        findings.extend(broken.iter().map(|error| warning(error, Some(otherwise))));
    }
}
