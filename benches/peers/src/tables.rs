//! Tables as text and as Markdown.

use crate::figures::{Row, Table};
use std::fmt::Write as _;

/// A number with about three digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 0.1 || value == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

const HEAD: [&str; 5] = ["peer", "median", "min–max", "Trunkline ÷ peer", "beside"];

fn cells(row: &Row) -> [String; 5] {
    let dash = || "–".to_owned();
    let beside = if let Some(why) = &row.refused {
        why.clone()
    } else if row.median.is_none() {
        row.failures.first().cloned().unwrap_or_else(|| "not measured".to_owned())
    } else {
        let mut parts: Vec<String> =
            row.extra.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        if !row.failures.is_empty() {
            parts.push(format!("{} of {} rounds failed", row.failures.len(), row.rounds.len()));
        }
        parts.join(", ")
    };
    [
        row.peer.clone(),
        row.median.map_or_else(dash, number),
        match (row.min, row.max) {
            (Some(min), Some(max)) => format!("{}–{}", number(min), number(max)),
            _ => dash(),
        },
        row.ratio.map_or_else(dash, number),
        beside,
    ]
}

fn caption(table: &Table) -> String {
    let better = if table.higher_is_better { "more is better" } else { "less is better" };
    format!("{} ({}; {better})", table.title, table.unit)
}

/// For a terminal.
pub fn text(table: &Table) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(table.rows.iter().map(cells));
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; 4] = [width(0), width(1), width(2), width(3)];
    let mut out = format!("{}\n", caption(table));
    for row in &rows {
        let _ = write!(out, "  {:<1$}", row[0], widths[0]);
        for column in 1..4 {
            let _ = write!(out, "  {:>1$}", row[column], widths[column]);
        }
        let _ = writeln!(out, "  {}", row[4]);
    }
    out
}

/// For a document; `chart`: the path of its chart, if there is one.
pub fn markdown(table: &Table, chart: Option<&str>) -> String {
    let mut out = format!("### {}\n\n", caption(table));
    if let Some(chart) = chart {
        let _ = write!(out, "![{}]({chart})\n\n", table.title);
    }
    let _ = writeln!(out, "| {} |\n| --- | --: | --: | --: | --- |", HEAD.join(" | "));
    for row in &table.rows {
        let cells = cells(row).map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figure;
    use crate::workload::Workload;

    fn table() -> Table {
        let mut table = Table::new(Workload::Bulk);
        let row = |peer: &str, mains: &[f64]| Row {
            peer: peer.into(),
            rounds: mains.iter().map(|main| Some(Figure::new(*main))).collect(),
            ..Row::default()
        };
        table.rows = vec![row("trunkline", &[10.0, 12.0]), row("quinn", &[4.0, 4.0])];
        table.rows.push(Row {
            peer: "pigeon".into(),
            refused: Some("carries paper | only".into()),
            ..Row::default()
        });
        table.summarize();
        table
    }

    #[test]
    fn numbers_have_three_digits_or_so() {
        let shown: Vec<String> = [0.0, 0.0123, 0.5, 12.34, 123.4, 12_345.6].map(number).into();
        assert_eq!(shown, ["0.00", "0.0123", "0.50", "12.3", "123", "12346"]);
    }

    #[test]
    fn a_refusal_is_a_dash_with_a_reason() {
        let text = text(&table());
        let line = text.lines().find(|line| line.contains("pigeon")).unwrap();
        assert!(line.contains('–') && line.contains("paper"), "{line}");
        let quinn = text.lines().find(|line| line.contains("quinn")).unwrap();
        assert!(quinn.contains("4.00") && quinn.contains("2.75"), "{quinn}");
    }

    #[test]
    fn markdown_has_as_many_cells_in_every_line() {
        let text = markdown(&table(), Some("charts/bulk.svg"));
        assert!(text.contains("](charts/bulk.svg)"));
        let bars: Vec<usize> = text
            .lines()
            .filter(|line| line.starts_with('|'))
            .map(|line| line.replace("\\|", "").matches('|').count())
            .collect();
        assert_eq!(bars, [6, 6, 6, 6, 6], "{text}");
    }
}
