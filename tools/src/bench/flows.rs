//! What the connections of a scenario carry: flows of messages, each of one kind, size and pace.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use super::args::Scenario;
use serde::{Deserialize, Serialize};
use trunkline::{ChannelKind, ChannelOptions};

/// Bytes of a probe.
const PROBE_LENGTH: usize = 64;
/// Messages from this length on are lent, unless `--copy` is given.
pub const LENT_FROM: usize = 4096;

/// Where the messages of a flow go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// To the server, which checks and counts them.
    Up,
    /// To the client, which does.
    Down,
    /// To the server and back: round trips.
    Echo,
    /// To the server, for those that are subscribed to the stream.
    Publish,
    /// What the server forwards of the stream.
    Subscribe,
}

/// When messages go out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Load {
    /// Not at all.
    None,
    /// As fast as the channel takes them.
    Full,
    /// So many a second, whatever comes back.
    Rate(f64),
    /// The next when the one before is back.
    OneByOne,
    /// One each millisecond, unless the one before is still under way.
    Probe,
}

/// Messages of one kind, size and pace.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// In the table and the JSON object.
    pub name: &'static str,
    pub way: Way,
    /// Otherwise they may get lost.
    pub reliable: bool,
    /// Bytes of a message.
    pub length: usize,
    pub load: Load,
    /// 0 goes first.
    pub priority: u8,
    /// Channels, one message on each in turn.
    pub channels: u32,
    /// Messages are lent to the engine, not copied.
    pub lent: bool,
    /// Part of the scenario's goodput and messages.
    pub counted: bool,
}

impl Flow {
    /// Counted messages on one channel of the usual priority, as fast as they are taken.
    const fn new(name: &'static str, way: Way, reliable: bool, length: usize) -> Self {
        Self {
            name,
            way,
            reliable,
            length,
            load: Load::Full,
            priority: 4,
            channels: 1,
            lent: false,
            counted: true,
        }
    }

    const fn paced(self, per_second: f64) -> Self {
        Self { load: Load::Rate(per_second), ..self }
    }

    const fn with_priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// The channels of this flow.
    pub fn options(&self) -> ChannelOptions {
        let kind = if self.reliable { ChannelKind::Messages } else { ChannelKind::Datagrams };
        let (priority, no_delay) = (self.priority, self.priority == 0);
        ChannelOptions { kind, priority, no_delay, ..Default::default() }
    }
}

/// Which way the load goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From client to server.
    Up,
    /// From server to client.
    Down,
    /// Both at once.
    Both,
}

impl Direction {
    /// In tables and the JSON object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Both => "both",
        }
    }
}

/// What decides about the flows of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub scenario: Scenario,
    pub direction: Direction,
    /// Bytes of a message.
    pub length: usize,
    /// Open loop: messages a second on each connection.
    pub rate: Option<f64>,
    pub channels: u32,
    /// Long reliable messages are lent.
    pub lend: bool,
}

/// The flows of a scenario. Every connection carries all of them, except in `media`.
pub fn of(settings: &Settings) -> Vec<Flow> {
    let Settings { length, rate, .. } = *settings;
    let probe = Flow {
        counted: false,
        load: if rate.is_some() { Load::Rate(1000.0) } else { Load::Probe },
        ..Flow::new("probe", Way::Echo, true, PROBE_LENGTH).with_priority(0)
    };
    match settings.scenario {
        Scenario::Bulk | Scenario::Small => load(settings, true, probe),
        Scenario::Datagrams => load(settings, false, probe),
        Scenario::Loaded => {
            // It begins without a load.
            let lent = settings.lend && length >= LENT_FROM;
            let flow = Flow::new("bulk", Way::Up, true, length);
            let channels = settings.channels;
            vec![Flow { load: Load::None, channels, lent, ..flow }, probe.always()]
        }
        Scenario::Latency => {
            let load = rate.map_or(Load::OneByOne, Load::Rate);
            vec![Flow { load, ..Flow::new("echo", Way::Echo, true, length).with_priority(0) }]
        }
        Scenario::Tick => {
            let tick = Flow::new("tick", Way::Echo, false, length).with_priority(0);
            vec![tick.paced(rate.unwrap_or(TICKS))]
        }
        Scenario::Mixed => mixed(),
        Scenario::Media => {
            let publish = Flow::new("publish", Way::Publish, false, length);
            let subscribe = Flow::new("subscribe", Way::Subscribe, false, length);
            let publish = Flow { counted: false, ..publish };
            vec![publish.paced(rate.unwrap_or(PACKETS)), Flow { load: Load::None, ..subscribe }]
        }
        Scenario::Handshakes | Scenario::Resumptions => Vec::new(),
    }
}

