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

fn names() -> (tempfile::TempDir, Names) {
    let directory = tempfile::tempdir().unwrap();
    let names = Names::create(&directory.path().join("network")).unwrap();
    (directory, names)
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

const EMPTY: [&str; 3] = ["network", "network/addresses", "network/names"];

#[test]
fn a_container_is_found_by_each_name_in_any_case_and_back_by_each_address() {
    let (directory, names) = names();
    let (two, both) = (texts(&["Web", "w", "db_1.Example"]), addresses(&["10.77.0.2", "fd00::2"]));
    names.announce(&id(1), &two, &both).unwrap();
    for name in ["web", "WEB", "w", "DB_1.example"] {
        assert_eq!(names.lookup(name).unwrap(), Some(both.clone()), "{name}");
    }
    for address in &both {
        assert_eq!(names.reverse(*address).unwrap().as_deref(), Some("web"));
    }
    assert_eq!(names.lookup("we").unwrap(), None);
    assert_eq!(names.reverse("10.77.0.3".parse().unwrap()).unwrap(), None);
    names.withdraw(&id(1), &two, &both).unwrap();
    names.withdraw(&id(1), &two, &both).unwrap();
    assert_eq!(names.lookup("web").unwrap(), None);
    assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into());
}

#[test]
fn containers_that_share_a_name_come_each_first_in_turn_and_leave_alone() {
    let (_directory, names) = names();
    for number in 1..=3 {
        let address = addresses(&[&format!("10.77.0.{number}")]);
        names.announce(&id(number), &texts(&["all"]), &address).unwrap();
    }
    let mut firsts = BTreeSet::new();
    for _ in 0..200 {
        let found = names.lookup("all").unwrap().unwrap();
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 3);
        firsts.insert(found[0]);
    }
    assert_eq!(firsts.len(), 3);
    names.withdraw(&id(2), &texts(&["all"]), &addresses(&["10.77.0.2"])).unwrap();
    let left: BTreeSet<IpAddr> = names.lookup("all").unwrap().unwrap().into_iter().collect();
    assert_eq!(left, addresses(&["10.77.0.1", "10.77.0.3"]).into_iter().collect());
}

#[test]
fn who_comes_again_with_another_address_replaces_the_old_one() {
    let (directory, names) = names();
    names.announce(&id(1), &texts(&["web"]), &addresses(&["10.77.0.2"])).unwrap();
    // A replacement that was cut off.
    let draft = directory.path().join("network/names/web").join(format!(".{}", id(1)));
    std::os::unix::fs::symlink("10.77.0.9", &draft).unwrap();
    assert_eq!(names.lookup("web").unwrap(), Some(addresses(&["10.77.0.2"])));
    names.announce(&id(1), &texts(&["web"]), &addresses(&["10.77.0.3"])).unwrap();
    assert_eq!(names.lookup("web").unwrap(), Some(addresses(&["10.77.0.3"])));
    assert!(!draft.is_symlink());
}

#[test]
fn an_address_that_changed_hands_stays_with_its_new_owner() {
    let (_directory, names) = names();
    let address = addresses(&["10.77.0.2"]);
    names.announce(&id(1), &texts(&["old"]), &address).unwrap();
    names.announce(&id(2), &texts(&["new"]), &address).unwrap();
    names.withdraw(&id(1), &texts(&["old"]), &address).unwrap();
    assert_eq!(names.reverse(address[0]).unwrap().as_deref(), Some("new"));
}

#[test]
fn what_is_no_name_is_neither_announced_nor_looked_up() {
    let (directory, names) = names();
    let long = "a".repeat(64);
    let longer = vec!["a".repeat(63); 4].join(".");
    let hostile = [
        "", ".", "..", "a..b", ".a", "a.", "../x", "a/b", "/etc", "a\0b", "a b", "ä", "a\n", "*", &long,
        &longer,
    ];
    for name in hostile {
        assert!(!is_name(name), "{name:?}");
        names.announce(&id(1), &texts(&[name]), &addresses(&["10.77.0.2"])).unwrap();
        assert_eq!(names.lookup(name).unwrap(), None, "{name:?}");
        names.withdraw(&id(1), &texts(&[name]), &[]).unwrap();
    }
    assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into());
    assert!(is_name(&"a".repeat(63)) && is_name("_x-1.B") && is_name("0"));
}

