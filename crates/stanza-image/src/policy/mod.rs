//! Which images are let in: a policy and the signatures it asks for, before anything of an image is fetched.
//!
//! ```text
//!  name ─▶ manifest ─▶ Gate::admit_pull ──▶ config, layers ...
//!                        |  policy.json: the requirements of the most specific scope, all of which must be met
//!                        |    insecureAcceptAnything   reject
//!                        |    sigstoreSigned   key.rs      <- source.rs  attachments in the registry (cosign)
//!                        '    signedBy         openpgp.rs  <- source.rs  lookaside.rs: registries.d ("simple signing")
//! ```
//!
//! The policy has the meaning of containers-policy.json(5): `--signature-policy`, else
//! `$HOME/.config/containers/policy.json`, else `/etc/containers/policy.json`; with none of them everything is let in,
//! as Docker does. What is not understood refuses: an unknown field, a key that is none, a registry that does not answer.
//!
//! A signature is one over the manifest that is used. When a name leads to an index, that is the manifest for the
//! platform, not the index (containers/image has it so too): who signs an index signs its manifests with it.
//!
//! Unlike containers/image, attachments are looked for whenever `sigstoreSigned` asks for them, without
//! `use-sigstore-attachments`. Certificates (`fulcio`, `pki`) and transparency logs (`rekor...`) are refused by name.

mod error;
mod identity;
mod json;
mod key;
mod lookaside;
mod openpgp;
mod parse;
mod payload;
mod source;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stanza_spec::{Digest, Reference};

pub use error::PolicyError;
use identity::{SignedIdentity, docker_scopes};
use key::PublicKey;
use openpgp::Keyring;
use payload::{Claim, Scheme};
use source::{Found, Remote, SignatureSource};

use crate::hash::digest_like;
use crate::registry::{Registry, Transport};

/// Longest policy, in bytes.
const MAX_POLICY: u64 = 1024 * 1024;
/// Longest keyring or key, in bytes: Debian's whole keyring has a few MiB.
const MAX_KEYS: u64 = 16 * 1024 * 1024;
/// Most reasons that an error tells.
const MAX_REASONS: usize = 5;

/// The parts of a policy file.
#[derive(Debug, PartialEq)]
struct Rules {
    default: Vec<Requirement>,
    /// By transport and scope.
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image must meet.
#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    Accept,
    Reject,
    SignedBy { keys: Keys, identity: SignedIdentity },
    SigstoreSigned { keys: Keys, identity: SignedIdentity },
    Unsupported { field: String },
}

/// Where the keys of a requirement are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keys {
    Paths(Vec<PathBuf>),
    Data(Vec<Vec<u8>>),
}

/// Directories where configuration lies.
#[derive(Clone, Debug, Default)]
struct Places {
    /// `$HOME/.config/containers`.
    user: Option<PathBuf>,
    /// `/etc/containers`.
    system: PathBuf,
    /// Where signatures lie when no configuration says so.
    sigstore: PathBuf,
}

impl Places {
    fn of_user() -> Places {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let shared = PathBuf::from("/var/lib/containers/sigstore");
        let sigstore = match &home {
            Some(home) if !rustix::process::geteuid().is_root() => {
                home.join(".local/share/containers/sigstore")
            }
            _ => shared,
        };
        let user = home.map(|home| home.join(".config/containers"));
        Places { user, system: PathBuf::from("/etc/containers"), sigstore }
    }

    /// The user's directory, when there is one, instead of the system's.
    fn registries_d(&self) -> PathBuf {
        let user = self.user.as_ref().map(|user| user.join("registries.d"));
        user.filter(|path| path.exists()).unwrap_or_else(|| self.system.join("registries.d"))
    }
}

/// An image as it is about to come in.
struct Candidate<'a> {
    image: &'a Reference,
    /// The digest of `manifest`, verified.
    digest: &'a Digest,
    manifest: &'a [u8],
}

/// The archive formats that have rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    /// `docker-archive:`
    Docker,
    /// `oci-archive:`
    Oci,
    /// `oci:`, a layout that is a directory.
    Layout,
    /// `dir:`
    Directory,
}

impl ArchiveKind {
    fn transport(self) -> &'static str {
        match self {
            ArchiveKind::Docker => "docker-archive",
            ArchiveKind::Oci => "oci-archive",
            ArchiveKind::Layout => "oci",
            ArchiveKind::Directory => "dir",
        }
    }
}

