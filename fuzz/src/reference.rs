//! Names of images, against the expressions of the distribution project (`reference/regexp.go`, `normalize.go`).

use regex::Regex;
use stanza_spec::Reference;

use crate::random::Random;
use crate::{Outcome, Source};

const SEEDS: [&str; 16] = [
    "busybox",
    "busybox:1.36",
    "library/busybox",
    "docker.io/library/busybox:latest",
    "index.docker.io/a/b",
    "localhost/x",
    "localhost:5000/deep/er/x__y:v1.2-3_4",
    "127.0.0.1:5000/room:1",
    "[::1]:5000/a",
    "Registry.Example.com/a-b/c.d:T_ag",
    "quay.io/a/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "a:b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "a@sha512:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "a---b",
    "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];

const PIECES: [&str; 34] = [
    "/",
    ":",
    "@",
    ".",
    "-",
    "_",
    "__",
    "--",
    "..",
    "a",
    "b1",
    "Z",
    "localhost",
    "docker.io",
    "index.docker.io",
    "library",
    "latest",
    "sha256:",
    "5000",
    "65536",
    "0",
    "[",
    "]",
    "::1",
    "fe80::1",
    "\u{e9}",
    "\u{130}",
    "\n",
    "\0",
    " ",
    "\u{1b}[31m",
    "%2f",
    "\\",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
];

/// Makes names.
pub(crate) struct Names;

impl Source for Names {
    fn seed(&self, number: usize) -> Option<Vec<u8>> {
        SEEDS.get(number).map(|seed| seed.as_bytes().to_vec())
    }

    fn mutated(&mut self, random: &mut Random) -> Vec<u8> {
        if random.once_in(3) {
            return (0..=random.below(9)).flat_map(|_| random.one(&PIECES).bytes()).collect();
        }
        let mut letters: Vec<char> = random.one(&SEEDS).chars().collect();
        for _ in 0..=random.below(3) {
            let at = random.below(letters.len() + 1);
            let end = (at + random.below(3)).min(letters.len());
            let new = random.one(&PIECES).repeat(if random.once_in(30) { 130 } else { 1 });
            letters.splice(at..end, new.chars());
        }
        letters.iter().collect::<String>().into_bytes()
    }
}

/// The expressions.
pub(crate) struct Target {
    reference: Regex,
}

impl Target {
    pub(crate) fn new() -> Result<Target, String> {
        let component = "[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*";
        let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
        let domain = format!(r"(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
        let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
        let whole = format!(
            r"\A(?<domain>{domain})/(?<path>{component}(?:/{component})*)(?::(?<tag>[0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}}))?(?:@(?<digest>{digest}))?\z"
        );
        Ok(Target { reference: Regex::new(&whole).map_err(|error| error.to_string())? })
    }

    /// What the name means by the project's rules: domain, path, tag, digest.
    fn expected(&self, text: &str) -> Option<(String, String, Option<String>, Option<String>)> {
        let (domain, rest) = match text.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
            {
                (first, rest)
            }
            _ => ("docker.io", text),
        };
        let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
        let rest = if domain == "docker.io" && !rest.contains('/') {
            format!("library/{rest}")
        } else {
            rest.to_owned()
        };
        let whole = format!("{domain}/{rest}");
        let found = self.reference.captures(&whole)?;
        let part = |name| found.name(name).map(|part| part.as_str().to_owned());
        let (domain, path, tag, digest) = (part("domain")?, part("path")?, part("tag"), part("digest"));
        if domain.len() + 1 + path.len() > 255 {
            return None;
        }
        // Digests that are known and whole; ports and addresses that there are: the expressions look at letters only.
        if let Some(digest) = &digest {
            let (algorithm, hex) = digest.split_once(':')?;
            let length = match algorithm {
                "sha256" => 64,
                "sha512" => 128,
                _ => return None,
            };
            if hex.len() != length || hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return None;
            }
        }
        let port = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => {
                address.parse::<std::net::Ipv6Addr>().ok()?;
                port.strip_prefix(':')
            }
            None => domain.split_once(':').map(|(_, port)| port),
        };
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return None;
        }
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Some((domain, path, tag, digest))
    }

    pub(crate) fn run(&mut self, text: &[u8]) -> Outcome {
        let Ok(text) = std::str::from_utf8(text) else { return Ok(false) };
        let expected = self.expected(text);
        let reference = match text.parse::<Reference>() {
            Ok(reference) => reference,
            Err(error) => {
                if error.to_string().chars().any(char::is_control) {
                    return Err(format!("control characters in the error: {error:?}"));
                }
                return match expected {
                    Some(expected) => Err(format!("`{text}` is refused ({error}), and is {expected:?}")),
                    None => Ok(false),
                };
            }
        };
        let found = (
            reference.domain().to_owned(),
            reference.path().to_owned(),
            reference.tag().map(str::to_owned),
            reference.digest().map(ToString::to_string),
        );
        if Some(&found) != expected.as_ref() {
            return Err(format!("`{text}` is read as {found:?}, and is {expected:?}"));
        }
        for written in [reference.to_string(), reference.familiar()] {
            if written.parse().as_ref() != Ok(&reference) {
                return Err(format!("`{text}` is written as `{written}`, which is something else"));
            }
        }
        Ok(true)
    }
}
