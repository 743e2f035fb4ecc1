//! Trunkline with the queued API: the application has a thread of its own, on the same processor
//! as the shard. Settings as `trunkline`; batches are taken from the poll group 1024 at a time.

use super::trunkline::{channel_options, connect_config, engine_config, identity};
use crate::counters::{Series, unix_ns};
use crate::payload::{self, Lender, Source};
use crate::peer::{Outcome, Peer};
use crate::side::Side;
use crate::workload::{Job, PATIENCE, Workload};
use std::net::SocketAddr;
use std::time::Duration;
use trunkline::{
    ApiError, Channel, ChannelOptions, Event, ListenConfig, Payload, QueuedEngine, Received, Status,
};

/// Items taken at once.
const ITEMS: usize = 1024;

/// The peer.
pub struct Queued;

impl Peer for Queued {
    fn name(&self) -> &'static str {
        "trunkline-queued"
    }

    fn about(&self) -> &'static str {
        "Trunkline, queued API: messages cross to a thread of the application and back"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["trunkline", "ring"]
    }

    fn refuses(&self, workload: Workload) -> Option<&'static str> {
        match workload {
            Workload::Bulk | Workload::BulkLarge | Workload::Small | Workload::Latency => None,
            _ => Some("measured with the inline API"),
        }
    }

    fn serve(&self, job: &Job, side: &Side) -> Outcome {
        let engine = QueuedEngine::start(engine_config(job))?;
        let listener = engine.listen(&ListenConfig::new(job.listen.parse()?, identity()?.0))?;
        side.listening(listener.local_addr);
        let mut series = Series::default();
        let mut items = Vec::with_capacity(ITEMS);
        loop {
            engine.poll_group().recv_many(&mut items, ITEMS, Some(Duration::from_secs(1)));
            for item in items.drain(..) {
                match item {
                    Received::Message(message) => {
                        series.take(&side.counters, &message.data);
                        if job.workload == Workload::Latency {
                            engine.send(message.channel, &message.data)?;
                        }
                    }
                    Received::Event(Event::Incoming { conn, .. }) => engine.accept(conn)?,
                    Received::Event(Event::ChannelRequest { channel, .. }) => {
                        engine.accept_channel(channel, &channel_options(job.workload))?;
                    }
                    Received::Event(_) => {}
                }
            }
        }
    }

    fn drive(&self, job: &Job, server: SocketAddr, side: &Side) -> Outcome {
        let engine = QueuedEngine::start(engine_config(job))?;
        let conn = engine.connect(&connect_config(server)?, None)?;
        let options: ChannelOptions = channel_options(job.workload);
        let channel = engine.open_channel(conn, "bench", &options)?;
        let mut source = Source::new(job.workload.message(), 1);
        let mut queue = Queue { engine, items: Vec::with_capacity(ITEMS) };
        queue.wait(PATIENCE, |item| {
            matches!(item, Received::Event(Event::ChannelReady { .. })).then_some(())
        })?;
        side.running();
        if job.workload == Workload::Latency {
            return ping(&mut queue, channel, &mut source, side);
        }
        let mut lender = Lender::new(job.workload.message(), 1, 0);
        loop {
            let sent = if job.workload.lends() {
                queue.engine.send_payload(channel, Payload::new(lender.message()), None)
            } else {
                queue.engine.send(channel, source.message())
            };
            match sent {
                Ok(()) => {
                    source.advance();
                    lender.advance();
                }
                Err(ApiError::WouldBlock(_)) => queue.wait(PATIENCE, |item| {
                    matches!(item, Received::Event(Event::Writable { .. })).then_some(())
                })?,
                Err(e) => return Err(e.into()),
            }
        }
    }
}

struct Queue {
    engine: QueuedEngine,
    items: Vec<Received>,
}

impl Queue {
    /// Waits for the item that `wanted` picks.
    fn wait<T>(
        &mut self,
        longest: Duration,
        wanted: impl Fn(&Received) -> Option<T>,
    ) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
        loop {
            if self.engine.poll_group().recv_many(&mut self.items, ITEMS, Some(longest)) == 0 {
                return Err("the other side does not answer".into());
            }
            let mut found = None;
            for item in self.items.drain(..) {
                if let Received::Event(Event::Status { new, reason, .. }) = &item
                    && matches!(new, Status::ClosedByPeer | Status::ProblemDetectedLocally)
                {
                    let reason = reason.as_ref().map(ToString::to_string).unwrap_or_default();
                    return Err(format!("the connection ended: {reason}").into());
                }
                found = found.or_else(|| wanted(&item));
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }
}

fn ping(queue: &mut Queue, channel: Channel, source: &mut Source, side: &Side) -> Outcome {
    loop {
        let begun = unix_ns();
        queue.engine.send(channel, source.message())?;
        let sequence = queue.wait(PATIENCE, |item| match item {
            Received::Message(message) => Some(payload::open(&message.data)),
            Received::Event(_) => None,
        })?;
        if sequence == Some(source.sent()) {
            side.counters.delay(unix_ns().saturating_sub(begun));
            side.counters.received(source.message().len());
        } else {
            side.counters.corrupt();
        }
        source.advance();
    }
}
