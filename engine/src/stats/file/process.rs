//! Processes, as far as a stats file has to name one: with its number, and with what tells it from
//! a later one of the same number.

use std::fs;

/// What identifies this run of the system; zeros where it is not told.
pub(super) fn boot_id() -> [u64; 2] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let part = |at| digits.get(at..at + 16).and_then(|d| u64::from_str_radix(d, 16).ok());
    [part(0).unwrap_or(0), part(16).unwrap_or(0)]
}

/// What the system says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// When it started, in ticks of the system since it was booted.
    pub started: u64,
    /// Held by a signal or a debugger.
    pub stopped: bool,
    /// It has ended, and its parent has not asked how.
    pub ended: bool,
}

/// `None` when there is no such process, or nobody tells.
pub(super) fn look(pid: u64) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, can hold anything.
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = rest.next()?;
    let started = rest.nth(18)?.parse().ok()?;
    Some(Process {
        started,
        stopped: matches!(state, "T" | "t"),
        ended: matches!(state, "Z" | "X" | "x"),
    })
}

/// Whether the system tells of processes at all.
pub(super) fn is_told() -> bool {
    look(u64::from(std::process::id())).is_some()
}
