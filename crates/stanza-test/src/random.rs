//! Moments and choices of a test that are others each time, and can be had again.

/// Numbers that look random, told by a seed (xorshift): `STANZA_SEED`, or one of the clock's.
#[derive(Debug)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From the beginning.
    ///
    /// # Panics
    /// When the clock stands before 1970.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is another one each time")]
    pub fn new() -> Random {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
        let chance = u64::from(time.subsec_nanos()) << 16 | u64::from(std::process::id());
        let seed = number("STANZA_SEED", chance) | 1;
        Random { seed, state: seed }
    }

    /// What to set `STANZA_SEED` to, to see the same again.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// One of the numbers below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// So many bytes, which cannot be compressed.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

/// What a variable of the environment says, how many of something a test is to try.
#[must_use]
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
