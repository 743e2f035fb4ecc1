//! Tables that are no wider than the terminal.

use std::fmt::Write as _;

/// A column: what stands above it, and its least width.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    width: usize,
    left: bool,
}

impl Column {
    /// One of numbers.
    pub const fn new(title: &'static str, width: usize) -> Self {
        Self { title, width, left: false }
    }

    /// One of words.
    pub const fn left(title: &'static str, width: usize) -> Self {
        Self { title, width, left: true }
    }
}

/// Puts the columns into tables of at most this width. Each begins with the first column, and has at
/// least one more.
pub fn parts(columns: &[Column], width: usize) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut used = usize::MAX;
    for (at, column) in columns.iter().enumerate().skip(1) {
        used = used.saturating_add(1 + column.width);
        match parts.last_mut() {
            Some(part) if used <= width => part.push(at),
            _ => {
                parts.push(vec![0, at]);
                used = columns[0].width + 1 + column.width;
            }
        }
    }
    parts
}

/// Writes these columns of all rows. One that holds longer values is wider.
pub fn put(text: &mut String, columns: &[Column], part: &[usize], rows: &[Vec<String>]) {
    let wide = |at: &usize| {
        let longest = rows.iter().map(|row| row[*at].chars().count()).max();
        longest.unwrap_or(0).max(columns[*at].width)
    };
    let widths: Vec<usize> = part.iter().map(wide).collect();
    let mut line = |cell: &dyn Fn(usize) -> String| {
        let start = text.len();
        for (&at, &width) in part.iter().zip(&widths) {
            let (cell, gap) = (cell(at), if text.len() > start { " " } else { "" });
            text.push_str(gap);
            let _ = if columns[at].left {
                write!(text, "{cell:<width$}")
            } else {
                write!(text, "{cell:>width$}")
            };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    };
    line(&|at| columns[at].title.to_owned());
    for row in rows {
        line(&|at| row[at].clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[Column::new("N", 2), Column::left("WORD", 4), Column::new("A", 3), Column::new("B", 3)];

    #[test]
    fn what_has_no_room_comes_in_further_tables() {
        assert_eq!(parts(COLUMNS, usize::MAX), [[0, 1, 2, 3]]);
        assert_eq!(parts(COLUMNS, 15), [[0, 1, 2, 3]]);
        assert_eq!(parts(COLUMNS, 14), [vec![0, 1, 2], vec![0, 3]]);
        assert_eq!(parts(COLUMNS, 0), [[0, 1], [0, 2], [0, 3]]);
    }

    #[test]
    fn values_stand_below_their_titles() {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = [row(["1", "on", "7", "8"]), row(["22", "longer", "7777", "8"])];
        let mut text = String::new();
        put(&mut text, COLUMNS, &[0, 1, 2], &rows);
        assert_eq!(text, " N WORD      A\n 1 on        7\n22 longer 7777\n");
    }
}
