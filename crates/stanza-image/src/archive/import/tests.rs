//! Root file systems as images.

use std::io::{Cursor, Write};

use stanza_tar::{Builder, Header};

use super::*;

fn tarball() -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let header = Header { path: b"etc/motd".to_vec(), mode: 0o644, size: 2, ..Header::default() };
    builder.append(&header, &mut &b"hi"[..]).unwrap();
    builder.finish().unwrap()
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&directory.path().join("images")).unwrap();
    (directory, store)
}

#[test]
fn a_tarball_becomes_an_image_in_every_compression() {
    let tar = tarball();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    for bytes in [tar.clone(), gzip.finish().unwrap(), zstd::encode_all(&tar[..], 1).unwrap()] {
        let (_keep, store) = store();
        let options = ImportOptions {
            changes: vec!["CMD [\"sh\"]".into(), "ENV A=b".into()],
            message: Some("a word".into()),
            ..ImportOptions::default()
        };
        let name = "base:1".parse().unwrap();
        let image = import(&store, Box::new(Cursor::new(bytes.clone())), Some(&name), &options).unwrap();
        assert_eq!((image.names.clone(), image.platform()), (vec![name], Platform::host()));
        assert_eq!((&image.layers[0].digest, &image.layers[0].diff_id), (&sha256(&bytes), &sha256(&tar)));
        let config = image.config.config().as_ref().unwrap();
        assert_eq!(config.cmd().as_deref(), Some(&["sh".to_owned()][..]));
        let mut content = Vec::new();
        store.open_layer(&image.layers[0]).unwrap().read_to_end(&mut content).unwrap();
        assert_eq!(content, tar);
        assert!(image.created.unwrap().ends_with('Z'));
    }
}

#[test]
fn what_is_no_archive_or_no_instruction_is_refused_and_leaves_nothing() {
    let (_keep, store) = store();
    let run = |bytes: Vec<u8>, change: &str| {
        let options = ImportOptions { changes: vec![change.to_owned()], ..ImportOptions::default() };
        import(&store, Box::new(Cursor::new(bytes)), None, &options)
    };
    assert!(matches!(run(b"garbage".repeat(100), "USER a"), Err(ImportError::Tar(_))));
    assert!(matches!(run(tarball()[..513].to_vec(), "USER a"), Err(ImportError::Tar(_))));
    assert!(matches!(run(tarball(), "RUN rm -rf /"), Err(ImportError::Change { .. })));
    assert!(matches!(run(b"BZh91AY".to_vec(), "USER a"), Err(ImportError::Read { .. })));
    assert_eq!(store.disk_usage().unwrap(), crate::store::DiskUsage::default());
    assert!(run(tarball(), "USER a").unwrap().is_dangling());
}
