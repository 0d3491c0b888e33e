//! What GNU tar writes is read as GNU tar would read it, in every format it has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use stanza_tar::{Archive, EntryKind, Header, Limits};

/// Entries with their content, holes filled in.
fn read(archive: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut archive = Archive::new(archive, Limits::default());
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let (header, sparse, mut content) = entry.into_parts();
        let mut stored = Vec::new();
        content.read_to_end(&mut stored).unwrap();
        let data = match sparse {
            None => stored,
            Some(segments) => {
                let mut data = vec![0; usize::try_from(header.size).unwrap()];
                let mut rest = &stored[..];
                for segment in segments {
                    let (offset, length) =
                        (usize::try_from(segment.offset).unwrap(), usize::try_from(segment.length).unwrap());
                    data[offset..offset + length].copy_from_slice(&rest[..length]);
                    rest = &rest[length..];
                }
                data
            }
        };
        entries.push((header, data));
    }
    archive.finish().unwrap();
    entries
}

#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn tar(directory: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let output =
        Command::new("tar").arg("-C").arg(directory).args(arguments).args(["-cf", "-", "."]).output();
    match output {
        Ok(output) if output.status.success() => Some(output.stdout),
        result => {
            let why = result.map_or_else(
                |error| error.to_string(),
                |output| String::from_utf8_lossy(&output.stderr).lines().collect::<Vec<_>>().join("; "),
            );
            eprintln!("skipped: no GNU tar that takes {arguments:?}: {why}");
            None
        }
    }
}

fn tree() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let long = "d".repeat(60);
    fs::create_dir_all(at(&long).join(&long)).unwrap();
    fs::write(at(&long).join(&long).join("deep"), b"deep").unwrap();
    fs::write(at("plain"), vec![7; 1000]).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::set_permissions(at("plain"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(at("plain"), at("z-second")).unwrap();
    symlink("plain", at("link")).unwrap();
    symlink("t".repeat(90), at("long-link")).unwrap();
    let times = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567, 890_000_000));
    fs::File::options().write(true).open(at("empty")).unwrap().set_times(times).unwrap();
    directory
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    let directory = tree();
    for format in ["gnu", "pax", "ustar", "oldgnu", "v7"] {
        // V7 has neither long paths nor pipes.
        let mut arguments = vec!["--sort=name", "--numeric-owner"];
        let option = format!("--format={format}");
        arguments.push(&option);
        if format == "v7" {
            // Its names have at most 99 bytes: the inner of the two long directories is left out.
            arguments.push("--exclude=*/*/ddd*");
        }
        let Some(bytes) = tar(directory.path(), &arguments) else { return };
        let entries = read(&bytes);
        let mut files = 0;
        for (header, data) in &entries {
            let path = std::str::from_utf8(&header.path).unwrap();
            let meta = fs::symlink_metadata(directory.path().join(path.trim_end_matches('/'))).unwrap();
            assert_eq!(header.mode, meta.mode() & 0o7777, "{format} {path}");
            assert_eq!((header.uid, header.gid), (u64::from(meta.uid()), u64::from(meta.gid())));
            assert_eq!(header.mtime.0, meta.mtime(), "{format} {path}");
            if format == "pax" {
                assert_eq!(i64::from(header.mtime.1), meta.mtime_nsec());
            }
            match header.kind {
                EntryKind::File => {
                    files += 1;
                    assert_eq!(data, &fs::read(directory.path().join(path)).unwrap(), "{format} {path}");
                }
                EntryKind::Symlink => {
                    let target = fs::read_link(directory.path().join(path)).unwrap();
                    assert_eq!(header.link, target.as_os_str().as_encoded_bytes());
                }
                EntryKind::HardLink => assert_eq!((path, &header.link[..]), ("./z-second", &b"./plain"[..])),
                kind => assert_eq!(kind, EntryKind::Directory, "{format} {path}"),
            }
        }
        assert_eq!(files, if format == "v7" { 2 } else { 3 }, "{format}");
        assert_eq!(entries.len(), if format == "v7" { 7 } else { 9 }, "{format}");
    }
}

