//! The comparison as a page: the picture and the tables, without anything from elsewhere and without scripts.

use super::text::{NOTE, rows, walls};
use super::{Comparison, svg};
use crate::render::markup::escape;

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 ui-sans-serif,system-ui,sans-serif;max-width:920px;margin:32px auto;padding:0 16px;\
background:#f9fafb;color:#1f2937}h1{font-size:22px;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%;margin:20px 0}\
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid #d1d5db;vertical-align:top}p{color:#4b5563}svg{max-width:100%;height:auto}\
@media(prefers-color-scheme:dark){body{background:#111827;color:#e5e7eb}th,td{border-color:#374151}p{color:#9ca3af}}";

fn table(comparison: &Comparison, head: &str, rows: &[Vec<String>]) -> String {
    let names = comparison.contenders.iter().map(|contender| contender.wall.name());
    let head: String = std::iter::once(head).chain(names).map(|cell| format!("<th>{cell}</th>")).collect();
    let line = |cells: &Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(line).collect();
    format!("<table>\n<tr>{head}</tr>\n{body}</table>\n")
}

/// The page.
pub(crate) fn html(comparison: &Comparison) -> String {
    let title = escape(&comparison.title());
    let left_out: String = comparison
        .left_out
        .iter()
        .map(|(wall, why)| format!("<p>Not compared: {}: {}</p>\n", wall.name(), escape(why)))
        .collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n\
         <p>Medians of {} (least to most), run in turns.</p>\n{}{}{}{left_out}<p>{NOTE}</p>\n</body></html>\n",
        comparison.rounds,
        svg(comparison),
        table(comparison, "what it takes", &rows(comparison)),
        table(comparison, "what it has", &walls(comparison)),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::html;

    #[test]
    fn the_page_stands_alone() {
        let page = html(&sample());
        assert!(page.contains("<h1>a&lt;b true</h1>") && page.contains("no `x` &amp; no y"), "{page}");
        assert!(page.contains("<td>10.0 ms (5.0 ms to 15.0 ms)</td>"), "{page}");
        for foreign in ["<script", "src=", "href=", "a<b"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }
}
