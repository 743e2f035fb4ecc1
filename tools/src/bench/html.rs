//! The results as one page with charts. It needs no other file and no script.

use super::chart::{Axis, Series, chart, escaped, short};
use super::figures::{Report, Run};
use super::flows::Direction;
use super::rounds::{self, Comparison};
use super::table;
use hdrhistogram::Histogram;
use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2530;--dim:#66707c;--grid:#d9dee4;--card:#fff;--page:#f3f5f7;
--c0:#1767c2;--c1:#c2571a;--c2:#2f8f57;--c3:#8a4bb3}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--dim:#98a2ae;--grid:#343b44;--card:#1b2027;
--page:#12161b;--c0:#6db1ff;--c1:#ffa066;--c2:#77d6a0;--c3:#d0a0f0}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:2rem auto;
max-width:1020px;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:.2rem 0}
section{background:var(--card);border-radius:8px;padding:1rem 1.2rem;margin:1rem 0}
p,dt,figcaption{color:var(--dim)}dl{display:grid;grid-template-columns:9rem 1fr;margin:0}dd{margin:0}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:1rem}
figure{margin:0}pre{overflow-x:auto;font-size:12px}
svg{width:100%;font:10px system-ui,sans-serif;fill:var(--dim)}
svg .grid{stroke:var(--grid)}polyline{fill:none;stroke-width:1.6}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}
circle.s0{fill:var(--c0)}circle.s1{fill:var(--c1)}circle.s2{fill:var(--c2)}circle.s3{fill:var(--c3)}
circle{stroke:none}b.big{font-size:1.7rem}";

/// The page; `trips` are the round trips of each run in nanoseconds.
pub fn page(report: &Report, trips: &[Histogram<u64>]) -> String {
    let title = report.title.as_deref().unwrap_or("Trunkline bench");
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{0}</title>\n<style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escaped(title)
    );
    host(&mut out, report);
    for (run, trips) in report.runs.iter().zip(trips) {
        section(&mut out, run, trips);
    }
    let _ = write!(
        out,
        "<section><h2>All figures</h2><pre>{}</pre></section>\n</body></html>\n",
        escaped(&table::table(report))
    );
    out
}

