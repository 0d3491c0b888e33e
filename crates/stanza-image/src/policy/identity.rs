//! Who an image is: the scopes that a name falls under, and whether a signature speaks of that name.
//!
//! The rules are those of containers-policy.json(5), "Supported transports and their scopes" and "signedBy".

use stanza_spec::Reference;

/// The scopes of a name in a registry, the most specific first: the whole name, the repository, its namespaces, the
/// host, and `*.` with what remains of the host's name (without its port) when labels are taken off.
pub(super) fn docker_scopes(image: &Reference) -> Vec<String> {
    let image = without_tag_beside_digest(image);
    let mut scopes = vec![image.to_string()];
    let mut name = image.repository();
    scopes.push(name.clone());
    while let Some(slash) = name.rfind('/') {
        name.truncate(slash);
        scopes.push(name.clone());
    }
    let mut host = name.split(':').next().unwrap_or_default();
    while let Some((_, parent)) = host.split_once('.') {
        scopes.push(format!("*.{parent}"));
        host = parent;
    }
    scopes
}

/// With both, the digest is what is fetched, and the tag says nothing.
pub(super) fn without_tag_beside_digest(image: &Reference) -> Reference {
    image.digest().map_or_else(|| image.clone(), |digest| image.with_digest(digest.clone()))
}

/// Which name a signature must claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SignedIdentity {
    /// The very name.
    Exact,
    /// The very name; for an image named by digest, any tag of its repository.
    RepoDigestOrExact,
    /// Any name in the repository.
    Repository,
    /// This name.
    ExactReference(Named),
    /// Any name in this repository.
    ExactRepository(Named),
    /// As [`SignedIdentity::RepoDigestOrExact`], after one prefix of the name was put in the place of another.
    Remap { prefix: String, signed_prefix: String },
}

/// A name as a signature or a policy writes it: unlike a user's, it may lack the tag and then means no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    reference: Reference,
    /// Neither tag nor digest was given.
    bare: bool,
}

impl Named {
    pub(super) fn parse(text: &str) -> Option<Named> {
        let reference = text.parse().ok()?;
        let bare = !text.contains('@') && !text.rsplit('/').next().is_some_and(|last| last.contains(':'));
        Some(Named { reference, bare })
    }

    /// A name with tag or digest.
    pub(super) fn parse_whole(text: &str) -> Option<Named> {
        Named::parse(text).filter(|named| !named.bare)
    }

    /// A name without.
    pub(super) fn parse_bare(text: &str) -> Option<Named> {
        Named::parse(text).filter(|named| named.bare)
    }

    fn is(&self, other: &Named) -> bool {
        !self.bare && !other.bare && self.reference == other.reference
    }

    fn shares_repository(&self, other: &Named) -> bool {
        self.reference.repository() == other.reference.repository()
    }

    fn is_or_shares_repository(&self, signed: &Named) -> bool {
        if self.reference.tag().is_some() {
            self.is(signed)
        } else {
            !signed.bare && self.shares_repository(signed)
        }
    }
}

impl SignedIdentity {
    /// Whether a signature that claims the name `signed` is one for `image`.
    pub(super) fn accepts(&self, image: &Reference, signed: &str) -> bool {
        let Some(signed) = Named::parse(signed) else { return false };
        let image = Named { reference: without_tag_beside_digest(image), bare: false };
        match self {
            SignedIdentity::Exact => image.is(&signed),
            SignedIdentity::RepoDigestOrExact => image.is_or_shares_repository(&signed),
            SignedIdentity::Repository => image.shares_repository(&signed),
            SignedIdentity::ExactReference(wanted) => wanted.is(&signed),
            SignedIdentity::ExactRepository(wanted) => wanted.shares_repository(&signed),
            SignedIdentity::Remap { prefix, signed_prefix } => {
                let name = image.reference.repository();
                let rest = name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
                let Some(rest) = rest else { return image.is_or_shares_repository(&signed) };
                let suffix = &image.reference.to_string()[name.len()..];
                Named::parse_whole(&format!("{signed_prefix}{rest}{suffix}"))
                    .is_some_and(|remapped| remapped.is_or_shares_repository(&signed))
            }
        }
    }
}

