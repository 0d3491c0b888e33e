use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// Says to the test executable that it is to be the worker of a test.
const WORKER: &str = "STANZA_TEST_NAMES";

fn id(number: u8) -> ContainerId {
    ContainerId::from_random([number; 32])
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A network's names, and one who asks for them all the time.
fn names() -> (tempfile::TempDir, Names, NamesReader) {
    let directory = tempfile::tempdir().unwrap();
    let network = directory.path().join("network");
    let names = Names::create(&network).unwrap();
    (directory, names, NamesReader::new(network, None))
}

/// Everything in the directory, by relative path.
fn tree(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            found.insert(entry.path().strip_prefix(directory).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
        }
    }
    found
}

const EMPTY: [&str; 4] = ["network", "network/addresses", "network/generation", "network/names"];

#[test]
fn a_container_is_found_by_each_name_in_any_case_and_back_by_each_address() {
    let (directory, names, mut reader) = names();
    let (two, both) = (texts(&["Web", "w", "db_1.Example"]), addresses(&["10.77.0.2", "fd00::2"]));
    names.announce(&id(1), &two, &both).unwrap();
    for name in ["web", "WEB", "w", "DB_1.example"] {
        assert_eq!(reader.lookup(name).unwrap(), Some(both.clone()), "{name}");
    }
    for address in &both {
        assert_eq!(reader.reverse(*address).unwrap().as_deref(), Some("web"));
    }
    assert_eq!(reader.lookup("we").unwrap(), None);
    assert_eq!(reader.reverse("10.77.0.3".parse().unwrap()).unwrap(), None);
    names.withdraw(&id(1), &two, &both).unwrap();
    names.withdraw(&id(1), &two, &both).unwrap();
    assert_eq!(reader.lookup("web").unwrap(), None);
    assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into());
}

#[test]
fn containers_that_share_a_name_come_each_first_in_turn_and_leave_alone() {
    let (_directory, names, mut reader) = names();
    for number in 1..=3 {
        let address = addresses(&[&format!("10.77.0.{number}")]);
        names.announce(&id(number), &texts(&["all"]), &address).unwrap();
    }
    let mut firsts = BTreeSet::new();
    for _ in 0..200 {
        let found = reader.lookup("all").unwrap().unwrap();
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 3);
        firsts.insert(found[0]);
    }
    assert_eq!(firsts.len(), 3);
    names.withdraw(&id(2), &texts(&["all"]), &addresses(&["10.77.0.2"])).unwrap();
    let left: BTreeSet<IpAddr> = reader.lookup("all").unwrap().unwrap().into_iter().collect();
    assert_eq!(left, addresses(&["10.77.0.1", "10.77.0.3"]).into_iter().collect());
}

#[test]
fn who_comes_again_with_another_address_replaces_the_old_one() {
    let (directory, names, mut reader) = names();
    names.announce(&id(1), &texts(&["web"]), &addresses(&["10.77.0.2"])).unwrap();
    // A replacement that was cut off.
    let draft = directory.path().join("network/names/web").join(format!(".{}", id(1)));
    std::os::unix::fs::symlink("10.77.0.9", &draft).unwrap();
    assert_eq!(reader.lookup("web").unwrap(), Some(addresses(&["10.77.0.2"])));
    names.announce(&id(1), &texts(&["web"]), &addresses(&["10.77.0.3"])).unwrap();
    assert_eq!(reader.lookup("web").unwrap(), Some(addresses(&["10.77.0.3"])));
    assert!(!draft.is_symlink());
}

#[test]
fn an_address_that_changed_hands_stays_with_its_new_owner() {
    let (_directory, names, mut reader) = names();
    let address = addresses(&["10.77.0.2"]);
    names.announce(&id(1), &texts(&["old"]), &address).unwrap();
    names.announce(&id(2), &texts(&["new"]), &address).unwrap();
    names.withdraw(&id(1), &texts(&["old"]), &address).unwrap();
    assert_eq!(reader.reverse(address[0]).unwrap().as_deref(), Some("new"));
}

#[test]
fn what_is_no_name_is_neither_announced_nor_looked_up() {
    let (directory, names, mut reader) = names();
    let long = "a".repeat(64);
    let longer = vec!["a".repeat(63); 4].join(".");
    let hostile = [
        "", ".", "..", "a..b", ".a", "a.", "../x", "a/b", "/etc", "a\0b", "a b", "ä", "a\n", "*", &long,
        &longer,
    ];
    for name in hostile {
        assert!(!is_name(name), "{name:?}");
        names.announce(&id(1), &texts(&[name]), &addresses(&["10.77.0.2"])).unwrap();
        assert_eq!(reader.lookup(name).unwrap(), None, "{name:?}");
        names.withdraw(&id(1), &texts(&[name]), &[]).unwrap();
    }
    assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into());
    assert!(is_name(&"a".repeat(63)) && is_name("_x-1.B") && is_name("0"));
}