#[test]
fn entries_of_the_dead_are_cleared_and_the_living_stay() {
    let (directory, names) = names();
    for (number, own) in [(1, "live"), (2, "dead")] {
        let address = addresses(&[&format!("10.77.0.{number}")]);
        names.announce(&id(number), &texts(&[own, "shared"]), &address).unwrap();
    }
    std::fs::create_dir(directory.path().join("network/names/empty")).unwrap();
    let draft = directory.path().join("network/names/shared").join(format!(".{}", id(2)));
    std::os::unix::fs::symlink("10.77.0.9", draft).unwrap();
    assert!(names.clear(|container| container == id(1).as_str()).is_empty());
    assert_eq!(names.lookup("dead").unwrap(), None);
    assert_eq!(names.lookup("shared").unwrap(), Some(addresses(&["10.77.0.1"])));
    assert_eq!(names.lookup("live").unwrap(), Some(addresses(&["10.77.0.1"])));
    assert!(names.clear(|_| false).is_empty());
    assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into());
}

#[test]
fn a_link_in_the_place_of_a_directory_is_not_followed() {
    let (directory, names) = names();
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink("10.0.0.1", elsewhere.join(id(1).as_str())).unwrap();
    std::os::unix::fs::symlink(&elsewhere, directory.path().join("network/names/web")).unwrap();
    assert!(names.lookup("web").is_err());
    assert!(Names::open(&directory.path().join("network/names/web")).is_err());
    assert!(Names::open(&directory.path().join("nothing")).unwrap().is_none());
}

/// The last of a name removes its directory while the next one makes it.
#[test]
fn containers_that_come_and_go_with_one_name_never_lose_each_other() {
    let (directory, names) = names();
    let names = &names;
    std::thread::scope(|scope| {
        for number in 1..=4 {
            scope.spawn(move || {
                let (name, address) = (texts(&["same"]), addresses(&[&format!("10.77.0.{number}")]));
                for _ in 0..2_000 {
                    names.announce(&id(number), &name, &address).unwrap();
                    assert!(names.lookup("same").unwrap().is_some_and(|found| found.contains(&address[0])));
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
        for address in names.lookup("web").unwrap().unwrap_or_default() {
            assert!(address.to_string().starts_with("10.77.0.") || address.to_string() == "fd00::2");
        }
        names.announce(&id(1), &texts(&["web"]), &addresses(&["10.77.0.7"])).unwrap();
        assert_eq!(names.lookup("web").unwrap(), Some(addresses(&["10.77.0.7"])));
        assert!(names.clear(|_| false).is_empty());
        assert_eq!(tree(directory.path()), EMPTY.map(str::to_owned).into(), "round {round}");
    }
}

#[test]
fn of_the_dead_nothing_is_told_from_the_moment_that_their_lock_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs");
    let living = Living { directory: runs.clone(), lock: "alive".to_owned() };
    let names = Names::create(&directory.path().join("network")).unwrap();
    let ids = [1, 2].map(|byte| ContainerId::from_random([byte; 32]));
    let addresses: [IpAddr; 2] = ["10.77.0.2", "10.77.0.3"].map(|text| text.parse().unwrap());
    let mut locks = Vec::new();
    for (id, address) in ids.iter().zip(addresses) {
        std::fs::create_dir_all(runs.join(id.as_str())).unwrap();
        let lock = std::fs::File::create(runs.join(id.as_str()).join("alive")).unwrap();
        stanza_sys::lock_exclusive(&lock).unwrap();
        locks.push(lock);
        names.announce(id, &["web".to_owned()], &[address]).unwrap();
    }
    let names = names.of(Some(&living));
    let mut found = names.lookup("web").unwrap().unwrap();
    found.sort();
    assert_eq!(found, addresses);
    drop(locks.pop());
    assert_eq!(names.lookup("web").unwrap(), Some(vec![addresses[0]]));
    assert_eq!(names.reverse(addresses[1]).unwrap(), None);
    std::fs::remove_dir_all(runs.join(ids[0].as_str())).unwrap();
    assert_eq!(names.lookup("web").unwrap(), None);
    assert_eq!(names.of(None).lookup("web").unwrap().map(|all| all.len()), Some(2));
}
