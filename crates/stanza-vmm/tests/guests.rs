//! Guests that boot, emulated: with both of Debian's cloud kernels where their packages are there, and QEMU as it is installed.
//!
//! The packages are looked for in `target/kernel-packages`, where `cargo xtask test` puts them, or in the directory that
//! `STANZA_KERNEL_PACKAGES` names. This executable is the guests' first process too (`guest/`), so it has a `main` of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a test fails by panicking; a runner and a guest print and end"
)]

mod guest;
mod machine;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use machine::{LIMIT, Room, SHAPE, disk, kernels};
use stanza_vmm::{Accelerator, Event, Memory, Status, Store, Template, remove_templates_but};

/// A test, with its name.
type Test = (&'static str, fn(&Room));

const TESTS: &[Test] = &[
    ("a_guest_boots_answers_and_ends", a_guest_boots_answers_and_ends),
    ("a_panic_ends_the_machine_and_is_on_its_console", a_panic_ends_the_machine_and_is_on_its_console),
    ("machines_of_one_template_have_disks_of_their_own", machines_of_one_template_have_disks_of_their_own),
    ("a_machine_is_paused_and_resumed", a_machine_is_paused_and_resumed),
    ("a_broken_template_is_made_again", a_broken_template_is_made_again),
    ("a_killed_maker_leaves_nothing_that_the_next_does_not_clear", a_killed_maker_leaves_nothing),
    ("the_accelerator_is_found_by_booting_and_remembered", the_accelerator_is_found_by_booting),
];

fn main() {
    if guest::is_guest() {
        guest::serve();
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, root] = &words[..]
        && word == "make-template"
    {
        let room = Room::open(Path::new(root));
        room.template();
        return;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let exact = words.iter().any(|word| word == "--exact");
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| if exact { name == *filter } else { name.contains(*filter) })
    };
    if words.iter().any(|word| word == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let packages = match kernels() {
        Ok(packages) => packages,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let (mut passed, mut failed) = (0, 0);
    for package in packages {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::install(directory.path(), &package);
        for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
            let good = catch_unwind(AssertUnwindSafe(|| test(&room))).is_ok();
            println!("test {name} ({}) ... {}", room.version, if good { "ok" } else { "FAILED" });
            *(if good { &mut passed } else { &mut failed }) += 1;
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed; 0 ignored");
    std::process::exit(if failed == 0 { 0 } else { 101 });
}

fn a_guest_boots_answers_and_ends(room: &Room) {
    assert!(fs::metadata(&room.boot.kernel.vmlinux).unwrap().len() > 20 << 20);
    let mut machine = room.start(room.spec(), true);
    assert_eq!(machine.ask("ping"), "pong");
    assert_eq!(machine.qmp.status(LIMIT).unwrap(), Status::Running);
    machine.tell("stop");
    assert_eq!(machine.last_event(), Event::Shutdown("guest-shutdown".into()));
    assert!(machine.wait().success());
}

fn a_panic_ends_the_machine_and_is_on_its_console(room: &Room) {
    let mut machine = room.start(room.spec(), true);
    machine.tell("crash");
    assert_eq!(machine.last_event(), Event::Shutdown("guest-reset".into()));
    assert!(machine.wait().success());
    let console = fs::read_to_string(room.path("console")).unwrap();
    assert!(console.contains("Kernel panic - not syncing: sysrq triggered crash"), "{console}");
}

fn machines_of_one_template_have_disks_of_their_own(room: &Room) {
    let template = room.template();
    let before = fs::read(&template.ram).unwrap();
    let mut machines = Vec::new();
    for content in ["one", "another"] {
        let mut spec = room.spec();
        spec.memory = Memory::Template(template.ram.clone());
        spec.restore = true;
        spec.disks = vec![disk(room, content)];
        let mut machine = room.start(spec, false);
        template.restore(&mut machine.qmp, LIMIT).unwrap();
        machines.push((machine, content));
    }
    for (machine, content) in &mut machines {
        assert_eq!(machine.ask("disk"), *content);
        assert_eq!(machine.ask("late"), "loaded");
    }
    assert!(fs::read(&template.ram).unwrap() == before, "a machine has written into its template");
    for (machine, _) in &mut machines {
        machine.qmp.quit(LIMIT).unwrap();
        assert!(machine.wait().success());
    }
}

fn a_machine_is_paused_and_resumed(room: &Room) {
    let mut machine = room.restored();
    machine.qmp.stop(LIMIT).unwrap();
    assert_eq!(machine.qmp.status(LIMIT).unwrap(), Status::Stopped("paused".into()));
    machine.tell("ping");
    assert!(!machine.hears(Duration::from_millis(100)));
    machine.qmp.cont(LIMIT).unwrap();
    assert_eq!(machine.hear(), "pong");
    let events: Vec<Event> = machine.qmp.events().collect();
    assert!(events.ends_with(&[Event::Stop, Event::Resume]), "{events:?}");
}

fn a_broken_template_is_made_again(room: &Room) {
    let template = room.template();
    let state = fs::OpenOptions::new().write(true).open(&template.state).unwrap();
    state.write_all_at(b"damage", 1000).unwrap();
    assert_eq!(Template::find(&room.store, &room.qemu, &room.boot, SHAPE), None);
    assert_eq!(room.template(), template);
    assert_eq!(room.restored().ask("ping"), "pong");
    assert_eq!(remove_templates_but(&room.store, std::slice::from_ref(&template)).unwrap(), 0);
    assert_eq!(remove_templates_but(&room.store, &[]).unwrap(), 1);
    assert!(!template.ram.exists());
}

fn a_killed_maker_leaves_nothing(room: &Room) {
    remove_templates_but(&room.store, &[]).unwrap();
    let making = room.path("vm/making/new");
    let mut maker = Command::new(std::env::current_exe().unwrap())
        .args(["make-template".as_ref(), room.root.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + LIMIT;
    while !uses(&making) {
        assert!(Instant::now() < end, "the maker does not start QEMU");
        sleep(Duration::from_millis(2));
    }
    maker.kill().unwrap();
    maker.wait().unwrap();
    while uses(&making) {
        assert!(Instant::now() < end, "QEMU lives on without its maker");
        sleep(Duration::from_millis(2));
    }
    assert!(making.exists());
    assert_eq!(Template::find(&room.store, &room.qemu, &room.boot, SHAPE), None);
    room.template();
    assert!(!making.exists());
    // A store that is opened anew takes what is there.
    let store = Store::open(&room.root).unwrap();
    assert!(Template::find(&store, &room.qemu, &room.boot, SHAPE).is_some());
}

/// Whether a process has `path` in one of its words.
fn uses(path: &Path) -> bool {
    let path = path.to_str().unwrap();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let mut words = Vec::new();
        let found =
            fs::File::open(entry.path().join("cmdline")).and_then(|mut file| file.read_to_end(&mut words));
        found.is_ok() && String::from_utf8_lossy(&words).contains(path)
    })
}

fn the_accelerator_is_found_by_booting(room: &Room) {
    let first = Accelerator::choose(&room.store, &room.qemu, &room.boot).unwrap();
    let begin = Instant::now();
    assert_eq!(Accelerator::choose(&room.store, &room.qemu, &room.boot).unwrap(), first);
    assert!(begin.elapsed() < Duration::from_secs(1), "a verdict is not remembered");
    assert_eq!(first.notice.is_none(), first.accelerator == Accelerator::Kvm);
    println!("the accelerator here: {first:?}");
}
