//! Archives that are nearly right: those of GNU tar in all its formats and of the project's own writer, with headers whose fields,
//! types, order and extensions are changed and whose checksums are made right again.

use std::process::Command;

use stanza_tar::{Builder, EntryKind, Header};

use crate::Source;
use crate::bytes::change;
use crate::random::Random;

const BLOCK: usize = 512;

/// Fields of a header: where, how long.
const FIELDS: [(usize, usize); 12] = [
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (157, 100),
    (257, 8),
    (329, 8),
    (337, 8),
    (345, 155),
    (386, 24),
];

/// Names that lead elsewhere, hide, or are none.
const NAMES: [&[u8]; 20] = [
    b"",
    b".",
    b"..",
    b"/",
    b"../x",
    b"a/../../x",
    b"/outside/victim",
    b"outside/victim",
    b"d/victim",
    b"d",
    b".wh.",
    b".wh...",
    b".wh.d",
    b".wh..wh..opq",
    b"d/.wh..wh..opq",
    b".wh..wh.plnk/x",
    b"l/victim",
    b"f/",
    b"a\xff\n\x1b[31m",
    b"etc/passwd",
];

const TYPES: [u8; 16] = *b"0123456775xgLKSV";

/// Records of pax headers that matter.
const RECORDS: [&str; 22] = [
    "path=../x",
    "path=/outside/victim",
    "path=d/f",
    "path=",
    "linkpath=/outside/victim",
    "linkpath=../../outside/victim",
    "size=5",
    "size=0",
    "size=18446744073709551615",
    "size=-1",
    "mtime=-1.5",
    "mtime=99999999999999999999",
    "uid=4294967295",
    "gid=-1",
    "SCHILY.xattr.trusted.overlay.opaque=y",
    "SCHILY.xattr.security.capability=x",
    "SCHILY.xattr.user.a=b",
    "GNU.sparse.major=1",
    "GNU.sparse.minor=0",
    "GNU.sparse.realsize=1152921504606846976",
    "GNU.sparse.map=0,5,3,9",
    "GNU.sparse.name=../y",
];

/// The seeds.
pub(crate) struct Archives {
    seeds: Vec<Vec<u8>>,
}

/// A tree with everything that an archive can hold but devices.
const TREE: &str = r#"
set -e; cd "$1"
mkdir -p d/e; echo hello >d/f; ln d/f d/h; ln -s /outside l; mkfifo p; chmod 6755 d/f
truncate -s 1M s; printf data | dd of=s bs=1 seek=500000 conv=notrunc 2>/dev/null
long=$(printf 'long-name/%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13); mkdir -p "$long"; echo x >"${long}file"; ln -s "$long" m
"#;

impl Archives {
    pub(crate) fn new() -> Result<Archives, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = directory.path().display().to_string();
        let made = Command::new("sh").args(["-c", TREE, "sh", &path]).status();
        if !made.is_ok_and(|status| status.success()) {
            return Err("the tree of the seeds cannot be made".into());
        }
        let mut seeds = vec![own()?];
        for options in [
            &["--format=v7"][..],
            &["--format=ustar"],
            &["--format=gnu", "--sparse"],
            &["--format=pax"],
            &["--format=pax", "--sparse", "--sparse-version=0.0"],
            &["--format=pax", "--sparse", "--sparse-version=0.1"],
            &["--format=pax", "--sparse", "--sparse-version=1.0"],
        ] {
            // `v7` and `ustar` cannot hold the long names, and say so: what they hold is in the archive all the same.
            let output = Command::new("tar")
                .args(options)
                .args(["--numeric-owner", "--sort=name", "--blocking-factor=2", "-C", &path, "-cf", "-", "."])
                .output()
                .map_err(|error| format!("tar: {error}"))?;
            seeds.push(output.stdout);
        }
        Ok(Archives { seeds })
    }
}

/// Entries of this project's writer, whiteouts and devices among them.
fn own() -> Result<Vec<u8>, String> {
    let mut builder = Builder::new(Vec::new());
    let mut entry = |path: &str, kind: EntryKind, link: &str, content: &str| {
        let header = Header {
            path: path.as_bytes().to_vec(),
            kind,
            link: link.as_bytes().to_vec(),
            mode: 0o644,
            size: u64::try_from(content.len()).unwrap_or(0),
            device: if kind == EntryKind::CharacterDevice { (1, 3) } else { (0, 0) },
            mtime: (1_700_000_000, 5),
            ..Header::default()
        };
        builder.append(&header, &mut content.as_bytes()).map_err(|error| error.to_string())
    };
    entry("d", EntryKind::Directory, "", "")?;
    entry("d/.wh..wh..opq", EntryKind::File, "", "")?;
    entry(".wh.gone", EntryKind::File, "", "")?;
    entry("l", EntryKind::Symlink, "/outside", "")?;
    entry("l/victim", EntryKind::File, "", "overwritten")?;
    entry("h", EntryKind::HardLink, "d/f", "")?;
    entry("null", EntryKind::CharacterDevice, "", "")?;
    builder.finish().map_err(|error| error.to_string())
}

