//! Manifests, indexes and configurations: bounded, parsed defensively, told apart without trusting one field alone.
//!
//! A document is a manifest or an index by three witnesses that must not disagree: the `Content-Type` it came with,
//! its own `mediaType`, and which of `layers` and `manifests` it has (a document with both is the attack of
//! GHSA-77vh-xpmg-72qh).

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use stanza_spec::oci::image::ImageConfiguration;
use stanza_spec::{Digest, Platform};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+";

/// Longest manifest or index, in bytes: what registries must accept (distribution-spec, "Pushing Manifests").
pub(crate) const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// Longest image configuration, in bytes.
pub(crate) const MAX_CONFIG: u64 = 8 * 1024 * 1024;
/// Most layers of an image: the kernel's limit of overlay lowers.
pub(crate) const MAX_LAYERS: usize = 500;
/// Most bytes of one image, all blobs together: 1 TiB.
const MAX_IMAGE: u64 = 1 << 40;
/// Deepest nesting of indexes.
pub(crate) const MAX_INDEX_DEPTH: u32 = 8;

/// Why a document is not one we use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("it has more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("it is not the JSON of a manifest, an index or a configuration")]
    Json(#[source] serde_json::Error),
    #[error(
        "it is a manifest of schema version 1, which registries stopped serving and which is not supported"
    )]
    Schema1,
    #[error("its media type `{0}` is none of an image")]
    MediaType(String),
    #[error("it came as `{sent}`, but calls itself `{own}`")]
    Disagree { sent: String, own: String },
    #[error("{0}")]
    Shape(String),
}

/// A reference to a blob or document by content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<DescribedPlatform>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }

    /// Whether the media type is that of an index or list.
    pub(crate) fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}

/// The platform in an index's descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DescribedPlatform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

impl DescribedPlatform {
    pub(crate) fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone().filter(|variant| !variant.is_empty()),
        }
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An image manifest, written by us; [`Document`] reads them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewManifest<'a> {
    pub(crate) schema_version: u32,
    pub(crate) media_type: &'a str,
    pub(crate) config: &'a Descriptor,
    pub(crate) layers: &'a [Descriptor],
}

impl NewManifest<'_> {
    /// As it is stored.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has nothing that JSON cannot say")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// A parsed manifest or index.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// A manifest whose parts are plausible: known media types, bounded sizes and counts.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: &'static str,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Document {
    /// Parses `bytes`, that came with the media type `sent` when it is known.
    pub(crate) fn parse(bytes: &[u8], sent: Option<&str>) -> Result<Document, DocumentError> {
        if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_MANIFEST) {
            return Err(DocumentError::TooLarge { limit: MAX_MANIFEST });
        }
        let sent = sent.map(essence).filter(|sent| !is_generic(sent));
        if sent.as_deref().is_some_and(|sent| sent.starts_with(SCHEMA1)) {
            return Err(DocumentError::Schema1);
        }
        let raw: Raw = match serde_json::from_slice(bytes) {
            Ok(raw) => raw,
            Err(error) => {
                return Err(if is_schema1(bytes) {
                    DocumentError::Schema1
                } else {
                    DocumentError::Json(error)
                });
            }
        };
        if raw.schema_version == 1 {
            return Err(DocumentError::Schema1);
        }
        let own = raw.media_type.as_deref().filter(|own| !own.is_empty());
        if let (Some(sent), Some(own)) = (&sent, own)
            && sent != own
        {
            return Err(DocumentError::Disagree { sent: sent.clone(), own: own.to_owned() });
        }
        let named = own.map(str::to_owned).or(sent);
        match (raw.config, raw.layers, raw.manifests) {
            (_, Some(_), Some(_)) | (Some(_), _, Some(_)) => {
                Err(DocumentError::Shape("it has both layers and manifests".to_owned()))
            }
            (_, _, Some(manifests)) => match named.as_deref() {
                None | Some(OCI_INDEX | DOCKER_LIST) => Ok(Document::Index(manifests)),
                Some(other) => Err(wrong_name(other)),
            },
            (Some(config), layers, None) => {
                let media_type = match named.as_deref() {
                    None | Some(OCI_MANIFEST) => OCI_MANIFEST,
                    Some(DOCKER_MANIFEST) => DOCKER_MANIFEST,
                    Some(other) => return Err(wrong_name(other)),
                };
                let layers = layers.unwrap_or_default();
                check_manifest(&config, &layers)?;
                Ok(Document::Manifest(Manifest { media_type, config, layers }))
            }
            (None, _, None) => {
                Err(DocumentError::Shape("it has neither a configuration nor manifests".to_owned()))
            }
        }
    }
}

