//! What the data path does not do, counted over real sockets: no allocation for a packet or a
//! message, no system call for a packet, one reading of the clock a turn, no copy between the
//! kernel's buffer and the handler, none between a [`SendBuf`] and the packet, no short trains while
//! there is more to send, no second acknowledgement for one batch. A stats file changes none of it.
//!
//! Both sides are shards that one thread drives in turn, under a clock that it moves, so that every
//! count is exact however busy the machine is.

#[path = "../proto/tests/sim/alloc.rs"]
#[allow(dead_code, missing_docs, clippy::cast_possible_wrap)]
mod alloc;
mod common;
#[path = "common/rig.rs"]
#[allow(dead_code)]
mod rig;

use common::drivers;
use rig::{PACKET, Rig};
use trunkline::ChannelKind;

/// Packets of the longest train: 65,507 bytes of them.
const FULL_TRAIN: u64 = 65_507 / PACKET as u64;

/// Allocations that the counters of a whole transfer may cost: tables that grow now and then.
const FEW: u64 = 16;

#[test]
fn a_message_costs_no_allocation() {
    for driver in drivers() {
        for (kind, len, count) in [
            (ChannelKind::Messages, 64, 200_000),
            (ChannelKind::Messages, 65_536, 2_000),
            (ChannelKind::Bytes, 65_536, 2_000),
            (ChannelKind::Datagrams, 64, 200_000),
        ] {
            let used = Rig::measured(driver, kind, len, count);
            assert!(used.client.packets > 1_000, "{used:?}");
            assert!(used.allocations <= FEW, "{driver} {kind:?} {len}: {used:?}");
        }
    }
}

#[test]
fn a_turn_reads_the_clock_once() {
    for driver in drivers() {
        let used = Rig::measured(driver, ChannelKind::Messages, 64, 100_000);
        assert_eq!((used.client.clock, used.host.clock), (used.turns, used.turns), "{used:?}");
    }
}

#[test]
fn a_packet_costs_no_system_call() {
    for driver in drivers() {
        let used = Rig::measured(driver, ChannelKind::Messages, 65_536, 2_000);
        // Turns in which nothing happens cost a call too: not those are of interest.
        let calls = used.client.system_calls + used.host.system_calls;
        let idle = 2 * 2 * 200;
        assert!(calls < idle + used.client.packets / 8, "{driver}: {used:?}");
    }
}

#[test]
fn what_comes_in_order_is_handed_over_where_it_lies() {
    for driver in drivers() {
        for (kind, len, count) in
            [(ChannelKind::Bytes, 65_536, 2_000), (ChannelKind::Messages, 64, 100_000)]
        {
            let used = Rig::measured(driver, kind, len, count);
            assert_eq!(used.bytes, len as u64 * count);
            // A message that does not fit into the rest of a packet is put together.
            let least = if kind == ChannelKind::Bytes { 0.999 } else { 0.9 };
            assert!(
                used.in_place as f64 > used.bytes as f64 * least,
                "{driver} {kind:?}: {used:?}"
            );
        }
    }
}

#[test]
fn a_send_buf_is_not_copied_when_it_is_accepted() {
    for driver in drivers() {
        let mut rig = Rig::new(driver, ChannelKind::Bytes);
        let used = rig.transfer(65_536, 1_000, true);
        assert_eq!(used.bytes, 65_536_000);
        // Half a MiB that has not left yet: all of it still lies in the buffers of the application.
        let before = alloc::live(alloc::TEST);
        rig.start(65_536, 7, true);
        assert_eq!(rig.client.handler_mut().unwrap().left, 0, "room for all");
        let grown = alloc::live(alloc::TEST) - before;
        assert!(grown < 16 << 10, "{driver}: {grown} bytes");
        let used = rig.transfer(65_536, 1_000, true);
        assert!(used.allocations <= FEW, "{driver}: {used:?}");
    }
}

#[test]
fn trains_are_full_and_a_batch_is_acknowledged_once() {
    for driver in drivers() {
        let used = Rig::measured(driver, ChannelKind::Messages, 65_536, 4_000);
        let mean = used.client.packets as f64 / used.client.trains as f64;
        assert!(mean > 0.9 * FULL_TRAIN as f64, "{driver}: {mean:.1} packets a train, {used:?}");
        assert!(used.host.packets <= used.host.batches + 10, "{driver}: {used:?}");
        assert!(used.host.batches < used.client.packets / 8, "{driver}: {used:?}");
    }
}

#[test]
#[cfg(unix)]
fn a_stats_file_costs_no_allocation_no_system_call_and_no_look_at_the_clock() {
    let path = std::env::temp_dir().join(format!("trunkline-data-path-{}", std::process::id()));
    for driver in drivers() {
        let mut plain = Rig::new(driver, ChannelKind::Messages);
        let mut watched = Rig::watched(driver, ChannelKind::Messages, Some(path.clone()));
        // Long enough, by the clock of the rig, for several refreshes.
        let [plain, watched] = [&mut plain, &mut watched].map(|rig| {
            rig.transfer(64, 100_000, false);
            (0..60).map(|_| rig.transfer(64, 5_000, false)).collect::<Vec<_>>()
        });
        let sum = |used: &[rig::Used], of: fn(&rig::Used) -> u64| used.iter().map(of).sum::<u64>();
        let turns = sum(&watched, |u| u.turns);
        let file = trunkline::stats::file::StatsFile::open(&path).unwrap();
        let shard = file.read().unwrap().shards.remove(0);
        assert!(shard.get("turns").unwrap() * 2 > turns, "{shard:?}");
        assert_eq!((shard.get("connections"), shard.connections.len()), (Some(1), 1));
        assert!(sum(&watched, |u| u.allocations) <= FEW, "{driver}: {watched:?}");
        let clock = sum(&watched, |u| u.client.clock + u.host.clock);
        assert_eq!(clock, 2 * turns, "{driver}");
        // As many calls for a turn as without.
        let calls = |used: &[rig::Used]| {
            let calls = sum(used, |u| u.client.system_calls + u.host.system_calls);
            calls as f64 / sum(used, |u| u.turns) as f64
        };
        assert!(calls(&watched) < calls(&plain) * 1.1, "{driver}: {watched:?}, without {plain:?}");
    }
    let _ = std::fs::remove_file(path.with_extension("client"));
    let _ = std::fs::remove_file(&path);
}
