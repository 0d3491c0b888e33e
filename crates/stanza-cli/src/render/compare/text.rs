//! The comparison as two tables.

use super::{Comparison, Contender, Measure, PARTS, codes};
use crate::format::table::align;

/// The cells of each row: a name, then one of each contender.
pub(super) fn rows(comparison: &Comparison) -> Vec<Vec<String>> {
    let row = |name: &str, cell: &dyn Fn(&Contender) -> String| {
        let cells = comparison.contenders.iter().map(cell);
        std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let measures = Measure::ALL.iter().map(|measure| {
        row(measure.name(), &|contender| {
            measure.spread(contender).map_or("-".to_owned(), |spread| {
                let [least, median, most] =
                    [spread.least, spread.median, spread.most].map(|value| measure.format(value));
                format!("{median} ({least} to {most})")
            })
        })
    });
    let code = row("exit code", &|contender| {
        codes(contender).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    });
    measures.chain([code]).collect()
}

/// The same of what is separated.
pub(super) fn walls(comparison: &Comparison) -> Vec<Vec<String>> {
    let row = |(index, part): (usize, &&str)| {
        let cells = comparison.contenders.iter().map(|contender| contender.wall.parts()[index].to_owned());
        std::iter::once((*part).to_owned()).chain(cells).collect()
    };
    PARTS.iter().enumerate().map(row).collect()
}

/// What must be known of the numbers.
pub(super) const NOTE: &str = "Processor time is that of the container's control group, its monitor and this command; on the host that of the \
     program. Memory is what the kernel charged to the control group, with the files that it was the first to read.";

/// For a terminal.
pub(crate) fn text(comparison: &Comparison) -> String {
    let names: Vec<String> =
        comparison.contenders.iter().map(|contender| contender.wall.name().to_uppercase()).collect();
    let table = |head: &str, rows: Vec<Vec<String>>| {
        let head = std::iter::once(head.to_owned()).chain(names.iter().cloned()).collect::<Vec<_>>();
        let lines = std::iter::once(head).chain(rows).map(|cells| cells.join("\t"));
        align(&lines.collect::<Vec<_>>().join("\n"))
    };
    let mut text = format!(
        "{}\nmedians of {} (least to most), run in turns\n\n{}\n\n{}\n",
        comparison.title(),
        comparison.rounds,
        table("WHAT IT TAKES", rows(comparison)),
        table("WHAT IT HAS", walls(comparison))
    );
    for (wall, why) in &comparison.left_out {
        text.push_str(&format!("\nnot compared: {}: {why}\n", wall.name()));
    }
    format!("{text}\n{NOTE}\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::text;

    #[test]
    fn every_wall_is_a_column() {
        let text = text(&sample());
        let expected = "\
a<b true
medians of 3 (least to most), run in turns

WHAT IT TAKES            CONTAINER                      VM
until it runs            10.0 ms (5.0 ms to 15.0 ms)    1.00 s (500 ms to 1.50 s)
until its first output   -                              500 ms (500 ms to 500 ms)
until all is done        20.0 ms (10.0 ms to 30.0 ms)   2.00 s (1.00 s to 3.00 s)
processor time           7.0 ms (7.0 ms to 7.0 ms)      700 ms (700 ms to 700 ms)
memory, at most          1.0 MiB (1.0 MiB to 1.0 MiB)   100.0 MiB (100.0 MiB to 100.0 MiB)
exit code                0                              0
";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\nnot compared: host: no `x` & no y\n"), "{text}");
    }
}
