//! DNS messages for a container's resolver: from the container, and from servers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use stanza_network::dns::{ResolverNetwork, try_messages};
use stanza_network::names::Names;
use stanza_spec::ContainerId;

use crate::random::Random;
use crate::{Outcome, Source, bytes};

/// `web. A`, with 1,232 bytes wanted.
const PLAIN: &[u8] =
    b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x03web\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\x80\0\0\0";
/// `2.0.77.10.in-addr.arpa. PTR`.
const REVERSE: &[u8] =
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x012\x010\x0277\x0210\x07in-addr\x04arpa\0\0\x0c\0\x01";
/// `example.com. HTTPS`, with a cookie.
const OTHER: &[u8] = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\x01\x07example\x03com\0\0\x41\0\x01\0\0\x29\x10\0\0\0\0\0\0\x0c\0\x0a\0\x08abcdefgh";
/// `all.one. ANY`: more than fits.
const MANY: &[u8] = b"\x77\x77\x01\0\0\x01\0\0\0\0\0\0\x03all\x03one\0\0\xff\0\x01";
/// An answer to the first, with a compressed name.
const ANSWER: &[u8] =
    b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03web\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\x4d\0\x02";

const SEEDS: [&[u8]; 5] = [PLAIN, REVERSE, OTHER, MANY, ANSWER];

/// Makes messages.
pub(crate) struct Messages;

impl Source for Messages {
    fn seed(&self, number: usize) -> Option<Vec<u8>> {
        SEEDS.get(number).map(|seed| seed.to_vec())
    }

    fn mutated(&mut self, random: &mut Random) -> Vec<u8> {
        let mut message = random.one(&SEEDS).to_vec();
        let donor = *random.one(&SEEDS);
        if random.once_in(2) {
            // One place: most of it is still a message.
            let at = random.below(message.len());
            message[at] = u8::try_from(random.below(256)).unwrap_or(0);
        } else {
            bytes::change(&mut message, donor, random);
        }
        message
    }
}

/// A network with names.
pub(crate) struct Target {
    networks: Vec<ResolverNetwork>,
    _directory: tempfile::TempDir,
}

impl Target {
    pub(crate) fn new() -> Result<Target, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path: PathBuf = directory.path().join("one");
        fill(&path).map_err(|error| error.to_string())?;
        let (id, name) = ("1".to_owned(), "one".to_owned());
        let network = ResolverNetwork { id, name, directory: path, living: None };
        Ok(Target { networks: vec![network], _directory: directory })
    }

    pub(crate) fn run(&mut self, message: &[u8]) -> Outcome {
        let mut taken = false;
        // The message as a query, and as the answer to each.
        for query in SEEDS.iter().copied().chain([message]) {
            let (answer, is_answer) = try_messages(&self.networks, query, message);
            if is_answer && (message.len() < 12 || message[2] & 0x80 == 0) {
                return Err("a query is taken for an answer".to_owned());
            }
            if query != message {
                continue;
            }
            let Some(answer) = answer else { continue };
            if answer.len() < 12 || answer[..2] != message[..2] || answer[2] & 0x80 == 0 {
                return Err(format!("no answer to it: {answer:?}"));
            }
            if answer.len() > 65_535 || answer[6..8] != [0, 0] && answer[3] & 0x0f != 0 {
                return Err(format!("an answer that contradicts itself: {answer:?}"));
            }
            taken = answer[3] & 0x0f == 0;
        }
        Ok(taken)
    }
}

fn fill(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let names = Names::create(directory)?;
    for number in 0..60 {
        let id = ContainerId::from_random([number; 32]);
        let addresses: [IpAddr; 2] = [[10, 77, 0, number + 2].into(), format!("fd00::{number:x}").parse()?];
        let own = if number == 0 { "web".to_owned() } else { format!("n{number}") };
        names.announce(&id, &[own, "all".to_owned()], &addresses)?;
    }
    Ok(())
}
