//! `bench compare`: which figures of two measurements differ by more than chance.

use super::args::CompareArgs;
use super::confidence::{least_probability, mean, probability_by_chance};
use super::figures::SCHEMA;
use super::table::{aligned, number};
use crate::exit::{Exit, Failure};
use crate::print;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// What `trunkline bench compare --help` ends with.
pub const HELP: &str = "\
Examples:
  trunkline bench --rounds 5 --json > before.json
  trunkline bench --rounds 5 --json > after.json
  trunkline bench compare before.json after.json

Runs are compared where scenario, link, length, connections, channels, direction and rate agree. A
difference counts when a permutation test over the rounds says that chance makes one as large in
fewer than 5 % of cases (--alpha); with fewer than four rounds on each side it never can.

Exit codes: 0 nothing is worse, 1 a figure is worse than in the first file, 2 usage, a file that
cannot be read, or nothing to compare";

/// Longest file that is read: thousands of rounds with their intervals.
const MAX_FILE: u64 = 256 << 20;

/// Figures that are compared: the field of `per_round`, its unit, and whether more is better.
const FIGURES: [(&str, &str, bool); 8] = [
    ("goodput_gbps", "Gb/s", true),
    ("messages_per_s", "/s", true),
    ("p50_us", "µs", false),
    ("p99_us", "µs", false),
    ("server_cores", "cores", false),
    ("ratio", "", true),
    ("ratio_plain", "", true),
    ("ratio_gbps", "", true),
];

/// Parts of the host that measurements should have in common.
const HOST: [&str; 5] = ["kernel", "cpu", "cpus", "nic", "profile"];
/// What two runs must have in common to be compared.
const KEY: [&str; 8] = [
    "scenario",
    "link",
    "length",
    "connections",
    "publishers",
    "channels",
    "direction",
    "rate_per_s",
];
/// What they should have in common.
const SETTINGS: [&str; 5] = ["driver", "server_driver", "packet_bytes", "busy_poll_us", "lent"];

/// One figure of two runs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    pub file: String,
    pub scenario: String,
    pub figure: &'static str,
    /// Means of the rounds.
    pub before: f64,
    pub after: f64,
    pub change_percent: f64,
    /// How often chance makes such a difference.
    pub chance: f64,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// No more than chance.
    Same,
    /// So few rounds say nothing.
    TooFew,
}

impl Verdict {
    const fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Same => "no difference",
            Self::TooFew => "too few rounds",
        }
    }
}

/// What a comparison gives.
#[derive(Debug, Default, Serialize)]
pub struct Comparison {
    pub schema: u32,
    pub alpha: f64,
    pub warnings: Vec<String>,
    pub differences: Vec<Difference>,
}

/// The subcommand.
pub fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let mut all = Comparison { schema: SCHEMA, alpha: args.alpha, ..Comparison::default() };
    let (first, others) = args.files.split_first().ok_or_else(|| Failure::usage("no file"))?;
    let before = read(first)?;
    for path in others {
        compare(&mut all, &before, &read(path)?, &path.display().to_string());
    }
    for warning in &all.warnings {
        eprintln!("warning: {warning}");
    }
    if all.differences.is_empty() {
        return Err(Failure::usage("nothing to compare: no run has a counterpart"));
    }
    let text = if args.json {
        let object = serde_json::to_string_pretty(&all);
        object.map_err(|e| Failure::local(format!("cannot make JSON: {e}")))? + "\n"
    } else {
        table(&all, others.len() > 1)
    };
    io::stdout().write_all(text.as_bytes()).map_err(print::failure)?;
    let worse = all.differences.iter().any(|d| d.verdict == Verdict::Worse);
    Ok(if worse { Exit::Failed } else { Exit::Done })
}

