//! The conversation against a systemd of the tests' own, without a bus and behind a real one.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::fake::{Fake, Script};
use super::{SystemdPlan, plan_systemd, start_at, stop_at, update_at};
use crate::Layout;

fn plan() -> SystemdPlan {
    let resources = serde_json::json!({
        "memory": {"limit": 1_000_000}, "cpu": {"cpus": "0", "idle": 1, "quota": 5000}, "pids": {"limit": 5},
        "devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
    });
    let layout = Layout::V2 { root: "/c".into(), controllers: vec![] };
    plan_systemd(&layout, "a.slice:x:abc", "abc", &serde_json::from_value(resources).unwrap(), false).unwrap()
}

#[test]
fn a_unit_is_started_changed_and_stopped() {
    for direct in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let script = Script { runs: true, ..Script::default() };
        let fake = Fake::listen(place.path(), direct, script, 3);
        let at = [fake.endpoint.clone()];
        start_at(&at, &plan(), 7).unwrap();
        update_at(&at, &plan()).unwrap();
        stop_at(&at, "x-abc.scope").unwrap();
        let expected = [
            "Subscribe",
            "StartTransientUnit x-abc.scope",
            "SetUnitProperties x-abc.scope",
            "GetUnit x-abc.scope",
            "Subscribe",
            "StopUnit x-abc.scope",
            "ResetFailedUnit x-abc.scope",
        ];
        assert_eq!(fake.asked(), expected);
    }
}

#[test]
fn a_failed_unit_of_that_name_is_forgotten_and_a_running_one_is_not_touched() {
    let place = tempfile::tempdir().unwrap();
    let fake = Fake::listen(place.path(), false, Script { exists: 3, ..Script::default() }, 2);
    let at = [fake.endpoint.clone()];
    let error = start_at(&at, &plan(), 7).unwrap_err();
    assert_eq!(
        error.to_string(),
        "systemd refuses `StartTransientUnit`: org.freedesktop.systemd1.UnitExists: words"
    );
    fake.script.lock().unwrap().exists = 1;
    start_at(&at, &plan(), 7).unwrap();
    let start = [
        "Subscribe",
        "StartTransientUnit x-abc.scope",
        "ResetFailedUnit x-abc.scope",
        "StartTransientUnit x-abc.scope",
    ];
    assert_eq!(fake.asked(), [start, start].concat());
}

#[test]
fn a_job_that_fails_is_told_and_its_unit_forgotten() {
    let place = tempfile::tempdir().unwrap();
    let fake = Fake::listen(place.path(), true, Script { results: vec!["failed"], ..Script::default() }, 2);
    let at = [fake.endpoint.clone()];
    let error = start_at(&at, &plan(), 7).unwrap_err();
    assert_eq!(error.to_string(), "error creating systemd unit `x-abc.scope`: got `failed`");
    // One that is gone needs no stopping.
    stop_at(&at, "x-abc.scope").unwrap();
    let expected =
        ["Subscribe", "StartTransientUnit x-abc.scope", "ResetFailedUnit x-abc.scope", "GetUnit x-abc.scope"];
    assert_eq!(fake.asked(), expected);
}

#[test]
fn a_peer_that_hangs_up_or_refuses_is_an_error() {
    use std::io::{Read, Write};
    let place = tempfile::tempdir().unwrap();
    for (answer, expected) in [
        (&b"REJECTED EXTERNAL\r\n"[..], "the bus refuses this user: `REJECTED EXTERNAL`"),
        (b"", "the bus refuses this user: ``"),
        (b"DATA\r\nOK 0\r\n", "talk to systemd"),
        (
            b"DATA\r\nOK 0\r\nxxxxxxxxxxxxxxxxxxxxx",
            "the bus does not speak D-Bus: a message starts with no order of bytes",
        ),
    ] {
        let path = place.path().join(format!("{}", answer.len()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut part = [0; 100];
            let _ = stream.read(&mut part);
            let (greeting, rest) = answer.split_at(answer.len().min(12));
            stream.write_all(greeting).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(rest).unwrap();
        });
        let at = super::Endpoint { address: super::Address::Path(path), direct: false };
        let error = update_at(&[at], &plan()).unwrap_err();
        assert_eq!(error.to_string(), expected);
        server.join().unwrap();
    }
}

/// Ends the bus with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A real bus with a configuration that lets anybody own and send anything; `None` where `dbus-daemon` is not installed.
fn daemon(place: &Path) -> Option<Daemon> {
    let socket = place.join("bus");
    let configuration = format!(
        "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
         <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
        socket.display()
    );
    std::fs::write(place.join("configuration"), configuration).unwrap();
    let mut command = Command::new("dbus-daemon");
    command.arg("--nofork").arg(format!("--config-file={}", place.join("configuration").display()));
    let daemon = Daemon(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().ok()?);
    let end = Instant::now() + Duration::from_secs(10);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
    Some(daemon)
}

#[test]
fn a_real_bus_takes_every_message() {
    let place = tempfile::tempdir().unwrap();
    let Some(daemon) = daemon(place.path()) else {
        #[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
        {
            eprintln!("skipped: needs dbus-daemon");
        }
        return;
    };
    let fake = Fake::on_bus(place.path().join("bus"), Script { exists: 1, runs: true, ..Script::default() });
    let at = [fake.endpoint.clone()];
    start_at(&at, &plan(), 7).unwrap();
    update_at(&at, &plan()).unwrap();
    stop_at(&at, "x-abc.scope").unwrap();
    drop(daemon);
    assert_eq!(fake.asked().len(), 9);
}

#[test]
fn a_bus_without_systemd_says_so_and_systemds_own_socket_is_tried() {
    let place = tempfile::tempdir().unwrap();
    let Some(_daemon) = daemon(place.path()) else { return };
    let at = super::Endpoint { address: super::Address::Path(place.path().join("bus")), direct: false };
    let error = start_at(std::slice::from_ref(&at), &plan(), 7).unwrap_err();
    let path = place.path().join("bus");
    let expected = format!("no bus of systemd can be reached: {}: systemd is not on it", path.display());
    assert_eq!(error.to_string(), expected);
    // Its own socket is.
    let fake = Fake::listen(place.path(), true, Script::default(), 1);
    start_at(&[at, fake.endpoint.clone()], &plan(), 7).unwrap();
    assert_eq!(fake.asked(), ["Subscribe", "StartTransientUnit x-abc.scope"]);
}
