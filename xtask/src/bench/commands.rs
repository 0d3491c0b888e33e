//! `run_none`, `run_bridge`, `exec`: whole commands against the peers and the floor.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::peers::{IMAGE, Kind};
use super::statistics::{Row, document, table};
use super::{Options, Peer, Workshop};

/// A contender's command of one bench.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: String,
    pub(super) enter: Vec<String>,
    pub(super) words: Vec<String>,
    /// A directory that is removed before each run, so that nothing is kept from the one before.
    pub(super) fresh: Option<PathBuf>,
}

/// Rounds in rotating order; a contender that fails drops out and is named.
pub(super) fn compete(workshop: &Workshop, mut contenders: Vec<Contender>, runs: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|contender| Row { name: contender.name.clone(), samples: Vec::new() })
        .collect();
    for round in 0..runs {
        let count = contenders.len();
        let mut failed = Vec::new();
        for turn in 0..count {
            let at = (turn + round) % count;
            if let Some(directory) = &contenders[at].fresh {
                let directory = directory.display().to_string();
                let enter = contenders[at].enter.iter().map(String::as_str);
                let _ = crate::shell::output(&enter.chain(["rm", "-rf", &directory]).collect::<Vec<_>>());
            }
            match workshop.timer.time(&contenders[at].enter, &contenders[at].words) {
                Ok(sample) => rows[at].samples.push(sample),
                Err(error) => {
                    println!("skipped: {}: {error}", contenders[at].name);
                    failed.push(at);
                }
            }
        }
        failed.sort_unstable();
        for at in failed.into_iter().rev() {
            contenders.remove(at);
            rows.remove(at);
        }
        if contenders.is_empty() {
            break;
        }
    }
    rows
}

fn show(rows: &[Row], runs: usize) -> Value {
    println!("\n{runs} rounds, interleaved\n\n{}", table(rows));
    document(rows)
}

/// The v1 hierarchies' mount points, or the v2 one, in the form that the floor takes.
pub(super) fn hierarchies() -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of = |kind: &str| {
        let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines
            .filter(|fields| fields.get(2) == Some(&kind))
            .filter_map(|fields| fields.get(1).map(|path| (*path).to_owned()))
            .collect::<Vec<_>>()
    };
    let first = of("cgroup");
    match (first.is_empty(), of("cgroup2").first()) {
        (false, _) => first.join(":"),
        (true, Some(path)) => format!("2{path}"),
        (true, None) => "-".to_owned(),
    }
}

fn floor(workshop: &Workshop) -> Result<Contender, String> {
    let directory = workshop.make("floor.d")?;
    Ok(Contender {
        name: "the kernel's floor".to_owned(),
        // A name space entered as all others are.
        enter: vec!["env".to_owned()],
        words: vec![
            workshop.floor.display().to_string(),
            workshop.rootfs.display().to_string(),
            directory.display().to_string(),
            hierarchies(),
            "true".to_owned(),
        ],
        fresh: None,
    })
}

/// `run --rm --network NETWORK IMAGE true`.
pub(super) fn run(
    workshop: &Workshop,
    peers: &[Peer],
    options: &Options,
    network: &str,
) -> Result<Value, String> {
    let none = network == "none";
    let mut contenders = vec![floor(workshop)?];
    for peer in peers.iter().filter(|peer| none || peer.kind == Kind::Engine) {
        let bundle = peer.directory.join("true").display().to_string();
        let arguments = match (peer.kind, none) {
            (Kind::Runtime, _) => ["run", "--bundle", &bundle, "bench"].map(str::to_owned).to_vec(),
            (Kind::Engine, true) => peer.run(&["--rm", "--network", "none", IMAGE, "true"]),
            (Kind::Engine, false) => peer.run(&["--rm", IMAGE, "true"]),
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        contenders.push(Contender {
            name: peer.name.clone(),
            enter: peer.enter.clone(),
            words: peer.command(&arguments),
            fresh: None,
        });
    }
    Ok(show(&compete(workshop, contenders, options.runs), options.runs))
}

/// `exec CONTAINER true`, beside `nsenter` into stanza's container.
pub(super) fn exec(workshop: &Workshop, peers: &[Peer], options: &Options) -> Result<Value, String> {
    let mut contenders = Vec::new();
    for peer in peers {
        let bundle = peer.directory.join("sleep").display().to_string();
        let started = match peer.kind {
            Kind::Runtime => {
                // `--detach` leaves the container the pipes it was started with: it gets files instead.
                let script = "exec \"$@\" </dev/null >/dev/null 2>&1";
                let words: Vec<&str> =
                    peer.enter.iter().map(String::as_str).chain(["sh", "-c", script, "sh"]).collect();
                let rest = peer.command(&["run", "--detach", "--bundle", &bundle, "long"]);
                crate::shell::output(
                    &words.into_iter().chain(rest.iter().map(String::as_str)).collect::<Vec<_>>(),
                )
            }
            Kind::Engine => {
                let words =
                    peer.run(&["-d", "--network", "none", "--name", "long", IMAGE, "sleep", "100000"]);
                peer.ask(&words.iter().map(String::as_str).collect::<Vec<_>>())
            }
        };
        if let Err(error) = started {
            println!("skipped: {}: {error}", peer.name);
            continue;
        }
        contenders.push(Contender {
            name: peer.name.clone(),
            enter: peer.enter.clone(),
            words: peer.command(&["exec", "long", "true"]),
            fresh: None,
        });
        if peer.name == "stanza" {
            let pid = peer.ask(&["inspect", "--format", "{{.State.Pid}}", "long"])?;
            let words = ["nsenter", "-m", "-u", "-i", "-n", "-p", "-C", "-t", pid.trim(), "/bin/true"];
            contenders.push(Contender {
                name: "nsenter".to_owned(),
                enter: vec!["env".to_owned()],
                words: words.map(str::to_owned).to_vec(),
                fresh: None,
            });
        }
    }
    let rows = compete(workshop, contenders, options.runs);
    for peer in peers.iter().filter(|peer| peer.name != "stanza") {
        let removed = match peer.kind {
            Kind::Runtime => peer.ask(&["delete", "--force", "long"]),
            Kind::Engine => peer.ask(&["rm", "-f", "long"]),
        };
        if let Err(error) = removed {
            println!("note: {}: {error}", peer.name);
        }
    }
    Ok(show(&rows, options.runs))
}
