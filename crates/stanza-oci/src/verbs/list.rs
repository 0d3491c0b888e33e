//! `list`: all containers below the root.

use std::io::Write;

use crate::arguments::{Parsed, Verb, option, switch};
use crate::context::Context;
use crate::failure::{Doing, Failure};
use crate::state::{Container, Details};

pub(super) static VERB: Verb = Verb {
    name: "list",
    usage: "",
    help: "List the containers",
    flags: &[
        option(&["format", "f"], "FORMAT", "`table` (the default) or `json`"),
        switch(&["quiet", "q"], "print ids only"),
    ],
    own_words: usize::MAX,
    run,
};

const HEAD: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let containers = Container::all(context)?;
    let details: Vec<Details<'_>> = containers.iter().map(Container::details).collect();
    let text = if parsed.is_on("quiet") {
        details.iter().map(|details| format!("{}\n", details.id)).collect()
    } else {
        match parsed.value("format").unwrap_or("table") {
            "table" => table(&details),
            // runc's word for an empty list.
            "json" if details.is_empty() => "null".to_owned(),
            "json" => serde_json::to_string(&details).map_err(Failure::below)?,
            _ => return Err(Failure::Usage("invalid format option".to_owned())),
        }
    };
    std::io::stdout().write_all(text.as_bytes()).step("write to standard output")?;
    Ok(0)
}

/// Columns at least 12 wide, 3 apart, the last as long as it is.
fn table(details: &[Details<'_>]) -> String {
    let row = |details: &Details<'_>| {
        [
            details.id.to_owned(),
            details.pid.to_string(),
            details.status.as_str().to_owned(),
            details.bundle.display().to_string(),
            details.created.to_owned(),
            details.owner.clone(),
        ]
    };
    let rows: Vec<[String; 6]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(details.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len() + 3).max().unwrap_or(0).max(12);
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_empty_table_is_runcs() {
        assert_eq!(super::table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }
}
