//! A document as a manifest, an index and a configuration, under each media type that it may come with.

use crate::Outcome;

const SENT: [Option<&str>; 6] = [
    None,
    Some("application/json"),
    Some("application/vnd.oci.image.manifest.v1+json"),
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"),
    Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
];

pub(crate) fn run(text: &[u8]) -> Outcome {
    let mut taken = false;
    for sent in SENT {
        taken |= stanza_image::fuzzing::documents(text, sent)?;
    }
    Ok(taken)
}
