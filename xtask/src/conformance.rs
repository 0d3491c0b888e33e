//! `cargo xtask conformance`: the black-box cases of `tests/conformance` on runc, crun and stanza-oci, side by side.
//!
//! It builds the two programs that are needed and hands the words on; the cases, the table and its options are the suite's own.

use crate::packages;
use crate::shell::{cargo, step};

/// Runs the suite; whether stanza, or the last runtime that was named, failed no case.
pub(crate) fn run(words: &[String]) -> Result<bool, String> {
    packages::ensure()?;
    packages::ensure_peers()?;
    packages::ensure_user()?;
    if !step("build", cargo().args(["build", "--package", "stanza-oci", "--package", "stanza-conformance"]))?
    {
        return Ok(false);
    }
    step("conformance", cargo().args(["run", "--quiet", "--package", "stanza-conformance", "--"]).args(words))
}
