//! The kinds of work, each contender once in a round.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::processes::Memory;
use super::report::{Goal, Table, verdict};
use super::room::{Room, SOURCE, TARGET, target};
use super::tool::{Session, Tool, Work};
use crate::bench::Sample;

/// Who takes part, with what was measured. Whoever fails is told once and takes part no more.
#[derive(Debug)]
struct Race {
    work: String,
    rows: Vec<(Tool, Vec<Sample>)>,
}

impl Race {
    fn new(work: &str, tools: &[Tool]) -> Race {
        Race { work: work.to_owned(), rows: tools.iter().map(|tool| (*tool, Vec::new())).collect() }
    }

    /// One round, which begins with another contender each time.
    fn round(&mut self, round: usize, mut once: impl FnMut(Tool) -> Result<Option<Sample>, String>) {
        let count = self.rows.len();
        let mut out = Vec::new();
        for turn in 0..count {
            let (tool, samples) = &mut self.rows[(turn + round) % count];
            match once(*tool) {
                Ok(Some(sample)) => samples.push(sample),
                Ok(None) => out.push((*tool, "lacking")),
                Err(error) => {
                    println!("skipped: {}: {}: {error}", self.work, tool.name());
                    out.push((*tool, ""));
                }
            }
        }
        for (tool, why) in out {
            if why == "lacking" && tool == Tool::Stanza {
                println!("lacking: {}: {}", self.work, tool.name());
            }
            self.rows.retain(|(row, _)| *row != tool);
        }
    }

    fn table(self, goals: &[(Tool, Option<f64>, Option<f64>)], most: Option<f64>) -> Table {
        let goals = goals.iter().map(|(tool, wall, cpu)| Goal { tool: *tool, wall: *wall, cpu: *cpu });
        Table { work: self.work, rows: self.rows, goals: goals.collect(), most }
    }
}

/// Work on storage that is new, with a daemon that is new.
fn afresh(room: &Room, tool: Tool, work: &Work) -> Result<Option<Sample>, String> {
    let storage = room.storage("storage")?;
    let session = Session::open(room, tool, &storage.path)?;
    if session.knows(work) { session.measure(work) } else { Ok(None) }
}

/// Pulls into empty storage.
pub(super) fn pull(room: &Room, tools: &[Tool], rounds: usize) -> Result<Vec<Table>, String> {
    let registry = room.registry(SOURCE, &room.reference.storage)?;
    let mut races = ["gzip", "zstd"].map(|kind| (kind, Race::new(&format!("pull, {kind}"), tools)));
    for round in 0..rounds {
        for (kind, race) in &mut races {
            race.round(round, |tool| afresh(room, tool, &Work::Pull(kind)));
        }
    }
    drop(registry);
    let goals = [
        (Tool::Containerd, Some(0.25), Some(0.3)),
        (Tool::Podman, Some(0.18), None),
        (Tool::Verify, Some(1.6), None),
    ];
    Ok(races.into_iter().map(|(_, race)| race.table(&goals, None)).collect())
}

/// Loads of both kinds of archive into empty storage.
pub(super) fn load(room: &Room, tools: &[Tool], rounds: usize) -> Result<Vec<Table>, String> {
    let reference = &room.reference;
    let mut races = [("Docker", &reference.docker_archive), ("OCI", &reference.oci_archive)]
        .map(|(kind, file)| (file, Race::new(&format!("load, an archive of {kind}"), tools)));
    for round in 0..rounds {
        for (file, race) in &mut races {
            race.round(round, |tool| afresh(room, tool, &Work::Load(PathBuf::clone(file))));
        }
    }
    let goals = [(Tool::Podman, Some(0.35), None), (Tool::Docker, Some(0.35), None)];
    Ok(races.into_iter().map(|(_, race)| race.table(&goals, None)).collect())
}

/// All contenders that have the image, each with storage of its own below `place`.
fn sessions<'a>(
    room: &'a Room,
    tools: &[Tool],
    place: &Path,
    work: &Work,
) -> Result<Vec<Session<'a>>, String> {
    let registry = room.registry(SOURCE, &room.reference.storage)?;
    let mut found = Vec::new();
    for tool in tools.iter().filter(|tool| !matches!(tool, Tool::Verify | Tool::Files)) {
        let directory = place.join(tool.name());
        let prepare = || {
            room.ask(&["mkdir", "-p", &directory.display().to_string()])?;
            let session = Session::open(room, *tool, &directory)?;
            if session.knows(work) { session.prepare().map(|()| Some(session)) } else { Ok(None) }
        };
        match prepare() {
            Ok(Some(session)) => found.push(session),
            Ok(None) => println!("lacking: {}", tool.name()),
            Err(error) => println!("skipped: {}: {error}", tool.name()),
        }
    }
    drop(registry);
    Ok(found)
}