/// What every image must pass.
pub(crate) struct Gate {
    /// Without a policy everything passes.
    rules: Option<Rules>,
    places: Places,
}

impl Gate {
    /// The gate that `file` describes, or without it the user's or the system's policy.
    pub(crate) fn load(file: Option<&Path>) -> Result<Gate, PolicyError> {
        Gate::load_from(Places::of_user(), file)
    }

    fn load_from(places: Places, file: Option<&Path>) -> Result<Gate, PolicyError> {
        let rules = match file {
            Some(path) => Some(read_rules(path)?),
            None => {
                let mut rules = None;
                for directory in places.user.iter().chain([&places.system]) {
                    match read_rules(&directory.join("policy.json")) {
                        Ok(read) => {
                            rules = Some(read);
                            break;
                        }
                        Err(PolicyError::Read { source, .. }) if is_missing(&source) => {}
                        Err(error) => return Err(error),
                    }
                }
                rules
            }
        };
        Ok(Gate { rules, places })
    }

    /// A gate that is open.
    #[cfg(test)]
    pub(crate) fn open() -> Gate {
        Gate { rules: None, places: Places::default() }
    }

    /// Decides about an image of a registry, whose `manifest` was found and has this digest.
    pub(crate) fn admit_pull(
        &self,
        image: &Reference,
        (digest, manifest): (&Digest, &[u8]),
        registry: &Registry<'_>,
        transport: &dyn Transport,
    ) -> Result<(), PolicyError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let candidate = Candidate { image, digest, manifest };
        let mut source = Remote { image, registry, transport, places: &self.places };
        rules.check(&candidate, &mut source)
    }

    /// Decides about an archive. Archives hold no signatures, so that only the rules without them can let one in.
    pub(crate) fn admit_archive(&self, kind: ArchiveKind, path: Option<&Path>) -> Result<(), PolicyError> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let path = path.and_then(|path| path.canonicalize().ok());
        let shown = path.as_ref().map_or_else(|| "-".to_owned(), |path| path.display().to_string());
        let image = format!("{}:{shown}", kind.transport());
        for requirement in rules.of_archive(kind, path.as_deref()) {
            match requirement {
                Requirement::Accept => {}
                Requirement::Reject => return Err(rejected_by_policy(&image)),
                Requirement::SignedBy { .. } | Requirement::SigstoreSigned { .. } => {
                    let reason = format!("a signature was required, but `{image}` can have none");
                    return Err(PolicyError::rejected(reason));
                }
                Requirement::Unsupported { field } => {
                    return Err(PolicyError::Unsupported { image, field: field.clone() });
                }
            }
        }
        Ok(())
    }
}

impl Rules {
    /// What an image of a registry must meet: all of them.
    fn of_image(&self, image: &Reference) -> &[Requirement] {
        self.most_specific("docker", docker_scopes(image).iter().map(String::as_str))
    }

    /// What an archive must meet. Which tag of it is asked for is not known before it is read, so the rules of every
    /// tag must be met.
    fn of_archive(&self, kind: ArchiveKind, path: Option<&Path>) -> Vec<&Requirement> {
        let ancestors = path.into_iter().flat_map(Path::ancestors).filter_map(Path::to_str);
        let named = self.most_specific(kind.transport(), ancestors.filter(|scope| *scope != "/"));
        let tags = path.and_then(Path::to_str).map(|path| format!("{path}:"));
        let scopes = self.transports.get(kind.transport());
        let tagged = scopes
            .into_iter()
            .flatten()
            .filter(|(scope, _)| tags.as_ref().is_some_and(|tags| scope.starts_with(tags.as_str())))
            .flat_map(|(_, requirements)| requirements);
        named.iter().chain(tagged).collect()
    }

    /// The requirements of the first of `scopes` that has any, else of the transport, else of all.
    fn most_specific<'s>(
        &self,
        transport: &str,
        mut scopes: impl Iterator<Item = &'s str>,
    ) -> &[Requirement] {
        let Some(known) = self.transports.get(transport) else { return &self.default };
        scopes.find_map(|scope| known.get(scope)).or_else(|| known.get("")).unwrap_or(&self.default)
    }

    fn check(&self, image: &Candidate<'_>, source: &mut dyn SignatureSource) -> Result<(), PolicyError> {
        self.of_image(image.image).iter().try_for_each(|requirement| requirement.check(image, source))
    }
}

