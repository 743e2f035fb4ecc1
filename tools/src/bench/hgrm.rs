//! Round trips in the percentile format of HdrHistogram (`.hgrm`), which its plotters read.

use super::args::Scenario;
use crate::exit::Failure;
use hdrhistogram::Histogram;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Lines for each halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;
/// Sub-buckets of a histogram with three digits.
const SUB_BUCKETS: u32 = 2048;
const NS_PER_US: f64 = 1e3;

/// One file for each scenario, there before anything is measured.
pub struct Files {
    files: Vec<(&'static str, PathBuf, File)>,
}

impl Files {
    /// `path` itself for one scenario, else the scenario's name between stem and extension.
    pub fn create(path: &Path, scenarios: &[Scenario]) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for scenario in scenarios {
            let path = match scenarios {
                [_] => path.to_owned(),
                _ => suffixed(path, scenario.name()),
            };
            let file = File::create(&path).map_err(|e| Failure::cannot_write(&path, &e))?;
            files.push((scenario.name(), path, file));
        }
        Ok(Self { files })
    }

    /// Writes the round trips (nanoseconds) of `scenario`.
    pub fn write(&mut self, scenario: &str, rtt: &Histogram<u64>) -> Result<(), Failure> {
        for (name, path, file) in &mut self.files {
            if *name == scenario {
                let mut out = BufWriter::new(file);
                write(&mut out, rtt)
                    .and_then(|()| out.flush())
                    .map_err(|e| Failure::cannot_write(path, &e))?;
            }
        }
        Ok(())
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-");
    name.push(suffix);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Values in microseconds.
fn write(out: &mut impl Write, rtt: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut count = 0;
    for step in rtt.iter_quantiles(TICKS_PER_HALF) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_US;
        let quantile = step.quantile_iterated_to();
        if quantile < 1.0 {
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(out, "{value:>12.3} {quantile:>14.12} {count:>10} {inverse:>14.2}")?;
        } else {
            writeln!(out, "{value:>12.3} {quantile:>14.12} {count:>10}")?;
        }
    }
    let (mean, deviation) = (rtt.mean() / NS_PER_US, rtt.stdev() / NS_PER_US);
    writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]")?;
    let (max, total) = (rtt.max() as f64 / NS_PER_US, rtt.len());
    writeln!(out, "#[Max     = {max:>12.3}, Total count    = {total:>12}]")?;
    writeln!(out, "#[Buckets = {:>12}, SubBuckets     = {SUB_BUCKETS:>12}]", rtt.buckets())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_hdr_histogram() {
        let mut rtt = trunkline_floor::histogram();
        for us in 1..=1000 {
            rtt.record(us * 1000).unwrap();
        }
        let mut out = Vec::new();
        write(&mut out, &rtt).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000          1           1.00");
        let half = lines.iter().find(|line| line.contains("0.500000000000")).unwrap();
        let cells: Vec<&str> = half.split_whitespace().collect();
        assert_eq!(cells[2..], ["500", "2.00"]);
        let last = lines[lines.len() - 4];
        assert!(last.ends_with("1.000000000000       1000"), "{last}");
        assert!(lines[lines.len() - 3].starts_with("#[Mean    =      500.5"), "{out}");
        assert!(lines[lines.len() - 2].contains("Total count    =         1000]"), "{out}");
        assert!(lines[lines.len() - 1].ends_with("SubBuckets     =         2048]"), "{out}");
    }

    #[test]
    fn nothing_measured_is_an_empty_list() {
        let mut out = Vec::new();
        write(&mut out, &trunkline_floor::histogram()).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("Total count    =            0]"));
    }

    #[test]
    fn names_of_several() {
        let path = Path::new("out/rtt.hgrm");
        assert_eq!(suffixed(path, "bulk"), Path::new("out/rtt-bulk.hgrm"));
        assert_eq!(suffixed(Path::new("rtt"), "bulk"), Path::new("rtt-bulk"));
    }
}
