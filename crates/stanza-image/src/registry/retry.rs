//! How often a request is repeated, and how long the pauses are.

use std::time::Duration;

use stanza_spec::Instant;

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

/// The pause that an answer asks for in `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3). A date counts
/// from the answer's own `Date`, so that no two clocks need to agree; without one, from our clock.
pub(super) fn retry_after<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Duration> {
    let text = header("retry-after")?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let until = http_date(text)?;
    let now = header("date").and_then(http_date).unwrap_or_else(Instant::now);
    Some(Duration::from_secs(until.seconds_since(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers may write (RFC 9110, section 5.6.7). The day's name is
/// not checked.
fn http_date(text: &str) -> Option<Instant> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.trim().split(' ').collect();
    let &[_, day, month, year, clock, "GMT"] = parts.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    if day.len() != 2 || clock.len() != 8 {
        return None;
    }
    Instant::parse_rfc3339(&format!("{year}-{month:02}-{day}T{clock}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&str, &str)]) -> Option<Duration> {
        retry_after(|name| headers.iter().find(|(own, _)| *own == name).map(|(_, value)| *value))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked(&[("retry-after", " 7 ")]), seconds(7));
        assert_eq!(asked(&[("retry-after", "99999999999999999999999")]), seconds(u64::MAX));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (until, expected) in [
            ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
            ("Sun, 06 Nov 1994 08:49:30 GMT", 0),
            ("Mon, 07 Nov 1994 00:00:00 GMT", 54_623),
            ("Wed, 01 Mar 1995 08:49:37 GMT", 115 * 86_400),
        ] {
            assert_eq!(asked(&[("retry-after", until), date]), seconds(expected), "{until}");
        }
        // Long past by any clock.
        assert_eq!(asked(&[("retry-after", date.1)]), seconds(0));
        for nonsense in [
            "",
            "-1",
            "1.5",
            "soon",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(asked(&[("retry-after", nonsense), date]), None, "{nonsense}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let policy = RetryPolicy::default();
        for (attempt, whole) in [(1, 500), (2, 1_000), (3, 2_000), (10, 8_000), (60, 8_000)] {
            let delay = policy.delay(attempt);
            assert!(delay >= Duration::from_millis(whole / 2) && delay <= Duration::from_millis(whole));
        }
    }
}
