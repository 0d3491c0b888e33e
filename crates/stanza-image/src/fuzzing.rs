//! What the fuzz targets reach of this crate's inside.

use stanza_spec::Platform;

use crate::document::{Choice, Document, MAX_LAYERS, choose, parse_config};

/// Reads `bytes` as a document that came as `sent`, and as a configuration: whether either was taken.
///
/// # Errors
/// When what was taken is not within the promises: limits of counts and sizes, a choice that is one of the entries, and the same
/// document from the same bytes.
pub fn documents(bytes: &[u8], sent: Option<&str>) -> Result<bool, String> {
    let mut taken = false;
    match Document::parse(bytes, sent) {
        Ok(Document::Manifest(manifest)) => {
            taken = true;
            if manifest.layers.len() > MAX_LAYERS {
                return Err(format!("a manifest of {} layers", manifest.layers.len()));
            }
            let sizes = manifest.layers.iter().map(|layer| layer.size);
            let total = sizes.fold(manifest.config.size, u64::saturating_add);
            if total > 1 << 40 {
                return Err(format!("a manifest of {total} bytes"));
            }
        }
        Ok(Document::Index(entries)) => {
            taken = true;
            for architecture in ["amd64", "arm64", "arm"] {
                let wanted =
                    Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None };
                if let Choice::One(found) = choose(&entries, &wanted) {
                    let fits = found.platform.as_ref().is_some_and(|platform| {
                        platform.os == "linux" && platform.architecture == architecture
                    });
                    if !fits {
                        return Err(format!("{found:?} is not for {wanted}"));
                    }
                }
            }
        }
        Err(error) => drop(error.to_string()),
    }
    for layers in 0..4 {
        match parse_config(bytes, layers) {
            Ok((_, diff_ids)) if diff_ids.len() != layers => {
                return Err(format!("{} diff ids for {layers} layers", diff_ids.len()));
            }
            Ok(_) => taken = true,
            Err(error) => drop(error.to_string()),
        }
    }
    Ok(taken)
}

/// Reads `bytes` as the table of a zstd:chunked layer, and its members `position` and `blobSize` as where that is: whether the
/// table was taken.
///
/// # Errors
/// When what was taken is not within the promises: places within the layer, and no agreement with an empty archive.
pub fn table(bytes: &[u8]) -> Result<bool, String> {
    let document = serde_json::from_slice::<serde_json::Value>(bytes).unwrap_or_default();
    let place = document["position"].as_str().unwrap_or_default();
    crate::chunked::fuzz(bytes, place, document["blobSize"].as_u64().unwrap_or_default())
}
