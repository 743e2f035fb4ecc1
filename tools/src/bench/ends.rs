//! What one end of a measurement did besides sending and receiving: its processor time, and where its
//! machine dropped packets.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::control::Sent;
use super::cycles::Cycles;
use serde::{Deserialize, Serialize};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use trunkline::stats::ShardStats;
use trunkline_floor::cpu::ThreadClock;

/// What is read at a thread from outside.
#[derive(Debug)]
struct OfThread {
    clock: ThreadClock,
    cycles: Option<Cycles>,
}

/// The gauges of one shard's thread; empty until it has started.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<Mutex<Option<OfThread>>>);

impl Gauges {
    /// Of the calling thread from now on.
    pub fn start(&self) {
        let clock = ThreadClock::current();
        let cycles = Cycles::of_this_thread();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(OfThread { clock, cycles });
    }

    /// All figures of this end, with the counters of its shard.
    pub fn read(&self, shard: &ShardStats) -> End {
        let mut thread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let driver = &shard.driver;
        let softnet = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
        let mut end = End {
            packets: driver.tx_packets + driver.rx_packets,
            received: driver.rx_packets,
            received_items: driver.rx_items,
            socket_buffer: driver.rx_dropped,
            wrong_shard: shard.counts.forwards_dropped,
            no_buffer: driver.rx_truncated,
            backlog: backlog_drops(&softnet),
            boot: crate::boot::id().to_owned(),
            ..End::default()
        };
        if let Some(thread) = thread.as_mut() {
            end.cpu_s = thread.clock.seconds();
            end.cycles = thread.cycles.as_mut().and_then(Cycles::read);
            end.kernel_cycles = thread.cycles.as_ref().is_some_and(Cycles::with_kernel);
        }
        end
    }
}

/// One end since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Seconds of its shard's thread on a processor.
    pub cpu_s: Option<f64>,
    /// Cycles of that thread.
    pub cycles: Option<u64>,
    /// Cycles in the kernel are in `cycles`.
    pub kernel_cycles: bool,
    /// Packets that its shard sent and received.
    pub packets: u64,
    /// Packets that its shard received, and the items in which they came: single packets and trains
    /// that the system had merged, or never taken apart.
    pub received: u64,
    pub received_items: u64,
    /// Such items dropped because a socket's receive buffer was full.
    pub socket_buffer: u64,
    /// Packets that reached another shard than that of their connection, and did not get through.
    pub wrong_shard: u64,
    /// Packets that did not fit a buffer of ours.
    pub no_buffer: u64,
    /// Packets that the machine dropped before any socket: the queue of a processor was full.
    pub backlog: u64,
    /// Which machine it is, since its start.
    pub boot: String,
}

/// The second column of `/proc/net/softnet_stat`, of all processors: packets dropped because the
/// backlog was full.
fn backlog_drops(softnet: &str) -> u64 {
    let column = |line: &str| u64::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok();
    softnet.lines().filter_map(column).sum()
}

impl End {
    /// Cycles for each packet that was sent or received since `before`.
    pub fn cycles_per_packet(&self, before: &Self) -> Option<f64> {
        let packets = self.packets.saturating_sub(before.packets);
        let cycles = self.cycles?.saturating_sub(before.cycles?);
        (packets > 0).then(|| cycles as f64 / packets as f64)
    }

    /// Packets dropped since `before` because a socket's receive buffer was full: the system counts a
    /// train as one, so that this supposes as many packets in each as in those that were received.
    fn socket_buffer_since(&self, before: &Self) -> u64 {
        let dropped = self.socket_buffer.saturating_sub(before.socket_buffer);
        let packets = self.received.saturating_sub(before.received);
        let items = self.received_items.saturating_sub(before.received_items).max(1);
        (dropped * packets.max(items)).div_ceil(items)
    }

    /// Processor seconds since `before`.
    pub fn cpu_since(&self, before: &Self) -> Option<f64> {
        Some((self.cpu_s? - before.cpu_s?).max(0.0))
    }
}

/// Why packets were lost. The causes are counted where packets are dropped, by the receiving ends;
/// none is larger than what is left of the packets that were declared lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Losses {
    /// A socket's receive buffer was full: its shard did not read in time.
    pub socket_buffer: u64,
    /// They reached another shard than that of their connection, whose queue was full.
    pub wrong_shard: u64,
    /// The machine could not keep up: the backlog of a processor was full, or a buffer too short.
    pub host: u64,
    /// All others.
    pub network: u64,
    /// They had arrived after all, only later than the sender waited for.
    pub spurious: u64,
    /// Unreliable messages that were dropped before they were sent, since the connection had no room
    /// for them. They never were packets.
    pub sender: u64,
}

