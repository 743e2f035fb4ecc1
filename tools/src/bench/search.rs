//! The highest rate that is kept up within limits: doubled until it is not, then narrowed down.

use super::figures::Run;
use serde::Serialize;

/// The search ends when the highest rate that was kept and the lowest that was not are this near.
const NEAR: f64 = 1.05;
/// Rates, messages a second on each connection, between which it searches.
const LOWEST: f64 = 1.0;
const HIGHEST: f64 = 1e9;

/// When a rate is kept up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Percent of the messages that may be missing, or late where none gets lost.
    pub loss_percent: f64,
    /// Microseconds.
    pub p99_us: Option<f64>,
}

/// One rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Messages a second on each connection.
    pub rate_per_s: f64,
    /// Messages a second that were delivered, on all connections.
    pub messages_per_s: f64,
    pub loss_percent: f64,
    pub p99_us: Option<f64>,
    /// Within the limits.
    pub kept: bool,
}

impl Limits {
    /// What `run` with this rate says.
    pub fn judge(&self, rate_per_s: f64, run: &Run) -> Step {
        let offered = rate_per_s * f64::from(run.loads());
        let loss_percent = (100.0 * (1.0 - run.messages_per_s / offered)).max(0.0);
        let p99_us = run.rtt_us.p99;
        let soon = self.p99_us.is_none_or(|most| p99_us.is_some_and(|p99| p99 <= most));
        let kept = loss_percent <= self.loss_percent && soon;
        Step { rate_per_s, messages_per_s: run.messages_per_s, loss_percent, p99_us, kept }
    }
}

/// Searches from `start` on; `attempt` says whether a rate was kept. Gives the highest that was, or
/// nothing when none was.
pub fn highest<E>(
    start: f64,
    mut attempt: impl FnMut(f64) -> Result<bool, E>,
) -> Result<Option<f64>, E> {
    let mut rate = start.clamp(LOWEST, HIGHEST);
    let mut kept = None;
    let mut failed = None;
    loop {
        if attempt(rate)? {
            kept = Some(rate);
        } else {
            failed = Some(rate);
        }
        rate = match (kept, failed) {
            (Some(kept), Some(failed)) if failed / kept <= NEAR => break,
            (Some(kept), Some(failed)) => (kept * failed).sqrt(),
            (Some(kept), None) if kept >= HIGHEST => break,
            (Some(kept), None) => (kept * 2.0).min(HIGHEST),
            (None, Some(failed)) if failed <= LOWEST => break,
            (None, failed) => (failed.unwrap_or(rate) / 2.0).max(LOWEST),
        };
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::run;
    use super::*;

    fn search(start: f64, limit: f64) -> (Option<f64>, usize) {
        let mut tries = 0;
        let found = highest(start, |rate| {
            tries += 1;
            assert!(tries < 100, "it goes on for ever");
            Ok::<_, ()>(rate <= limit)
        });
        (found.unwrap(), tries)
    }

    #[test]
    fn the_limit_is_found_from_either_side() {
        for start in [1000.0, 5.0e6, 123_456.0] {
            let (found, tries) = search(start, 123_456.0);
            let found = found.unwrap();
            assert!(found <= 123_456.0 && found * NEAR >= 123_456.0, "{found}");
            assert!(tries <= 14, "{tries}");
        }
        assert_eq!(search(1000.0, f64::INFINITY).0, Some(HIGHEST));
        assert_eq!(search(1000.0, 0.5).0, None);
        assert_eq!(highest(1.0, |_| Err::<bool, _>("gone")), Err("gone"));
    }

    #[test]
    fn limits_are_for_loss_and_time() {
        let run = Run { connections: 2, messages_per_s: 1980.0, ..run("datagrams") };
        let limits = |loss_percent, p99_us| Limits { loss_percent, p99_us };
        let step = limits(1.5, None).judge(1000.0, &run);
        assert!(step.kept && (step.loss_percent - 1.0).abs() < 1e-9, "{step:?}");
        assert!(!limits(0.5, None).judge(1000.0, &run).kept);
        assert!(limits(1.5, Some(1000.0)).judge(1000.0, &run).kept);
        assert!(!limits(1.5, Some(900.0)).judge(1000.0, &run).kept, "p99 is 990 µs");
        // More than was asked for, which the edges of the time can make, is no loss.
        assert!(limits(0.0, None).judge(900.0, &run).kept);
    }
}
