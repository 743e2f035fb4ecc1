//! CPU time of a thread, as the scheduler counts it.

use std::fs;
use std::path::PathBuf;

/// A thread of this process whose CPU time can be asked for from any other.
#[derive(Clone, Debug)]
pub struct ThreadClock {
    schedstat: PathBuf,
}

impl ThreadClock {
    /// The calling thread.
    pub fn current() -> Self {
        let own = fs::read_link("/proc/thread-self").unwrap_or_default();
        Self { schedstat: PathBuf::from("/proc").join(own).join("schedstat") }
    }

    /// Seconds on a CPU so far; `None` where the system does not say, or the thread has ended.
    pub fn seconds(&self) -> Option<f64> {
        let text = fs::read_to_string(&self.schedstat).ok()?;
        let ns: u64 = text.split_ascii_whitespace().next()?.parse().ok()?;
        Some(ns as f64 / 1e9)
    }
}

/// The two processors for client and server: the first two that this process may use, or one for
/// both.
pub fn processors() -> (usize, usize, bool) {
    let mut ids: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    ids.sort_unstable();
    match ids[..] {
        [] => (0, 0, false),
        [only] => (only, only, false),
        [client, server, ..] => (client, server, true),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_uses_time() {
        let (tell, told) = std::sync::mpsc::channel();
        let busy = std::thread::spawn(move || {
            let clock = ThreadClock::current();
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 60 {
                std::hint::black_box(0);
            }
            tell.send(clock.clone()).unwrap();
            while start.elapsed().as_millis() < 80 {
                std::thread::yield_now();
            }
            clock.seconds()
        });
        let clock = told.recv().unwrap();
        assert!(clock.seconds().is_none_or(|s| s > 0.005));
        let own = busy.join().unwrap();
        assert!(own.is_some_and(|s| s > 0.005 && s < 10.0), "{own:?}");
    }
}
