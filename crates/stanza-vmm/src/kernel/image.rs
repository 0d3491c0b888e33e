//! A kernel's file becomes an uncompressed ELF that QEMU enters by PVH, without firmware and without a decompressor
//! that would run in the guest: under emulation that one costs a second.
//!
//! ```text
//!  bzImage:  boot sector and setup code | protected-mode code: stub, payload, ...
//!            0x1f1 setup_sects             payload_offset (0x248) from here, payload_length (0x24c) bytes
//!            0x202 "HdrS"
//! ```
//! The fields are those of the kernel's `Documentation/arch/x86/boot.rst`.

use std::io;

use crate::compression::Compression;

/// The longest kernel that is unpacked: Debian's cloud kernels have 53 to 62 MB.
const VMLINUX_LIMIT: u64 = 512 << 20;

/// The number of the ELF note that gives PVH's entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_ENTRY: u32 = 18;

/// Why a file is no kernel that can be started.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is neither an ELF nor a bzImage.
    #[error("it is neither a `vmlinux` (ELF) nor a `bzImage`")]
    Unknown,
    /// A bzImage that says impossible things about itself.
    #[error("its header is corrupt: {0}")]
    Header(&'static str),
    /// A compression that is not known here.
    #[error(
        "its payload is compressed in an unknown way (first bytes {0:02x?}); expected gzip, xz, zstd or lz4"
    )]
    Compression(Vec<u8>),
    /// The payload does not decompress.
    #[error("its payload cannot be decompressed")]
    Payload(#[source] io::Error),
    /// What was found is no ELF for this processor with PVH's entry.
    #[error("it cannot be started without firmware: {0}")]
    NotBootable(&'static str),
}

/// The `vmlinux` in `file`.
pub(crate) fn extract(file: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    let vmlinux = if file.starts_with(b"\x7fELF") { file } else { unpack(&file)? };
    if find_pvh_note(&vmlinux)? {
        Ok(vmlinux)
    } else {
        Err(ImageError::NotBootable("it has no PVH entry (CONFIG_PVH)"))
    }
}

fn unpack(file: &[u8]) -> Result<Vec<u8>, ImageError> {
    if file.get(0x202..0x206) != Some(b"HdrS") {
        return Err(ImageError::Unknown);
    }
    let short = || ImageError::Header("it ends before its payload does");
    let number = |at: usize| field(file, at).map(u64::from).ok_or_else(short);
    // Version 2.08 of the boot protocol brought the payload's place.
    if number(0x206)? & 0xffff < 0x208 {
        return Err(ImageError::Header("its boot protocol is older than 2.08"));
    }
    let setup_sectors = match file.get(0x1f1).copied().ok_or_else(short)? {
        0 => 4,
        count => u64::from(count),
    };
    let start = (setup_sectors + 1) * 512 + number(0x248)?;
    let end = start + number(0x24c)?;
    let range = usize::try_from(start).map_err(|_| short())?..usize::try_from(end).map_err(|_| short())?;
    let payload = file.get(range).ok_or_else(short)?;
    let compression = Compression::of(payload)
        .ok_or_else(|| ImageError::Compression(payload.iter().take(6).copied().collect()))?;
    compression.decompress(payload, VMLINUX_LIMIT).map_err(ImageError::Payload)
}

fn field(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether the ELF has the note by which PVH's entry is found.
fn find_pvh_note(vmlinux: &[u8]) -> Result<bool, ImageError> {
    let corrupt = ImageError::NotBootable("its ELF header is corrupt");
    // Class 64, little endian, machine x86-64.
    if vmlinux.get(..6) != Some(b"\x7fELF\x02\x01") || vmlinux.get(18..20) != Some(&[62, 0]) {
        return Err(ImageError::NotBootable("it is no ELF of 64 bits for x86-64"));
    }
    let word = |at: usize| Some(u64::from_le_bytes(*vmlinux.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*vmlinux.get(at..)?.first_chunk()?));
    let (Some(table), Some(size), Some(count)) = (word(32), half(54), half(56)) else { return Err(corrupt) };
    for index in 0..usize::from(count) {
        let Ok(table) = usize::try_from(table) else { return Err(corrupt) };
        let Some(at) = table.checked_add(index * usize::from(size)) else { return Err(corrupt) };
        let (Some(kind), Some(offset), Some(length)) =
            (field(vmlinux, at), word(at.saturating_add(8)), word(at.saturating_add(32)))
        else {
            return Err(corrupt);
        };
        const PT_NOTE: u32 = 4;
        if kind != PT_NOTE {
            continue;
        }
        let end = offset.saturating_add(length);
        let range = usize::try_from(offset).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        let Some(notes) = vmlinux.get(range) else { return Err(corrupt) };
        if has_note(notes) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_note(mut notes: &[u8]) -> bool {
    while let (Some(name), Some(content), Some(kind)) = (field(notes, 0), field(notes, 4), field(notes, 8)) {
        let padded = |length: u32| usize::try_from(length).map(|length| length.saturating_add(3) & !3);
        let (Ok(name_size), Ok(content_size)) = (padded(name), padded(content)) else { return false };
        if kind == PVH_ENTRY && notes.get(12..16) == Some(b"Xen\0") {
            return true;
        }
        let next = 12usize.saturating_add(name_size).saturating_add(content_size);
        notes = notes.get(next..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF with one program header, of notes.
    fn vmlinux(note: u32) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 4;
        elf[64 + 8] = 120;
        elf[64 + 32] = 20;
        for number in [4, 4, note] {
            elf.extend_from_slice(&u32::to_le_bytes(number));
        }
        elf.extend_from_slice(b"Xen\0\0\0\0\x01");
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 1024 + 16];
        file[0x1f1] = 1;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        file[0x248] = 16;
        file[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        file.extend_from_slice(payload);
        file
    }

    #[test]
    fn a_vmlinux_is_taken_as_it_is_and_a_bzimage_unpacked() {
        let plain = vmlinux(PVH_ENTRY);
        assert_eq!(extract(plain.clone()).unwrap(), plain);
        let compressed = zstd::encode_all(&plain[..], 1).unwrap();
        assert_eq!(extract(bzimage(&compressed)).unwrap(), plain);
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_the_reason() {
        let text = |file: Vec<u8>| extract(file).unwrap_err().to_string();
        assert_eq!(text(b"#!/bin/sh".to_vec()), "it is neither a `vmlinux` (ELF) nor a `bzImage`");
        assert_eq!(
            text(vmlinux(17)),
            "it cannot be started without firmware: it has no PVH entry (CONFIG_PVH)"
        );
        assert_eq!(
            text(bzimage(b"unknown")),
            "its payload is compressed in an unknown way (first bytes [75, 6e, 6b, 6e, 6f, 77]); expected gzip, xz, \
             zstd or lz4"
        );
        let mut cut = bzimage(&zstd::encode_all(&vmlinux(PVH_ENTRY)[..], 1).unwrap());
        cut.truncate(cut.len() - 1);
        assert_eq!(text(cut), "its header is corrupt: it ends before its payload does");
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let whole = vmlinux(PVH_ENTRY);
        let packed = bzimage(&zstd::encode_all(&whole[..], 1).unwrap());
        for file in [whole, packed] {
            for at in 0..file.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut damaged = file.clone();
                    damaged[at] = value;
                    let _ = extract(damaged);
                }
                let _ = extract(file[..at].to_vec());
            }
        }
    }
}
