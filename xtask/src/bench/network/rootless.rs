//! Networks of an ordinary user: throughput and the first byte, through what each engine uses, beside pasta alone.
//!
//! Debian's Podman 4.3 knows slirp4netns and its own port forwarder only; later ones use pasta. `pasta alone` runs the server
//! with nothing round it: the best that an engine with pasta can reach.

use std::process::{Command, Stdio};

use super::report::{Goal, Report, Unit};
use super::scene::{Kind, Samples, Scene, Server, Uplink, add, ask, medians, numbers, rotate};
use super::traffic::{FIRST, PORT, TRANSFER};
use super::{Options, scene::Engine};
use crate::bench::peers::{Home, Peer, podman_limits, words};
use crate::packages::{self, USER};
use crate::shell::{find, output};

/// The port of the server outside.
const OUTER: &str = "7000";
/// Connections of one round.
const CONNECTIONS: &str = "100";

/// What stands behind the published port.
enum Behind {
    Engine(Engine),
    Pasta { _server: Server, home: Home, uplink: Uplink },
}

struct Contender {
    title: String,
    behind: Behind,
    /// The words that run `wire` inside the container's network.
    inside: Vec<String>,
}

impl Contender {
    fn uplink(&self) -> &Uplink {
        match &self.behind {
            Behind::Engine(engine) => &engine.uplink,
            Behind::Pasta { uplink, .. } => uplink,
        }
    }

    fn enter(&self) -> Vec<String> {
        match &self.behind {
            Behind::Engine(engine) => engine.peer.enter.clone(),
            Behind::Pasta { home, .. } => home.enter(),
        }
    }
}