fn read(path: &Path) -> Result<Value, Failure> {
    let cannot = |what: String| Failure::usage(format!("{}: {what}", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| cannot(e.to_string()))?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|e| cannot(e.to_string()))?;
    let report: Value = serde_json::from_str(&text)
        .map_err(|e| cannot(format!("not what `bench --json` writes: {e}")))?;
    match report["schema"].as_u64() {
        Some(schema) if schema == u64::from(SCHEMA) && report["runs"].is_array() => Ok(report),
        Some(schema) => Err(cannot(format!("schema {schema}; this version reads {SCHEMA}"))),
        None => Err(cannot("no \"schema\": not what `bench --json` writes".to_owned())),
    }
}

/// Adds what there is to say of `after`, which is in `file`.
fn compare(all: &mut Comparison, before: &Value, after: &Value, file: &str) {
    for field in HOST {
        warn(all, file, field, &before["host"][field], &after["host"][field]);
    }
    let runs = |report: &Value| report["runs"].as_array().cloned().unwrap_or_default();
    let earlier = runs(before);
    for run in runs(after) {
        let alike = |other: &&Value| KEY.iter().all(|field| key(other, field) == key(&run, field));
        let scenario = run["scenario"].as_str().unwrap_or("?").to_owned();
        let Some(other) = earlier.iter().find(alike) else {
            let settings: Vec<String> =
                KEY[1..].iter().map(|field| format!("{field} {}", run[*field])).collect();
            let settings = settings.join(", ");
            all.warnings.push(format!("{file}: {scenario} ({settings}) is not in the first file"));
            continue;
        };
        for field in SETTINGS {
            warn(all, &format!("{file}, {scenario}"), field, &other[field], &run[field]);
        }
        for (figure, _, more_is_better) in FIGURES {
            // The ratio of round trips to their floor: less is better.
            let less =
                figure == "ratio" && matches!(scenario.as_str(), "latency" | "loaded" | "tick");
            // More work takes more of a processor: that says something where the work is the same.
            if figure == "server_cores" && !has_fixed_load(&run) {
                continue;
            }
            let (a, b) = (rounds(other, figure), rounds(&run, figure));
            let Some(chance) = probability_by_chance(&a, &b) else { continue };
            let (a_mean, b_mean) = (mean(&a), mean(&b));
            let verdict = if least_probability(a.len(), b.len()) >= all.alpha {
                Verdict::TooFew
            } else if chance >= all.alpha {
                Verdict::Same
            } else if (b_mean > a_mean) == (more_is_better && !less) {
                Verdict::Better
            } else {
                Verdict::Worse
            };
            all.differences.push(Difference {
                file: file.to_owned(),
                scenario: scenario.clone(),
                figure,
                before: a_mean,
                after: b_mean,
                change_percent: (b_mean / a_mean - 1.0) * 100.0,
                chance,
                verdict,
            });
        }
    }
}

/// A field that tells runs apart. Reports of before it existed have what it was then.
fn key(run: &Value, field: &str) -> Value {
    match (&run[field], field) {
        (Value::Null, "direction") => "up".into(),
        (Value::Null, "publishers") => 0.into(),
        (value, _) => value.clone(),
    }
}

/// Whether it offers the same however fast the other side is.
fn has_fixed_load(run: &Value) -> bool {
    let scenario = run["scenario"].as_str().unwrap_or_default();
    run["rate_per_s"].is_number() || matches!(scenario, "tick" | "mixed" | "media")
}

fn warn(all: &mut Comparison, what: &str, field: &str, before: &Value, after: &Value) {
    if before != after {
        all.warnings.push(format!("{what}: {field} differs: {before} and {after}"));
    }
}

