//! Sizes.

use stanza_spec::units::parse_bytes;

use super::FlagError;

/// The bytes of `text`.
pub(crate) fn size(option: &'static str, text: &str) -> Result<u64, FlagError> {
    parse_bytes(text).map_err(|error| FlagError::new(option, error.to_string()))
}

/// The bytes of `--memory-swap`: `-1` is unlimited.
pub(crate) fn swap(text: &str) -> Result<i64, FlagError> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes = size("--memory-swap", text)?;
    i64::try_from(bytes).map_err(|_| FlagError::new("--memory-swap", format!("`{text}` is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_unlimited_swap() {
        assert_eq!(size("--memory", "64m"), Ok(64 << 20));
        assert_eq!((swap("-1"), swap("1g")), (Ok(-1), Ok(1 << 30)));
        let error = size("--memory", "x").unwrap_err().to_string();
        assert!(error.starts_with("option `--memory`: `x` is not a size"), "{error}");
        assert!(swap("-2").is_err() && swap("8191p").is_ok() && swap("8192p").is_err());
    }
}