/// A media type that is known but stands over the other shape, or one that is not known at all.
fn wrong_name(name: &str) -> DocumentError {
    match name {
        OCI_MANIFEST | DOCKER_MANIFEST | OCI_INDEX | DOCKER_LIST => {
            DocumentError::Shape(format!("it calls itself `{name}`, but has the fields of another type"))
        }
        other => DocumentError::MediaType(other.escape_debug().to_string()),
    }
}

fn check_manifest(config: &Descriptor, layers: &[Descriptor]) -> Result<(), DocumentError> {
    // `application/octet-stream` is what Docker wrote before 1.10.
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG | "application/octet-stream" | "") {
        return Err(DocumentError::Shape(format!(
            "its configuration has the media type `{}`: it is not a container image",
            config.media_type.escape_debug()
        )));
    }
    if config.size > MAX_CONFIG {
        return Err(DocumentError::Shape(format!(
            "its configuration claims {} bytes; at most {MAX_CONFIG} are allowed",
            config.size
        )));
    }
    if layers.len() > MAX_LAYERS {
        return Err(DocumentError::Shape(format!(
            "it has {} layers; at most {MAX_LAYERS} can be stacked",
            layers.len()
        )));
    }
    let mut total = config.size;
    for layer in layers {
        check_layer_type(layer)?;
        total = total.saturating_add(layer.size);
    }
    if total > MAX_IMAGE {
        return Err(DocumentError::Shape(format!(
            "it claims {total} bytes; at most {MAX_IMAGE} are allowed"
        )));
    }
    Ok(())
}

fn check_layer_type(layer: &Descriptor) -> Result<(), DocumentError> {
    let media_type = layer.media_type.as_str();
    let suffix = media_type.strip_prefix(OCI_LAYER).or_else(|| media_type.strip_prefix(DOCKER_LAYER));
    if matches!(suffix, Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd")) {
        return Ok(());
    }
    let why = if media_type.contains("foreign") || media_type.contains("nondistributable") {
        "is foreign: it must be fetched from elsewhere, which is not supported"
    } else {
        "is not a layer of a container image"
    };
    Err(DocumentError::Shape(format!(
        "its layer `{}` of type `{}` {why}",
        layer.digest,
        media_type.escape_debug()
    )))
}

/// The media type without its parameters, lower case.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// Media types that say nothing about the document.
fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "text/plain" | "application/octet-stream" | "binary/octet-stream"
    )
}

/// Whether a document that does not parse as version 2 says that it is of version 1.
fn is_schema1(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "schemaVersion")]
        version: u32,
    }
    serde_json::from_slice::<Version>(bytes).is_ok_and(|document| document.version == 1)
}

/// The configuration in `bytes`, and its diff ids, which must be as many as `layers`.
pub(crate) fn parse_config(
    bytes: &[u8],
    layers: usize,
) -> Result<(ImageConfiguration, Vec<Digest>), DocumentError> {
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_CONFIG) {
        return Err(DocumentError::TooLarge { limit: MAX_CONFIG });
    }
    let config: ImageConfiguration = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
    let diff_ids: Vec<Digest> = config
        .rootfs()
        .diff_ids()
        .iter()
        .map(|text| {
            text.parse().map_err(|error| DocumentError::Shape(format!("its diff id is wrong: {error}")))
        })
        .collect::<Result<_, _>>()?;
    if diff_ids.len() != layers {
        return Err(DocumentError::Shape(format!(
            "it names {} layers, but the manifest has {layers}",
            diff_ids.len()
        )));
    }
    Ok((config, diff_ids))
}