#[test]
fn entries_of_the_dead_are_cleared_and_the_living_stay() {
    let (directory, names, mut reader) = names();
    for (number, own) in [(1, "live"), (2, "dead")] {
        let address = addresses(&[&format!("10.77.0.{number}")]);
        names.announce(&id(number), &texts(&[own, "shared"]), &address).unwrap();
    }
    std::fs::create_dir(directory.path().join("network/names/empty")).unwrap();
    let draft = directory.path().join("network/names/shared").join(format!(".{}", id(2)));
    std::os::unix::fs::symlink("10.77.0.9", draft).unwrap();
    assert!(names.clear(|container| container == id(1).as_str()).is_empty());
    assert_eq!(reader.lookup("dead").unwrap(), None);
    assert_eq!(reader.lookup("shared").unwrap(), Some(addresses(&["10.77.0.1"])));
    assert_eq!(reader.lookup("live").unwrap(), Some(addresses(&["10.77.0.1"])));
    assert!(names.clear(|_| false).is_empty());
    assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into());
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let (directory, _, mut reader) = names();
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink("10.0.0.1", elsewhere.join(id(1).as_str())).unwrap();
    std::os::unix::fs::symlink(&elsewhere, directory.path().join("network/names/web")).unwrap();
    assert!(reader.lookup("web").is_err());
    assert!(Names::open(&directory.path().join("network/names/web")).is_err());
    assert!(Names::open(&directory.path().join("nothing")).unwrap().is_none());
}

/// The last of a name removes its directory while the next one makes it.
#[test]
fn containers_that_come_and_go_with_one_name_never_lose_each_other() {
    let (directory, names, _) = names();
    let (names, network) = (&names, &directory.path().join("network"));
    std::thread::scope(|scope| {
        for number in 1..=4 {
            scope.spawn(move || {
                let mut reader = NamesReader::new(network.clone(), None);
                let (name, address) = (texts(&["same"]), addresses(&[&format!("10.77.0.{number}")]));
                for _ in 0..2_000 {
                    names.announce(&id(number), &name, &address).unwrap();
                    assert!(reader.lookup("same").unwrap().is_some_and(|found| found.contains(&address[0])));
                    names.withdraw(&id(number), &name, &address).unwrap();
                }
            });
        }
    });
    assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into());
}

/// Comes and goes until it is killed.
#[test]
fn worker_of_a_crash_test() {
    let Ok(directory) = std::env::var(WORKER) else { return };
    let names = Names::create(Path::new(&directory)).unwrap();
    let all = texts(&["web", "w", "alias"]);
    for last in (2..250).cycle() {
        let address = addresses(&[&format!("10.77.0.{last}"), "fd00::2"]);
        names.announce(&id(1), &all, &address).unwrap();
        names.announce(&id(1), &all, &addresses(&["10.77.0.1"])).unwrap();
        names.withdraw(&id(1), &all, &address).unwrap();
        names.withdraw(&id(1), &all, &addresses(&["10.77.0.1"])).unwrap();
    }
}

#[test]
fn whenever_its_owner_is_killed_the_directory_can_be_read_and_cleared() {
    let directory = tempfile::tempdir().unwrap();
    let network = directory.path().join("network");
    for round in 0_u64..40 {
        let mut worker = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "names::tests::worker_of_a_crash_test"])
            .env(WORKER, &network)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !network.join("names").is_dir() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A random moment: there is no condition to wait for.
        std::thread::sleep(Duration::from_micros(4_000 + (round * 7_919) % 5_000));
        worker.kill().unwrap();
        worker.wait().unwrap();
        let names = Names::open(&network).unwrap().unwrap();
        let mut reader = NamesReader::new(network.clone(), None);
        for address in reader.lookup("web").unwrap().unwrap_or_default() {
            assert!(address.to_string().starts_with("10.77.0.") || address.to_string() == "fd00::2");
        }
        names.announce(&id(1), &texts(&["web"]), &addresses(&["10.77.0.7"])).unwrap();
        assert_eq!(reader.lookup("web").unwrap(), Some(addresses(&["10.77.0.7"])));
        assert!(names.clear(|_| false).is_empty());
        assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into(), "round {round}");
    }
}

/// Containers that live as long as somebody holds their lock.
struct Lives {
    directory: tempfile::TempDir,
    names: Names,
    reader: NamesReader,
}

impl Lives {
    fn new() -> Lives {
        let directory = tempfile::tempdir().unwrap();
        let network = directory.path().join("network");
        let living = Living { directory: directory.path().join("runs"), lock: "alive".to_owned() };
        let names = Names::create(&network).unwrap();
        Lives { names, reader: NamesReader::new(network, Some(living)), directory }
    }

    fn run_dir(&self, number: u8) -> PathBuf {
        self.directory.path().join("runs").join(id(number).as_str())
    }

    /// Its lock, in a file of its own as with each start.
    fn start(&self, number: u8) -> std::fs::File {
        let _ = std::fs::remove_dir_all(self.run_dir(number));
        std::fs::create_dir_all(self.run_dir(number)).unwrap();
        let lock = std::fs::File::create(self.run_dir(number).join("alive")).unwrap();
        stanza_sys::lock_exclusive(&lock).unwrap();
        lock
    }

