//! Columns, aligned as Docker's listings are: Go's `text/tabwriter` with cells of at least 10 characters, 3 of them blank.
//!
//! A column is a run of lines that all have a cell there which is followed by a tab; the last cell of a line stands in
//! no column, so it is never padded.

/// Least width of a cell, padding included.
const MINIMUM: usize = 10;
/// Blanks after the widest text of a column.
const PADDING: usize = 3;

/// `text` with its tabs turned into columns.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|_| Vec::new()).collect();
    measure(&lines, &mut widths, 0, 0, lines.len());
    let mut output = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            output.push('\n');
        }
        for (at, cell) in cells.iter().enumerate() {
            output.push_str(cell);
            if let (true, Some(width)) = (at + 1 < cells.len(), widths.get(at)) {
                output.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
    }
    output
}

/// The width of column `column` and of those right of it, for the lines `from..to`.
fn measure(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, from: usize, to: usize) {
    let has = |line: &Vec<&str>| column + 1 < line.len();
    let mut start = from;
    while start < to {
        if !has(&lines[start]) {
            start += 1;
            continue;
        }
        let end = (start..to).find(|line| !has(&lines[*line])).unwrap_or(to);
        let widest = lines[start..end].iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        for widths in &mut widths[start..end] {
            widths.push((widest + PADDING).max(MINIMUM));
        }
        measure(lines, widths, column + 1, start, end);
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let text = "CONTAINER ID\tIMAGE\tNAMES\n0123456789ab\tbusybox:latest\tweb\n";
        let expected = "CONTAINER ID   IMAGE            NAMES\n0123456789ab   busybox:latest   web\n";
        assert_eq!(align(text), expected);
    }

    #[test]
    fn short_cells_take_ten_characters_and_last_cells_none() {
        assert_eq!(align("a\tb\n"), "a         b\n");
        assert_eq!(align("a\t\n"), "a         \n");
        assert_eq!(align("ä\tb"), "ä         b");
        assert_eq!(align("no tab"), "no tab");
    }

    #[test]
    fn a_line_without_a_cell_ends_the_column() {
        assert_eq!(align("aaaaaaaaaaaa\tb\n\nc\td\n"), "aaaaaaaaaaaa   b\n\nc         d\n");
    }
}