/// What to take from an index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Choice<'a> {
    /// The best manifest (or nested index) for the platform.
    One(&'a Descriptor),
    /// Entries that name no platform: nested indexes and plain manifests, to be looked into in this order.
    Unnamed(Vec<&'a Descriptor>),
    /// Nothing fits; what is there instead, readable.
    Nothing(Vec<String>),
}

/// Chooses from an index the entry for `wanted`.
pub(crate) fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Choice<'a> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut available = Vec::new();
    let mut unnamed = Vec::new();
    for descriptor in manifests {
        let Some(platform) = descriptor.platform.as_ref().map(DescribedPlatform::platform) else {
            unnamed.push(descriptor);
            continue;
        };
        // Build attestations lie in indexes as `unknown/unknown`.
        if platform.os == "unknown" {
            continue;
        }
        if let Some(rank) = rank(&platform, wanted)
            && best.is_none_or(|(least, _)| rank < least)
        {
            best = Some((rank, descriptor));
        }
        let text = platform.to_string().escape_debug().to_string();
        if !available.contains(&text) {
            available.push(text);
        }
    }
    match best {
        Some((_, descriptor)) => Choice::One(descriptor),
        None if !unnamed.is_empty() => Choice::Unnamed(unnamed),
        None => Choice::Nothing(available),
    }
}