    fn announce(&self, number: u8, name: &str) {
        let address = addresses(&[&format!("10.77.0.{number}")]);
        self.names.announce(&id(number), &texts(&[name]), &address).unwrap();
    }

    /// The last numbers of the addresses of that name.
    fn told(&mut self, name: &str) -> BTreeSet<u8> {
        let found = self.reader.lookup(name).unwrap().unwrap_or_default();
        let last = |address: &IpAddr| address.to_string().rsplit('.').next().unwrap().parse().unwrap();
        found.iter().map(last).collect()
    }
}

#[test]
fn of_the_dead_nothing_is_told_from_the_moment_that_their_lock_is_free() {
    let mut lives = Lives::new();
    let mut locks: Vec<_> = (2..=3).map(|number| lives.start(number)).collect();
    (2..=3).for_each(|number| lives.announce(number, "web"));
    // The second time it is known.
    for _ in 0..2 {
        assert_eq!(lives.told("web"), [2, 3].into());
        assert_eq!(lives.reader.reverse("10.77.0.3".parse().unwrap()).unwrap().as_deref(), Some("web"));
    }
    drop(locks.pop());
    assert_eq!(lives.told("web"), [2].into());
    assert_eq!(lives.reader.reverse("10.77.0.3".parse().unwrap()).unwrap(), None);
    drop(locks.pop());
    std::fs::remove_dir_all(lives.run_dir(2)).unwrap();
    assert_eq!(lives.told("web"), [].into());
    let mut everybody = NamesReader::new(lives.directory.path().join("network"), None);
    assert_eq!(everybody.lookup("web").unwrap().map(|all| all.len()), Some(2));
}

#[test]
fn who_was_killed_and_lives_again_is_told_again() {
    let mut lives = Lives::new();
    for _ in 0..3 {
        let lock = lives.start(2);
        lives.announce(2, "web");
        assert_eq!((lives.told("web"), lives.told("web")), ([2].into(), [2].into()));
        drop(lock);
        assert_eq!(lives.told("web"), [].into());
    }
}

/// One process changes what another one knows; each change counts at once.
#[test]
fn what_is_known_is_forgotten_when_anybody_changes_anything() {
    let mut lives = Lives::new();
    let _locks: Vec<_> = (1..=250).map(|number| lives.start(number)).collect();
    let network = lives.directory.path().join("network");
    for number in 1..=250 {
        // Another one's, as another process has it.
        let other = Names::create(&network).unwrap();
        let address = addresses(&[&format!("10.77.0.{number}")]);
        other.announce(&id(number), &texts(&["web"]), &address).unwrap();
        assert_eq!(lives.told("web"), [number].into());
        assert_eq!(lives.told("web"), [number].into());
        Names::open(&network).unwrap().unwrap().withdraw(&id(number), &texts(&["web"]), &address).unwrap();
        assert_eq!(lives.told("web"), [].into());
    }
}

#[test]
fn a_name_that_is_known_is_told_without_a_look_at_the_directory() {
    let (directory, names, mut reader) = names();
    names.announce(&id(1), &texts(&["web"]), &addresses(&["10.77.0.2"])).unwrap();
    assert_eq!(reader.lookup("web").unwrap(), Some(addresses(&["10.77.0.2"])));
    // Behind everybody's back.
    std::fs::remove_dir_all(directory.path().join("network/names/web")).unwrap();
    assert_eq!(reader.lookup("web").unwrap(), Some(addresses(&["10.77.0.2"])));
    names.announce(&id(2), &texts(&["other"]), &addresses(&["10.77.0.3"])).unwrap();
    assert_eq!(reader.lookup("web").unwrap(), None);
}

#[test]
fn names_that_are_made_later_and_made_anew_are_found() {
    let directory = tempfile::tempdir().unwrap();
    let network = directory.path().join("network");
    let mut reader = NamesReader::new(network.clone(), None);
    for address in ["10.77.0.2", "10.77.0.3"] {
        assert_eq!(reader.lookup("web").unwrap(), None);
        let address = addresses(&[address]);
        Names::create(&network).unwrap().announce(&id(1), &texts(&["web"]), &address).unwrap();
        assert_eq!(reader.lookup("web").unwrap(), Some(address.clone()));
        Names::open(&network).unwrap().unwrap().withdraw(&id(1), &texts(&["web"]), &address).unwrap();
        std::fs::remove_dir_all(&network).unwrap();
    }
}

#[test]
fn more_names_than_are_kept_are_told_all_the_same() {
    let (_directory, names, mut reader) = names();
    let all: Vec<String> = (0..3000).map(|number| format!("n{number}")).collect();
    names.announce(&id(1), &all, &addresses(&["10.77.0.2"])).unwrap();
    for _ in 0..2 {
        for name in &all {
            assert_eq!(reader.lookup(name).unwrap(), Some(addresses(&["10.77.0.2"])), "{name}");
        }
    }
}
