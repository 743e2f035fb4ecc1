//! How a transfer is shown: progress bars on a terminal, plain lines otherwise, one JSON object a
//! line for programs. Results go to standard output, everything else to standard error.

use super::names::printable;
use super::wire::{Code, Digest};
use crate::exit::{Exit, Failure};
use crate::hex;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Files that have a bar of their own at once; the others are in the total.
const MAX_BARS: usize = 8;
/// Between two progress lines of a file that is not shown by a bar.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Between two progress objects of a file.
const JSON_EVERY: Duration = Duration::from_millis(500);

/// Bytes of a file that are through, counted by whoever moves them.
pub type Done = Arc<AtomicU64>;

/// Shows one command's transfers.
pub struct Report {
    style: Style,
    verb: Verb,
    begun: Instant,
    files: BTreeMap<u64, Shown>,
    total: Option<ProgressBar>,
    finished: u64,
    failed: u64,
    bytes: u64,
}

/// Which way files go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `send`.
    Send,
    /// `recv`.
    Receive,
}

enum Style {
    Json,
    Lines,
    Bars(MultiProgress),
}

struct Shown {
    name: String,
    bytes: u64,
    done: Done,
    begun: Instant,
    told: Instant,
    told_done: u64,
    bar: Option<ProgressBar>,
}

impl Report {
    /// A report in the style that fits: JSON when asked for, bars on a terminal, else lines.
    pub fn new(json: bool, verb: Verb) -> Self {
        let style = match json {
            true => Style::Json,
            false if io::stderr().is_terminal() => Style::Bars(MultiProgress::new()),
            false => Style::Lines,
        };
        Self {
            style,
            verb,
            begun: Instant::now(),
            files: BTreeMap::new(),
            total: None,
            finished: 0,
            failed: 0,
            bytes: 0,
        }
    }

    /// Something worth knowing that has its own JSON event; `line` is its plain form on standard
    /// output.
    pub fn result(&self, event: &str, fields: Value, line: &str) {
        match &self.style {
            Style::Json => print_json(event, fields),
            Style::Lines => print_line(line),
            Style::Bars(bars) => bars.suspend(|| print_line(line)),
        }
    }

    /// The same on standard error in its plain form.
    pub fn notice(&self, event: &str, fields: Value, line: &str) {
        match &self.style {
            Style::Json => print_json(event, fields),
            Style::Lines => eprintln!("{line}"),
            Style::Bars(bars) => bars.suspend(|| eprintln!("{line}")),
        }
    }

    /// Words on standard error only.
    pub fn say(&self, line: &str) {
        match &self.style {
            Style::Json | Style::Lines => eprintln!("{line}"),
            Style::Bars(bars) => bars.suspend(|| eprintln!("{line}")),
        }
    }

    /// Why the command stops; in words also for programs.
    pub fn error(&self, failure: &Failure) {
        if let Style::Json = self.style {
            let (exit, reason) = (failure.exit as u8, &failure.text);
            print_json("error", json!({"exit": exit, "reason": reason}));
        }
        self.say(&format!("error: {failure}"));
    }

    /// How many files and bytes there will be, when that is known.
    pub fn expect(&mut self, files: usize, bytes: u64) {
        if let Style::Bars(bars) = &self.style
            && files > 1
        {
            let bar = ProgressBar::new(bytes).with_style(bar_style());
            bar.set_message(format!("{files} files"));
            self.total = Some(bars.add(bar));
        }
    }

    /// A file begins; `id` names it from now on.
    pub fn started(&mut self, id: u64, name: &str, bytes: u64, done: Done) {
        let name = printable(name);
        let mut bar = None;
        match &self.style {
            Style::Json => print_json("started", json!({"file": name, "bytes": bytes})),
            Style::Lines => {}
            Style::Bars(bars) => {
                if self.files.values().filter(|f| f.bar.is_some()).count() < MAX_BARS {
                    let new = ProgressBar::new(bytes).with_style(bar_style());
                    new.set_message(name.clone());
                    bar = Some(match &self.total {
                        Some(total) => bars.insert_before(total, new),
                        None => bars.add(new),
                    });
                }
            }
        }
        let now = Instant::now();
        self.files
            .insert(id, Shown { name, bytes, done, begun: now, told: now, told_done: 0, bar });
    }