fn host(out: &mut String, report: &Report) {
    let host = &report.host;
    let unknown = || "unknown".to_owned();
    let nic = host.nic.as_ref();
    let nic = nic.map(|nic| format!("{} ({}, {} queues)", nic.name, nic.driver, nic.rx_queues));
    let lines = [
        ("Version", report.version.to_owned()),
        ("Host", host.name.clone().unwrap_or_else(unknown)),
        ("Processor", host.cpu.clone().unwrap_or_else(unknown)),
        ("Processors", host.cpus.to_string()),
        ("Kernel", host.kernel.clone().unwrap_or_else(unknown)),
        ("Interface", nic.unwrap_or_else(unknown)),
        ("Profile", host.profile.clone().unwrap_or_else(|| "none".to_owned())),
        ("Fingerprint", host.fingerprint.clone()),
    ];
    out.push_str("<section><dl>");
    for (name, value) in lines {
        let _ = write!(out, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    out.push_str("</dl></section>\n");
}

fn section(out: &mut String, run: &Run, trips: &Histogram<u64>) {
    let Some(main) = rounds::comparisons(run).first() else { return };
    let _ = writeln!(
        out,
        "<section><h2>{}</h2>\n<p><b class=\"big\">{}</b> {} {}{}</p>\n<p>{}</p>\n\
         <div class=\"charts\">",
        run.scenario,
        run.figure(main.value).map_or("-".to_owned(), short),
        main.unit,
        main.figure,
        known(run),
        escaped(&settings(run))
    );
    by_round(out, run, main);
    over_time(out, run, main);
    percentiles(out, trips);
    out.push_str("</div></section>\n");
}

fn known(run: &Run) -> String {
    match run.confidence {
        Some(known) => {
            let percent = known.percent.map_or("?".to_owned(), |percent| format!("{percent:.1}"));
            let level = known.level * 100.0;
            let met = if known.met { "" } else { ", more than was asked for" };
            format!(" ± {percent} % ({level:.0} % confidence{met})")
        }
        None => String::new(),
    }
}

fn settings(run: &Run) -> String {
    let (length, connections, channels) = (run.length, run.connections, run.channels);
    let mut text = format!(
        "{length}-byte messages, {connections} connection(s) with {channels} channel(s), {} link, \
         {} and {}, {:.1} s in {} round(s), {} packets lost",
        run.link, run.driver, run.server_driver, run.seconds, run.rounds, run.packets_lost
    );
    if let Some(rate) = run.rate_per_s {
        let _ = write!(text, ", open loop with {} messages/s on each connection", short(rate));
    }
    match run.direction {
        Direction::Up => {}
        Direction::Down => text.push_str(", from server to client"),
        Direction::Both => text.push_str(", in both directions at once"),
    }
    if let Some(losses) = run.losses.words() {
        let _ = write!(text, "; lost {losses}");
    }
    if run.loopback {
        text.push_str("; loopback: the sender's CPU also runs the kernel's receive path");
    }
    text
}

fn figure(out: &mut String, caption: &str, svg: &str) {
    let _ = writeln!(out, "<figure>{svg}<figcaption>{caption}</figcaption></figure>");
}

/// The main figure and its floor in each round.
fn by_round(out: &mut String, run: &Run, main: &Comparison) {
    if run.rounds < 2 {
        return;
    }
    let series = |key: &str, name: &str| {
        let values = run.per_round.get(key)?;
        let points = (1..).zip(values).map(|(n, v)| (f64::from(n), *v));
        let points = points.filter(|(_, value)| value.is_finite()).collect();
        Some(Series { name: name.to_owned(), points, line: false })
    };
    let all: Vec<Series> = [series(main.value, main.figure), series(main.floor, main.floor_name)]
        .into_iter()
        .flatten()
        .collect();
    let caption = match all.as_slice() {
        [_, floor] => format!("each round; beside it the floor: {}", floor.name),
        _ => "each round".to_owned(),
    };
    let x = Axis::from_zero("round", run.rounds as f64);
    let y = Axis::from_zero(main.unit, most(&all));
    figure(out, &caption, &chart(&x, &y, &all));
}

/// Rates of all rounds within the measured time.
fn over_time(out: &mut String, run: &Run, main: &Comparison) {
    let value = |interval: &super::figures::Interval| match main.value {
        "goodput_gbps" => Some(interval.goodput_gbps),
        "messages_per_s" => Some(interval.messages_per_s),
        "p50_us" => interval.p50_us,
        _ => interval.p99_us,
    };
    let rounds = run.intervals.iter().map(|interval| interval.round).max().unwrap_or(0);
    let all: Vec<Series> = (1..=rounds)
        .map(|round| Series {
            name: format!("round {round}"),
            points: run
                .intervals
                .iter()
                .filter(|interval| interval.round == round)
                .filter_map(|interval| Some((interval.at_s, value(interval)?)))
                .collect(),
            line: true,
        })
        .collect();
    if all.iter().all(|series| series.points.len() < 2) {
        return;
    }
    let end = run.intervals.iter().map(|interval| interval.at_s).fold(0.0, f64::max);
    let mut x = Axis::from_zero("seconds", end);
    x.high = end;
    x.marks.retain(|(at, _)| *at <= end);
    let y = Axis::from_zero(main.unit, most(&all));
    figure(out, &format!("{} within the measured time", main.figure), &chart(&x, &y, &all));
}

/// Round trips by percentile: each mark of the horizontal axis has a tenth of what is left.
fn percentiles(out: &mut String, trips: &Histogram<u64>) {
    if trips.is_empty() {
        return;
    }
    let nines = |quantile: f64| -(1.0 - quantile).log10();
    let last = (trips.len() as f64).log10().clamp(1.0, 6.0);
    let points: Vec<(f64, f64)> = (0..=100)
        .map(|n| f64::from(n) / 100.0 * last)
        .map(|x| (x, trips.value_at_quantile(1.0 - 10_f64.powf(-x)) as f64 / 1e3))
        .collect();
    let marks = [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
    let marks = marks.into_iter().filter(|(quantile, _)| nines(*quantile) <= last + 1e-9);
    let x = Axis {
        name: "percentile".to_owned(),
        marks: marks.map(|(quantile, text)| (nines(quantile), text.to_owned())).collect(),
        low: 0.0,
        high: last,
    };
    let all = [Series { name: "round trip".to_owned(), points, line: true }];
    let y = Axis::from_zero("µs", most(&all));
    figure(out, "round trips by percentile", &chart(&x, &y, &all));
}

fn most(all: &[Series]) -> f64 {
    all.iter().flat_map(|series| &series.points).map(|(_, y)| *y).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::super::rounds::tests::round;
    use super::*;

    #[test]
    fn a_page_of_its_own() {
        let floors = || vec![("floor_gbps", 20.0), ("floor_plain_gbps", 30.0)];
        let rounds = vec![round("bulk", 10.0, floors()), round("bulk", 12.0, floors())];
        let (mut run, trips) = rounds::combine(rounds).unwrap();
        let second = run.intervals[0].clone();
        run.intervals.push(super::super::figures::Interval { at_s: 1.0, ..second });
        let title = Some("<script>alert(1)</script>".to_owned());
        let page = page(&Report::new(vec![run], title, None), &[trips]);
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));
        assert_eq!(page.matches("<svg").count(), 3, "{page}");
        for tag in ["section", "svg", "figure", "div", "pre", "dl", "body"] {
            let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
            assert_eq!(page.matches(&open).count(), page.matches(&close).count(), "{tag}");
        }
        assert!(!page.contains("NaN"), "{page}");
    }
}
