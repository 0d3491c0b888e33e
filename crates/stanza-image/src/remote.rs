//! What a registry tells without anything coming into the store: documents, tags, referrers.

use stanza_spec::{Classify, Digest, ErrorKind, Platform, Reference};

use crate::hash::{digest_like, sha256};
use crate::image::platform_of;
use crate::outline::Outline;
use crate::pull::Surroundings;
use crate::registry::{
    CredentialFiles, Http, Referrer, RegistriesConfig, Registry, RegistryError, RetryPolicy,
};

/// Most documents that are fetched for one index.
const MAX_CHILDREN: usize = 1000;

/// A manifest or index as a registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDocument {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its media type, as the registry says, or else as it says itself; may be empty.
    pub media_type: String,
    /// The platform that an index (or, asked for, the configuration) names for it.
    pub platform: Option<Platform>,
    /// Byte for byte: JSON.
    pub bytes: Vec<u8>,
}

/// Why a registry's document cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The registry cannot be reached, refuses, or answers with nonsense.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no document of this name.
    #[error("no such manifest: {name}")]
    NoManifest {
        /// The name in full.
        name: String,
    },
    /// The bytes are not what their digest says.
    #[error("manifest of `{name}` has the digest `{actual}`, expected `{expected}`")]
    Digest {
        /// The name as listings show it.
        name: String,
        /// What was asked for or promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The document is no manifest and no index.
    #[error("manifest of `{name}` cannot be used: {reason}")]
    Document {
        /// The name as listings show it.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl Classify for RemoteError {
    fn kind(&self) -> ErrorKind {
        match self {
            RemoteError::Registry(error) => error.kind(),
            RemoteError::NoManifest { .. } => ErrorKind::NotFound,
            RemoteError::Digest { .. } | RemoteError::Document { .. } => ErrorKind::Corrupt,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            RemoteError::Registry(error) => error.hint(),
            RemoteError::NoManifest { .. } => Some("check the spelling of the name and the tag".to_owned()),
            RemoteError::Digest { .. } => Some("try again, or tell who runs the registry".to_owned()),
            RemoteError::Document { .. } => None,
        }
    }
}

/// The registry of one name.
pub struct Remote<'a> {
    name: &'a Reference,
    registry: Registry<'a>,
}

/// What registries are reached by; made once for what is asked of them together.
pub struct Connections {
    transport: Http,
    credentials: CredentialFiles,
    registries: RegistriesConfig,
}

impl Connections {
    /// With the calling user's credentials and settings of registries.
    ///
    /// # Errors
    /// When the settings cannot be read.
    pub fn load() -> Result<Connections, RegistryError> {
        Ok(Connections {
            transport: Http::default(),
            credentials: CredentialFiles::of_user(),
            registries: RegistriesConfig::load()?,
        })
    }

    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        let Connections { transport, credentials, registries } = self;
        Surroundings { transport, retry: RetryPolicy::default(), credentials, registries }
    }
}

