//! Behaviour of the database, alone and under many threads and processes.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use super::containers::compact;
use super::*;
use crate::names;
use crate::record::Facts;

const CHILD: &str = "STANZA_TEST_DATABASE_CHILD";

fn open(path: &Path) -> Database {
    Database::open(path, || Ok(())).unwrap()
}

fn record(name: &str) -> Record {
    Record {
        id: names::container_id().unwrap(),
        name: name.to_owned(),
        config: stanza_spec::ContainerConfig { image: "x".into(), tty: true, ..Default::default() },
        facts: Facts { argv: vec!["true".into()], stop_signal: 15, ..Default::default() },
        created_at: "2026-01-01T00:00:00Z".into(),
        phase: Phase::Created,
        exit: None,
        address: None,
    }
}

fn insert(
    database: &mut Database,
    record: &Record,
) -> Result<(String, Option<std::net::Ipv4Addr>), InsertError> {
    database.insert(&Insert { record, invent: None, lease: None, volumes: &[] })
}

/// A network with the subnet 10.9.0.0 of that prefix.
pub(crate) fn subnet(prefix: u8) -> stanza_network::Network {
    stanza_network::Network {
        id: "5".repeat(64),
        name: "bridge".into(),
        driver: stanza_network::Driver::Bridge(stanza_network::Bridge {
            device: "b".into(),
            masquerade: true,
            peers: true,
            vlan: None,
        }),
        subnets: vec![stanza_network::NetworkSubnet {
            subnet: stanza_network::Subnet::new(std::net::Ipv4Addr::new(10, 9, 0, 0), prefix).unwrap(),
            gateway: Some([10, 9, 0, 1].into()),
            range: None,
            reserved: Vec::new(),
        }],
        mtu: None,
        internal: false,
    }
}

#[test]
fn a_record_comes_back_as_it_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/stanza.db");
    let mut database = Database::open(&path, || fs::create_dir(dir.path().join("new"))).unwrap();
    let mut first = record("web");
    first.config.resources.memory = Some(1 << 20);
    first.config.security.seccomp = stanza_spec::SeccompChoice::Profile("{}".into());
    first.config.log.driver = stanza_spec::LogDriver::None;
    insert(&mut database, &first).unwrap();
    assert_eq!(database.container(&first.id).unwrap(), Some(first.clone()));
    database.set_started(first.id.as_str()).unwrap();
    database.set_exited(&[(first.id.as_str(), "{\"code\":3}")]).unwrap();
    let read = open(&path).container(&first.id).unwrap().unwrap();
    assert_eq!((read.phase, read.exit.as_deref()), (Phase::Exited, Some("{\"code\":3}")));
    assert!(!first.config.tty || compact(&first.config).len() < 200, "{}", compact(&first.config));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let files: BTreeSet<_> =
        fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(
        files.iter().all(|f| ["stanza.db", "stanza.db-wal", "stanza.db-shm"].map(Into::into).contains(f))
    );
}

#[test]
fn a_name_has_one_owner_and_an_invented_one_moves_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    let first = record("web");
    insert(&mut database, &first).unwrap();
    let second = record("web");
    match insert(&mut database, &second) {
        Err(InsertError::NameTaken { name, owner }) => {
            assert_eq!((name.as_str(), owner.as_str()), ("web", first.id.as_str()));
        }
        other => panic!("{other:?}"),
    }
    let invent = |attempt: usize| if attempt < 2 { "web".to_owned() } else { format!("web{attempt}") };
    let insert = Insert { record: &second, invent: Some(&invent), lease: None, volumes: &[] };
    assert_eq!(database.insert(&insert).unwrap().0, "web2");
    assert_eq!(database.rename(second.id.as_str(), "web").unwrap(), Err(first.id.to_string()));
    assert_eq!(database.rename(second.id.as_str(), "other").unwrap(), Ok(()));
    assert_eq!(database.matching("other").unwrap(), [second.id.to_string()]);
    assert_eq!(database.matching(second.id.short()).unwrap(), [second.id.to_string()]);
    assert_eq!(database.matching("zz").unwrap(), Vec::<String>::new());
    assert_eq!(database.matching("%").unwrap(), Vec::<String>::new());
}

