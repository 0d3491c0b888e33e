//! A case as data, and what its function compares with.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use crate::runtime::Runtime;
use crate::scene::Scene;

/// What a case ends with: nothing, or why it failed.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    /// What it is about: the name of its file.
    pub(crate) area: &'static str,
    /// The behaviour that is expected.
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Scene) -> Outcome,
    pub(crate) needs: &'static [Need],
}

/// What must be there for a case to say something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// A peer that has the feature only from this version on.
    Since(&'static str, &'static str),
    /// A peer that does not have the feature in any version, and why.
    Lacks(&'static str, &'static str),
    /// A program of the machine.
    Program(&'static str),
    /// The ordinary user that rootless cases run as.
    Ordinary,
    /// A controller of cgroup version 1.
    Controller(&'static str),
}

/// Why a case is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The runtime does not have the feature, as its version tells.
    Feature(String),
    /// The machine cannot run the case.
    Machine(String),
}

impl Need {
    /// What is missing, if anything.
    pub(crate) fn missing(self, runtime: &Runtime) -> Option<Missing> {
        match self {
            Need::Since(peer, version) => (runtime.kind == peer && older(&runtime.version, version))
                .then(|| Missing::Feature(format!("{peer} has it since {version}"))),
            Need::Lacks(peer, why) => {
                (runtime.kind == peer).then(|| Missing::Feature(format!("{peer}: {why}")))
            }
            Need::Program(name) => {
                let there = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                    .iter()
                    .any(|directory| std::path::Path::new(directory).join(name).is_file());
                (!there).then(|| Missing::Machine(format!("no `{name}`")))
            }
            Need::Ordinary => crate::runtime::ordinary().err().map(Missing::Machine),
            Need::Controller(name) => (!std::path::Path::new("/sys/fs/cgroup").join(name).is_dir())
                .then(|| Missing::Machine(format!("no `{name}` controller of cgroup version 1"))),
        }
    }
}

/// Whether a version of dotted numbers is older than another.
fn older(version: &str, than: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let plain: String =
            text.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
        plain.split('.').map(|number| number.parse().unwrap_or(0)).collect()
    };
    numbers(version) < numbers(than)
}

/// Lists the cases of one file: `cases!("area": first, second [Need, Need], …)`.
macro_rules! cases {
    ($area:literal: $($name:ident $([$($need:expr),* $(,)?])?),* $(,)?) => {
        /// The cases of this file.
        pub(crate) const CASES: &[$crate::case::Case] = &[$($crate::case::Case {
            area: $area,
            name: stringify!($name),
            run: $name,
            needs: &[$($($need),*)?],
        }),*];
    };
}
pub(crate) use cases;

/// Why the case cannot say anything on this machine.
pub(crate) fn skip(reason: &str) -> String {
    format!("skipped: {reason}")
}

/// Both must be equal.
pub(crate) fn same<A: PartialEq<B> + Debug, B: Debug>(what: &str, seen: A, expected: B) -> Outcome {
    if seen == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, seen {seen:?}")) }
}

/// A condition must hold.
pub(crate) fn holds(what: &str, condition: bool) -> Outcome {
    if condition { Ok(()) } else { Err(format!("{what}: does not hold")) }
}

/// A text must contain another.
pub(crate) fn contains(what: &str, text: &str, part: &str) -> Outcome {
    if text.contains(part) { Ok(()) } else { Err(format!("{what}: expected `{part}` in {text:?}")) }
}

/// A text must contain one of several.
pub(crate) fn contains_any(what: &str, text: &str, parts: &[&str]) -> Outcome {
    if parts.iter().any(|part| text.contains(part)) {
        Ok(())
    } else {
        Err(format!("{what}: expected one of {parts:?} in {text:?}"))
    }
}

/// Polls until the probe gives something; at most ten seconds.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(format!("waited in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[cfg(test)]
mod tests {
    use super::older;

    #[test]
    fn versions_compare_by_number() {
        assert!(older("1.1.5+ds1", "1.2"));
        assert!(older("1.8.1", "1.20"));
        assert!(!older("1.2.0", "1.2"));
        assert!(!older("1.10", "1.9.3"));
    }
}
