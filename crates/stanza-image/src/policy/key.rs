//! Public keys in PEM, for signatures of cosign: verified by `ring`, that TLS brings along.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer};
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA256,
};
use webpki::{Error, RawPublicKeyEntity};

/// Cosign hashes with SHA-256 whatever the curve; newer ones with the hash of the curve's size.
const ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 5] =
    [ECDSA_P256_SHA256, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA256];

/// A key that signatures can be verified with.
pub(super) struct PublicKey(SubjectPublicKeyInfoDer<'static>);

impl PublicKey {
    /// Reads the one `PUBLIC KEY` of a PEM file.
    pub(super) fn from_pem(pem: &[u8]) -> Result<PublicKey, String> {
        let mut keys = SubjectPublicKeyInfoDer::pem_slice_iter(pem);
        let key = match keys.next() {
            Some(key) => PublicKey(key.map_err(|error| format!("it is no PEM: {error}"))?),
            None => return Err("it has no `PUBLIC KEY` in PEM".to_owned()),
        };
        if keys.next().is_some() {
            return Err("it has more than one key".to_owned());
        }
        // Every algorithm looks at the kind of the key before it looks at the signature.
        if ALGORITHMS.iter().all(|algorithm| key.verify_by(*algorithm, b"", b"") == Outcome::OtherKey) {
            return Err("only ECDSA on P-256 and P-384, Ed25519 and RSA keys are supported".to_owned());
        }
        Ok(key)
    }

    /// Whether this key made `signature` over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        ALGORITHMS.iter().any(|algorithm| self.verify_by(*algorithm, message, signature) == Outcome::Verified)
    }

    fn verify_by(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Outcome {
        let result = RawPublicKeyEntity::try_from(&self.0)
            .and_then(|key| key.verify_signature(algorithm, message, signature));
        match result {
            Ok(()) => Outcome::Verified,
            Err(Error::InvalidSignatureForPublicKey) => Outcome::Bad,
            Err(_) => Outcome::OtherKey,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Verified,
    Bad,
    /// The key is of another kind, or malformed.
    OtherKey,
}

#[cfg(test)]
mod tests {
    use super::super::testing::openssl;
    use super::*;

    #[test]
    fn keys_of_every_kind_verify_what_they_signed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let message = directory.path().join("message");
        std::fs::write(&message, b"the message").unwrap();
        let message = message.to_str().unwrap();
        let mut verified = Vec::new();
        for (name, generate, hash) in [
            ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], "-sha256"),
            ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "-sha256"),
            ("p384b", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], "-sha384"),
            ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "-sha256"),
            ("ed25519", &["-algorithm", "ED25519"], ""),
        ] {
            let private = directory.path().join(name).display().to_string();
            openssl(&[&["genpkey", "-out", &private], generate].concat());
            let pem = openssl(&["pkey", "-in", &private, "-pubout"]);
            let signature = if hash.is_empty() {
                openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &private, "-in", message])
            } else {
                openssl(&["dgst", hash, "-sign", &private, message])
            };
            let key = PublicKey::from_pem(&pem).unwrap();
            assert!(key.verifies(b"the message", &signature), "{name}");
            assert!(!key.verifies(b"the messagf", &signature), "{name}");
            assert!(!key.verifies(b"the message", &signature[1..]), "{name}");
            assert!(!key.verifies(b"the message", b""), "{name}");
            verified.push((key, signature, pem));
        }
        for (at, (key, ..)) in verified.iter().enumerate() {
            for (other, (_, signature, _)) in verified.iter().enumerate() {
                assert_eq!(key.verifies(b"the message", signature), at == other);
            }
        }
        let two = [&verified[0].2[..], &verified[1].2[..]].concat();
        assert!(PublicKey::from_pem(&two).is_err_and(|reason| reason.contains("more than one")));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let private = directory.path().join("key").display().to_string();
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", &private]);
        let p521 = openssl(&["pkey", "-in", &private, "-pubout"]);
        let secret = std::fs::read(&private).unwrap();
        let cut = &p521[..p521.len() / 2];
        let nonsense = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for bad in [&p521[..], &secret, cut, b"", b"nonsense", nonsense] {
            assert!(PublicKey::from_pem(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