impl Requirement {
    fn check(&self, image: &Candidate<'_>, source: &mut dyn SignatureSource) -> Result<(), PolicyError> {
        match self {
            Requirement::Accept => Ok(()),
            Requirement::Reject => Err(rejected_by_policy(&format!("docker://{}", image.image))),
            Requirement::Unsupported { field } => {
                Err(PolicyError::Unsupported { image: image.image.familiar(), field: field.clone() })
            }
            Requirement::SignedBy { keys, identity } => {
                let keyrings = keys.read(Keyring::new)?;
                one_of(source.simple(image.digest)?, |message| {
                    Ok(openpgp::verify(&keyrings, &message)?
                        .and_then(|payload| image.fits(&Claim::parse(&payload, Scheme::Simple)?, identity)))
                })
            }
            Requirement::SigstoreSigned { keys, identity } => {
                let keys = keys.read(PublicKey::from_pem)?;
                one_of(source.sigstore(image.digest)?, |found| {
                    let Some(signature) = base64(&found.signature) else {
                        return Ok(Err("its signature is not base64".to_owned()));
                    };
                    if !keys.iter().any(|key| key.verifies(&found.payload, &signature)) {
                        return Ok(Err("it was not made by a key of the policy".to_owned()));
                    }
                    Ok(Claim::parse(&found.payload, Scheme::Sigstore)
                        .and_then(|claim| image.fits(&claim, identity)))
                })
            }
        }
    }
}

impl Candidate<'_> {
    /// Whether what was signed is this image.
    fn fits(&self, claim: &Claim, identity: &SignedIdentity) -> Result<(), String> {
        if !identity.accepts(self.image, &claim.reference) {
            return Err(format!(
                "signature for identity `{}` is not accepted",
                claim.reference.escape_debug()
            ));
        }
        let digest = claim.digest.parse::<Digest>().ok();
        if digest.is_none_or(|digest| digest_like(&digest, self.manifest) != digest) {
            return Err(format!("signature for digest `{}` does not match", claim.digest.escape_debug()));
        }
        Ok(())
    }
}

impl Keys {
    /// Reads all of them; one that is none refuses.
    fn read<K>(&self, parse: impl Fn(&[u8]) -> Result<K, String>) -> Result<Vec<K>, PolicyError> {
        let wrong = |key: String| move |reason| PolicyError::Key { key, reason };
        match self {
            Keys::Paths(paths) => paths
                .iter()
                .map(|path| parse(&read_bounded(path, MAX_KEYS)?).map_err(wrong(path.display().to_string())))
                .collect(),
            Keys::Data(data) => {
                data.iter().map(|bytes| parse(bytes).map_err(wrong("keyData".to_owned()))).collect()
            }
        }
    }
}

/// One signature that is accepted is enough, whatever the others are.
fn one_of<T>(
    signatures: Vec<Found<T>>,
    verify: impl Fn(T) -> Result<Result<(), String>, PolicyError>,
) -> Result<(), PolicyError> {
    let mut reasons = Vec::new();
    for signature in signatures {
        let verdict = match signature {
            Ok(signature) => verify(signature)?,
            Err(reason) => Err(reason),
        };
        match verdict {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(reason),
        }
    }
    let count = reasons.len();
    reasons.truncate(MAX_REASONS);
    let told = reasons.join("; ");
    Err(match count {
        0 => PolicyError::unsigned(),
        1 => PolicyError::rejected(told),
        _ => {
            let more = if count > MAX_REASONS { "; ..." } else { "" };
            PolicyError::rejected(format!(
                "none of the {count} signatures were accepted, reasons: {told}{more}"
            ))
        }
    })
}

/// Decodes base64. Go's decoder, behind every other reader of these fields, passes over line ends.
fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text.replace(['\r', '\n'], "")).ok()
}

fn rejected_by_policy(image: &str) -> PolicyError {
    PolicyError::rejected(format!("running image `{image}` is rejected by policy"))
}

fn read_rules(path: &Path) -> Result<Rules, PolicyError> {
    let bytes = read_bounded(path, MAX_POLICY)?;
    parse::rules(&bytes).map_err(|reason| PolicyError::File { path: path.to_path_buf(), reason })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, PolicyError> {
    let wrong = |source| PolicyError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(wrong)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(wrong)?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > limit) {
        return Err(wrong(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {limit} bytes"),
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