/// Makes a room fit for the user: directories, the way to them and to what all contenders read, whatever the caller's umask, and
/// a device for tunnels that anybody may open.
fn prepare(scene: &Scene, home: &Home, directory: &str) -> Result<Vec<String>, String> {
    let (workshop, wire) = (&scene.workshop, &scene.wire);
    let (top, rootfs, archive) =
        (workshop.directory.display(), workshop.rootfs.display(), workshop.archive.display());
    let id = output(&["id", "-u", USER])?.trim().to_owned();
    let script = format!(
        "set -e; umask 022; chmod 711 {top} {rootfs} {rootfs}/bin; chmod 755 {wire}; chmod 644 {archive}; \
         mkdir -p {directory}/home /run/user/{id}; chown {USER}: {directory} {directory}/home /run/user/{id}; \
         chmod 700 /run/user/{id}; mknod -m 666 /run/tun c 10 200; mount --bind /run/tun /dev/net/tun"
    );
    ask(&home.enter(), &["sh", "-c", &script])?;
    let user = ["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "env"];
    let mut cli = words(&user);
    cli.extend([
        format!("--chdir={directory}/home"),
        format!("HOME={directory}/home"),
        format!("XDG_RUNTIME_DIR=/run/user/{id}"),
    ]);
    Ok(cli)
}

/// An engine, called by the user.
fn engine(scene: &Scene, kind: Kind) -> Result<Contender, String> {
    let (room, uplink) = scene.room()?;
    let (home, name) = (Home::Room(room), format!("{}-of-a-user", kind.name()));
    let directory = scene.workshop.make(&name)?.display().to_string();
    let mut cli = prepare(scene, &home, &directory)?;
    let (program, mut title, limits) = if kind == Kind::Stanza {
        // Where it was built, the user may have no way to it.
        let copy = format!("{directory}/stanza");
        output(&["install", "-m", "755", &scene.workshop.stanza.display().to_string(), &copy])?;
        (copy, "stanza".to_owned(), Vec::new())
    } else {
        let program = find("podman").ok_or("not installed (package podman)")?;
        let version = output(&[&program, "--version"])?;
        let version = version.rsplit(' ').next().unwrap_or_default().trim().to_owned();
        (program, format!("podman {version}"), podman_limits())
    };
    cli.extend([program, format!("--root={directory}/root"), format!("--runroot={directory}/run")]);
    if kind == Kind::Podman {
        cli.extend(words(&["--cgroup-manager=cgroupfs", "--events-backend=file"]));
    }
    let peer = Peer::called(&scene.workshop, &name, home, cli, limits)?;
    if kind == Kind::Podman {
        title += ", slirp4netns";
    }
    let engine = Engine { peer, uplink, title: title.clone() };
    engine.start("server", &["-p", &format!("{FIRST}:{PORT}")], &["wire", "serve", PORT])?;
    let inside = engine.peer.command(&["exec", "server", "wire"]);
    Ok(Contender { title, behind: Behind::Engine(engine), inside })
}

/// Pasta alone.
fn pasta(scene: &Scene) -> Result<Contender, String> {
    let program = find("pasta").ok_or("not installed (package passt)")?;
    let (room, uplink) = scene.room()?;
    let home = Home::Room(room);
    let directory = scene.workshop.make("pasta")?.display().to_string();
    let user = prepare(scene, &home, &directory)?;
    let mut alone = user.clone();
    alone.extend([program]);
    // Else the gateway's address, which is the server's outside, would be this side's loopback.
    alone.extend(words(&["--config-net", "--quiet", "--ipv4-only", "--no-map-gw"]));
    let none = words(&["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--"]);
    let inside = [&alone[..], &none, std::slice::from_ref(&scene.wire)].concat();
    alone.extend(["-t".into(), format!("{FIRST}:{PORT}"), "--".into()]);
    alone.extend([scene.wire.clone(), "serve".into(), PORT.into()]);
    let all = [home.enter(), alone].concat();
    let process = Command::new(&all[0])
        .args(&all[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot run `pasta`: {error}"))?;
    let behind = Behind::Pasta { _server: Server(process), home, uplink };
    Ok(Contender { title: "pasta alone".to_owned(), behind, inside })
}

/// In through a published port, out to a server, and how long the first byte takes.
pub(super) fn run(scene: &Scene, options: &Options, report: &mut Report) -> Result<(), String> {
    packages::ensure_user()?;
    let _server = scene.serve_outside(OUTER)?;
    let kinds = options.kinds.iter().filter(|kind| **kind != Kind::Docker);
    let made = kinds.map(|kind| (kind.name(), engine(scene, *kind)));
    let mut contenders = Vec::new();
    for (name, made) in made.chain([("pasta", pasta(scene))]) {
        match made {
            Ok(contender) => contenders.push(contender),
            Err(error) => println!("skipped: {name}: {error}"),
        }
    }
    let (mut into, mut out) = (Samples::new(), Samples::new());
    let (mut first, mut local) = (Samples::new(), Samples::new());
    rotate(
        &contenders,
        |contender| &contender.title,
        options.rounds,
        |contender| {
            let (uplink, title, port) = (contender.uplink(), &contender.title, FIRST.to_string());
            let gigabits = |text: String| numbers(&text).into_iter().map(|bits| bits / 1e9);
            let microseconds = |text: String| numbers(&text).into_iter().map(|time| time / 1e3);
            let sent = ask(&scene.outside, &[&scene.wire, "send", &uplink.inner, &port, TRANSFER])?;
            add(&mut into, title, gigabits(sent));
            let inside: Vec<&str> = contender.inside.iter().map(String::as_str).collect();
            let sent =
                ask(&contender.enter(), &[&inside[..], &["send", &uplink.outer, OUTER, TRANSFER]].concat())?;
            add(&mut out, title, gigabits(sent));
            let words = [&scene.wire, "connect", &uplink.inner, &port, "1", CONNECTIONS];
            add(&mut first, title, microseconds(ask(&scene.outside, &words)?));
            let words = [&scene.wire, "connect", "127.0.0.1", &port, "1", CONNECTIONS];
            add(&mut local, title, microseconds(ask(&contender.enter(), &words)?));
            Ok(())
        },
    );
    let told = [
        ("rootless TCP, outside to a published port", Unit::Gigabits, &into, Goal::OfGreatest(1.0)),
        ("rootless TCP, container to outside", Unit::Gigabits, &out, Goal::OfGreatest(1.0)),
        ("rootless first byte, from outside", Unit::Microseconds, &first, Goal::OfLeast(1.0)),
        ("rootless first byte, from the host's 127.0.0.1", Unit::Microseconds, &local, Goal::OfLeast(1.0)),
    ]
    .map(|(work, unit, samples, goal)| report.row(work, unit, medians(samples), goal));
    told.into_iter().collect()
}