/// The values of a figure that there are.
fn rounds(run: &Value, figure: &str) -> Vec<f64> {
    let values = run["per_round"][figure].as_array();
    values.into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn table(all: &Comparison, several: bool) -> String {
    let head = ["scenario", "figure", "before", "after", "change", "by chance", "verdict"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut file = "";
    let mut out = String::new();
    for difference in &all.differences {
        let Difference { scenario, figure, before, after, chance, .. } = difference;
        if several && difference.file != file {
            if !file.is_empty() {
                out.push_str(&aligned(&rows, &[0, 1, 6]));
                rows.truncate(1);
            }
            file = &difference.file;
            let _ = writeln!(out, "\n{file}");
        }
        let unit = FIGURES.iter().find(|(name, ..)| name == figure).map_or("", |f| f.1);
        let shown = |value| match unit {
            "" => format!("{value:.3}"),
            unit => format!("{} {unit}", number(value, unit)),
        };
        rows.push(vec![
            scenario.clone(),
            (*figure).to_owned(),
            shown(*before),
            shown(*after),
            format!("{:+.1} %", difference.change_percent),
            format!("{:.1} %", chance * 100.0),
            difference.verdict.words().to_owned(),
        ]);
    }
    out.push_str(&aligned(&rows, &[0, 1, 6]));
    let _ = writeln!(
        out,
        "means of the rounds; a difference counts where chance makes one as large in less than {} %",
        all.alpha * 100.0
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(goodput: &[f64], p50: &[f64], kernel: &str) -> Value {
        json!({ "schema": 1, "host": { "kernel": kernel, "cpus": 2 }, "runs": [{
            "scenario": "bulk", "link": "datagram", "length": 65536, "connections": 1,
            "channels": 1, "driver": "uring",
            "per_round": { "goodput_gbps": goodput, "p50_us": p50 },
        }]})
    }

    fn of(before: &Value, after: &Value) -> Comparison {
        let mut all = Comparison { alpha: 0.05, ..Comparison::default() };
        compare(&mut all, before, after, "b");
        all
    }

    #[test]
    fn what_is_worse_is_found_and_noise_is_not() {
        let before = report(&[10.0, 10.2, 9.9, 10.1, 10.0], &[50.0, 51.0, 52.0, 49.0, 50.0], "6");
        let after = report(&[8.0, 8.1, 7.9, 8.0, 8.2], &[50.5, 50.0, 51.0, 52.0, 49.0], "6");
        let all = of(&before, &after);
        assert!(all.warnings.is_empty(), "{:?}", all.warnings);
        let [goodput, p50] = all.differences.as_slice() else { panic!("{all:?}") };
        assert_eq!((goodput.verdict, p50.verdict), (Verdict::Worse, Verdict::Same));
        assert!((goodput.change_percent + 20.0).abs() < 1.0, "{goodput:?}");
        assert_eq!(of(&after, &before).differences[0].verdict, Verdict::Better);
        let text = table(&all, false);
        assert!(text.contains("WORSE") && text.contains("Gb/s"), "{text}");
    }

    #[test]
    fn less_is_better_for_round_trips() {
        let before = report(&[], &[50.0, 51.0, 52.0, 49.0], "6");
        let after = report(&[], &[30.0, 31.0, 32.0, 29.0], "6");
        assert_eq!(of(&before, &after).differences[0].verdict, Verdict::Better);
        assert_eq!(of(&after, &before).differences[0].verdict, Verdict::Worse);
    }

    #[test]
    fn few_rounds_say_nothing_and_other_machines_are_told() {
        let before = report(&[10.0], &[], "6.1");
        let all = of(&before, &report(&[1.0], &[], "6.2"));
        assert_eq!(all.differences[0].verdict, Verdict::TooFew);
        assert!(all.warnings.iter().any(|w| w.contains("kernel")), "{:?}", all.warnings);
        let mut other = report(&[1.0], &[], "6.1");
        other["runs"][0]["length"] = 64.into();
        let all = of(&before, &other);
        assert!(all.differences.is_empty() && all.warnings[0].contains("64"), "{all:?}");
        other["runs"][0]["driver"] = "mio".into();
        other["runs"][0]["length"] = 65536.into();
        assert!(of(&before, &other).warnings[0].contains("driver"));
    }
}