impl Source for Archives {
    fn seed(&self, number: usize) -> Option<Vec<u8>> {
        self.seeds.get(number).cloned()
    }

    fn mutated(&mut self, random: &mut Random) -> Vec<u8> {
        let mut bytes = random.one(&self.seeds).clone();
        for _ in 0..=random.below(3) {
            let donor = random.one(&self.seeds);
            match random.below(6) {
                0 => change(&mut bytes, donor, random),
                1 => extend(&mut bytes, random),
                2 => move_blocks(&mut bytes, donor, random),
                _ => change_header(&mut bytes, random),
            }
        }
        bytes
    }
}

/// The headers: blocks whose checksum is right.
fn headers(bytes: &[u8]) -> Vec<usize> {
    let all = bytes.chunks_exact(BLOCK).enumerate();
    all.filter(|(_, block)| block[0] != 0 && is_sealed(block)).map(|(number, _)| number * BLOCK).collect()
}

fn sum(block: &[u8]) -> u32 {
    let fields = block.iter().enumerate();
    fields.map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

fn is_sealed(block: &[u8]) -> bool {
    let digits = block[148..156].iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |value: u32, digit| value.wrapping_mul(8).wrapping_add(u32::from(digit - b'0')))
        == sum(block)
}

fn seal(block: &mut [u8]) {
    let text = format!("{:06o}\0 ", sum(block));
    block[148..156].copy_from_slice(text.as_bytes());
}

fn change_header(bytes: &mut [u8], random: &mut Random) {
    let found = headers(bytes);
    if found.is_empty() {
        return;
    }
    let at = *random.one(&found);
    let block = &mut bytes[at..at + BLOCK];
    match random.below(4) {
        0 => block[156] = *random.one(&TYPES),
        1 | 2 => {
            let (start, length) = if random.once_in(2) { (0, 100) } else { (157, 100) };
            let name = *random.one(&NAMES);
            block[start..start + length].fill(0);
            block[start..start + name.len()].copy_from_slice(name);
        }
        _ => {
            let (start, length) = *random.one(&FIELDS);
            let mut field = block[start..start + length].to_vec();
            change(&mut field, b"01234567-+ \0\x80\xff/.", random);
            field.resize(length, 0);
            block[start..start + length].copy_from_slice(&field);
        }
    }
    // At times a wrong checksum is what is tried.
    if !random.once_in(20) {
        seal(block);
    }
}

/// A pax or GNU extension header before an entry.
fn extend(bytes: &mut Vec<u8>, random: &mut Random) {
    let found = headers(bytes);
    if found.is_empty() {
        return;
    }
    let at = *random.one(&found);
    let flag = *random.one(b"xxxxgLK");
    let mut data = Vec::new();
    if matches!(flag, b'L' | b'K') {
        let name = *random.one(&NAMES);
        data.extend_from_slice(name);
        data.resize(data.len() + random.below(3) * 200, b'n');
        data.push(0);
    } else {
        for _ in 0..=random.below(4) {
            let record = *random.one(&RECORDS);
            let lie = if random.once_in(10) { random.below(40) } else { 0 };
            let length =
                (record.len() + 3..).find(|length| length.to_string().len() + record.len() + 2 == *length);
            data.extend(format!("{} {record}\n", length.unwrap_or(0) + lie).bytes());
        }
    }
    let mut block = vec![0; BLOCK];
    block[..4].copy_from_slice(b"name");
    let size = format!("{:011o}\0", data.len());
    block[124..136].copy_from_slice(size.as_bytes());
    block[156] = flag;
    block[257..265].copy_from_slice(if flag.is_ascii_lowercase() { b"ustar\x0000" } else { b"ustar  \0" });
    seal(&mut block);
    data.resize(data.len().next_multiple_of(BLOCK), 0);
    bytes.splice(at..at, block.into_iter().chain(data));
}

/// Whole blocks taken out, doubled or taken over.
fn move_blocks(bytes: &mut Vec<u8>, donor: &[u8], random: &mut Random) {
    let blocks = bytes.len() / BLOCK;
    let at = random.below(blocks + 1) * BLOCK;
    let count = (1 + random.below(4)) * BLOCK;
    match random.below(3) {
        0 => drop(bytes.drain(at..(at + count).min(bytes.len()))),
        1 => {
            let part = bytes[at..(at + count).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        _ => {
            let from = random.below(donor.len() / BLOCK + 1) * BLOCK;
            let part = donor[from..(from + count).min(donor.len())].to_vec();
            bytes.splice(at..at, part);
        }
    }
}