impl Losses {
    /// Of what both sides have `sent`, between the marks of client and server.
    pub fn attribute(sent: &Sent, ends: [(&End, &End); 2]) -> Self {
        let sum = |of: fn(&End) -> u64| {
            ends.iter().map(|(first, last)| of(last).saturating_sub(of(first))).sum::<u64>()
        };
        // Both ends on one machine see the same drops.
        let here = |(first, last): (&End, &End)| last.backlog.saturating_sub(first.backlog);
        let [client, server] = ends;
        let same = client.1.boot == server.1.boot && !client.1.boot.is_empty();
        let backlog =
            if same { here(client).max(here(server)) } else { here(client) + here(server) };
        let spurious = sent.spurious.min(sent.lost);
        let mut left = sent.lost - spurious;
        let mut part = |dropped: u64| {
            let part = dropped.min(left);
            left -= part;
            part
        };
        Self {
            socket_buffer: part(
                ends.iter().map(|(first, last)| last.socket_buffer_since(first)).sum(),
            ),
            wrong_shard: part(sum(|end| end.wrong_shard)),
            host: part(sum(|end| end.no_buffer) + backlog),
            network: left,
            spurious,
            sender: sent.dropped,
        }
    }

    /// Adds those of another round.
    pub const fn add(&mut self, other: &Self) {
        self.socket_buffer += other.socket_buffer;
        self.wrong_shard += other.wrong_shard;
        self.host += other.host;
        self.network += other.network;
        self.spurious += other.spurious;
        self.sender += other.sender;
    }

    /// For people; nothing where nothing was lost.
    pub fn words(&self) -> Option<String> {
        let parts = [
            (self.socket_buffer, "packets in full socket buffers"),
            (self.wrong_shard, "packets at the wrong shard"),
            (self.host, "packets by an overloaded host"),
            (self.network, "packets in the network"),
            (self.spurious, "packets that were only late"),
            (self.sender, "messages dropped unsent for want of room"),
        ];
        let words: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, place)| format!("{} {place}", super::table::grouped(*count)))
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_processors() {
        let text = "0000ff01 00000002 0000001a 00000000\n00000001 0000000f 00000000 00000000\n";
        assert_eq!(backlog_drops(text), 17);
        assert_eq!(backlog_drops(""), 0);
    }

    #[test]
    fn every_loss_has_one_cause() {
        let none = End::default();
        let end = |boot: &str| End {
            socket_buffer: 10,
            wrong_shard: 2,
            no_buffer: 1,
            backlog: 5,
            boot: boot.into(),
            ..End::default()
        };
        let (a, b) = (end("a"), end("b"));
        let of = |lost, client, server| {
            let sent = Sent { lost, spurious: 3, dropped: 7, ..Sent::default() };
            Losses::attribute(&sent, [(&none, client), (&none, server)])
        };
        let all = of(103, &a, &b);
        let expected = Losses {
            socket_buffer: 20,
            wrong_shard: 4,
            host: 12,
            network: 64,
            spurious: 3,
            sender: 7,
        };
        assert_eq!(all, expected);
        // The machine's own drops count once.
        assert_eq!(of(103, &a, &a).host, 7);
        // Not all that is dropped was ours, or was lost in our time.
        let few = of(25, &a, &b);
        assert_eq!((few.socket_buffer, few.wrong_shard, few.host, few.network), (20, 2, 0, 0));
        assert_eq!(Losses::default().words(), None);
        let words = few.words().unwrap();
        assert_eq!(
            words,
            "20 packets in full socket buffers, 2 packets at the wrong shard, \
             3 packets that were only late, \
             7 messages dropped unsent for want of room"
        );
    }

    #[test]
    fn a_train_that_was_dropped_is_many_packets() {
        let end = |received, received_items, socket_buffer| End {
            received,
            received_items,
            socket_buffer,
            ..End::default()
        };
        let since = |end: End| end.socket_buffer_since(&End::default());
        assert_eq!(since(end(1000, 100, 7)), 70);
        assert_eq!(since(end(1010, 100, 7)), 71);
        assert_eq!(since(end(0, 0, 7)), 7, "nothing was received");
    }

    #[test]
    fn cycles_need_packets() {
        let end = |cycles, packets| End { cycles, packets, ..End::default() };
        let per = |after: End, before: End| after.cycles_per_packet(&before);
        assert_eq!(per(end(Some(3000), 15), end(Some(1000), 5)), Some(200.0));
        assert_eq!(per(end(Some(3000), 5), end(Some(1000), 5)), None);
        assert_eq!(per(end(None, 15), end(Some(1000), 5)), None);
    }
}
