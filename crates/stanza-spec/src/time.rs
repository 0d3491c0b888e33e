//! Points in time: RFC 3339 in UTC with nanoseconds, the form of Docker's API, of records and of logs, written and read here
//! without a calendar crate. Also what `--since` and `--until` accept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// A string that is not a time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a time: expected RFC 3339, seconds since 1970, or a duration as `10m`")]
pub struct TimeError(pub String);

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, negative before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub i128);

impl Instant {
    /// This moment.
    #[must_use]
    pub fn now() -> Instant {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Instant(i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))
    }

    /// `2026-01-02T03:04:05.000000006Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let nanos = self.0.rem_euclid(1_000_000_000);
        let seconds = i64::try_from(self.0.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
        let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }

    /// Reads RFC 3339, with or without fraction; the zone may be missing (then UTC) and so may the time of day.
    ///
    /// # Errors
    /// When `text` has another form or names a day or time that does not exist.
    pub fn parse_rfc3339(text: &str) -> Result<Instant, TimeError> {
        rfc3339(text).ok_or_else(|| TimeError(text.to_owned()))
    }

    /// Reads what `--since` and `--until` take: RFC 3339, seconds since 1970 with an optional fraction, or a length
    /// of time before `now`, as `1h30m`.
    ///
    /// # Errors
    /// When `text` is none of these.
    pub fn parse(text: &str, now: Instant) -> Result<Instant, TimeError> {
        if let Some(instant) = rfc3339(text).or_else(|| unix(text)) {
            return Ok(instant);
        }
        let ago = duration(text).ok_or_else(|| TimeError(text.to_owned()))?;
        Ok(Instant(now.0 - ago))
    }

    /// Whole seconds from `earlier` to `self`; zero when it is the later one.
    #[must_use]
    pub fn seconds_since(self, earlier: Instant) -> u64 {
        u64::try_from((self.0 - earlier.0) / 1_000_000_000).unwrap_or(0)
    }
}

/// Year, month and day of a day number counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms": years begin in March, eras have 400 years).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_index = (month + 9) % 12;
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn rfc3339(text: &str) -> Option<Instant> {
    let (date, clock) = match text.split_once(['T', 't', ' ']) {
        Some((date, clock)) => (date, Some(clock)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return None;
    }
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    let days = days_of(year, month, day);
    if civil(days) != (year, month, day) {
        return None;
    }
    let (seconds, nanos) = clock.map_or(Some((0, 0)), time_of_day)?;
    Some(Instant(i128::from(days * DAY + seconds) * 1_000_000_000 + i128::from(nanos)))
}

/// Seconds and nanoseconds of `hh:mm[:ss[.fff]][zone]`.
fn time_of_day(text: &str) -> Option<(i64, i64)> {
    let (clock, offset) = if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        (clock, 0)
    } else if let Some(at) = text.rfind(['+', '-']) {
        let (clock, zone) = text.split_at(at);
        let (hours, minutes) = zone[1..].split_once(':')?;
        let minutes = number(hours)? * 60 + number(minutes)?;
        (clock, if zone.starts_with('-') { -minutes * 60 } else { minutes * 60 })
    } else {
        (text, 0)
    };
    let mut parts = clock.split(':');
    let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
    let (second, nanos) = match parts.next() {
        Some(second) => match second.split_once('.') {
            Some((second, fraction)) => (number(second)?, fraction_nanos(fraction)?),
            None => (number(second)?, 0),
        },
        None => (0, 0),
    };
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((hour * 3600 + minute * 60 + second - offset, nanos))
}

fn fraction_nanos(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nine: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    number(&nine)
}

fn unix(text: &str) -> Option<Instant> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    Some(Instant(i128::from(number(whole)?) * 1_000_000_000 + i128::from(fraction_nanos(fraction)?)))
}

/// Nanoseconds of a duration in Go's notation: `1h30m`, `90s`, `1.5h`, `100ms`; also `d`.
fn duration(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total = 0i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
        total += i128::from(number(whole)?) * scale;
        total += i128::from(fraction_nanos(fraction)?) * scale / 1_000_000_000;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_798_761_599_999_999_999, "2026-12-31T23:59:59.999999999Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
        ] {
            assert_eq!(Instant(nanos).rfc3339(), text);
            assert_eq!(Instant::parse_rfc3339(text), Ok(Instant(nanos)));
        }
    }

    #[test]
    fn zones_and_short_forms_are_understood() {
        let expected = Instant::parse_rfc3339("2026-01-02T02:04:05Z").unwrap();
        for text in ["2026-01-02T03:04:05+01:00", "2026-01-01T21:34:05.0-04:30", "2026-01-02 02:04:05"] {
            assert_eq!(Instant::parse_rfc3339(text), Ok(expected), "{text}");
        }
        assert_eq!(Instant::parse_rfc3339("2026-01-02").unwrap().rfc3339(), "2026-01-02T00:00:00.000000000Z");
    }

    #[test]
    fn since_takes_unix_seconds_and_durations() {
        let now = Instant(10_000_000_000_000);
        assert_eq!(Instant::parse("1700000000.5", now), Ok(Instant(1_700_000_000_500_000_000)));
        assert_eq!(Instant::parse("1h30m", now), Ok(Instant(now.0 - 5_400_000_000_000)));
        assert_eq!(Instant::parse("1.5s", now), Ok(Instant(now.0 - 1_500_000_000)));
        for bad in ["", "yesterday", "10", "2026-02-30", "2026-01-01T25:00:00Z", "5x", "m", "1h5"] {
            if bad == "10" {
                assert_eq!(Instant::parse(bad, now), Ok(Instant(10_000_000_000)));
            } else {
                assert_eq!(Instant::parse(bad, now), Err(TimeError(bad.to_owned())), "{bad}");
            }
        }
    }
}
