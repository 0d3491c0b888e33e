//! Quantities as users write them: bytes, processors, durations, and as listings show them.

/// A string that is not a quantity of the unit asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnitError {
    /// Not a number of bytes.
    #[error("`{0}` is not a size: expected a number with an optional unit, as `64m` or `1.5g`")]
    Bytes(String),
    /// Not a number of processors.
    #[error("`{0}` is not a number of CPUs: expected a positive decimal number, as `1.5`")]
    Cpus(String),
}

/// Bytes from Docker's notation: `b k m g t p`, with optional `b` or `ib`, powers of 1024, fractions allowed.
///
/// # Errors
/// When `text` is not a number with such a unit, is negative, or does not fit.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError::Bytes(text.to_owned());
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(fail()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.len() > 9 {
        return Err(fail());
    }
    let factor = 1u64 << shift;
    let whole = whole.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(fail)?;
    let part = if fraction.is_empty() {
        0
    } else {
        let digits = u128::from(fraction.parse::<u64>().map_err(|_| fail())?);
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| fail())?);
        u64::try_from(digits * u128::from(factor) / scale).map_err(|_| fail())?
    };
    whole.checked_add(part).ok_or_else(fail)
}

/// Processors in units of 10⁻⁹, from a decimal number as `--cpus` takes it.
///
/// # Errors
/// When `text` is not a positive decimal number.
pub fn parse_nano_cpus(text: &str) -> Result<u64, UnitError> {
    let fail = || UnitError::Cpus(text.to_owned());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) || fraction.len() > 9
    {
        return Err(fail());
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| fail())? };
    let nano: u64 = format!("{fraction:0<9}").parse().map_err(|_| fail())?;
    let total = whole.checked_mul(1_000_000_000).and_then(|n| n.checked_add(nano)).ok_or_else(fail)?;
    if total == 0 { Err(fail()) } else { Ok(total) }
}

/// A size as Docker's listings show it: powers of 1000, three significant digits, `1.23MB`.
#[must_use]
pub fn human_size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 3)
}

/// A size in powers of 1024, four significant digits, `1.205MiB`, as `stats` shows memory.
#[must_use]
pub fn human_size_binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
}

fn scaled(bytes: u64, step: f64, units: &[&str], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a listing shows at most four digits")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let whole = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// A length of time as Docker's listings show it: `About a minute`, `3 hours`, `2 weeks`.
#[must_use]
pub fn human_duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < MINUTE => format!("{s} seconds"),
        s if s < 2 * MINUTE => "About a minute".to_owned(),
        s if s < HOUR => format!("{} minutes", s / MINUTE),
        s if s < 2 * HOUR => "About an hour".to_owned(),
        s if s < 2 * DAY => format!("{} hours", s / HOUR),
        s if s < 14 * DAY => format!("{} days", s / DAY),
        s if s < 60 * DAY => format!("{} weeks", s / (7 * DAY)),
        s if s < 730 * DAY => format!("{} months", s / (30 * DAY)),
        s => format!("{} years", s / (365 * DAY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("64", 64),
            ("1k", 1024),
            ("64m", 64 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("10 MB", 10 << 20),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.g", ".5g", "99999999999p", "0x10"] {
            assert_eq!(parse_bytes(bad), Err(UnitError::Bytes(bad.into())));
        }
    }

    #[test]
    fn cpus_are_read_exactly() {
        for (text, nano) in
            [("1", 1_000_000_000), ("0.5", 500_000_000), (".25", 250_000_000), ("2.000000001", 2_000_000_001)]
        {
            assert_eq!(parse_nano_cpus(text), Ok(nano), "{text}");
        }
        for bad in ["", ".", "0", "-1", "1e3", "0.0000000001", "NaN"] {
            assert_eq!(parse_nano_cpus(bad), Err(UnitError::Cpus(bad.into())));
        }
    }

    #[test]
    fn sizes_are_shown_as_docker_shows_them() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1_000, "1kB"), (4_261_550, "4.26MB"), (123_456_789, "123MB")]
        {
            assert_eq!(human_size(bytes), text);
        }
    }
}
