//! Where signatures come from: attachments in the registry, and places beside it.

use std::fs::File;
use std::io::{self, Read};

use serde::Deserialize;
use stanza_spec::{Digest, Reference};

use super::Places;
use super::error::PolicyError;
use super::lookaside::Lookaside;
use crate::document::{Descriptor, OCI_MANIFEST};
use crate::hash::digest_like;
use crate::registry::{Body, Method, RawDocument, Registry, RegistryError, Request, Transport, Url};

/// Most signatures of one image that are looked at, as containers/image has it.
pub(super) const MAX_SIGNATURES: usize = 128;
/// Longest signature or payload, in bytes; they have a few hundred.
pub(super) const MAX_SIGNATURE: usize = 128 * 1024;
const MAX_REDIRECTS: u32 = 5;

/// What cosign's payloads are in a registry.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The artifact type of signatures that are attached as referrers (OCI 1.1).
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Something that was found where signatures are, or why it is none.
pub(super) type Found<T> = Result<T, String>;

/// A payload and what signs it, both unverified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SigstoreSignature {
    pub(super) payload: Vec<u8>,
    /// In base64.
    pub(super) signature: String,
}

/// The signatures of one image.
pub(super) trait SignatureSource {
    /// Payloads with signatures, as cosign attaches them.
    fn sigstore(&mut self, manifest: &Digest) -> Result<Vec<Found<SigstoreSignature>>, PolicyError>;

    /// Signed OpenPGP messages ("simple signing").
    fn simple(&mut self, manifest: &Digest) -> Result<Vec<Found<Vec<u8>>>, PolicyError>;
}

/// The image's own registry, and what `registries.d` names beside it.
pub(super) struct Remote<'a> {
    pub(super) image: &'a Reference,
    pub(super) registry: &'a Registry<'a>,
    pub(super) transport: &'a dyn Transport,
    pub(super) places: &'a Places,
}

/// A manifest of signatures.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl SignatureSource for Remote<'_> {
    fn sigstore(&mut self, manifest: &Digest) -> Result<Vec<Found<SigstoreSignature>>, PolicyError> {
        let name = format!("{}-{}.sig", manifest.algorithm(), manifest.hex());
        if let Some(document) = self.document(&name)? {
            return self.of_manifest(&document.bytes);
        }
        let mut found = Vec::new();
        for referrer in self.referrers(manifest)? {
            let Some(document) = self.document(referrer.as_str())? else { continue };
            if digest_like(&referrer, &document.bytes) != referrer {
                found.push(Err(format!("the manifest `{referrer}` has another digest")));
                continue;
            }
            found.extend(self.of_manifest(&document.bytes)?);
            self.bound(found.len())?;
        }
        Ok(found)
    }

    fn simple(&mut self, manifest: &Digest) -> Result<Vec<Found<Vec<u8>>>, PolicyError> {
        let lookaside = Lookaside::of(self.image, self.places)?;
        let mut found = Vec::new();
        for number in 1.. {
            let location = lookaside.location(manifest, number);
            let fetched = self.fetch(&location);
            match fetched.map_err(|source| PolicyError::Lookaside { location, source })? {
                Some(signature) => found.push(signature),
                None => break,
            }
            self.bound(found.len())?;
        }
        Ok(found)
    }
}

