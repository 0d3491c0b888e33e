//! Messages that `gpg` signs, in a home of its own.

use std::process::Command;

use super::*;

/// A home of `gpg` with secret keys; its agent ends with it.
struct Gpg(tempfile::TempDir);

impl Gpg {
    fn new() -> Gpg {
        // A socket's path is short.
        Gpg(tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap())
    }

    fn run(&self, args: &[&str]) -> Vec<u8> {
        let output = Command::new("gpg")
            .args(["--batch", "--quiet", "--passphrase", "", "--homedir"])
            .arg(self.0.path())
            .args(args)
            .output()
            .unwrap();
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key that lives for ever, or (`1d`) has died years ago.
    fn key(&self, name: &str, expiry: &str) {
        let past: &[&str] = if expiry == "0" { &[] } else { &["--faked-system-time", "20200101T000000"] };
        self.run(&[past, &["--quick-gen-key", name, "ed25519", "sign", expiry]].concat());
    }

    fn keyring(&self, name: &str) -> Keyring {
        Keyring::new(&self.run(&["--export", name])).unwrap()
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn signed(&self, options: &[&str], message: &[u8]) -> Vec<u8> {
        let path = self.file("message", message);
        self.run(&[options, &["--output", "-", "--sign", &path]].concat())
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let ended =
            Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
        assert!(ended.unwrap().success());
    }
}

fn verdict(keyrings: &[Keyring], message: &[u8]) -> Verdict {
    verify(keyrings, message).unwrap()
}

fn refused(keyrings: &[Keyring], message: &[u8], reason: &str) {
    let told = verdict(keyrings, message).unwrap_err();
    assert!(told.contains(reason), "{told}");
}

#[test]
fn what_a_known_key_signed_is_what_comes_out() {
    let gpg = Gpg::new();
    gpg.key("a@x", "0");
    gpg.key("b@x", "0");
    let message = gpg.signed(&["-u", "a@x"], b"the message");
    assert_eq!(verdict(&[gpg.keyring("a@x")], &message), Ok(b"the message".to_vec()));
    assert_eq!(verdict(&[gpg.keyring("b@x"), gpg.keyring("a@x")], &message), Ok(b"the message".to_vec()));
    refused(&[gpg.keyring("b@x")], &message, "is none of the policy's");
    let armoured = gpg.run(&["--armor", "--export", "b@x"]);
    let both = [&armoured[..], b"\ntext between\n", &gpg.run(&["--armor", "--export", "a@x"])].concat();
    assert_eq!(verdict(&[Keyring::new(&both).unwrap()], &message), Ok(b"the message".to_vec()));
}

#[test]
fn a_message_that_was_changed_is_refused() {
    let gpg = Gpg::new();
    gpg.key("a@x", "0");
    let keyring = [gpg.keyring("a@x")];
    let message = gpg.signed(&["-u", "a@x", "--compress-algo", "none"], b"the message");
    let at = message.windows(11).position(|part| part == b"the message").unwrap();
    let mut changed = message.clone();
    changed[at] = b'T';
    refused(&keyring, &changed, "is wrong");
    for cut in [1, message.len() / 2, message.len() - 1] {
        assert!(verdict(&keyring, &message[..cut]).is_err(), "{cut}");
    }
    refused(&keyring, b"", "no OpenPGP message");
    refused(&keyring, b"\x00sigstore-json", "no OpenPGP message");
    let path = gpg.file("text", b"the message");
    refused(&keyring, &gpg.run(&["-u", "a@x", "--output", "-", "--clearsign", &path]), "no OpenPGP message");
    assert!(verdict(&keyring, &gpg.run(&["-u", "a@x", "--output", "-", "--detach-sign", &path])).is_err());
    let unsigned = gpg.run(&["--output", "-", "--store", &path]);
    assert!(verdict(&keyring, &unsigned).is_err());
    // Two messages in one, each of them good, and a good one after one without a signature.
    assert!(verdict(&keyring, &[&message[..], &message].concat()).is_err());
    assert!(verdict(&keyring, &[&unsigned[..], &message].concat()).is_err());
}

#[test]
fn two_signatures_over_one_message_are_not_one() {
    let gpg = Gpg::new();
    gpg.key("a@x", "0");
    gpg.key("b@x", "0");
    let message = gpg.signed(&["-u", "a@x", "-u", "b@x"], b"the message");
    assert!(verdict(&[gpg.keyring("a@x"), gpg.keyring("b@x")], &message).is_err());
}

#[test]
fn keys_and_signatures_that_ended_count_no_more() {
    let gpg = Gpg::new();
    gpg.key("old@x", "1d");
    let message = gpg.signed(&["-u", "old@x", "--faked-system-time", "20200101T000100"], b"the message");
    refused(&[gpg.keyring("old@x")], &message, "has expired");
    gpg.key("a@x", "0");
    let message = gpg.signed(&["-u", "a@x"], b"the message");
    let listed = String::from_utf8(gpg.run(&["--list-keys", "--with-colons", "a@x"])).unwrap();
    let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let fingerprint = fingerprint.trim_end_matches(':');
    // Written by `gpg` with each key, behind a colon so that nobody imports it unwillingly.
    let revocation = gpg.0.path().join(format!("openpgp-revocs.d/{fingerprint}.rev"));
    let text = std::fs::read_to_string(revocation).unwrap().replace(":-----BEGIN", "-----BEGIN");
    let revocation = gpg.file("revocation", text.as_bytes());
    assert!(verdict(&[gpg.keyring("a@x")], &message).is_ok());
    gpg.run(&["--import", &revocation]);
    refused(&[gpg.keyring("a@x")], &message, "was revoked");
}

#[test]
fn a_message_is_bounded_when_it_is_packed() {
    let gpg = Gpg::new();
    gpg.key("a@x", "0");
    let message = gpg.signed(&["-u", "a@x"], &vec![b'x'; 64 * 1024 * 1024]);
    assert!(message.len() < MAX_SIGNATURE);
    refused(&[gpg.keyring("a@x")], &message, "too long to verify, or holds too much");
}

#[test]
fn what_is_no_keyring_holds_no_key() {
    let gpg = Gpg::new();
    gpg.key("a@x", "0");
    let message = gpg.signed(&["-u", "a@x"], b"the message");
    assert!(Keyring::new(b"").is_err());
    assert!(Keyring::new(ARMOR_BEGIN.as_bytes()).is_err_and(|reason| reason.contains("no end")));
    let damaged = format!("{ARMOR_BEGIN}\n\n???\n{ARMOR_END}\n");
    assert!(Keyring::new(damaged.as_bytes()).is_err_and(|reason| reason.contains("damaged")));
    assert!(verdict(&[Keyring::new(b"nonsense").unwrap()], &message).is_err());
}

#[test]
fn only_the_findings_of_one_good_signature_are_good() {
    let good = "[GNUPG:] PLAINTEXT 62 1 p\n[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG K a\n[GNUPG:] VALIDSIG K\n";
    assert_eq!(judge(good, true), Ok(()));
    assert!(judge(good, false).is_err());
    for line in good.lines() {
        assert!(judge(&good.replacen(line, "", 1), true).is_err(), "without {line}");
        assert!(judge(&format!("{good}{line}\n"), true).is_err(), "twice {line}");
    }
    for bad in ["BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NO_PUBKEY", "NODATA"] {
        assert!(judge(&format!("{good}[GNUPG:] {bad} K\n"), true).is_err(), "{bad}");
    }
}
