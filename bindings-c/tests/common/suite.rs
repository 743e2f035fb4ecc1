//! Test programs in C: `tests/c/*.c`. Without arguments each lists its tests, otherwise it runs those
//! that it is given.

use super::{LIMIT, Running, run, succeeded};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Every program, as a path in this crate.
pub fn sources() -> Vec<String> {
    let folder = std::fs::read_dir(super::root().join("tests/c")).expect("tests/c");
    let names = folder.map(|entry| entry.expect("readable").file_name().into_string());
    let mut found: Vec<String> = names
        .map(|name| name.expect("a plain name"))
        .filter(|name| std::path::Path::new(name).extension().is_some_and(|e| e == "c"))
        .map(|name| format!("tests/c/{name}"))
        .collect();
    found.sort();
    found
}

/// A compiled program and how it is run. The program is removed when it is dropped.
pub struct Suite {
    program: PathBuf,
    /// In front of the program, with its options.
    pub tool: Vec<OsString>,
    environment: Vec<(String, String)>,
    /// How long a process may take.
    pub limit: Duration,
}

impl Drop for Suite {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.program);
    }
}

impl Suite {
    pub fn new(program: PathBuf) -> Self {
        Self { program, tool: Vec::new(), environment: Vec::new(), limit: LIMIT }
    }

    /// With a variable in its environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The names of its tests.
    pub fn names(&self) -> Vec<String> {
        let list = succeeded(&run(&mut Command::new(&self.program)));
        let names: Vec<String> = list.lines().map(str::to_owned).collect();
        assert!(!names.is_empty(), "{} lists its tests", self.program.display());
        names
    }

    /// Runs tests in one process; what it said if it did not end well.
    pub fn failure(&self, names: &[&str]) -> Option<String> {
        let mut words = self.tool.iter().cloned().chain([self.program.clone().into()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).args(names).envs(self.environment.iter().cloned());
        let (output, stuck) = Running::start(&mut command).within(self.limit).finish_or_kill();
        let said = String::from_utf8_lossy(&output.stderr);
        let stuck = if stuck { "stuck, " } else { "" };
        let what = format!("{}: {stuck}{}\n{said}", names.join(" "), output.status);
        (!output.status.success()).then_some(what)
    }

    /// Runs every test, one after the other.
    pub fn run_all(&self) {
        self.run_those(1, |_| true);
    }

    /// Runs tests in processes of their own, some at a time, and names all that fail.
    pub fn run_those(&self, at_a_time: usize, is_wanted: impl Fn(&str) -> bool) {
        let mut names = self.names();
        names.retain(|name| is_wanted(name));
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..at_a_time {
                scope.spawn(|| {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let failure = self.failure(&[name]);
                        failed.lock().expect("no panic").extend(failure);
                    }
                });
            }
        });
        let failed = failed.into_inner().expect("no panic");
        assert!(failed.is_empty(), "{}\n{}", self.program.display(), failed.join("\n"));
    }
}
