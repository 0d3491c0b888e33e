//! Keys made at test time, by the tools that users make them with.

use std::process::Command;

/// Runs `openssl`; what it prints.
pub(super) fn openssl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
