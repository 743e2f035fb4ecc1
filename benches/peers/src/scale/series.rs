//! Figures of a series, and its table.

use crate::figures::median;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Figures of one point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// What is varied: connections, channels, messages a second on a connection, or shards.
    pub x: f64,
    /// Messages delivered a second, both ways.
    pub messages_per_s: f64,
    /// CPU of the server for a message sent or received, in nanoseconds.
    pub server_ns: f64,
    /// The same of the client.
    pub client_ns: f64,
    /// Processors that the server kept busy.
    pub server_cores: f64,
    /// Resident bytes that a connection or channel adds to the server, over those of the first
    /// point; 0 at the first point.
    pub server_bytes: f64,
    /// 99 % of the messages arrived within so many microseconds of the time at which they were
    /// meant to be sent.
    pub p99_us: f64,
    /// Messages that were lost, in percent.
    pub lost_percent: f64,
}

/// What is varied, and what it did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    /// As on the command line.
    pub name: String,
    /// What `x` is.
    pub axis: String,
    /// One line for people.
    pub title: String,
    /// In the order of `x`; medians of the rounds.
    pub points: Vec<Figures>,
}

impl Figures {
    /// The median of each figure.
    pub fn median(rounds: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| {
            let values: Vec<f64> = rounds.iter().map(field).collect();
            median(&values).unwrap_or_default()
        };
        Self {
            x: of(|f| f.x),
            messages_per_s: of(|f| f.messages_per_s),
            server_ns: of(|f| f.server_ns),
            client_ns: of(|f| f.client_ns),
            server_cores: of(|f| f.server_cores),
            server_bytes: of(|f| f.server_bytes),
            p99_us: of(|f| f.p99_us),
            lost_percent: of(|f| f.lost_percent),
        }
    }
}

const HEAD: [&str; 7] = [
    "messages/s",
    "server ns/message",
    "client ns/message",
    "server cores",
    "server bytes each",
    "p99 µs",
    "lost %",
];

fn cells(figures: &Figures) -> Vec<String> {
    let or_dash = |value: f64| if value > 0.0 { format!("{value:.0}") } else { "–".to_owned() };
    vec![
        format!("{:.0}", figures.x),
        format!("{:.0}", figures.messages_per_s),
        format!("{:.0}", figures.server_ns),
        format!("{:.0}", figures.client_ns),
        format!("{:.2}", figures.server_cores),
        or_dash(figures.server_bytes),
        or_dash(figures.p99_us),
        format!("{:.3}", figures.lost_percent),
    ]
}

/// As Markdown, which reads well on a terminal too.
pub fn table(series: &Series) -> String {
    let mut rows = vec![vec![series.axis.clone()]];
    rows[0].extend(HEAD.map(str::to_owned));
    rows.extend(series.points.iter().map(cells));
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = format!("{}\n\n", series.title);
    for (n, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "| {cell:>width$} ");
        }
        out.push_str("|\n");
        if n == 0 {
            for width in &widths {
                let _ = write!(out, "| {}: ", "-".repeat(width.saturating_sub(1).max(2)));
            }
            out.push_str("|\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let round = |server_ns, p99_us| Figures { server_ns, p99_us, ..Figures::default() };
        let median = Figures::median(&[round(1.0, 9.0), round(3.0, 7.0), round(2.0, 8.0)]);
        assert_eq!(median, round(2.0, 8.0));
        assert_eq!(Figures::median(&[]), Figures::default());
    }

    #[test]
    fn tables_are_aligned() {
        let point = |x| Figures { x, messages_per_s: 40_000.0, ..Figures::default() };
        let series = Series {
            axis: "connections".into(),
            points: vec![point(10.0), point(10_000.0)],
            ..Series::default()
        };
        let table = table(&series);
        let lines: Vec<&str> = table.trim().lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|l| l.chars().count() == lines[0].chars().count()), "{table}");
    }
}
