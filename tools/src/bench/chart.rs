//! Line charts as SVG, with axes that have round numbers.

use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 190.0;
/// Room for the numbers of the axes.
const LEFT: f64 = 58.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 12.0;
const RIGHT: f64 = 14.0;

/// One axis: its name, and where a value lies on it.
pub struct Axis {
    pub name: String,
    /// Values with a mark, and what it says.
    pub marks: Vec<(f64, String)>,
    pub low: f64,
    pub high: f64,
}

impl Axis {
    /// From 0 to a round number that is not below `most`.
    pub fn from_zero(name: &str, most: f64) -> Self {
        let step = round_step(most / 4.0);
        let steps = (most / step).ceil().max(1.0);
        let marks = (0..=steps as u32).map(|n| f64::from(n) * step);
        Self {
            name: name.to_owned(),
            marks: marks.map(|value| (value, short(value))).collect(),
            low: 0.0,
            high: steps * step,
        }
    }

    fn at(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// Points that belong together: a line through them, or only the points.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    pub line: bool,
}

/// A chart. Each point tells its values when pointed at.
pub fn chart(x: &Axis, y: &Axis, all: &[Series]) -> String {
    let at_x = |value| LEFT + x.at(value) * (WIDTH - LEFT - RIGHT);
    let at_y = |value| HEIGHT - BOTTOM - y.at(value) * (HEIGHT - BOTTOM - TOP);
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    for (value, text) in &y.marks {
        let at = at_y(*value);
        let (end, label, baseline) = (WIDTH - RIGHT, LEFT - 6.0, at + 3.5);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{end}\" y2=\"{at:.1}\"/>\
             <text x=\"{label}\" y=\"{baseline:.1}\" text-anchor=\"end\">{text}</text>"
        );
    }
    for (value, text) in &x.marks {
        let (at, below) = (at_x(*value), HEIGHT - BOTTOM + 14.0);
        let _ =
            writeln!(out, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{text}</text>");
    }
    let (middle, foot) = (f64::midpoint(LEFT, WIDTH), HEIGHT - 4.0);
    let _ = writeln!(
        out,
        "<text class=\"axis\" x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" x=\"2\" y=\"9\">{}</text>",
        escaped(&x.name),
        escaped(&y.name)
    );
    for (number, series) in all.iter().enumerate() {
        let class = number % 4;
        if series.line {
            let points: Vec<String> = series
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y)))
                .collect();
            let _ = writeln!(out, "<polyline class=\"s{class}\" points=\"{}\"/>", points.join(" "));
        }
        let radius = if series.points.len() > 60 { 1.2 } else { 2.6 };
        for (x, y) in &series.points {
            let (name, value) = (escaped(&series.name), short(*y));
            let _ = writeln!(
                out,
                "<circle class=\"s{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\">\
                 <title>{name}: {value}</title></circle>",
                at_x(*x),
                at_y(*y)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    if step.is_nan() || step <= 0.0 || step.is_infinite() {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    let by = [1.0, 2.0, 5.0, 10.0].into_iter().find(|by| by * power >= step * (1.0 - 1e-9));
    by.unwrap_or(10.0) * power
}

/// A number with three digits or so, thousands as k and M.
pub fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// As text of a page.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        let marks =
            |most| Axis::from_zero("x", most).marks.into_iter().map(|m| m.1).collect::<Vec<_>>();
        assert_eq!(marks(27.1), ["0", "10", "20", "30"]);
        assert_eq!(marks(1.0), ["0", "0.5", "1"]);
        assert_eq!(marks(23.2e6), ["0", "10M", "20M", "30M"]);
        assert_eq!(marks(0.0), ["0", "1"]);
        assert_eq!(marks(f64::NAN).len(), 2);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(27.134), "27.1");
        assert_eq!(short(100.0), "100");
        assert_eq!(short(9999.0), "9999");
        assert_eq!(short(65_500.0), "65.5k");
        assert_eq!(short(0.5), "0.5");
    }

    #[test]
    fn points_lie_within() {
        let axis = || Axis::from_zero("a<b", 10.0);
        let points = vec![(0.0, 0.0), (10.0, 10.0), (99.0, 99.0)];
        let svg = chart(&axis(), &axis(), &[Series { name: "s".into(), points, line: true }]);
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains(&format!("points=\"{LEFT:.1},{:.1} ", HEIGHT - BOTTOM)), "{svg}");
        assert_eq!(svg.matches(&format!("{:.1},{TOP:.1}", WIDTH - RIGHT)).count(), 2, "{svg}");
    }
}
