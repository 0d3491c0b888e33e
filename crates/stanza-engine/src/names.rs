//! Invented container names, `adjective_surname`, and random ids.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use stanza_spec::ContainerId;

/// How people in a good room are.
const ADJECTIVES: &[&str] = &[
    "able", "agile", "airy", "alert", "ample", "apt", "ardent", "bold", "brave", "bright", "brisk", "calm",
    "candid", "careful", "cheerful", "civil", "clear", "clever", "cosy", "curious", "daring", "deft", "determined",
    "devoted", "diligent", "direct", "eager", "earnest", "easy", "elated", "elegant", "eloquent", "even", "exact",
    "fair", "faithful", "fearless", "festive", "firm", "fond", "frank", "free", "fresh", "friendly", "frugal",
    "gallant", "generous", "gentle", "glad", "golden", "good", "graceful", "grateful", "happy", "hardy", "hearty",
    "honest", "hopeful", "humble", "jolly", "jovial", "joyful", "just", "keen", "kind", "lively", "loyal", "lucid",
    "lucky", "mellow", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "peaceful", "placid",
    "playful", "polite", "proud", "prudent", "quick", "quiet", "radiant", "ready", "serene", "sharp", "sincere",
    "smart", "snug", "sober", "steady", "sunny", "swift", "tender", "thrifty", "tidy", "tranquil", "trusty", "upbeat",
    "vivid", "warm", "wise", "witty", "zealous", "zesty",
];

/// People who built, measured, wrote or computed.
const SURNAMES: &[&str] = &[
    "abel", "adams", "agnesi", "alberti", "allen", "ampere", "apgar", "archimedes", "aristarchus", "babbage",
    "backus", "banach", "banks", "bardeen", "bartik", "bashkara", "bassi", "bell", "bernoulli", "blackwell", "boole",
    "borg", "bose", "boyle", "brahe", "bramante", "brunelleschi", "brunel", "brown", "buck", "cajori", "cannon",
    "cantor", "cardano", "carson", "cartan", "cauchy", "cavendish", "cerf", "chandrasekhar", "chatelet", "church",
    "clarke", "codd", "cori", "corbato", "coulomb", "cray", "curie", "dahl", "dalton", "darwin", "daubechies", "davy",
    "dedekind", "descartes", "diesel", "diffie", "dijkstra", "dirac", "diophantus", "doppler", "easley", "eckert",
    "edison", "eiffel", "einstein", "elion", "engelbart", "erdos", "euclid", "euler", "faraday", "fermat", "fermi",
    "feynman", "fibonacci", "fourier", "franklin", "fresnel", "galileo", "galois", "gauss", "gilbert", "godel",
    "goldberg", "goldwasser", "goodall", "gosling", "gray", "hadamard", "haibt", "halley", "hamilton", "hamming",
    "harvey", "hawking", "heisenberg", "hellman", "helmholtz", "hermite", "herschel", "hertz", "hilbert", "hoare",
    "hodgkin", "holberton", "hooke", "hopper", "hubble", "huffman", "huygens", "hypatia", "jacobi", "jacquard",
    "jemison", "jennings", "johnson", "joliot", "jordan", "joule", "julia", "kahan", "kalman", "kapitsa", "keller",
    "kelvin", "kepler", "khayyam", "kilby", "klein", "knuth", "kolmogorov", "kovalevskaya", "kummer", "lagrange",
    "lalande", "lamarr", "lamport", "landau", "laplace", "leavitt", "lebesgue", "legendre", "leibniz", "lichterman",
    "linnaeus", "lipschitz", "lister", "lovelace", "lumiere", "markov", "maxwell", "mayer", "mccarthy", "mcclintock",
    "meitner", "mendel", "mendeleev", "mercator", "metcalfe", "mill", "milner", "minkowski", "mirzakhani", "moebius",
    "montessori", "moore", "morse", "napier", "nash", "naur", "newton", "nightingale", "nobel", "noether", "nygaard",
    "ohm", "ostwald", "palladio", "panini", "pappus", "pare", "pascal", "pasteur", "payne", "peano", "perlman",
    "piranesi", "planck", "poincare", "poisson", "postel", "ptolemy", "pythagoras", "ramanujan", "rayleigh",
    "rhodes", "ride", "riemann", "ritchie", "rosen", "rubin", "rutherford", "sammet", "schrodinger", "shannon",
    "shaw", "shirley", "simon", "snyder", "soane", "spence", "stokes", "stonebraker", "sutherland", "swirles",
    "tarski", "taussig", "taylor", "telford", "tesla", "tharp", "thales", "thompson", "torvalds", "turing", "vaughan",
    "viete", "vitruvius", "volta", "watt", "weierstrass", "weyl", "wiener", "wilkes", "wilkinson", "wing", "wirth",
    "wren", "wright", "wu", "yalow", "yonath", "zuse",
];

/// Fills `bytes` from the kernel's random numbers.
fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A fresh id.
pub(crate) fn container_id() -> io::Result<ContainerId> {
    let mut bytes = [0u8; 32];
    random(&mut bytes)?;
    Ok(ContainerId::from_random(bytes))
}

/// The name of an anonymous volume: 64 random hex digits.
pub(crate) fn volume_name() -> io::Result<String> {
    container_id().map(|id| id.as_str().to_owned())
}

/// The name that `id` suggests on the given attempt, from 0. The id is random, so it is the source of randomness:
/// no further system call. After three attempts a number is put behind, so that a full house still finds names.
pub(crate) fn suggest(id: &ContainerId, attempt: usize) -> String {
    let digits = id.as_str();
    let from = (attempt % 7) * 8;
    let number = digits.get(from..from + 8).and_then(|part| usize::from_str_radix(part, 16).ok()).unwrap_or(attempt);
    let adjective = ADJECTIVES[number % ADJECTIVES.len()];
    let surname = SURNAMES[number / ADJECTIVES.len() % SURNAMES.len()];
    if attempt < 3 { format!("{adjective}_{surname}") } else { format!("{adjective}_{surname}{}", attempt - 2) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_invented_name_is_legal_and_lists_hold_no_word_twice() {
        assert!(ADJECTIVES.len() >= 100 && SURNAMES.len() >= 225, "{} {}", ADJECTIVES.len(), SURNAMES.len());
        for list in [ADJECTIVES, SURNAMES] {
            assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
            assert!(list.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
        }
        let id = container_id().unwrap();
        for attempt in 0..20 {
            assert!(stanza_spec::is_valid_container_name(&suggest(&id, attempt)));
        }
    }

    #[test]
    fn attempts_differ() {
        let id = container_id().unwrap();
        let names: BTreeSet<String> = (0..3).map(|attempt| suggest(&id, attempt)).collect();
        assert!(names.len() >= 2, "{names:?}");
    }
}