impl<'a> Remote<'a> {
    /// The registry of `name`; `tls_verify` off accepts any certificate, and plain http.
    ///
    /// # Errors
    /// When the settings of registries block it.
    pub fn new(
        name: &'a Reference,
        tls_verify: bool,
        connections: &'a Connections,
    ) -> Result<Remote<'a>, RemoteError> {
        Remote::with(name, tls_verify, &connections.surroundings())
    }

    /// [`Remote::new`], with the network given.
    pub(crate) fn with(
        name: &'a Reference,
        tls_verify: bool,
        surroundings: &Surroundings<'a>,
    ) -> Result<Remote<'a>, RemoteError> {
        Ok(Remote { name, registry: surroundings.registry(name, tls_verify)? })
    }

    /// The document under the name, as the registry has it.
    ///
    /// # Errors
    /// When the registry does not have it or does not answer, or it is not what its digest says.
    pub fn document(&self) -> Result<RemoteDocument, RemoteError> {
        match self.name.digest() {
            Some(digest) => self.fetch(digest.as_str(), Some(digest)),
            None => self.fetch(self.name.tag().unwrap_or("latest"), None),
        }
    }

    /// The documents that an index names, in its order; nothing for a manifest.
    ///
    /// # Errors
    /// As [`Remote::document`], for each of them.
    pub fn children(&self, index: &RemoteDocument) -> Result<Vec<RemoteDocument>, RemoteError> {
        let children = self.outline(index)?.documents;
        if children.len() > MAX_CHILDREN {
            return Err(self.refuse(format!("it names more than {MAX_CHILDREN} documents")));
        }
        let fetch = |child: &crate::document::Descriptor| {
            let document = self.fetch(child.digest.as_str(), Some(&child.digest))?;
            let platform = child.platform.as_ref().map(crate::document::DescribedPlatform::platform);
            Ok(RemoteDocument { platform, ..document })
        };
        children.iter().map(fetch).collect()
    }

    /// The platform in the configuration of a manifest; `None` when it is no container image.
    ///
    /// # Errors
    /// When the registry does not give the configuration.
    pub fn platform(&self, manifest: &RemoteDocument) -> Result<Option<Platform>, RemoteError> {
        let outline = self.outline(manifest)?;
        let Some(config) = outline.blobs.first() else { return Ok(None) };
        if config.size > crate::document::MAX_CONFIG {
            return Err(self.refuse(format!("its configuration claims {} bytes", config.size)));
        }
        let blob = self.registry.blob(&config.digest, 0, &mut |_, _| {})?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(blob.body, config.size), &mut bytes)
            .map_err(|source| RegistryError::Interrupted { what: config.digest.to_string(), source })?;
        let actual = digest_like(&config.digest, &bytes);
        if actual != config.digest {
            let (name, expected) = (self.name.familiar(), config.digest.clone());
            return Err(RemoteError::Digest { name, expected, actual });
        }
        Ok(serde_json::from_slice(&bytes).ok().map(|config| platform_of(&config)))
    }

    /// The tags of the repository, as the registry orders them; at most `limit`.
    ///
    /// # Errors
    /// When there is no such repository or the registry does not answer.
    pub fn tags(&self, limit: Option<usize>) -> Result<Vec<String>, RemoteError> {
        Ok(self.registry.tags(limit, &mut |_, _| {})?)
    }

    /// What refers to the document under the name: signatures, attestations, bills of materials; with
    /// `artifact_type`, of this sort only.
    ///
    /// # Errors
    /// When the registry does not have the name or does not answer.
    pub fn referrers(&self, artifact_type: Option<&str>) -> Result<Vec<Referrer>, RemoteError> {
        let subject = match self.name.digest() {
            Some(digest) => digest.clone(),
            None => self.digest()?,
        };
        Ok(self.registry.referrers(&subject, artifact_type, &mut |_, _| {})?)
    }

    /// Takes away what is under the name, and with it every other tag of the repository that means the same; gives its
    /// digest. Registries may forbid it.
    ///
    /// # Errors
    /// When the registry does not have the name, does not answer or refuses.
    pub fn delete(&self) -> Result<Digest, RemoteError> {
        let digest = match self.name.digest() {
            Some(digest) => digest.clone(),
            None => self.digest()?,
        };
        self.registry.delete_manifest(&digest, &mut |_, _| {})?;
        Ok(digest)
    }

    /// What the tag means.
    fn digest(&self) -> Result<Digest, RemoteError> {
        let tag = self.name.tag().unwrap_or("latest");
        let head = self.registry.head_manifest(tag, &mut |_, _| {})?.ok_or_else(|| self.no_manifest())?;
        match head.digest {
            Some(digest) => Ok(digest),
            None => Ok(self.document()?.digest),
        }
    }

    fn fetch(&self, name: &str, wanted: Option<&Digest>) -> Result<RemoteDocument, RemoteError> {
        let raw = match self.registry.manifest(name, &mut |_, _| {}) {
            Err(RegistryError::NotFound { .. }) => return Err(self.no_manifest()),
            result => result?,
        };
        let claimed = wanted.or(raw.digest.as_ref());
        let actual = claimed.map_or_else(|| sha256(&raw.bytes), |claimed| digest_like(claimed, &raw.bytes));
        if let Some(expected) = claimed.filter(|claimed| **claimed != actual) {
            let (name, expected) = (self.name.familiar(), expected.clone());
            return Err(RemoteError::Digest { name, expected, actual });
        }
        let outline = Outline::parse(&raw.bytes).map_err(|reason| self.refuse(reason))?;
        let sent = raw.content_type.as_deref().and_then(|text| text.split(';').next());
        let media_type = outline.media_type.or_else(|| sent.map(str::to_owned)).unwrap_or_default();
        Ok(RemoteDocument { digest: actual, media_type, platform: None, bytes: raw.bytes })
    }

    fn outline(&self, document: &RemoteDocument) -> Result<Outline, RemoteError> {
        Outline::parse(&document.bytes).map_err(|reason| self.refuse(reason))
    }

    fn no_manifest(&self) -> RemoteError {
        RemoteError::NoManifest { name: self.name.to_string() }
    }

    fn refuse(&self, reason: String) -> RemoteError {
        RemoteError::Document { name: self.name.familiar(), reason }
    }
}