/// Whether `prefix` is a host, a namespace or a repository in full.
pub(super) fn is_prefix(prefix: &str) -> bool {
    // Two components more, so that a host alone is one, and Docker Hub's short names are not made whole.
    let example = format!("{prefix}/x/x");
    Named::parse_bare(&example).is_some_and(|named| named.reference.repository() == example)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn scopes_go_from_the_name_to_the_wildcards() {
        assert_eq!(
            docker_scopes(&reference("busybox")),
            [
                "docker.io/library/busybox:latest",
                "docker.io/library/busybox",
                "docker.io/library",
                "docker.io",
                "*.io"
            ]
        );
        assert_eq!(
            docker_scopes(&reference("a.b.example.com:5000/ns/x:1")),
            [
                "a.b.example.com:5000/ns/x:1",
                "a.b.example.com:5000/ns/x",
                "a.b.example.com:5000/ns",
                "a.b.example.com:5000",
                "*.b.example.com",
                "*.example.com",
                "*.com"
            ]
        );
        let digest = format!("sha256:{}", "0".repeat(64));
        let scopes = docker_scopes(&reference(&format!("localhost:1/x:tag@{digest}")));
        assert_eq!(scopes, [format!("localhost:1/x@{digest}"), "localhost:1/x".into(), "localhost:1".into()]);
    }

    #[test]
    fn a_signature_speaks_of_a_name_by_the_rule() {
        let digest = format!("@sha256:{}", "0".repeat(64));
        let by_digest = format!("r.io/a/b{digest}");
        let named = |text| Named::parse(text).unwrap();
        let exact = SignedIdentity::Exact;
        let default = SignedIdentity::RepoDigestOrExact;
        let repository = SignedIdentity::Repository;
        let table: &[(&SignedIdentity, &str, &str, bool)] = &[
            (&exact, "r.io/a/b:1", "r.io/a/b:1", true),
            (&exact, "r.io/a/b:1", "r.io/a/b:2", false),
            (&exact, "r.io/a/b:1", "r.io/a/b", false),
            (&exact, "r.io/a/b", "r.io/a/b", false),
            (&exact, "busybox", "docker.io/library/busybox:latest", true),
            (&exact, &by_digest, "r.io/a/b:1", false),
            (&exact, &by_digest, &by_digest, true),
            (&default, "r.io/a/b:1", "r.io/a/b:1", true),
            (&default, "r.io/a/b:1", "r.io/a/b:2", false),
            (&default, "r.io/a/b:1", "r.io/a/b", false),
            (&default, &by_digest, "r.io/a/b:7", true),
            (&default, &by_digest, "r.io/a/b", false),
            (&default, &by_digest, "r.io/a/c:7", false),
            (&repository, "r.io/a/b:1", "r.io/a/b:2", true),
            (&repository, "r.io/a/b:1", "r.io/a/b", true),
            (&repository, &by_digest, "r.io/a/b", true),
            (&repository, "r.io/a/b:1", "r.io/a/bb", false),
            (&repository, "r.io/a/b:1", "other.io/a/b", false),
            (&repository, "r.io/a/b:1", "", false),
            (&repository, "r.io/a/b:1", "r.io/a/B", false),
            (&SignedIdentity::ExactReference(named("k.io/x:1")), "r.io/a/b:1", "k.io/x:1", true),
            (&SignedIdentity::ExactReference(named("k.io/x:1")), "r.io/a/b:1", "k.io/x:2", false),
            (&SignedIdentity::ExactReference(named("k.io/x:1")), "r.io/a/b:1", "r.io/a/b:1", false),
            (&SignedIdentity::ExactRepository(named("k.io/x")), "r.io/a/b:1", "k.io/x:2", true),
            (&SignedIdentity::ExactRepository(named("k.io/x")), "r.io/a/b:1", "k.io/x", true),
            (&SignedIdentity::ExactRepository(named("k.io/x")), "r.io/a/b:1", "k.io/y:2", false),
        ];
        for (identity, image, signed, accepted) in table {
            assert_eq!(
                identity.accepts(&reference(image), signed),
                *accepted,
                "{identity:?} {image} {signed}"
            );
        }
    }

    #[test]
    fn a_prefix_is_remapped_at_whole_components() {
        let remap = |prefix: &str, signed_prefix: &str| SignedIdentity::Remap {
            prefix: prefix.to_owned(),
            signed_prefix: signed_prefix.to_owned(),
        };
        for (prefix, signed_prefix, image, signed, accepted) in [
            ("mirror.io", "docker.io", "mirror.io/library/a:1", "docker.io/library/a:1", true),
            ("mirror.io", "docker.io", "mirror.io/library/a:1", "mirror.io/library/a:1", false),
            ("mirror.io/ns", "v.io", "mirror.io/ns/a:1", "v.io/a:1", true),
            ("mirror.io/ns/a", "v.io/b", "mirror.io/ns/a:1", "v.io/b:1", true),
            ("mirror.io/ns", "v.io", "mirror.io/nsx/a:1", "v.io/x/a:1", false),
            ("mirror.io/ns", "v.io", "mirror.io/nsx/a:1", "mirror.io/nsx/a:1", true),
            ("mirror.io", "v.io", "mirror.io:5000/a:1", "v.io:5000/a:1", false),
            ("mirror.io", "v.io", "mirror.io/a:1", "v.io/a:2", false),
        ] {
            let identity = remap(prefix, signed_prefix);
            assert_eq!(
                identity.accepts(&reference(image), signed),
                accepted,
                "{prefix} {signed_prefix} {image} {signed}"
            );
        }
        for good in ["docker.io", "localhost:5000", "docker.io/library", "r.io/a/b", "localhost"] {
            assert!(is_prefix(good), "{good}");
        }
        for bad in ["", "busybox", "r.io/a:1", "r.io/", "r.io/A", "*.io", "a b"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }
}
