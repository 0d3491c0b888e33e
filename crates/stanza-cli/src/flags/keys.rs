//! `--detach-keys`.

use super::FlagError;

/// Ctrl-P Ctrl-Q.
pub(crate) const DEFAULT: [u8; 2] = [16, 17];

/// The bytes of a sequence as `ctrl-p,ctrl-q` or `a,b`.
pub(crate) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>, FlagError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(DEFAULT.to_vec());
    };
    text.split(',')
        .map(|key| {
            let control = key.strip_prefix("ctrl-").map(str::as_bytes);
            match (control, key.as_bytes()) {
                (Some([letter @ b'a'..=b'z']), _) => Ok(letter - b'a' + 1),
                (Some([sign @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => Ok(sign - b'@'),
                (None, [byte]) if byte.is_ascii() => Ok(*byte),
                (None, _) if key == "DEL" => Ok(127),
                _ => Err(FlagError::new("--detach-keys", format!("`{key}` is not a key")).hint(
                    "keys are single characters or `ctrl-` and one of `a` to `z` `@` `[` `\\` `]` `^` `_`",
                )),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::detach_keys;

    #[test]
    fn keys_are_characters_or_control_characters() {
        assert_eq!(detach_keys(None), Ok(vec![16, 17]));
        assert_eq!(detach_keys(Some("ctrl-a,b,ctrl-@,ctrl-_")), Ok(vec![1, b'b', 0, 31]));
        for bad in ["ctrl-", "ctrl-A", "ab", "ctrl-p,", "é"] {
            assert!(detach_keys(Some(bad)).is_err(), "{bad}");
        }
    }
}
