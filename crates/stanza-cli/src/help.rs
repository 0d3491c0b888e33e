//! The overview of all commands, and the version's line.

use crate::commands::{ENTRIES, Group};

/// `stanza version 0.1.0`.
pub(crate) fn version() -> String {
    format!("stanza version {}", env!("CARGO_PKG_VERSION"))
}

/// What `stanza --help` shows.
pub(crate) fn overview() -> String {
    let mut text = String::from(
        "Usage:  stanza [OPTIONS] COMMAND\n\nContainers and virtual machines from the same images, without a daemon\n",
    );
    for (title, group) in [
        ("Common commands", Group::Common),
        ("Commands", Group::Other),
        ("Images", Group::Image),
        ("Networks", Group::Network),
        ("System", Group::System),
    ] {
        text.push_str(&format!("\n{title}:\n"));
        for entry in ENTRIES.iter().filter(|entry| entry.group == group) {
            text.push_str(&format!("  {:<18}  {}\n", entry.paths[0], entry.about));
        }
    }
    text.push_str(
        "\nOptions:\n  \
         --root DIR      Where images, containers and volumes are kept ($STANZA_ROOT)\n  \
         --config FILE   The configuration file\n  \
         --runroot DIR   Where the state of running containers is kept\n  \
         --storage-driver NAME\n                         \
         How root file systems are made: `overlay`, `erofs`, `copy` ($STANZA_STORAGE_DRIVER)\n  \
         -D, --debug     Tell the kind of a failure too\n  \
         -v, --version   Print the version\n  \
         -h, --help      Print this help\n\n\
         `container`, `image`, `manifest`, `network` and `system` may stand before their commands, as in `stanza container ls`.\n\
         `stanza COMMAND --help` tells more about a command.\n\n\
         Example:\n  stanza run --rm host sh -c 'echo hello from $(hostname), pid $$'\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_has_every_command_but_the_hidden_ones() {
        let text = overview();
        for entry in ENTRIES {
            let line = format!("\n  {:<18}  ", entry.paths[0]);
            assert_eq!(text.contains(&line), entry.group != Group::Hidden, "{}", entry.paths[0]);
        }
    }
}
