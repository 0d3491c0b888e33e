//! What a module says of itself: the section `.modinfo`, strings of the form `key=value`, each ended by NUL.

/// A section that is longer is not read: the longest in Debian's kernels has 20 KB.
const SECTION_LIMIT: u64 = 1 << 20;

/// The values of `key` in the module `elf`; `None` when it is no module.
pub(crate) fn module_values<'a>(elf: &'a [u8], key: &str) -> Option<Vec<&'a str>> {
    let strings = modinfo(elf)?;
    let values = strings.split(|byte| *byte == 0).filter_map(|text| {
        let text = std::str::from_utf8(text).ok()?;
        text.split_once('=').filter(|(found, _)| *found == key).map(|(_, value)| value)
    });
    Some(values.collect())
}

fn modinfo(elf: &[u8]) -> Option<&[u8]> {
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = number::<8>(elf, 40)?;
    let size = number::<2>(elf, 58)?;
    let count = number::<2>(elf, 60)?;
    let names = section(elf, table, size, number::<2>(elf, 62)?)?;
    let names = content(elf, names)?;
    (0..count).find_map(|index| {
        let header = section(elf, table, size, index)?;
        let name = names.get(usize::try_from(number::<4>(header, 0)?).ok()?..)?;
        if name.starts_with(b".modinfo\0") { content(elf, header) } else { None }
    })
}

fn section(elf: &[u8], table: u64, size: u64, index: u64) -> Option<&[u8]> {
    let at = table.checked_add(size.checked_mul(index)?)?;
    elf.get(usize::try_from(at).ok()?..)
}

fn content<'a>(elf: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    let (offset, length) = (number::<8>(header, 24)?, number::<8>(header, 32)?);
    if length > SECTION_LIMIT {
        return None;
    }
    elf.get(usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(length)?).ok()?)
}

fn number<const SIZE: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk::<SIZE>()?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The least ELF that is read as a module: headers of no section, of names and of `.modinfo`.
    pub(crate) fn module(strings: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0";
        let mut elf = vec![0; 64 + 3 * 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[40] = 64;
        (elf[58], elf[60], elf[62]) = (64, 3, 1);
        let mut put = |index: usize, name: u8, offset: usize, length: usize| {
            let header = &mut elf[64 + index * 64..];
            header[0] = name;
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
        };
        put(1, 0, 256, names.len());
        put(2, 1, 256 + names.len(), strings.len());
        elf.extend_from_slice(names);
        elf.extend_from_slice(strings.as_bytes());
        elf
    }

    #[test]
    fn values_are_found_by_key() {
        let elf = module("license=GPL\0depends=netfs,libcrc32c\0alias=fs-erofs\0alias=other\0");
        assert_eq!(module_values(&elf, "depends"), Some(vec!["netfs,libcrc32c"]));
        assert_eq!(module_values(&elf, "alias"), Some(vec!["fs-erofs", "other"]));
        assert_eq!(module_values(&elf, "softdep"), Some(vec![]));
        assert_eq!(module_values(b"text", "depends"), None);
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let elf = module("depends=a\0");
        for at in 0..elf.len() {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = elf.clone();
                damaged[at] = value;
                let _ = module_values(&damaged, "depends");
            }
            let _ = module_values(&elf[..at], "depends");
        }
    }
}