/// How well `offered` serves `wanted`: less is better, `None` is not at all.
fn rank(offered: &Platform, wanted: &Platform) -> Option<u32> {
    if offered.os != wanted.os || offered.architecture != wanted.architecture {
        return None;
    }
    let usual = match offered.architecture.as_str() {
        "arm64" => Some("v8"),
        "arm" => Some("v7"),
        "amd64" => Some("v1"),
        _ => None,
    };
    let level = |variant: &str| variant.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
    match (offered.variant.as_deref(), wanted.variant.as_deref()) {
        (None, None) => Some(0),
        (offered, None) if offered == usual => Some(1),
        // Without a wish the most modest variant is the one that runs.
        (Some(offered), None) => Some(2 + level(offered).unwrap_or(100)),
        (None, Some(_)) => Some(100),
        (Some(offered), Some(wanted)) if offered == wanted => Some(0),
        // A processor of a higher level runs what was built for a lower one; the nearest is best.
        (Some(offered), Some(wanted)) => {
            level(wanted)?.checked_sub(level(offered)?).filter(|distance| *distance < 100)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, fill: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{}", fill.repeat(64)), "size": 1})
    }

    fn manifest(layers: Vec<serde_json::Value>) -> serde_json::Value {
        serde_json::json!({"schemaVersion": 2, "config": descriptor(OCI_CONFIG, "c"), "layers": layers})
    }

    fn parse(value: &serde_json::Value, sent: Option<&str>) -> Result<Document, DocumentError> {
        Document::parse(value.to_string().as_bytes(), sent)
    }

    #[test]
    fn content_type_and_media_type_must_agree() {
        let mut value = manifest(vec![]);
        assert!(matches!(parse(&value, Some(OCI_MANIFEST)), Ok(Document::Manifest(_))));
        assert!(matches!(parse(&value, Some("application/json; charset=utf-8")), Ok(Document::Manifest(_))));
        value["mediaType"] = DOCKER_MANIFEST.into();
        assert!(matches!(parse(&value, Some(OCI_MANIFEST)), Err(DocumentError::Disagree { .. })));
        value["mediaType"] = OCI_INDEX.into();
        assert!(matches!(parse(&value, None), Err(DocumentError::Shape(_))));
        value["mediaType"] = "text/evil\u{1b}[31m".into();
        assert_eq!(
            parse(&value, None).unwrap_err().to_string(),
            "its media type `text/evil\\u{1b}[31m` is none of an image"
        );
    }

    #[test]
    fn a_document_that_is_both_is_refused() {
        let mut value = manifest(vec![]);
        value["manifests"] = serde_json::json!([]);
        assert!(matches!(parse(&value, None), Err(DocumentError::Shape(_))));
        assert!(matches!(
            parse(&serde_json::json!({"schemaVersion": 2}), None),
            Err(DocumentError::Shape(_))
        ));
    }

    #[test]
    fn schema_1_is_refused_by_name() {
        let one = serde_json::json!({"schemaVersion": 1, "name": "a", "fsLayers": [], "config": "x"});
        assert!(matches!(parse(&one, None), Err(DocumentError::Schema1)));
        let typed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(parse(&manifest(vec![]), Some(typed)), Err(DocumentError::Schema1)));
    }

    #[test]
    fn foreign_layers_artifacts_and_absurd_sizes_are_refused() {
        let text = |value| parse(&value, None).unwrap_err().to_string();
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert!(text(manifest(vec![descriptor(foreign, "a")])).contains("is foreign"));
        assert!(text(manifest(vec![descriptor("application/x", "a")])).contains("not a layer"));
        let mut chart = manifest(vec![]);
        chart["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
        assert!(text(chart).contains("helm.config"));
        assert!(text(manifest(vec![descriptor(OCI_LAYER, "a"); 501])).contains("501 layers"));
        let mut large = descriptor(OCI_LAYER, "a");
        large["size"] = u64::MAX.into();
        assert!(text(manifest(vec![large.clone(), large])).contains("bytes"));
        let mut negative = descriptor(OCI_LAYER, "a");
        negative["size"] = (-1).into();
        assert!(matches!(parse(&manifest(vec![negative]), None), Err(DocumentError::Json(_))));
        let mut unknown = descriptor(OCI_LAYER, "a");
        unknown["digest"] = "md5:00".into();
        assert!(matches!(parse(&manifest(vec![unknown]), None), Err(DocumentError::Json(_))));
    }

    #[test]
    fn hostile_json_is_an_error_and_no_stack_overflow() {
        for text in ["[".repeat(100_000), "{\"a\":".repeat(100_000), "null".into(), "\u{0}".into()] {
            assert!(matches!(Document::parse(text.as_bytes(), None), Err(DocumentError::Json(_))));
        }
        let twice = r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Document::parse(twice.as_bytes(), None), Err(DocumentError::Json(_))));
        let limit = usize::try_from(MAX_MANIFEST).unwrap();
        let long = vec![b' '; limit + 1];
        assert!(matches!(Document::parse(&long, None), Err(DocumentError::TooLarge { .. })));
    }

    #[test]
    fn a_configuration_must_name_as_many_layers_as_the_manifest() {
        let bytes = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Env":null,"ExposedPorts":{"80/tcp":{}},"Labels":null}}"#;
        assert!(parse_config(bytes, 0).is_ok());
        assert!(matches!(parse_config(bytes, 1), Err(DocumentError::Shape(_))));
        assert!(matches!(parse_config(b"{}", 0), Err(DocumentError::Json(_))));
    }

    fn chosen(offers: &[&str], wanted: &str) -> Option<usize> {
        let manifests: Vec<Descriptor> = offers
            .iter()
            .enumerate()
            .map(|(at, offer)| {
                let mut parts = offer.split('/').map(str::to_owned);
                let mut descriptor =
                    Descriptor::new(OCI_MANIFEST, crate::hash::sha256(&[u8::try_from(at).unwrap()]), 1);
                descriptor.platform = Some(DescribedPlatform {
                    os: parts.next().unwrap(),
                    architecture: parts.next().unwrap(),
                    variant: parts.next(),
                });
                descriptor
            })
            .collect();
        match choose(&manifests, &wanted.parse().unwrap()) {
            Choice::One(one) => manifests.iter().position(|descriptor| descriptor == one),
            Choice::Nothing(_) => None,
            Choice::Unnamed(_) => panic!("every offer has a platform"),
        }
    }

    #[test]
    fn the_platform_is_chosen_by_variant() {
        let arm = ["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        assert_eq!(chosen(&arm, "linux/arm/v7"), Some(3));
        assert_eq!(chosen(&arm, "linux/arm/v6"), Some(2));
        assert_eq!(chosen(&arm, "linux/arm"), Some(3));
        assert_eq!(chosen(&arm, "linux/arm64"), Some(4));
        assert_eq!(chosen(&arm, "linux/riscv64"), None);
        assert_eq!(chosen(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v8"), Some(1));
        assert_eq!(chosen(&["linux/arm/v7"], "linux/arm/v6"), None);
        assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["windows/amd64", "unknown/unknown"], "linux/amd64"), None);
    }
}
