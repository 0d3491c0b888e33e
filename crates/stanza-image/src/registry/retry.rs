//! How often a request is repeated, and how long the pauses are.

use std::time::Duration;

/// When to try again. The pauses grow twofold from `base`, with jitter, so that many clients do not come back at once.
#[derive(Clone, Copy)]
pub(crate) struct RetryPolicy {
    /// Tries in all, the first one included.
    pub(crate) tries: u32,
    /// The first pause.
    pub(crate) base: Duration,
    /// The longest pause that grows by itself.
    pub(crate) longest: Duration,
    /// The longest pause that a registry's `Retry-After` gets.
    pub(crate) longest_asked: Duration,
    /// How to wait.
    pub(crate) sleep: fn(Duration),
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            tries: 5,
            base: Duration::from_millis(500),
            longest: Duration::from_secs(8),
            longest_asked: Duration::from_secs(60),
            sleep: std::thread::sleep,
        }
    }
}

impl RetryPolicy {
    /// The pause after try number `attempt` (from 1): half of it certain, half of it chance.
    pub(crate) fn delay(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = self.base.saturating_mul(factor).min(self.longest);
        let mut random = [0_u8; 2];
        // Without randomness the pause is the longest one: still right.
        if rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
            random = [0xff; 2];
        }
        whole / 2 + (whole / 2).mul_f64(f64::from(u16::from_ne_bytes(random)) / f64::from(u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let policy = RetryPolicy::default();
        for (attempt, whole) in [(1, 500), (2, 1_000), (3, 2_000), (10, 8_000), (60, 8_000)] {
            let delay = policy.delay(attempt);
            assert!(delay >= Duration::from_millis(whole / 2) && delay <= Duration::from_millis(whole));
        }
    }
}
