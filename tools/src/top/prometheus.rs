//! The figures in Prometheus' text format: every field of the files, under its own name.

use super::rates::Watched;
use crate::metrics::{Page, Source};
use std::path::PathBuf;
use trunkline::stats::file::{Field, Health, Kind, StatsFile};

/// Files that are read for each request.
pub struct Served {
    pub paths: Vec<PathBuf>,
}

impl Served {
    fn sample(&self) -> Vec<Watched> {
        let open = |path: &PathBuf| {
            let mut watched = Watched::new(path.clone(), StatsFile::open(path).ok()?);
            watched.sample().ok()?;
            Some(watched)
        };
        self.paths.iter().filter_map(open).collect()
    }
}

impl Source for Served {
    fn render(&self) -> String {
        render(&self.sample())
    }

    fn is_healthy(&self) -> bool {
        let sampled = self.sample();
        let runs = |w: &Watched| matches!(w.health(), Health::Starting | Health::Running);
        sampled.len() == self.paths.len() && sampled.iter().all(runs)
    }
}

/// All metrics of all engines.
pub fn render(engines: &[Watched]) -> String {
    let mut page = Page::new("trunkline");
    for watched in engines {
        let (file, info) = (watched.path.display().to_string(), watched.file.info());
        let pid = info.pid.to_string();
        let labels = [("file", &file[..]), ("pid", &pid), ("version", &info.engine)];
        page.value("engine_info", "gauge", "Engine and its process.", &labels, 1);
    }
    for watched in engines {
        let file = watched.path.display().to_string();
        let help = "When the engine started.";
        let seconds = watched.file.info().wall_ns as f64 / 1e9;
        page.value("start_time_seconds", "gauge", help, &[("file", &file)], seconds);
    }
    let state = |page: &mut Page, name: &str, help: &str, is: &dyn Fn(&Health) -> bool| {
        each(engines, |labels, watched, at| {
            let Some(sample) = &watched.now else { return };
            page.value(name, "gauge", help, labels, u8::from(is(&sample.shards[at].health)));
        });
    };
    let help = "Whether the shard works, or sleeps because there is nothing to do.";
    state(&mut page, "shard_up", help, &|h| matches!(h, Health::Running));
    let help = "Whether the shard has ended in good order.";
    state(&mut page, "shard_ended", help, &|h| matches!(h, Health::Ended));
    each(engines, |labels, watched, at| {
        let Some(sample) = &watched.now else { return };
        let late = match &sample.shards[at].health {
            Health::NotAnswering(since) => since.as_secs_f64(),
            _ => 0.0,
        };
        let help = "For how long the shard has not done what it had to.";
        page.value("shard_silent_seconds", "gauge", help, labels, late);
    });
    let mut fields: Vec<&Field> = Vec::new();
    for field in engines.iter().flat_map(|w| w.file.fields()) {
        if is_name(&field.name) && !fields.iter().any(|f| f.name == field.name) {
            fields.push(field);
        }
    }
    for field in fields {
        let (kind, end) = match field.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
        };
        let (name, help) =
            (format!("{}{end}", field.name), format!("Field {} of the stats file.", field.name));
        each(engines, |labels, watched, at| {
            let Some(sample) = &watched.now else { return };
            if let Some(value) = sample.shards[at].get(&field.name) {
                page.value(&name, kind, &help, labels, value);
            }
        });
    }
    page.text
}

/// Names come from a file, which can hold anything.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Every shard of every engine, with its labels.
fn each(engines: &[Watched], mut f: impl FnMut(&[(&str, &str)], &Watched, usize)) {
    for watched in engines {
        let file = watched.path.display().to_string();
        for at in 0..watched.now.as_ref().map_or(0, |s| s.shards.len()) {
            f(&[("file", &file), ("shard", &at.to_string())], watched, at);
        }
    }
}
