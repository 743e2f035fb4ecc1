//! Not a transport: what this machine does with plain UDP and a cipher and nothing else. Measured
//! in turn with the transports, so that each of them can be held against it round by round.

use crate::figures::Figure;
use crate::peer::{Outcome, Peer};
use crate::run::{check_corrupt, warm_up};
use crate::side::Side;
use crate::workload::{Job, PACKET, SMALL_MESSAGE, TICK_MESSAGE, TICKS_PER_S, Workload};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use trunkline_floor::cpu::processors;
use trunkline_floor::{Cipher, CpuSeconds, Setup, Wait, bulk, ping_pong, tick};

/// The peer.
pub struct Floor;

impl Peer for Floor {
    fn name(&self) -> &'static str {
        "floor"
    }

    fn about(&self) -> &'static str {
        "no transport: bulk is trains of packets with GSO, GRO and AES-128-GCM; tick one recvfrom, \
         one sendto and AES-128-GCM for each message; latency plain UDP"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["ring"]
    }

    fn refuses(&self, workload: Workload) -> Option<&'static str> {
        match workload {
            Workload::Bulk | Workload::Latency | Workload::Tick => None,
            _ => Some("see `trunkline bench --floor`"),
        }
    }

    fn serve(&self, _job: &Job, _side: &Side) -> Outcome {
        Err("the floor is measured in one process".into())
    }

    fn drive(&self, _job: &Job, _server: SocketAddr, _side: &Side) -> Outcome {
        Err("the floor is measured in one process".into())
    }

    fn measure(&self, job: &Job, time: Duration) -> Option<Result<Figure, String>> {
        let (client_cpu, server_cpu, _) = processors();
        let setup =
            Setup { client_cpu, server_cpu, time, warm_up: warm_up(time), packet_bytes: PACKET };
        let measured = match job.workload {
            Workload::Bulk => goodput(&setup),
            Workload::Latency => round_trips(&setup),
            Workload::Tick => ticks(&setup, job.connections as u32),
            _ => return None,
        };
        Some(measured.map_err(|e| e.to_string()))
    }
}

fn goodput(setup: &Setup) -> io::Result<Figure> {
    let moved = bulk(setup, Cipher::Aes128Gcm)?;
    check_corrupt(moved.corrupt).map_err(io::Error::other)?;
    let mut figure = Figure::new(moved.gbps());
    note(&mut figure, moved.cpu, moved.seconds, moved.packets);
    Ok(figure)
}

fn round_trips(setup: &Setup) -> io::Result<Figure> {
    let trips = ping_pong(setup, Wait::Block, SMALL_MESSAGE)?;
    check_corrupt(trips.corrupt).map_err(io::Error::other)?;
    let us = |quantile| trips.rtt_ns.value_at_quantile(quantile) as f64 / 1e3;
    let mut figure = Figure::new(us(0.5));
    figure.extra.insert("p99_us".into(), us(0.99));
    note(&mut figure, trips.cpu, trips.seconds, trips.rtt_ns.len());
    Ok(figure)
}

fn ticks(setup: &Setup, connections: u32) -> io::Result<Figure> {
    let ticks = tick(setup, connections, TICKS_PER_S, TICK_MESSAGE)?;
    check_corrupt(ticks.corrupt).map_err(io::Error::other)?;
    let mut figure = Figure::new(ticks.cpu.server.unwrap_or(f64::NAN) / ticks.seconds);
    let all = (ticks.received + ticks.answers + ticks.lost).max(1);
    figure.extra.insert("lost_percent".into(), 100.0 * ticks.lost as f64 / all as f64);
    note(&mut figure, ticks.cpu, ticks.seconds, ticks.received);
    Ok(figure)
}

fn note(figure: &mut Figure, cpu: CpuSeconds, seconds: f64, messages: u64) {
    for (name, cpu) in [("server_cores", cpu.server), ("client_cores", cpu.client)] {
        if let Some(cpu) = cpu {
            figure.extra.insert(name.into(), cpu / seconds);
        }
    }
    figure.extra.insert("per_s".into(), messages as f64 / seconds);
}
