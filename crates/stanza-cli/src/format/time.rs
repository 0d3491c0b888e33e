//! Points in time as listings show them, in UTC.

use stanza_spec::Instant;
use stanza_spec::units::human_duration;

/// `2025-01-31 12:00:00 +0000 UTC` of an RFC 3339 text; empty when it is none.
pub(crate) fn listed(text: &str) -> String {
    let Ok(instant) = Instant::parse_rfc3339(text) else { return String::new() };
    let normal = instant.rfc3339();
    match (normal.get(..10), normal.get(11..19)) {
        (Some(date), Some(clock)) => format!("{date} {clock} +0000 UTC"),
        _ => String::new(),
    }
}

/// `3 minutes` of the time since an RFC 3339 text; `N/A` when it is none.
pub(crate) fn since(text: &str, now: Instant) -> String {
    match Instant::parse_rfc3339(text) {
        Ok(then) => human_duration(now.seconds_since(then)),
        Err(_) => "N/A".to_owned(),
    }
}

/// `3 minutes ago`.
pub(crate) fn ago(text: &str, now: Instant) -> String {
    match since(text, now) {
        none if none == "N/A" => none,
        length => format!("{length} ago"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_docker_shows_them() {
        let now = Instant::parse_rfc3339("2025-01-31T12:03:00Z").unwrap();
        assert_eq!(listed("2025-01-31T13:00:00.5+01:00"), "2025-01-31 12:00:00 +0000 UTC");
        assert_eq!(ago("2025-01-31T12:00:00.5Z", now), "2 minutes ago");
        assert_eq!((listed("x"), ago("", now)), (String::new(), "N/A".to_owned()));
        // A clock that was set back makes no negative time.
        assert_eq!(ago("2026-01-31T12:00:00Z", now), "Less than a second ago");
    }
}
