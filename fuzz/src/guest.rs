//! The conversation with a virtual machine's guest: what a guest may send its host, and a host its guest.

use stanza_agent::fuzzing::{HostSide, guest_side};
use stanza_agent::wire::MAX_DATA;
use stanza_agent::{ExecPlan, ProtocolError};

use crate::random::Random;
use crate::{Outcome, Source, bytes};

/// Both sides' words: they are mixed, as a hostile side would.
const NOTICES: [&str; 12] = [
    r#"{"Hello":{"protocol":1,"agent":"0.1.0","kernel":"6.1.0"}}"#,
    r#"{"Hello":{"protocol":2}}"#,
    r#""Configured""#,
    r#"{"NotConfigured":{"message":"no","kind":"internal","hint":null}}"#,
    r#"{"Started":{"task":1,"pid":2}}"#,
    r#"{"Started":{"task":2,"pid":-1}}"#,
    r#"{"Started":{"task":4,"pid":0}}"#,
    r#"{"Failed":{"task":3,"refusal":{"message":"m","kind":"not-found","hint":"h"}}}"#,
    r#"{"Exited":{"task":1,"status":{"code":0},"oom_killed":false}}"#,
    r#"{"Exited":{"task":2,"status":{"signal":9},"oom_killed":true}}"#,
    r#"{"Updated":null}"#,
    r#"{"Stats":{"Ok":{"container":{"cpu":null,"memory":null,"pids":null,"io":null},"memory_total":1,"memory_available":1}}}"#,
];

const REQUESTS: [&str; 8] = [
    r#"{"Hello":{"protocol":1}}"#,
    r#"{"Configure":{"entropy":"00ff","clock":[1,2],"hostname":"h","machine_id":null,"root":{"Overlay":{"lower":{"serial":"s","file_system":"erofs"},"upper":{"Memory":5}}},"shares":[],"disks":[],"interfaces":[{"mac":"02:00:00:00:00:01","name":"eth0","mtu":1500,"addresses":[["10.0.0.2",24]],"routes":[{"to":["0.0.0.0",0],"gateway":"10.0.0.1"}]}],"sysctls":{"a":"b"},"dns_relay":true}}"#,
    r#"{"Create":{"task":1,"plan":{"spec":{"ociVersion":"1.2.0"},"filter":"00","files":[],"tty":true,"console_size":[1,2],"open_stdin":true}}}"#,
    r#"{"Exec":{"task":2,"plan":{"process":{"user":{"uid":0,"gid":0},"cwd":"/","args":["true"],"execCPUAffinity":{"initial":"0-1"}},"filter":null,"tty":false,"console_size":null,"open_stdin":false}}}"#,
    r#"{"Dial":{"task":3,"address":{"tcp":"127.0.0.1:80"}}}"#,
    r#"{"Signal":{"task":1,"signal":9,"all":true}}"#,
    r#"{"Update":{"resources":{"memory":{"limit":1}}}}"#,
    r#""Shutdown""#,
];

const EXEC: &str = r#"{"process":{"user":{"uid":0,"gid":0},"cwd":"/","args":["true"]},"filter":null,"tty":false,"console_size":null,"open_stdin":true}"#;

fn frame(kind: u8, number: u32, length: Option<u32>, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 0, 0];
    frame.extend_from_slice(&number.to_le_bytes());
    let length = length.unwrap_or_else(|| u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

fn message(text: &str) -> Vec<u8> {
    frame(b'm', 0, None, text.as_bytes())
}

/// A stream of a task that there is, mostly.
fn number(random: &mut Random) -> u32 {
    match random.below(10) {
        0 => u32::try_from(random.next() >> 32).unwrap_or(0),
        _ => u32::try_from(random.below(24)).unwrap_or(0),
    }
}

fn any_frame(random: &mut Random, words: &[&str]) -> Vec<u8> {
    match random.below(9) {
        0..4 => message(random.one::<&str>(words)),
        4 | 5 => {
            let size = if random.once_in(4) { random.below(MAX_DATA) } else { random.below(20) };
            frame(b'd', number(random), None, &vec![b'x'; size])
        }
        6 => frame(b'e', number(random), None, b""),
        7 => {
            let count = u32::try_from(random.next() >> (32 + random.below(32))).unwrap_or(0);
            frame(b'c', number(random), None, &count.to_le_bytes())
        }
        _ => {
            let kind = *random.one(b"qam?");
            let length = random.once_in(3).then(|| u32::try_from(random.next() >> 32).unwrap_or(0));
            frame(kind, number(random), length, &[7; 20])
        }
    }
}

/// Makes conversations.
pub(crate) struct Conversations {
    words: &'static [&'static str],
}

impl Conversations {
    pub(crate) fn of_guest() -> Conversations {
        Conversations { words: &NOTICES }
    }

    pub(crate) fn of_host() -> Conversations {
        Conversations { words: &REQUESTS }
    }
}

impl Source for Conversations {
    fn seed(&self, number: usize) -> Option<Vec<u8>> {
        // The messages of a good conversation, as far as that many go.
        (number < self.words.len()).then(|| {
            let good = self.words.iter().filter(|word| !word.contains("\"protocol\":2"));
            good.take(number + 1).flat_map(|word| message(word)).collect()
        })
    }

    fn mutated(&mut self, random: &mut Random) -> Vec<u8> {
        let mut all = Vec::new();
        if !random.once_in(8) {
            all.extend(message(self.words[0]));
        }
        for _ in 0..random.below(30) {
            all.extend(any_frame(random, self.words));
        }
        if random.once_in(3) {
            let donor = any_frame(random, self.words);
            bytes::change(&mut all, &donor, random);
        }
        all
    }
}

/// The host's side: whatever comes, what it keeps and what it sends are bounded.
pub(crate) struct Host(ExecPlan);

impl Host {
    pub(crate) fn new() -> Result<Host, String> {
        serde_json::from_str(EXEC).map(Host).map_err(|error| error.to_string())
    }

    pub(crate) fn run(&self, bytes: &[u8]) -> Outcome {
        feed(&self.0, true, bytes, 1 + bytes.len() % 1009)?;
        let whole = feed(&self.0, false, bytes, bytes.len().max(1))?;
        // In which pieces they come makes no difference.
        let pieces = feed(&self.0, false, bytes, 1 + bytes.len() % 61)?;
        if whole != pieces {
            return Err(format!("{whole:?} as a whole, and {pieces:?} in pieces"));
        }
        Ok(whole.1.is_none())
    }
}

fn feed(
    exec: &ExecPlan,
    reacts: bool,
    bytes: &[u8],
    size: usize,
) -> Result<(usize, Option<ProtocolError>), String> {
    let mut host = HostSide::new(exec, reacts);
    let before = host.waiting();
    let mut events = 0;
    for piece in bytes.chunks(size) {
        match host.receive(piece) {
            Ok(count) => events += count,
            // The events before it in the same piece are lost with the connection.
            Err(error) => return Ok((0, Some(error))),
        }
        // An answer for each query, a greeting for each task, credit for what came.
        let most = before + bytes.len() * 4 + 1024;
        if host.waiting() > most {
            return Err(format!("{} bytes wait for a guest that sent {}", host.waiting(), bytes.len()));
        }
    }
    Ok((events, None))
}

/// The guest's side: whatever comes is read or refused.
pub(crate) fn run_guest(bytes: &[u8]) -> Outcome {
    Ok(guest_side(bytes).is_ok())
}
