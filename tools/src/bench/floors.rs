//! The floors of a scenario: what plain UDP does on the same CPUs, with packets of the same size.

use super::args::{BenchArgs, Scenario};
use super::flows::TICKS;
use crate::exit::{Exit, Failure};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use trunkline_floor::{Cipher, MAX_PACKET, OVERHEAD, Setup, Throughput, Wait};

/// Longest measurement of one floor; less where `-t` is less.
const TIME: Duration = Duration::from_secs(1);
/// Longest warm-up; a third of the measured time where that is less.
const WARM_UP: Duration = Duration::from_millis(200);

/// Measures floors.
pub struct Floors {
    setup: Setup,
    wait: Wait,
    /// How long the shards may still spin after a scenario.
    rest: Duration,
}

impl Floors {
    /// On the CPUs of client and server, with packets of at most `packet_bytes`.
    pub fn new(args: &BenchArgs, cpus: (usize, usize), packet_bytes: usize) -> Self {
        let time = TIME.min(args.time);
        let warm_up = WARM_UP.min(time / 3);
        let (client_cpu, server_cpu) = cpus;
        Self {
            setup: Setup { client_cpu, server_cpu, time, warm_up, packet_bytes },
            rest: Duration::from_micros(u64::from(args.busy_poll.unwrap_or(0))),
            wait: if args.busy_poll.is_some() { Wait::Spin } else { Wait::Block },
        }
    }

    /// Time that the floors of one round take.
    pub fn time(&self, scenarios: &[Scenario]) -> Duration {
        let floors = |scenario: &Scenario| match scenario {
            Scenario::Latency | Scenario::Tick => 1,
            other if !other.has_floor() => 0,
            _ => 2,
        };
        (self.rest + self.setup.time + self.setup.warm_up)
            * scenarios.iter().map(floors).sum::<u32>()
    }

    /// The floors that `scenario` with messages of `length` bytes stands beside, each with its
    /// name in the JSON object. `connections` with `rate` messages a second each are those of `tick`.
    pub fn measure(
        &self,
        scenario: Scenario,
        length: usize,
        (connections, rate): (u32, Option<f64>),
        stop: &AtomicBool,
    ) -> Result<Vec<(&'static str, f64)>, Failure> {
        thread::sleep(self.rest);
        let mut floors = match scenario {
            Scenario::Latency => return self.round_trips(length),
            Scenario::Tick => return self.ticks(length, connections, rate),
            other if !other.has_floor() => return Ok(Vec::new()),
            Scenario::Small | Scenario::Datagrams if length <= self.room() => {
                let single = trunkline_floor::single_packets(&self.setup, length);
                let single = tell("single UDP packets", single)?;
                vec![("floor_per_s", single.packets_per_s())]
            }
            _ => {
                let plain = trunkline_floor::bulk(&self.setup, Cipher::None);
                let plain = tell("GSO, no cipher", plain)?;
                vec![("floor_plain_gbps", plain.gbps())]
            }
        };
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
        let sealed = trunkline_floor::bulk(&self.setup, Cipher::Aes128Gcm);
        let sealed = tell("GSO + AES-128-GCM", sealed)?;
        floors.push(("floor_gbps", sealed.gbps()));
        floors.push(("floor_lost", sealed.lost as f64));
        Ok(floors)
    }

    /// Longest message of one packet.
    fn room(&self) -> usize {
        self.setup.packet_bytes - OVERHEAD
    }

    /// A server of as many connections that tick.
    fn ticks(
        &self,
        length: usize,
        connections: u32,
        rate: Option<f64>,
    ) -> Result<Vec<(&'static str, f64)>, Failure> {
        let per_second = rate.unwrap_or(TICKS).round().clamp(1.0, 1e6) as u32;
        let ticks = trunkline_floor::tick(&self.setup, connections, per_second, length)
            .map_err(|e| Failure::local(format!("cannot measure a floor: {e}")))?;
        if ticks.corrupt > 0 || ticks.received == 0 {
            return Err(Failure::local("a floor had no messages, or corrupt ones"));
        }
        let cores = ticks.cpu.server.map_or(f64::NAN, |cpu| cpu / ticks.seconds);
        eprintln!("floor     sendto + AES-128-GCM  {cores:.3} cores  {} lost", ticks.lost);
        Ok(vec![("floor_server_cores", cores)])
    }

    fn round_trips(&self, length: usize) -> Result<Vec<(&'static str, f64)>, Failure> {
        let trips = trunkline_floor::ping_pong(&self.setup, self.wait, length.min(MAX_PACKET))
            .map_err(|e| Failure::local(format!("cannot measure a floor: {e}")))?;
        let us = |quantile| trips.rtt_ns.value_at_quantile(quantile) as f64 / 1e3;
        let (p50, p99) = (us(0.5), us(0.99));
        let waits = super::table::waits(self.wait == Wait::Spin);
        eprintln!("floor     UDP ping-pong, {waits}  p50 {p50:.1} µs  p99 {p99:.1} µs");
        if trips.corrupt > 0 || trips.rtt_ns.is_empty() {
            return Err(Failure::local("a floor had no round trips, or corrupt ones"));
        }
        Ok(vec![("floor_us", p50), ("floor_p99_us", p99)])
    }
}

/// Shows a floor; an error if it was not right.
fn tell(name: &str, measured: io::Result<Throughput>) -> Result<Throughput, Failure> {
    let floor = measured.map_err(|e| Failure::local(format!("cannot measure a floor: {e}")))?;
    let (gbps, per_s) = (floor.gbps(), super::table::grouped(floor.packets_per_s() as u64));
    let lost = floor.lost;
    eprintln!("floor     {name:<18} {gbps:8.3} Gb/s {per_s:>12} packets/s  {lost} lost");
    if floor.corrupt > 0 {
        let text = format!("{} packets of a floor were corrupt", floor.corrupt);
        return Err(Failure::local(text));
    }
    Ok(floor)
}
