//! Whole verbs on an engine in a temporary directory: creation with all its refusals, and what `list`, `remove` and
//! `check` make of containers whose processes died. Nothing is started, nothing outside the directory is touched.

use std::fs::{self, File};
use std::path::Path;

use stanza_image::Silent;
use stanza_spec::{
    Classify, ContainerConfig, ContainerId, ErrorKind, Instant, Isolation, MountKind, MountRequest,
    NetworkMode, PortRequest, Protocol, PullPolicy,
};

use crate::database::{Insert, Phase, Record};
use crate::record::Facts;
use crate::*;

struct House {
    dir: tempfile::TempDir,
    engine: Engine,
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    House { dir, engine }
}

fn open(path: &Path) -> Engine {
    // As without root: the layers of these tests need no privilege.
    let options = Options {
        root: path.join("root"),
        runroot: path.join("run"),
        rootless: true,
        config: None,
        storage_driver: None,
    };
    Engine::open(options).unwrap()
}

impl House {
    /// An image with one empty layer and a command.
    fn import(&mut self) {
        let archive = Box::new(std::io::Cursor::new(vec![0u8; 1024]));
        let options = ImportOptions {
            changes: vec!["CMD [\"true\"]".into(), "VOLUME /data".into()],
            ..Default::default()
        };
        let name = "localhost/test:1".parse().unwrap();
        self.engine.import(archive, Some(&name), &options).unwrap();
    }

    /// A container on record with its directory, as it is after `create`.
    fn record(&mut self, name: &str, phase: Phase, auto_remove: bool) -> Record {
        let record = Record {
            id: names::container_id().unwrap(),
            name: name.to_owned(),
            config: ContainerConfig {
                image: "localhost/test:1".into(),
                network: Some(NetworkMode::None),
                auto_remove,
                ..Default::default()
            },
            facts: Facts { argv: vec!["true".into()], stop_signal: 15, ..Default::default() },
            created_at: Instant::now().rfc3339(),
            phase,
            exit: None,
            leases: Vec::new(),
        };
        let database = self.engine.database().unwrap();
        let wishes = [crate::database::tests::wish_in(database, 16)];
        let insert = Insert { record: &record, invent: None, networks: &wishes, volumes: &[] };
        database.insert(&insert).unwrap();
        fs::create_dir_all(self.engine.options.container_dir(record.id.as_str())).unwrap();
        record
    }

    /// The files of a monitor that runs: it does while the answer is held.
    fn monitor(&self, id: &ContainerId) -> File {
        let running = Running {
            machine: false,
            notice: None,
            made_rules: false,
            pid: i32::MAX,
            start_time: 1,
            boot_id: "another".into(),
            started_at: "2026-01-01T00:00:00.000000000Z".into(),
            ports: Vec::new(),
        };
        let state = serde_json::to_vec(&running).unwrap();
        fs::write(self.engine.options.container_dir(id.as_str()).join("state.json"), state).unwrap();
        let run_dir = self.engine.options.run_dir(id.as_str());
        fs::create_dir_all(&run_dir).unwrap();
        let lock = File::create(run_dir.join("monitor.lock")).unwrap();
        stanza_sys::lock_exclusive(&lock).unwrap();
        lock
    }

    fn all(&mut self) -> Vec<Container> {
        self.engine.list(&ListQuery { all: true, ..Default::default() }).unwrap()
    }

