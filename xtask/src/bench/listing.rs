//! `ps` with 500 stopped and 100 running containers.

use serde_json::Value;

use super::peers::IMAGE;
use super::statistics::{Row, document, table};
use super::{Options, Peer, Workshop};

/// `ps -a` and `ps`, of stanza alone: to fill a peer takes minutes.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<Value, String> {
    let peer = Peer::stanza(workshop, "stanza-ps")?;
    for _ in 0..500 {
        peer.ask(&["run", "--network", "none", IMAGE, "true"])?;
    }
    for _ in 0..100 {
        peer.ask(&["run", "-d", "--network", "none", IMAGE, "sleep", "100000"])?;
    }
    let (all, running) =
        (peer.ask(&["ps", "-aq"])?.lines().count(), peer.ask(&["ps", "-q"])?.lines().count());
    if (all, running) != (600, 100) {
        return Err(format!(
            "`ps` knows {all} containers, {running} of them running, in place of 600 and 100"
        ));
    }
    let mut rows = Vec::new();
    for (name, arguments) in [
        ("stanza", &["ps"][..]),
        ("ps -a", &["ps", "-a"]),
        ("ps -a --format json", &["ps", "-a", "--format", "json"]),
    ] {
        let words = peer.command(arguments);
        let samples: Result<Vec<_>, _> =
            (0..options.runs).map(|_| workshop.timer.time(&peer.enter, &words)).collect();
        rows.push(Row { name: name.to_owned(), samples: samples? });
    }
    println!(
        "\n500 stopped and 100 running; `stanza` is plain `ps`; {} rounds\n\n{}",
        options.runs,
        table(&rows)
    );
    Ok(document(&rows))
}