impl Remote<'_> {
    fn bound(&self, count: usize) -> Result<(), PolicyError> {
        if count > MAX_SIGNATURES {
            return Err(PolicyError::TooMany { image: self.image.familiar(), limit: MAX_SIGNATURES });
        }
        Ok(())
    }

    /// A document of the registry; `None` when it has none of this name.
    fn document(&self, name: &str) -> Result<Option<RawDocument>, PolicyError> {
        self.unless_missing(self.registry.manifest(name, &mut |_, _| {}))
    }

    fn unless_missing<T>(&self, result: Result<T, RegistryError>) -> Result<Option<T>, PolicyError> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(source) => {
                Err(PolicyError::Signatures { image: self.image.familiar(), source: Box::new(source) })
            }
        }
    }

    /// The manifests of signatures that refer to `manifest`.
    fn referrers(&self, manifest: &Digest) -> Result<Vec<Digest>, PolicyError> {
        let listed = self.registry.referrers(manifest, Some(ARTIFACT), &mut |_, _| {});
        let referrers: Vec<Digest> = self
            .unless_missing(listed)?
            .unwrap_or_default()
            .into_iter()
            .filter(|entry| entry.artifact_type == ARTIFACT)
            .filter(|entry| matches!(entry.media_type.as_str(), "" | OCI_MANIFEST))
            .map(|entry| entry.digest)
            .collect();
        self.bound(referrers.len())?;
        Ok(referrers)
    }

    /// The signatures that a manifest holds as its layers.
    fn of_manifest(&self, manifest: &[u8]) -> Result<Vec<Found<SigstoreSignature>>, PolicyError> {
        let layers = match serde_json::from_slice::<Attachment>(manifest) {
            Ok(attachment) => attachment.layers,
            Err(error) => return Ok(vec![Err(format!("its manifest cannot be read: {error}"))]),
        };
        self.bound(layers.len())?;
        // Attestations and other artifacts of cosign have other types.
        layers.iter().filter(|layer| layer.media_type == PAYLOAD).map(|layer| self.payload(layer)).collect()
    }

    fn payload(&self, layer: &Descriptor) -> Result<Found<SigstoreSignature>, PolicyError> {
        let Some(signature) = layer.annotations.get(SIGNATURE) else {
            return Ok(Err(format!("it has no annotation `{SIGNATURE}`")));
        };
        if usize::try_from(layer.size).map_or(true, |size| size > MAX_SIGNATURE) {
            return Ok(Err(format!("its payload has more than {MAX_SIGNATURE} bytes")));
        }
        let digest = &layer.digest;
        let Some(blob) = self.unless_missing(self.registry.blob(digest, 0, &mut |_, _| {}))? else {
            return Ok(Err("its payload is missing".to_owned()));
        };
        let read = read_bounded(blob.body).map_err(|source| PolicyError::Signatures {
            image: self.image.familiar(),
            source: Box::new(RegistryError::Interrupted { what: digest.to_string(), source }),
        })?;
        Ok(read.and_then(|payload| {
            if digest_like(digest, &payload) != *digest {
                return Err(format!("its payload is not what its digest `{digest}` says"));
            }
            Ok(SigstoreSignature { payload, signature: signature.clone() })
        }))
    }

    /// A signature of a lookaside; `None` when there is none of this number.
    fn fetch(&self, location: &str) -> io::Result<Option<Found<Vec<u8>>>> {
        if let Some(path) = location.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(io::Error::other("its path is not absolute"));
            }
            return match File::open(path) {
                Ok(file) => read_bounded(file).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        }
        let first = Url::parse(location).map_err(io::Error::other)?;
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let outward_only = !first.is_loopback() && url.host != first.host;
            let request =
                Request { method: Method::Get, url: &url, headers: &[], verify: true, outward_only };
            let response = self.transport.send(&request, Body::Empty).map_err(|error| error.source)?;
            match response.status {
                200 => return read_bounded(response.body).map(Some),
                404 => return Ok(None),
                301 | 302 | 303 | 307 | 308 => {
                    let target = response.header("location").unwrap_or_default();
                    let next = url.join(target).map_err(io::Error::other)?;
                    url.check_redirect(&next, &first).map_err(io::Error::other)?;
                    url = next;
                }
                status => return Err(io::Error::other(format!("the server answers with status {status}"))),
            }
        }
        Err(io::Error::other("there are too many redirects"))
    }
}

fn read_bounded(reader: impl Read) -> io::Result<Found<Vec<u8>>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_SIGNATURE).unwrap_or(u64::MAX);
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_SIGNATURE {
        return Ok(Err(format!("it has more than {MAX_SIGNATURE} bytes")));
    }
    Ok(Ok(bytes))
}
