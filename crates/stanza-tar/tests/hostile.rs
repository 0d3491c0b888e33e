//! Archives that lie: refused by name, with bounded memory, never a panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Cursor, Read};

use stanza_tar::{Archive, Builder, EntryKind, Header, Limits, TarError};

/// A header block with the given type and size field.
fn block(name: &[u8], flag: u8, size: &[u8]) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn with_data(name: &[u8], flag: u8, data: &[u8]) -> Vec<u8> {
    let mut out = block(name, flag, format!("{:011o}", data.len()).as_bytes()).to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..rest + 8).find(|length| *length == rest + length.to_string().len()).unwrap();
        data.extend_from_slice(format!("{length} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    with_data(b"pax", b'x', &data)
}

type Listing = Vec<(String, u64, Vec<u8>)>;

fn list(bytes: impl Read) -> Result<Listing, TarError> {
    let mut archive = Archive::new(std::io::BufReader::new(bytes), Limits::default());
    let mut out = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let (header, _, mut content) = entry.into_parts();
        let mut data = Vec::new();
        if let Err(error) = content.read_to_end(&mut data) {
            return Err(content.failure(error));
        }
        out.push((header.path.escape_ascii().to_string(), header.size, data));
    }
    archive.finish()?;
    Ok(out)
}

fn one(name: &str, data: &[u8]) -> (String, u64, Vec<u8>) {
    (name.to_owned(), data.len() as u64, data.to_vec())
}

#[test]
fn a_pax_size_belongs_to_the_file_and_not_to_the_long_name_between() {
    // CVE-2026-33055: a reader that gives the size to `L` sees an entry hidden in the content.
    let inner = with_data(b"hidden", b'0', b"evil");
    let size = inner.len().to_string();
    let archive = [
        pax(&[("size", size.as_bytes())]),
        with_data(b"L", b'L', b"long\0"),
        block(b"short", b'0', b"00000000000").to_vec(),
        inner.clone(),
        vec![0; 1024],
    ]
    .concat();
    assert_eq!(list(&archive[..]).unwrap(), [one("long", &inner)]);
}