fn of<'s, 'r>(sessions: &'s [Session<'r>], tool: Tool) -> Result<&'s Session<'r>, String> {
    sessions.iter().find(|session| session.tool == tool).ok_or_else(|| "not prepared".to_owned())
}

/// Pushes to an empty registry, and once more.
pub(super) fn push(room: &Room, tools: &[Tool], rounds: usize) -> Result<Vec<Table>, String> {
    let storage = room.storage("storage")?;
    let sessions = sessions(room, tools, &storage.path, &Work::Push)?;
    let tools: Vec<Tool> = sessions.iter().map(|session| session.tool).collect();
    let (mut empty, mut again) =
        (Race::new("push, an empty registry", &tools), Race::new("push, nothing new", &tools));
    for round in 0..rounds {
        let mut second = Vec::new();
        empty.round(round, |tool| {
            let blobs = room.storage("target")?;
            let registry = room.registry(TARGET, &blobs.path)?;
            let session = of(&sessions, tool)?;
            let first = session.measure(&Work::Push)?;
            // Whoever was quick must have brought all of it.
            let to = format!("docker://{}", target());
            let check = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", &to];
            let copy = format!("dir:{}", blobs.path.join("copy").display());
            room.ask(&[&check[..], &[&copy]].concat())?;
            second.push((tool, session.measure(&Work::Push)));
            drop(registry);
            Ok(first)
        });
        again.round(round, |tool| {
            let at = second.iter().position(|(other, _)| *other == tool);
            at.map_or_else(|| Err("the first push failed".to_owned()), |at| second.swap_remove(at).1)
        });
    }
    let goals = [(Tool::Podman, Some(0.35), None), (Tool::Docker, Some(0.35), None)];
    Ok(vec![empty.table(&goals, None), again.table(&[], Some(30.0))])
}

/// Saves to a file in memory.
pub(super) fn save(room: &Room, tools: &[Tool], rounds: usize) -> Result<Vec<Table>, String> {
    let storage = room.storage("storage")?;
    let file = storage.path.join("saved.tar");
    let work = Work::Save(file.clone());
    let sessions = sessions(room, tools, &storage.path, &work)?;
    let tools: Vec<Tool> = sessions.iter().map(|session| session.tool).collect();
    let mut race = Race::new("save", &tools);
    for round in 0..rounds {
        race.round(round, |tool| {
            let sample = of(&sessions, tool)?.measure(&work);
            room.ask(&["rm", "-f", &file.display().to_string()])?;
            sample
        });
    }
    let goals = [(Tool::Podman, Some(0.3), None), (Tool::Docker, Some(0.3), None)];
    Ok(vec![race.table(&goals, None)])
}

/// The memory of whoever pulls, in rounds of their own: looking costs time.
pub(super) fn memory(room: &Room, tools: &[Tool]) -> Result<(Vec<Vec<String>>, Value), String> {
    let registry = room.registry(SOURCE, &room.reference.storage)?;
    let head =
        ["memory of a pull, MiB", "gzip: resident", "own", "zstd: resident", "own", "to reach", "reached"];
    let (mut lines, mut document) = (vec![head.map(str::to_owned).to_vec()], json!({}));
    for tool in tools {
        let watch = |kind| {
            let storage = room.storage("storage")?;
            Session::open(room, *tool, &storage.path)?.watch(&Work::Pull(kind))
        };
        let mut cells = vec![tool.title()];
        let mut most = Memory::default();
        for kind in ["gzip", "zstd"] {
            match watch(kind) {
                Ok(Some(memory)) => {
                    most = most.most(memory);
                    cells.extend(
                        [memory.resident, memory.anonymous].map(|kib| format!("{:.1}", kib / 1024.0)),
                    );
                }
                Ok(None) => cells.extend([String::new(), String::new()]),
                Err(error) => {
                    println!("skipped: memory, {kind}: {}: {error}", tool.name());
                    cells.extend([String::new(), String::new()]);
                }
            }
        }
        let goal = (*tool == Tool::Stanza).then(|| ("own <= 64".to_owned(), most.anonymous <= 65_536.0));
        let (words, reached) = verdict(&goal.into_iter().collect::<Vec<_>>());
        cells.extend([words, reached]);
        document[tool.name()] = json!({ "resident_kib": most.resident, "anonymous_kib": most.anonymous });
        lines.push(cells);
    }
    drop(registry);
    Ok((lines, document))
}