    /// Moves the bars and prints progress that is due. Called about ten times a second.
    pub fn tick(&mut self) {
        let now = Instant::now();
        let mut under_way = 0;
        for file in self.files.values_mut() {
            let done = file.done.load(Ordering::Relaxed).min(file.bytes);
            under_way += done;
            if let Some(bar) = &file.bar {
                bar.set_position(done);
            }
            let every = match self.style {
                Style::Json => JSON_EVERY,
                Style::Lines => LINE_EVERY,
                Style::Bars(_) => continue,
            };
            if now.duration_since(file.told) < every || done == file.told_done {
                continue;
            }
            (file.told, file.told_done) = (now, done);
            match self.style {
                Style::Json => {
                    let (name, bytes) = (&file.name, file.bytes);
                    print_json("progress", json!({"file": name, "done": done, "bytes": bytes}));
                }
                _ => eprintln!("{}: {} of {}", file.name, HumanBytes(done), HumanBytes(file.bytes)),
            }
        }
        if let Some(total) = &self.total {
            total.set_position(self.bytes + under_way);
        }
    }

    /// A file is through and checked. `path`: where the receiver put it.
    pub fn finished(&mut self, id: u64, digest: &Digest, path: Option<&Path>) {
        let Some(file) = self.files.remove(&id) else { return };
        self.finished += 1;
        self.bytes += file.bytes;
        let seconds = file.begun.elapsed().as_secs_f64();
        let (name, bytes) = (&file.name, file.bytes);
        let sha256 = hex::encode(digest);
        let path = path.map(|p| p.display().to_string());
        let mut fields =
            json!({"file": name, "bytes": bytes, "sha256": sha256, "seconds": seconds});
        let verb = match self.verb {
            Verb::Send => "sent",
            Verb::Receive => "stored",
        };
        if let (Verb::Receive, Some(object)) = (self.verb, fields.as_object_mut()) {
            object.insert("path".into(), json!(path));
        }
        let line = format!("{verb} {name} ({bytes} bytes, sha256 {sha256})");
        if let Some(bar) = file.bar {
            bar.finish_and_clear();
        }
        self.result("finished", fields, &line);
    }

    /// A file ended without being through; `name` is used when it never started.
    pub fn failed(&mut self, id: u64, name: &str, code: Option<Code>, reason: &str) {
        let name = match self.files.remove(&id) {
            Some(file) => {
                if let Some(bar) = file.bar {
                    bar.finish_and_clear();
                }
                file.name
            }
            None => printable(name),
        };
        self.failed += 1;
        let reason = printable(reason);
        let fields = json!({"file": name, "code": code.map(|c| c.0), "reason": reason});
        let verb = match self.verb {
            Verb::Send => "not sent",
            Verb::Receive => "not stored",
        };
        self.notice("failed", fields, &format!("{verb} {name}: {reason}"));
    }

    /// The last line.
    pub fn summary(&mut self, exit: Exit) {
        if let Some(total) = self.total.take() {
            total.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let (files, failed, bytes) = (self.finished, self.failed, self.bytes);
        let fields = json!({
            "files": files, "failed": failed, "bytes": bytes, "seconds": seconds,
            "exit": exit as u8,
        });
        let verb = match self.verb {
            Verb::Send => "sent",
            Verb::Receive => "stored",
        };
        let failures = if failed == 0 { String::new() } else { format!(", {failed} failed") };
        let (files, bytes) = (count_files(files), HumanBytes(bytes));
        let line = format!("{verb} {files}, {bytes}, in {seconds:.1} s{failures}");
        self.notice("summary", fields, &line);
    }

    /// Files that ended without being through.
    pub const fn failed_files(&self) -> u64 {
        self.failed
    }
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template(
        "{msg:30!} {wide_bar} {bytes:>10}/{total_bytes:10} {bytes_per_sec:>12} {eta:>5}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One event for programs. A reader that has gone away is no reason to stop a transfer.
/// One event as a line of JSON on standard output.
pub fn print_json(event: &str, fields: Value) {
    let mut object = serde_json::Map::new();
    object.insert("event".into(), json!(event));
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    print_line(&Value::Object(object).to_string());
}

/// A line on standard output.
pub fn print_line(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// "1 file", "2 files".
pub fn count_files(files: u64) -> String {
    format!("{files} file{}", if files == 1 { "" } else { "s" })
}
