//! What is printed at the end.

use super::forward::Way;
use serde_json::{Value, json};
use std::fmt::Write as _;
use trunkline_link::LinkConfig;

/// What is known when the link is taken down.
pub struct Report<'a> {
    /// What both directions were like.
    pub config: &'a LinkConfig,
    /// What all that is random came from.
    pub seed: u64,
    /// How long the link was there.
    pub seconds: f64,
    /// CPU time of this program.
    pub cpu_seconds: f64,
    /// There and back.
    pub ways: &'a [Way; 2],
    /// Packets that the devices at the beginning of both dropped.
    pub device_drops: [u64; 2],
}

impl Report<'_> {
    /// One object.
    pub fn json(&self) -> Value {
        let way = |n: usize| {
            let Way { link, late, refused, .. } = &self.ways[n];
            let mut object = json!(link.counters());
            object["under_way"] = json!(link.under_way());
            object["device_dropped"] = json!(self.device_drops[n]);
            object["device_refused"] = json!(refused);
            object["late_mean_us"] = json!(late.mean_ns() / 1e3);
            object["late_max_us"] = json!(late.max_ns as f64 / 1e3);
            object["late_over_1ms"] = json!(late.over_1ms);
            object
        };
        json!({
            "config": self.config,
            "seed": self.seed,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "a_to_b": way(0),
            "b_to_a": way(1),
        })
    }

    /// Lines for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &dyn Fn(usize) -> String| {
            let _ = writeln!(out, "{name:<28}{:>16}{:>16}", value(0), value(1));
        };
        let counters = |n: usize| *self.ways[n].link.counters();
        let us = |ns: f64| format!("{:.1}", ns / 1e3);
        line("", &|n| ["a to b", "b to a"][n].into());
        line("packets", &|n| counters(n).packets.to_string());
        line("delivered", &|n| counters(n).delivered.to_string());
        line("lost at random", &|n| counters(n).lost.to_string());
        line("lost in bursts", &|n| counters(n).lost_in_bursts.to_string());
        line("dropped by the queue", &|n| counters(n).dropped.to_string());
        line("under way at the end", &|n| self.ways[n].link.under_way().to_string());
        line("dropped by the device", &|n| self.device_drops[n].to_string());
        line("refused by the device", &|n| self.ways[n].refused.to_string());
        line("most in the queue, bytes", &|n| counters(n).queue_most.to_string());
        line("delivered, Mb/s", &|n| {
            let bits = counters(n).delivered_bytes as f64 * 8.0;
            format!("{:.3}", bits / self.seconds.max(1e-9) / 1e6)
        });
        line("late on average, us", &|n| us(self.ways[n].late.mean_ns()));
        line("late at worst, us", &|n| us(self.ways[n].late.max_ns as f64));
        line("more than 1 ms late", &|n| self.ways[n].late.over_1ms.to_string());
        let _ = write!(
            out,
            "{:.1} s, {:.2} s of CPU time, seed {}",
            self.seconds, self.cpu_seconds, self.seed
        );
        out
    }
}