#[test]
fn a_pax_size_counts_and_the_header_does_not() {
    let archive =
        [pax(&[("size", b"3")]), block(b"a", b'0', b"00000000777").to_vec(), b"abc".to_vec(), vec![0; 509]]
            .concat();
    assert_eq!(list(&archive[..]).unwrap(), [one("a", b"abc")]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for (size, name) in [
        (&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], "negative"),
        (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", "over 64 bits"),
        (b"-0000000001", "sign"),
        (b"0x100000000", "hexadecimal"),
    ] {
        let result = list(&block(b"a", b'0', size)[..]);
        assert!(matches!(result, Err(TarError::Number { offset: 0, field: "size" })), "{name}: {result:?}");
    }
    let eight_eib = list(&block(b"a", b'0', b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")[..]);
    assert!(matches!(eight_eib, Err(TarError::TooLarge { what: "file", .. })));
    // Within the limit, but not there: nothing is allocated for it.
    let missing = list(&block(b"a", b'0', b"77777777777")[..]);
    assert!(matches!(missing, Err(TarError::Truncated { offset: 512 })));
    let negative = [pax(&[("size", b"-1")]), block(b"a", b'0', b"0").to_vec()].concat();
    assert!(matches!(list(&negative[..]), Err(TarError::Number { field: "size", .. })));
}

#[test]
fn extensions_are_bounded() {
    let gib = list(&block(b"p", b'x', b"10000000000")[..]);
    assert!(matches!(gib, Err(TarError::TooLarge { what: "pax header", .. })));
    let name = list(&block(b"p", b'L', b"00000200001")[..]);
    assert!(matches!(name, Err(TarError::TooLarge { what: "long name", .. })));
    let chain = with_data(b"L", b'L', b"n\0").repeat(10_000);
    assert!(matches!(list(&chain[..]), Err(TarError::Extensions { reason: "there are too many", .. })));
    let path = [pax(&[("path", &vec![b'a'; 4097])]), with_data(b"x", b'0', b"")].concat();
    assert!(matches!(list(&path[..]), Err(TarError::TooLarge { what: "path", limit: 4096, .. })));
    // A million records in a header of legal size are read; globals are bounded over the whole archive.
    let records = b"6 a=b\n".repeat(170_000);
    assert!(list(&[with_data(b"p", b'x', &records), with_data(b"x", b'0', b"")].concat()[..]).is_ok());
    let globals = [with_data(b"g", b'g', &records), with_data(b"x", b'0', b"")].concat().repeat(2);
    assert!(matches!(list(&globals[..]), Err(TarError::TooLarge { what: "global pax header", .. })));
}

#[test]
fn names_with_nul_are_refused() {
    let record = [pax(&[("path", b"a\0b")]), with_data(b"x", b'0', b"")].concat();
    assert!(matches!(list(&record[..]), Err(TarError::Nul { what: "path", .. })));
    let long = [with_data(b"L", b'L', b"a\0b\0"), with_data(b"x", b'0', b"")].concat();
    assert!(matches!(list(&long[..]), Err(TarError::Nul { what: "path", .. })));
}

#[test]
fn what_readers_disagree_about_is_refused() {
    let two_names =
        [pax(&[("path", b"a")]), with_data(b"L", b'L', b"b\0"), with_data(b"x", b'0', b"")].concat();
    assert!(matches!(list(&two_names[..]), Err(TarError::Extensions { .. })));
    let dangling = [pax(&[("path", b"a")]), vec![0; 1024]].concat();
    assert!(matches!(list(&dangling[..]), Err(TarError::Extensions { .. })));
    let volume = [pax(&[("path", b"a")]), with_data(b"v", b'V', b"")].concat();
    assert!(matches!(list(&volume[..]), Err(TarError::Extensions { .. })));
    // GNU tar would skip what Go reads as the next header, and the reverse.
    for flag in *b"23456" {
        let own = block(b"x", flag, b"00000001000");
        let record = [pax(&[("size", b"5")]), block(b"x", flag, b"00000000000").to_vec()].concat();
        for archive in [&own[..], &record] {
            let archive = [archive, &with_data(b"hidden", b'0', b"")].concat();
            assert!(matches!(list(&archive[..]), Err(TarError::Extensions { .. })), "{flag}");
        }
    }
    let linked = [pax(&[("size", b"5")]), block(b"x", b'1', b"00000000005").to_vec()].concat();
    assert!(matches!(list(&linked[..]), Err(TarError::Extensions { .. })));
    assert_eq!(list(&block(b"x", b'1', b"00000000005")[..]).unwrap(), [one("x", b"")]);
    let mut longer = [with_data(b"L", b'L', b"a"), with_data(b"x", b'0', b"")].concat();
    assert_eq!(list(&longer[..]).unwrap(), [one("a", b"")]);
    longer[513..515].copy_from_slice(b"bc");
    assert!(matches!(list(&longer[..]), Err(TarError::Extensions { .. })));
    let sparse = block(b"x", b'S', b"00000000000");
    assert!(matches!(list(&sparse[..]), Err(TarError::Sparse { .. })));
    let lone = [vec![0; 512], with_data(b"x", b'0', b"")].concat();
    assert!(matches!(list(&lone[..]), Err(TarError::LoneZeroBlock { offset: 0 })));
    let unknown = with_data(b"x", b'Z', b"");
    assert!(matches!(list(&unknown[..]), Err(TarError::Kind { flag: b'Z', .. })));
    let mut damaged = with_data(b"x", b'0', b"");
    damaged[0] = b'y';
    assert!(matches!(list(&damaged[..]), Err(TarError::Checksum { offset: 0 })));
}

#[test]
fn the_end_is_found_and_what_follows_is_read_for_hashes() {
    let file = with_data(b"x", b'0', b"1");
    let second = with_data(b"second", b'0', b"");
    for end in [vec![], vec![0; 512], vec![0; 1024], vec![0; 10240], [vec![0; 1024], second].concat()] {
        let bytes = [file.clone(), end].concat();
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(list(&mut cursor).unwrap(), [one("x", b"1")]);
        assert_eq!(cursor.position(), bytes.len() as u64);
    }
    assert!(list(&b""[..]).unwrap().is_empty());
}

#[test]
fn ignored_and_old_types_are_read_past() {
    let mut signed = block(b"\xe9", b'0', b"0");
    signed[148..156].fill(b' ');
    let sum: i32 = signed.iter().map(|byte| i32::from(byte.cast_signed())).sum();
    signed[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let archive = [
        with_data(b"volume", b'V', b"abc"),
        with_data(b"seven", b'7', b"7"),
        with_data(b"old/", 0, b""),
        with_data(b"slash/", b'0', b"s"),
        signed.to_vec(),
    ]
    .concat();
    let listing = list(&archive[..]).unwrap();
    assert_eq!(listing, [one("seven", b"7"), one("old/", b""), one("slash/", b"s"), one("\\xe9", b"")]);
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |records: &[(&str, &[u8])], data: &[u8]| {
        list(&[pax(records), with_data(b"s", b'0', data)].concat()[..])
    };
    let map = |map: &'static [u8], size: &'static [u8]| {
        [("GNU.sparse.size", size), ("GNU.sparse.numblocks", &b"2"[..]), ("GNU.sparse.map", map)]
    };
    assert_eq!(sparse(&map(b"0,1,9,1", b"10"), b"ab").unwrap(), [("s".to_owned(), 10, b"ab".to_vec())]);
    for (name, records) in [
        ("overlap", map(b"0,2,1,1", b"10")),
        ("past the end", map(b"0,1,9,2", b"10")),
        ("overflow", map(b"0,1,18446744073709551615,2", b"10")),
        ("odd", map(b"0,1,9", b"10")),
        ("not as announced", map(b"0,3", b"10")),
        ("other length than stored", map(b"0,1,9,1", b"10")),
    ] {
        assert!(sparse(&records, b"abc").is_err(), "{name}");
    }
    let eib = sparse(&map(b"0,1,1152921504606846975,1", b"1152921504606846976"), b"ab");
    assert!(matches!(eib, Err(TarError::TooLarge { what: "sparse file", .. })));
    let version =
        [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
    for data in [&b"99999999999\n"[..], b"1\n0\n", b"x\n", b""] {
        assert!(matches!(sparse(&version, data), Err(TarError::Sparse { .. })), "{data:?}");
    }
    // GNU's old kind: a chain of empty continuation blocks.
    let mut old = block(b"o", b'S', b"0");
    old[482] = 1;
    seal(&mut old);
    let mut more = [0; 512];
    more[504] = 1;
    let endless = [old.to_vec(), more.repeat(100_000)].concat();
    assert!(matches!(list(&endless[..]), Err(TarError::Sparse { .. })));
}

/// A small archive of everything.
fn sample() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let header = |path: &[u8], kind| Header { path: path.to_vec(), kind, mode: 0o644, ..Header::default() };
    builder.append(&header(b"d", EntryKind::Directory), &mut &b""[..]).unwrap();
    let xattrs = vec![(b"user.a".to_vec(), b"\0\n".to_vec())];
    let file = Header { size: 700, mtime: (-5, 7), xattrs, ..header(&[b'f'; 200], EntryKind::File) };
    builder.append(&file, &mut &[1; 700][..]).unwrap();
    let link = Header { link: b"d".to_vec(), ..header(b"l", EntryKind::Symlink) };
    builder.append(&link, &mut &b""[..]).unwrap();
    let long =
        [with_data(b"L", b'L', b"long\0"), with_data(b"K", b'K', b"target\0"), with_data(b"n", b'2', b"")];
    builder.get_mut().extend(long.concat());
    let map = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"900")];
    builder.get_mut().extend(pax(&map));
    let mut stored = b"1\n4\n3\n".to_vec();
    stored.resize(512, 0);
    stored.extend(b"abc");
    builder.get_mut().extend(with_data(b"s", b'0', &stored));
    builder.finish().unwrap()
}

#[test]
fn an_archive_cut_anywhere_gives_what_came_before_or_an_error() {
    let bytes = sample();
    let whole = list(&bytes[..]).unwrap();
    assert_eq!(whole.len(), 5);
    for length in 0..bytes.len() {
        if let Ok(part) = list(&bytes[..length]) {
            assert_eq!(part[..], whole[..part.len()], "cut at {length}");
        }
    }
}

#[test]
fn damaged_archives_never_panic() {
    let bytes = sample();
    // A fixed xorshift: the same archives every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..20_000 {
        let mut copy = bytes.clone();
        for _ in 0..=random(4) {
            let at = random(copy.len());
            copy[at] = u8::try_from(random(256)).unwrap();
        }
        // Half of them with checksums that hold, so that what is behind them is reached.
        if random(2) == 0 {
            for block in copy.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
                seal(block.try_into().unwrap());
            }
        }
        let entries = list(&copy[..]).map_or(0, |entries| entries.len());
        assert!(entries <= copy.len() / 512);
    }
}

#[test]
fn the_builder_is_deterministic_and_strict() {
    assert_eq!(sample(), sample());
    let mut builder = Builder::new(Vec::new());
    let header = Header { path: b"a".to_vec(), size: 2, ..Header::default() };
    assert!(builder.append(&header, &mut &b"a"[..]).is_err());
    assert!(Builder::new(Vec::new()).append(&header, &mut &b"abc"[..]).is_err());
    let nul = Header { path: b"a\0".to_vec(), ..Header::default() };
    assert!(Builder::new(Vec::new()).append(&nul, &mut &b""[..]).is_err());
}
