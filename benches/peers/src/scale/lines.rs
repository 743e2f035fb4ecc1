//! A line chart with a logarithmic axis for what is varied. No script, no fonts, nothing loaded;
//! colours that can be read on light and dark pages.

use super::series::{Figures, Series};
use crate::svg::{FRAME, escape};
use crate::tables::number;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 58.0;
const BOTTOM: f64 = 46.0;

const STYLE: &str = ".grid{stroke:#8c959f;stroke-width:.4}\
.a{stroke:#2f81f7;fill:none;stroke-width:2}.b{stroke:#bc4c00;fill:none;stroke-width:2}\
.pa{fill:#2f81f7}.pb{fill:#bc4c00}\
@media(prefers-color-scheme:dark){.b{stroke:#f0883e}.pb{fill:#f0883e}}";

/// One line of a chart.
type Line = (&'static str, fn(&Figures) -> f64);

/// CPU for a message at both sides, over what is varied.
pub fn cost(series: &Series) -> String {
    let lines: [Line; 2] = [("server", |f| f.server_ns), ("client", |f| f.client_ns)];
    chart(series, "CPU for a message, ns", &lines)
}

/// Resident bytes over what is varied; the first point, which they are counted from, is left out.
pub fn memory(series: &Series) -> String {
    let series =
        Series { points: series.points.iter().skip(1).copied().collect(), ..series.clone() };
    chart(&series, "resident bytes of the server for each", &[("server", |f| f.server_bytes)])
}

fn chart(series: &Series, unit: &str, lines: &[Line]) -> String {
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let values = lines.iter().flat_map(|(_, of)| series.points.iter().map(of));
    let largest = values.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let log = |figures: &Figures| figures.x.max(1.0).log10();
    let first = series.points.iter().map(log).fold(f64::INFINITY, f64::min);
    let last = series.points.iter().map(log).fold(0.0, f64::max);
    let span = if last > first { last - first } else { 1.0 };
    let x = |figures: &Figures| LEFT + width * (log(figures) - first) / span;
    let y = |value: f64| TOP + height * (1.0 - value / largest / 1.1);
    let bottom = TOP + height;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n<title>{title}</title>\n\
         <style>{FRAME}{STYLE}</style>\n<text class=\"title\" x=\"12\" y=\"24\">{title}</text>\n\
         <text x=\"12\" y=\"44\">{unit}, over {axis}</text>\n",
        title = escape(&series.title),
        unit = escape(unit),
        axis = escape(&series.axis),
    );
    for part in 0..=4 {
        let value = largest * f64::from(part) / 4.0;
        let at = y(value);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{:.1}\" y2=\"{at:.1}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT + width,
            LEFT - 8.0,
            at + 4.5,
            number(value),
        );
    }
    for figures in &series.points {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(figures),
            bottom + 20.0,
            figures.x,
        );
    }
    for ((name, of), class) in lines.iter().zip(["a", "b"]) {
        line(&mut out, class, name, series.points.iter().map(|f| (x(f), y(of(f)))));
    }
    let _ = write!(
        out,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{:.1}\" y2=\"{bottom}\"/>\n</svg>\n",
        LEFT + width,
    );
    out
}

fn line(out: &mut String, class: &str, name: &str, points: impl Iterator<Item = (f64, f64)>) {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(out, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
    for point in &points {
        let Some((x, y)) = point.split_once(',') else { continue };
        let _ = writeln!(out, "<circle class=\"p{class}\" cx=\"{x}\" cy=\"{y}\" r=\"3.5\"/>");
    }
    if let Some((x, y)) = points.last().and_then(|point| point.split_once(',')) {
        let _ = writeln!(
            out,
            "<text class=\"p{class}\" x=\"{x}\" y=\"{y}\" dx=\"10\" dy=\"4\">{}</text>",
            escape(name)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_inside_and_in_order() {
        let point = |x, server_ns| Figures { x, server_ns, ..Figures::default() };
        let series = Series {
            title: "a <b>".into(),
            axis: "connections".into(),
            points: vec![point(10.0, 900.0), point(100.0, 1000.0), point(10_000.0, 1100.0)],
            ..Series::default()
        };
        let text = cost(&series);
        assert!(text.contains("a &lt;b&gt;") && text.ends_with("</svg>\n"));
        let xs: Vec<f64> = text
            .split("<circle class=\"pa\" cx=\"")
            .skip(1)
            .map(|part| part.split('"').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(xs.len(), 3);
        assert!(xs.is_sorted() && xs[2] <= WIDTH - RIGHT + 0.1, "{xs:?}");
        // Three decades: the second point is a third of the way.
        assert!(((xs[1] - xs[0]) / (xs[2] - xs[0]) - 1.0 / 3.0).abs() < 0.01, "{xs:?}");
    }

    #[test]
    fn nothing_is_a_chart_too() {
        assert!(memory(&Series::default()).contains("</svg>"));
    }
}