#[test]
fn sparse_files_of_all_four_kinds_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    // More pieces than fit into one header of the old kind.
    let file = fs::File::create(&path).unwrap();
    for piece in 0..60u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, format!("piece {piece}").as_bytes(), piece * 65536)
            .unwrap();
    }
    file.set_len(60 * 65536 + 5).unwrap();
    drop(file);
    let expected = fs::read(&path).unwrap();
    for options in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let Some(bytes) = tar(directory.path(), &[&["--sparse"], options].concat()) else { return };
        assert!(bytes.len() < expected.len() / 2, "{options:?} is not sparse");
        let entries = read(&bytes);
        let (header, data) = entries.iter().find(|(header, _)| header.path == b"./sparse").unwrap();
        assert_eq!(header.size, expected.len() as u64, "{options:?}");
        assert!(*data == expected, "{options:?}");
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn extended_attributes_are_read() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"x").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if let Err(error) = rustix::fs::setxattr(&path, "user.name", b"a\0b\nc", flags) {
        eprintln!("skipped: no extended attributes here: {error}");
        return;
    }
    let Some(bytes) = tar(directory.path(), &["--xattrs", "--format=pax"]) else { return };
    let entries = read(&bytes);
    let (header, _) = entries.iter().find(|(header, _)| header.path == b"./file").unwrap();
    assert_eq!(header.xattrs, [(b"user.name".to_vec(), b"a\0b\nc".to_vec())]);
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that does not run says why")]
fn gnu_tar_reads_what_the_builder_writes() {
    let mut builder = stanza_tar::Builder::new(Vec::new());
    let long = "p/".repeat(100) + "file";
    let mut add = |path: &[u8], kind, link: &[u8], size: usize, mtime| {
        let header = Header {
            path: path.to_vec(),
            kind,
            link: link.to_vec(),
            mode: 0o640,
            uid: 3_000_000,
            gid: 5,
            size: size as u64,
            mtime,
            ..Header::default()
        };
        builder.append(&header, &mut &vec![b'x'; size][..]).unwrap();
        header
    };
    let headers = [
        add(b"d/", EntryKind::Directory, b"", 0, (1, 0)),
        add(long.as_bytes(), EntryKind::File, b"", 700, (-2, 500_000_000)),
        add(b"d/\xff", EntryKind::File, b"", 0, (1 << 40, 1)),
        add(b"d/l", EntryKind::Symlink, b"../x", 0, (0, 0)),
        add(b"d/h", EntryKind::HardLink, b"d/\xff", 0, (0, 0)),
        add(b"d/p", EntryKind::Fifo, b"", 0, (0, 0)),
    ];
    let bytes = builder.finish().unwrap();
    let back: Vec<_> = read(&bytes).into_iter().map(|(header, _)| header).collect();
    assert_eq!(back, headers);

    let child = Command::new("tar")
        .args(["--quoting-style=escape", "-tf", "-"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped the second half: no tar");
        return;
    };
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listing.lines().collect::<Vec<_>>(), ["d/", &long, "d/\\377", "d/l", "d/h", "d/p"]);
}

#[test]
fn content_is_written_and_passed_over_by_its_place() {
    let mut builder = stanza_tar::Builder::new(Vec::new());
    let header = |path: &str, size: usize| Header {
        path: path.into(),
        mode: 0o644,
        size: size as u64,
        ..Header::default()
    };
    builder.append(&header("small", 3), &mut &b"abc"[..]).unwrap();
    let mut whole = stanza_tar::Builder::new(Vec::new());
    whole.append(&header("small", 3), &mut &b"abc"[..]).unwrap();
    let large = vec![7; 1_000_001];
    builder.start(&header("large", large.len())).unwrap();
    builder.get_mut().write_all(&large).unwrap();
    builder.pad(large.len() as u64).unwrap();
    whole.append(&header("large", large.len()), &mut &large[..]).unwrap();
    builder.append(&header("last", 4), &mut &b"last"[..]).unwrap();
    whole.append(&header("last", 4), &mut &b"last"[..]).unwrap();
    let bytes = builder.finish().unwrap();
    assert_eq!(bytes, whole.finish().unwrap());

    let reader = std::io::BufReader::new(std::io::Cursor::new(&bytes));
    let mut archive = stanza_tar::Archive::new(reader, stanza_tar::Limits::default());
    let mut places = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let (path, size) = (entry.header().path.clone(), usize::try_from(entry.header().size).unwrap());
        let start = usize::try_from(archive.offset()).unwrap();
        places.push((path, bytes[start..start + size].to_vec()));
        archive.skip().unwrap();
    }
    let expected = [
        (b"small".to_vec(), b"abc".to_vec()),
        (b"large".to_vec(), large),
        (b"last".to_vec(), b"last".to_vec()),
    ];
    assert_eq!(places, expected);
}
