//! What is going on, while it is: on a terminal a panel that is drawn over itself, elsewhere a line
//! for each interval.

use super::args::Scenario;
use super::client::Sample;
use super::figures::Interval;
use super::table::{grouped, live_line};
use crate::sparkline::sparkline;
use console::Term;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

/// Intervals that the curves show.
const HISTORY: usize = 48;
/// Characters of a full bar.
const BAR: usize = 20;

/// Shows intervals as they come.
pub struct Live {
    scenario: Scenario,
    /// Where the panel is drawn.
    term: Option<Term>,
    /// Lines of the panel that is there.
    drawn: usize,
    rates: VecDeque<f64>,
    trips: VecDeque<f64>,
    lost: u64,
    resent: u64,
}

impl Live {
    /// On standard error.
    pub fn new(scenario: Scenario) -> Self {
        let term = Some(Term::stderr()).filter(Term::is_term);
        Self::on(scenario, term)
    }

    const fn on(scenario: Scenario, term: Option<Term>) -> Self {
        Self {
            scenario,
            term,
            drawn: 0,
            rates: VecDeque::new(),
            trips: VecDeque::new(),
            lost: 0,
            resent: 0,
        }
    }

    /// One more interval of a phase that takes `time`.
    pub fn show(&mut self, phase: &str, time: Duration, interval: &Interval, sample: &Sample) {
        let Some(term) = self.term.clone() else {
            eprintln!("{}", live_line(self.scenario, phase, interval));
            return;
        };
        let width = usize::from(term.size_checked().map_or(80, |(_, width)| width));
        let panel = self.panel(phase, time, interval, sample);
        // What cannot be drawn is not worth the measurement.
        let _ = term.clear_last_lines(self.drawn);
        self.drawn = 0;
        for line in panel.lines() {
            let line: String = line.chars().take(width.saturating_sub(1)).collect();
            if term.write_line(&line).is_ok() {
                self.drawn += 1;
            }
        }
    }

    /// The scenario is over; the table at the end has its figures.
    pub fn end(&mut self) {
        if let Some(term) = &self.term {
            let _ = term.clear_last_lines(self.drawn);
            self.drawn = 0;
        }
    }

    fn panel(
        &mut self,
        phase: &str,
        time: Duration,
        interval: &Interval,
        sample: &Sample,
    ) -> String {
        let keep = |history: &mut VecDeque<f64>, value: f64| {
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(value);
        };
        let Interval { at_s, goodput_gbps, messages_per_s, p50_us, p99_us, load, .. } = *interval;
        let by_bits = matches!(self.scenario, Scenario::Bulk | Scenario::Loaded);
        keep(&mut self.rates, if by_bits { goodput_gbps } else { messages_per_s });
        keep(&mut self.trips, p50_us.unwrap_or(0.0));
        self.lost += interval.packets_lost;
        self.resent = sample.sent.retransmits + sample.server.sent.retransmits;
        let us = |value: Option<f64>| value.map_or("-".to_owned(), |us| format!("{us:.1}"));
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{:<12} {phase:<10} {at_s:5.1} of {:.1} s",
            self.scenario.name(),
            time.as_secs_f64()
        );
        let _ = writeln!(
            out,
            "  rate    {goodput_gbps:9.3} Gb/s {:>12} /s  {}",
            grouped(messages_per_s as u64),
            sparkline(&self.rates)
        );
        let _ = writeln!(
            out,
            "  {}   p50 {:>8}  p99 {:>8} µs   {}",
            if self.scenario == Scenario::Media { "delay" } else { "RTT  " },
            us(p50_us),
            us(p99_us),
            sparkline(&self.trips)
        );
        let _ = writeln!(
            out,
            "  window  {:>12} bytes, {} in flight",
            grouped(sample.window),
            grouped(sample.in_flight)
        );
        let _ = writeln!(
            out,
            "  lost    {:>12} packets, {} frames re-sent",
            grouped(self.lost),
            grouped(self.resent)
        );
        let _ = writeln!(out, "  shards  client {}  server {}", bar(load.client), bar(load.server));
        out
    }
}

/// A part of 1 as a bar with its percentage.
fn bar(part: Option<f64>) -> String {
    let Some(part) = part else { return "unknown".to_owned() };
    let full = (part.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    format!("{}{} {:3.0} %", "█".repeat(full), "░".repeat(BAR - full), part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::control::{Marked, Sent};
    use super::super::ends::End;
    use super::super::figures::Cpu;
    use super::*;

    #[test]
    fn the_panel_shows_what_is_going_on() {
        let mut live = Live::on(Scenario::Bulk, None);
        let mut sample = Sample {
            server: Marked::default(),
            flows: Vec::new(),
            at_ns: 0,
            sent: Sent { retransmits: 5, ..Sent::default() },
            end: End::default(),
            rtt: trunkline_floor::histogram(),
            resumed: 0,
            window: 1_234_567,
            in_flight: 1000,
            link: trunkline::Link::Datagram,
        };
        let interval = |goodput_gbps, packets_lost| Interval {
            round: 1,
            at_s: 0.5,
            goodput_gbps,
            messages_per_s: 2e4,
            p50_us: Some(80.25),
            p99_us: None,
            packets_lost,
            window_bytes: 1_234_567,
            load: Cpu { client: Some(0.5), server: None },
        };
        let time = Duration::from_secs(3);
        live.panel("measuring", time, &interval(5.0, 2), &sample);
        sample.server.sent.retransmits = 4;
        let panel = live.panel("measuring", time, &interval(10.0, 1), &sample);
        let lines: Vec<&str> = panel.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(lines[0].starts_with("bulk") && lines[0].ends_with("0.5 of 3.0 s"), "{panel}");
        assert!(lines[1].contains("10.000 Gb/s") && lines[1].ends_with("▅█"), "{panel}");
        assert!(lines[2].contains("80.2") && lines[2].contains("p99        -"), "{panel}");
        assert!(lines[3].contains("1,234,567 bytes, 1,000 in flight"), "{panel}");
        assert!(lines[4].contains("3 packets, 9 frames re-sent"), "{panel}");
        assert!(lines[5].contains("██████████░░░░░░░░░░  50 %  server unknown"), "{panel}");
    }
}