/// Ticks a second of a game server.
pub const TICKS: f64 = 30.0;
/// Packets a second of a video of 2.4 Mb/s.
pub const PACKETS: f64 = 250.0;

impl Flow {
    /// At fixed times, whatever the load does.
    const fn always(self) -> Self {
        self.paced(1000.0)
    }
}

/// A load, one way or both, and probes beside it.
fn load(settings: &Settings, reliable: bool, probe: Flow) -> Vec<Flow> {
    let Settings { length, rate, channels, lend, direction, .. } = *settings;
    let flow = |name, way| Flow {
        load: rate.map_or(Load::Full, Load::Rate),
        channels,
        lent: lend && reliable && length >= LENT_FROM,
        ..Flow::new(name, way, reliable, length)
    };
    let (up, down) = (flow("up", Way::Up), flow("down", Way::Down));
    match direction {
        Direction::Up => vec![up, probe],
        Direction::Down => vec![down, probe],
        Direction::Both => vec![up, down, probe],
    }
}

/// What a player of a fast game sends and gets.
fn mixed() -> Vec<Flow> {
    let flow = Flow::new;
    vec![
        flow("input", Way::Up, false, 64).with_priority(1).paced(60.0),
        flow("state", Way::Down, false, 600).with_priority(1).paced(30.0),
        flow("events", Way::Echo, true, 128).with_priority(0).paced(10.0),
        flow("voice_up", Way::Up, false, 80).with_priority(2).paced(50.0),
        flow("voice_down", Way::Down, false, 80).with_priority(2).paced(50.0),
        flow("assets", Way::Down, true, 16 << 10).with_priority(6).paced(4.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    fn settings(scenario: Scenario, direction: Direction) -> Settings {
        Settings { scenario, direction, length: 8192, rate: None, channels: 3, lend: true }
    }

    #[test]
    fn every_scenario_that_sends_counts_something() {
        for scenario in Scenario::value_variants() {
            let flows = of(&settings(*scenario, Direction::Up));
            assert_eq!(flows.iter().any(|flow| flow.counted), !scenario.connects(), "{flows:?}");
            // What comes back is matched by its number, so it has one channel.
            assert!(flows.iter().all(|flow| flow.way != Way::Echo || flow.channels == 1));
            let names: std::collections::HashSet<_> = flows.iter().map(|flow| flow.name).collect();
            assert_eq!(names.len(), flows.len());
        }
    }

    #[test]
    fn the_load_goes_where_it_is_told() {
        let ways = |direction| {
            let flows = of(&settings(Scenario::Bulk, direction));
            assert!(flows.iter().all(|flow| !flow.counted || flow.lent && flow.channels == 3));
            flows.iter().filter(|flow| flow.counted).map(|flow| flow.way).collect::<Vec<_>>()
        };
        assert_eq!(ways(Direction::Up), [Way::Up]);
        assert_eq!(ways(Direction::Down), [Way::Down]);
        assert_eq!(ways(Direction::Both), [Way::Up, Way::Down]);
        let datagrams = of(&settings(Scenario::Datagrams, Direction::Down));
        assert!(!datagrams[0].lent, "unreliable messages are always copied");
    }

    #[test]
    fn an_open_loop_has_its_rate() {
        let open = |scenario| {
            of(&Settings { rate: Some(7.0), ..settings(scenario, Direction::Up) })[0].load
        };
        for scenario in [Scenario::Bulk, Scenario::Latency, Scenario::Tick, Scenario::Media] {
            assert_eq!(open(scenario), Load::Rate(7.0), "{scenario:?}");
        }
    }
}
