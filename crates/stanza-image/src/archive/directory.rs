//! skopeo's form `dir`, which podman calls `docker-dir`: `version`, the manifest as `manifest.json`, and blobs under
//! their bare hex digests. It has no place for a name.

use super::contents::Contents;
use super::error::LoadError;
use super::load::{Assembled, Loader, length};
use super::oci;
use crate::document::{Descriptor, Document, MAX_MANIFEST, OCI_INDEX};

const VERSION: &str = "version";
const MANIFEST: &str = "manifest.json";
/// What the file `version` starts with.
pub(super) const VERSION_TEXT: &str = "Directory Transport Version: ";

/// Whether the archive has this form.
pub(super) fn is_one(contents: &Contents) -> bool {
    contents.document(VERSION, 256).is_ok_and(|text| text.starts_with(VERSION_TEXT.as_bytes()))
}

/// Brings the image into the store.
pub(super) fn assemble(loader: &mut Loader<'_, '_>) -> Result<Vec<Assembled>, LoadError> {
    let bytes = loader.contents.document(MANIFEST, MAX_MANIFEST)?;
    let document = Document::parse(&bytes, None).map_err(|error| LoadError::document(MANIFEST, &error))?;
    let image = match document {
        Document::Manifest(manifest) => oci::take(loader, &bytes, None, &manifest)?,
        Document::Index(children) => {
            let index = Descriptor::new(OCI_INDEX, crate::hash::sha256(&bytes), length(&bytes));
            oci::choose_image(loader, &index, &children, 0)?
        }
    };
    Ok(vec![image])
}