#[test]
fn addresses_are_the_lowest_free_ones_until_none_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    let records: Vec<Record> = (0..5).map(|n| record(&format!("c{n}"))).collect();
    let mut addresses = Vec::new();
    for record in &records {
        let insert = Insert { record, invent: None, lease: Some(&subnet(29)), volumes: &[] };
        addresses.push(database.insert(&insert).unwrap().1.unwrap().octets()[3]);
    }
    assert_eq!(addresses, [2, 3, 4, 5, 6]);
    let late = record("late");
    let insert = Insert { record: &late, invent: None, lease: Some(&subnet(29)), volumes: &[] };
    assert!(matches!(database.insert(&insert), Err(InsertError::NoAddress)));
    assert_eq!(database.container(&late.id).unwrap(), None);
    database.set_exited(&[(records[2].id.as_str(), "{}")]).unwrap();
    assert_eq!(database.insert(&insert).unwrap().1, Some([10, 9, 0, 4].into()));
    assert_eq!(database.start_with_lease(late.id.as_str(), &subnet(29)).unwrap(), Some([10, 9, 0, 4].into()));
    database.delete(late.id.as_str()).unwrap();
    assert_eq!(database.leases().unwrap().len(), 4);
}

#[test]
fn id_ranges_do_not_overlap() {
    let dir = tempfile::tempdir().unwrap();
    let mut database = open(&dir.path().join("s.db"));
    let take = |database: &mut Database, id: &str| database.take_id_range(id, 1000, 200, 100).unwrap();
    assert_eq!([take(&mut database, "a"), take(&mut database, "b")], [Some(1000), Some(1100)]);
    assert_eq!([take(&mut database, "a"), take(&mut database, "c")], [Some(1000), None]);
    assert_eq!(database.free_orphans().unwrap(), 2);
    assert_eq!(take(&mut database, "c"), Some(1000));
}

#[test]
fn a_damaged_or_newer_file_is_named_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.db");
    fs::File::create(&path).unwrap().write_all(&[b'x'; 8192]).unwrap();
    let error = Database::open(&path, || Ok(())).unwrap_err();
    assert!(matches!(error, DatabaseError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("bad.db") && error.hint().unwrap().contains("bad.db"));

    let path = dir.path().join("new.db");
    open(&path).connection.pragma_update(None, "user_version", 99).unwrap();
    let error = Database::open(&path, || Ok(())).unwrap_err();
    assert_eq!((error.kind(), error.hint().is_some()), (ErrorKind::Unsupported, true));

    let path = dir.path().join("empty.db");
    fs::File::create(&path).unwrap();
    insert(&mut open(&path), &record("ab")).unwrap();

    let path = dir.path().join("record.db");
    let broken = record("broken");
    let mut database = open(&path);
    insert(&mut database, &broken).unwrap();
    database.connection.execute("UPDATE containers SET config = '{'", []).unwrap();
    let error = database.container(&broken.id).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(broken.id.as_str()));
    assert_eq!(database.matching("broken").unwrap(), [broken.id.to_string()]);
}

#[test]
fn threads_that_create_the_file_and_race_for_a_name_have_one_winner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let won: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| insert(&mut open(&path), &record("same")).is_ok())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
}

/// Not a test of its own: the body of the processes that the next test starts.
#[test]
fn child_process() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut database = open(Path::new(&path));
    let own = record(&format!("p{}", std::process::id()));
    let insertion = Insert { record: &own, invent: None, lease: Some(&subnet(24)), volumes: &[] };
    database.insert(&insertion).unwrap();
    let same = record("same");
    match insert(&mut database, &same) {
        Ok(_) | Err(InsertError::NameTaken { .. }) => {}
        Err(error) => panic!("{error:?}"),
    }
}

#[test]
fn processes_race_for_names_and_addresses_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let children: Vec<_> = (0..12)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "database::tests::child_process"])
                .env(CHILD, &path)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let database = open(&path);
    let rows = database.rows().unwrap();
    assert_eq!(rows.iter().filter(|row| row.name == "same").count(), 1);
    assert_eq!(rows.len(), 13);
    let addresses: BTreeSet<_> = database.leases().unwrap().into_iter().map(|(address, _)| address).collect();
    assert_eq!(addresses.len(), 12);
    database.verify().unwrap();
}

#[test]
fn the_log_stays_short_over_many_short_lives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    let mut longest = 0;
    for n in 0..300 {
        let mut database = open(&path);
        let one = record(&format!("c{n}"));
        let insert = Insert { record: &one, invent: None, lease: None, volumes: &[] };
        database.insert(&insert).unwrap();
        database.delete(one.id.as_str()).unwrap();
        drop(database);
        longest = longest.max(std::fs::metadata(dir.path().join("s.db-wal")).unwrap().len());
    }
    assert!(longest < 2 * super::LONGEST_LOG, "{longest}");
}