    fn entries(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join(path)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn wish(name: &str) -> ContainerConfig {
    ContainerConfig {
        image: "localhost/test:1".into(),
        name: Some(name.into()),
        pull: PullPolicy::Never,
        ..Default::default()
    }
}

#[test]
fn a_created_container_is_found_listed_and_removed_without_trace() {
    let mut house = house();
    house.import();
    let created = house.engine.create(wish("web"), &mut Silent).unwrap();
    assert_eq!(house.engine.find(&created.id.short()[..4]).unwrap(), created.id);
    let listed = house.all();
    assert_eq!((listed.len(), listed[0].command.clone()), (1, vec!["true".to_owned()]));
    assert_eq!((listed[0].state.word(), listed[0].mounts[0].destination.as_str()), ("created", "/data"));
    assert_eq!(house.engine.list(&ListQuery::default()).unwrap().len(), 0);
    assert_eq!((house.entries("root/containers").len(), house.entries("root/volumes").len()), (1, 1));
    house.engine.remove(&created.id, false, true).unwrap();
    assert_eq!((house.entries("root/containers").len(), house.entries("root/volumes").len()), (0, 0));
    assert!(matches!(house.engine.find("web"), Err(FindError::NotFound(_))));
}

#[test]
fn refused_creations_leave_nothing() {
    let mut house = house();
    house.import();
    let first = house.engine.create(wish("web"), &mut Silent).unwrap();
    let mut refused = |change: &dyn Fn(&mut ContainerConfig)| {
        let mut config = wish("other");
        change(&mut config);
        house.engine.create(config, &mut Silent).unwrap_err()
    };
    let taken = refused(&|config| config.name = Some("/web".into()));
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    assert!(
        taken.to_string().starts_with("Conflict. The container name \"/web\" is already in use by container")
    );
    assert!(taken.to_string().contains(first.id.as_str()));
    assert_eq!(refused(&|config| config.name = Some("x".into())).kind(), ErrorKind::InvalidArgument);
    assert_eq!(refused(&|config| config.image = "nope".into()).kind(), ErrorKind::NotFound);
    assert_eq!(refused(&|config| config.isolation = Isolation::Vm).kind(), ErrorKind::Unsupported);
    let sctp = refused(&|config| {
        config.network = Some(NetworkMode::Bridge);
        config.ports = vec![PortRequest {
            host_ip: None,
            host_port: Some(80),
            host_range: None,
            container_port: 80,
            protocol: Protocol::Sctp,
        }];
    });
    assert_eq!(sctp.kind(), ErrorKind::Unsupported);
    assert_eq!(refused(&|config| config.resources.memory = Some(1)).kind(), ErrorKind::InvalidArgument);
    let missing = refused(&|config| {
        config.mounts = vec![MountRequest {
            kind: MountKind::Bind {
                source: "/no/such/place".into(),
                create_source: false,
                propagation: None,
                non_recursive: false,
            },
            destination: "/x".into(),
            read_only: false,
        }];
    });
    assert!(missing.to_string().ends_with("bind source path does not exist: /no/such/place"));
    assert_eq!(house.all().len(), 1);
    assert_eq!((house.entries("root/containers").len(), house.entries("root/volumes").len()), (1, 1));
}

#[test]
fn an_image_that_a_container_uses_is_protected() {
    let mut house = house();
    house.import();
    let created = house.engine.create(wish("web"), &mut Silent).unwrap();
    let error = house.engine.remove_image("localhost/test:1", false).unwrap_err();
    assert!(error.to_string().contains("must force"), "{error}");
    house.engine.remove(&created.id, false, false).unwrap();
    house.engine.remove_image("localhost/test:1", false).unwrap();
    assert_eq!(house.entries("root/layers/sha256").len(), 0);
}

#[test]
fn a_dead_monitor_is_noticed_by_whoever_looks() {
    let mut house = house();
    let kept = house.record("kept", Phase::Started, false);
    let gone = house.record("gone", Phase::Started, true);
    for record in [&kept, &gone] {
        drop(house.monitor(&record.id));
    }
    let listed = house.all();
    assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["kept"]);
    assert!(matches!(&listed[0].state, State::Exited(exit) if exit.code == 255), "{:?}", listed[0].state);
    assert_eq!(house.entries("root/containers"), [kept.id.to_string()]);
    assert_eq!(house.entries("run/containers"), Vec::<String>::new());
    assert_eq!(house.engine.database().unwrap().leases().unwrap(), []);
    // Another process reads it from the record alone.
    fs::remove_file(house.engine.options.container_dir(kept.id.as_str()).join("exit.json")).unwrap();
    let mut other = open(house.dir.path());
    assert!(matches!(other.inspect(&kept.id).unwrap().state, State::Exited(exit) if exit.code == 255));
}

#[test]
fn a_start_that_died_before_its_monitor_is_over_but_one_under_way_is_not() {
    let mut house = house();
    let record = house.record("early", Phase::Started, false);
    let lock = open(house.dir.path()).lock(record.id.as_str()).unwrap();
    assert_eq!(house.all()[0].state, State::Created);
    drop(lock);
    assert_eq!(house.all()[0].state.word(), "exited");
}

#[test]
fn a_running_container_is_only_removed_by_force() {
    let mut house = house();
    let record = house.record("busy", Phase::Started, false);
    let monitor = house.monitor(&record.id);
    assert_eq!(house.engine.list(&ListQuery::default()).unwrap().len(), 1);
    let error = house.engine.remove(&record.id, false, false).unwrap_err();
    assert!(
        error.to_string().contains("container is running: stop the container before removing"),
        "{error}"
    );
    drop(monitor);
    house.engine.remove(&record.id, false, false).unwrap();
    assert_eq!(house.all().len(), 0);
}

#[test]
fn a_damaged_record_is_named_and_removed_by_force() {
    let mut house = house();
    let record = house.record("broken", Phase::Created, false);
    house.engine.database().unwrap().damage(record.id.as_str());
    let error = house.engine.list(&ListQuery { all: true, ..Default::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.hint().unwrap().contains("rm -f"));
    let id = house.engine.find("broken").unwrap();
    assert!(house.engine.remove(&id, false, false).is_err());
    house.engine.remove(&id, true, false).unwrap();
    assert_eq!((house.all().len(), house.entries("root/containers").len()), (0, 0));
}

#[test]
fn check_finds_leftovers_and_clears_them() {
    let mut house = house();
    let missing = house.record("missing", Phase::Created, false);
    fs::remove_dir(house.engine.options.container_dir(missing.id.as_str())).unwrap();
    fs::create_dir_all(house.dir.path().join("root/containers/stray/upper")).unwrap();
    fs::create_dir_all(house.dir.path().join("run/containers/old")).unwrap();
    let count = |findings: &[Finding], status| {
        let ours = |one: &&Finding| one.status == status && !one.what.contains("control group");
        findings.iter().filter(ours).count()
    };
    let found = house.engine.check(false).unwrap();
    assert_eq!(count(&found, FindingStatus::Leftover), 3, "{found:#?}");
    let repaired = house.engine.check(true).unwrap();
    assert_eq!(count(&repaired, FindingStatus::Repaired), 3, "{repaired:#?}");
    assert_eq!(count(&house.engine.check(false).unwrap(), FindingStatus::Leftover), 0);
    assert_eq!((house.all().len(), house.entries("root/containers").len()), (0, 0));
}

#[test]
fn filters_and_limits_choose_among_containers() {
    let mut house = house();
    for name in ["one", "two", "three"] {
        house.record(name, Phase::Created, false);
    }
    let mut names = |query: ListQuery| -> Vec<String> {
        house.engine.list(&query).unwrap().into_iter().map(|one| one.name).collect()
    };
    let filters = |words: &[&str]| Filters::parse(words).unwrap();
    assert_eq!(names(ListQuery { all: true, ..Default::default() }), ["three", "two", "one"]);
    assert_eq!(names(ListQuery { last: Some(2), ..Default::default() }), ["three", "two"]);
    assert_eq!(names(ListQuery { latest: true, ..Default::default() }), ["three"]);
    let by = |words: &[&str]| ListQuery { all: true, filters: filters(words), ..Default::default() };
    assert_eq!(names(by(&["name=^t", "network=none"])), ["three", "two"]);
    assert_eq!(names(by(&["before=three", "since=one"])), ["two"]);
    assert_eq!(names(by(&["status=exited"])), Vec::<String>::new());
    assert_eq!(names(by(&["ancestor=localhost/test:1", "name=one"])), ["one"]);
    for (word, text) in
        [("colour=x", "invalid filter 'colour'"), ("status=odd", "invalid filter 'status=odd'")]
    {
        let error = house.engine.list(&by(&[word])).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
}
