//! One bar chart for each workload: bars are medians, whiskers the spread. Colours that can be
//! read on light and dark pages; no script, no fonts, nothing loaded.

use crate::figures::{REFERENCE, Row, Table};
use crate::tables::number;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 110.0;
const TOP: f64 = 58.0;
const LINE: f64 = 30.0;
const BAR: f64 = 18.0;

/// Style of what every chart has.
pub const FRAME: &str = "text{font:13px system-ui,sans-serif;fill:#57606a}\
.title{font-size:15px;font-weight:600;fill:#24292f}\
.axis{stroke:#8c959f;stroke-width:1}\
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.title{fill:#e6edf3}}";

const STYLE: &str = ".bar{fill:#8c959f}.own{fill:#2f81f7}\
.spread{stroke:#57606a;stroke-width:1.5;fill:none}\
@media(prefers-color-scheme:dark){.bar{fill:#6e7681}.spread{stroke:#c9d1d9}}";

/// Text inside an element.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The chart as a file's content.
pub fn chart(table: &Table) -> String {
    let height = TOP + LINE * table.rows.len() as f64 + 16.0;
    let largest = table.rows.iter().filter_map(|row| row.max).fold(0.0, f64::max);
    let scale = if largest > 0.0 { (WIDTH - LEFT - RIGHT) / largest } else { 0.0 };
    let better = if table.higher_is_better { "more is better" } else { "less is better" };
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{FRAME}{STYLE}</style>\n\
         <text class=\"title\" x=\"12\" y=\"24\">{title}</text>\n\
         <text x=\"12\" y=\"44\">{unit}; {better}; median, line: smallest to largest</text>\n",
        title = escape(table.title),
        unit = escape(table.unit),
    );
    for (n, row) in table.rows.iter().enumerate() {
        bar(&mut out, row, TOP + LINE * n as f64, scale);
    }
    let bottom = TOP + LINE * table.rows.len() as f64;
    let _ = write!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{bottom}\"/>\n</svg>\n"
    );
    out
}

fn bar(out: &mut String, row: &Row, y: f64, scale: f64) {
    let middle = y + LINE / 2.0;
    let base = middle + 4.5;
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{}</text>",
        LEFT - 10.0,
        escape(&row.peer)
    );
    let (Some(median), Some(min), Some(max)) = (row.median, row.min, row.max) else {
        let why = row.refused.as_deref().unwrap_or("failed");
        let _ = writeln!(out, "<text x=\"{}\" y=\"{base}\">– {}</text>", LEFT + 8.0, escape(why));
        return;
    };
    let class = if row.peer.starts_with(REFERENCE) { "bar own" } else { "bar" };
    let at = |value: f64| LEFT + value * scale;
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
        middle - BAR / 2.0,
        median * scale
    );
    let (from, to) = (at(min), at(max));
    let (high, low) = (middle - 4.0, middle + 4.0);
    let _ = writeln!(
        out,
        "<path class=\"spread\" d=\"M{from:.1} {high}V{low}M{from:.1} {middle}H{to:.1}M{to:.1} \
         {high}V{low}\"/>"
    );
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{base}\">{}</text>",
        to + 8.0,
        escape(&number(median))
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Figure;
    use crate::workload::Workload;

    /// Every element is closed in the order in which it was opened, and nothing is left bare.
    fn well_formed(text: &str) {
        let mut open: Vec<&str> = Vec::new();
        for part in text.split('<').skip(1) {
            let (tag, rest) = part.split_once('>').expect("a tag ends");
            assert!(!rest.contains('>'), "bare > in {rest}");
            for bare in rest.split('&').skip(1) {
                assert!(bare.contains(';'), "bare & in {rest}");
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag}");
            let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    fn row(peer: &str, mains: &[f64]) -> Row {
        let rounds = mains.iter().map(|main| Some(Figure::new(*main))).collect();
        Row { peer: peer.into(), rounds, ..Row::default() }
    }

    #[test]
    fn charts_are_well_formed_and_stay_inside() {
        let mut table = Table::new(Workload::Tick);
        table.rows = vec![row(REFERENCE, &[1.0, 2.0]), row("a<b & \"c\"", &[40.0])];
        table.rows.push(Row { refused: Some("x > y".into()), ..row("none", &[]) });
        table.summarize();
        let text = chart(&table);
        well_formed(&text);
        assert!(text.starts_with("<svg "));
        assert_eq!(text.matches("<rect").count(), 2);
        let widest = text
            .split("width=\"")
            .filter_map(|part| part.split('"').next()?.parse::<f64>().ok())
            .fold(0.0, f64::max);
        assert!(widest <= WIDTH, "{widest}");
    }

    #[test]
    fn a_chart_of_nothing_is_one_too() {
        let mut table = Table::new(Workload::Bulk);
        table.rows = vec![row("none", &[])];
        table.summarize();
        well_formed(&chart(&table));
        assert!(chart(&table).contains("failed"));
    }
}
