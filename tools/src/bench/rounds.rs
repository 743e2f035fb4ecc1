//! Rounds: each runs every scenario once, its floors right before it, so that figure and floor see
//! the same machine. Figures of several rounds are medians; a ratio is the median of the ratios of
//! the rounds.

use super::args::Scenario;
use super::confidence;
use super::figures::{Confidence, Round, Run};
use super::floors::Floors;
use super::runner::Bench;
use super::search::{self, Limits};
use crate::exit::Failure;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;
use trunkline::ConnectConfig;

/// A figure beside one of its floors. `value`, `floor` and `ratio` are fields of `per_round`.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    pub figure: &'static str,
    pub unit: &'static str,
    pub value: &'static str,
    pub floor_name: &'static str,
    pub floor: &'static str,
    pub ratio: &'static str,
}

impl Comparison {
    /// The figure without a floor.
    const fn alone(self) -> Self {
        Self { floor_name: "-", floor: "", ratio: "", ..self }
    }
}

/// Goodput beside the transfer that has to seal and open as many bytes.
const GOODPUT: Comparison = Comparison {
    figure: "goodput",
    unit: "Gb/s",
    value: "goodput_gbps",
    floor_name: "GSO + AES-128-GCM",
    floor: "floor_gbps",
    ratio: "ratio",
};

const BULK: [Comparison; 2] = [
    GOODPUT,
    Comparison {
        floor_name: "GSO, no cipher",
        floor: "floor_plain_gbps",
        ratio: "ratio_plain",
        ..GOODPUT
    },
];

const MESSAGES: [Comparison; 2] = [
    Comparison {
        figure: "messages",
        unit: "/s",
        value: "messages_per_s",
        floor_name: "single UDP packets",
        floor: "floor_per_s",
        ratio: "ratio",
    },
    Comparison { ratio: "ratio_gbps", ..GOODPUT },
];

/// The floor that depends on how an end waits.
pub const PING_PONG: &str = "UDP ping-pong";

const LATENCY: [Comparison; 2] = [
    Comparison {
        figure: "p50",
        unit: "µs",
        value: "p50_us",
        floor_name: PING_PONG,
        floor: "floor_us",
        ratio: "ratio",
    },
    Comparison {
        figure: "p99",
        unit: "µs",
        value: "p99_us",
        floor_name: PING_PONG,
        floor: "floor_p99_us",
        ratio: "ratio_p99",
    },
];

/// With half of the load beside none and all of it.
const LOADED: [Comparison; 3] = [
    Comparison {
        figure: "p99",
        unit: "µs",
        value: "p99_us",
        floor_name: "no load",
        floor: "idle_p99_us",
        ratio: "ratio",
    },
    Comparison {
        figure: "p50",
        unit: "µs",
        value: "p50_us",
        floor_name: "no load",
        floor: "idle_p50_us",
        ratio: "ratio_p50",
    },
    Comparison { floor_name: "all that goes", floor: "full_gbps", ratio: "ratio_gbps", ..GOODPUT },
];

/// Connections made; they have no floor.
const CONNECTIONS: [Comparison; 2] = [
    Comparison {
        figure: "connections",
        unit: "/s",
        value: "messages_per_s",
        floor_name: "-",
        floor: "",
        ratio: "",
    },
    LATENCY[0].alone(),
];

/// Processor time beside that of a server which does nothing but receive, open, seal and send.
const TICK: [Comparison; 2] = [
    Comparison {
        figure: "server CPU",
        unit: "cores",
        value: "server_cores",
        floor_name: "sendto + AES-128-GCM",
        floor: "floor_server_cores",
        ratio: "ratio",
    },
    LATENCY[1].alone(),
];

/// What the server can carry; without a floor.
const SERVED: [Comparison; 3] = [MESSAGES[0].alone(), LATENCY[1].alone(), TICK[0].alone()];

/// What the figures of `run` stand beside.
pub fn comparisons(run: &Run) -> &'static [Comparison] {
    // Messages that do not fit a packet have no rate of single packets.
    let single = run.floors.is_empty() || run.floors.contains_key("floor_per_s");
    match run.scenario {
        "latency" => &LATENCY,
        "loaded" => &LOADED,
        "handshakes" | "resumptions" => &CONNECTIONS,
        "tick" => &TICK,
        "mixed" | "media" => &SERVED,
        "small" | "datagrams" if single => &MESSAGES,
        _ => &BULK,
    }
}

/// All rounds of one scenario: its run and its round trips in nanoseconds.
pub type Measured = (Run, Histogram<u64>);

/// How often the scenarios are run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// At most so often.
    pub rounds: u32,
    /// Until the main figures are known this well, in percent.
    pub confidence: Option<f64>,
}

/// Runs `scenarios` in rounds. What is there when something fails is given all the same.
pub fn run(
    bench: &Bench<'_>,
    floors: Option<&Floors>,
    scenarios: &[Scenario],
    connect: &ConnectConfig,
    effort: Effort,
) -> (Vec<Measured>, Result<(), Failure>) {
    let mut all: Vec<Vec<Round>> = scenarios.iter().map(|_| Vec::new()).collect();
    let mut outcome = Ok(());
    let rounds = effort.rounds;
    if rounds > 1 {
        let floors = floors.map_or(Duration::ZERO, |floors| floors.time(scenarios));
        let own: Duration = scenarios.iter().map(|scenario| bench.time(*scenario)).sum();
        let whole = (own + floors) * rounds;
        let most = if effort.confidence.is_some() { "at most " } else { "" };
        eprintln!("{most}{rounds} rounds, about {:.0} seconds", whole.as_secs_f64());
    }
    'rounds: for number in 1..=rounds {
        if rounds > 1 {
            eprintln!("round {number} of {rounds}");
        }
        for (scenario, done) in scenarios.iter().zip(&mut all) {
            match one(bench, floors, *scenario, connect) {
                Ok(round) => done.push(round),
                Err(failure) => {
                    outcome = Err(failure);
                    break 'rounds;
                }
            }
        }
        if let Some(wanted) = effort.confidence
            && number >= confidence::FEWEST
            && all.iter().all(|done| known(done, wanted).is_some_and(|known| known.met))
        {
            break;
        }
    }
    let with_confidence = |done: Vec<Round>| {
        let known = effort.confidence.and_then(|wanted| known(&done, wanted));
        let (run, rtt) = combine(done)?;
        Some((Run { confidence: known, ..run }, rtt))
    };
    (all.into_iter().filter_map(with_confidence).collect(), outcome)
}

/// How well the main figure of a scenario is known after these rounds.
fn known(rounds: &[Round], wanted_percent: f64) -> Option<Confidence> {
    let figure = comparisons(&rounds.first()?.run).first()?.value;
    let values: Vec<f64> = rounds.iter().filter_map(|round| round.run.figure(figure)).collect();
    let percent = confidence::half_width_percent(&values);
    let enough = values.len() >= confidence::FEWEST as usize;
    let met = enough && percent.is_some_and(|percent| percent <= wanted_percent);
    Some(Confidence { figure, level: confidence::LEVEL, wanted_percent, percent, met })
}

fn one(
    bench: &Bench<'_>,
    floors: Option<&Floors>,
    scenario: Scenario,
    connect: &ConnectConfig,
) -> Result<Round, Failure> {
    let length = bench.length(scenario)?;
    let mut floors = match floors {
        Some(floors) => {
            let each = (bench.args.connections(scenario), bench.rate(scenario, length));
            floors.measure(scenario, length, each, bench.stop)?
        }
        None => Vec::new(),
    };
    if bench.args.find_max {
        return find_max(bench, scenario, length, connect);
    }
    let rate = bench.rate(scenario, length);
    let (run, rtt, beside) = bench.scenario(scenario, length, rate, connect)?;
    floors.extend(beside);
    Ok(Round { run, rtt, floors })
}

/// The figures of the highest rate that is kept up within the limits.
fn find_max(
    bench: &Bench<'_>,
    scenario: Scenario,
    length: usize,
    connect: &ConnectConfig,
) -> Result<Round, Failure> {
    let limits =
        Limits { loss_percent: bench.args.max_loss, p99_us: bench.args.max_p99.map(f64::from) };
    let (mut best, mut steps) = (None, Vec::new());
    let start = bench.rate(scenario, length).unwrap_or(scenario.search_from());
    search::highest(start, |rate| {
        let (run, rtt, _) = bench.scenario(scenario, length, Some(rate), connect)?;
        let step = limits.judge(rate, &run);
        eprintln!("{}", super::table::step(scenario, &step));
        steps.push(step);
        if step.kept {
            best = Some((run, rtt));
        }
        Ok(step.kept)
    })?;
    let Some((run, rtt)) = best else {
        let text = format!("{}: no rate is kept up within the limits", scenario.name());
        return Err(Failure::local(text));
    };
    Ok(Round { run: Run { search: steps, ..run }, rtt, floors: Vec::new() })
}

/// The rounds of one scenario as one run: rates and round trips are medians, counts are sums.
pub fn combine(rounds: Vec<Round>) -> Option<Measured> {
    let mut per_round: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut p999 = Vec::new();
    let mut flow_rates: Vec<Vec<(f64, f64)>> = Vec::new();
    let (mut client_cycles, mut server_cycles) = (Vec::new(), Vec::new());
    for round in &rounds {
        let mut note = |key, value| per_round.entry(key).or_default().push(value);
        let (run, none) = (&round.run, f64::NAN);
        note("goodput_gbps", run.goodput_gbps);
        note("messages_per_s", run.messages_per_s);
        note("wire_gbps", run.wire_gbps);
        note("p50_us", run.rtt_us.p50.unwrap_or(none));
        note("p99_us", run.rtt_us.p99.unwrap_or(none));
        note("server_cores", run.server_cores().unwrap_or(none));
        for (key, value) in &round.floors {
            note(key, *value);
        }
        p999.push(run.rtt_us.p999.unwrap_or(none));
        flow_rates
            .push(run.flows.iter().map(|flow| (flow.goodput_gbps, flow.messages_per_s)).collect());
        client_cycles.extend(run.cycles_per_packet.client);
        server_cycles.extend(run.cycles_per_packet.server);
    }
    let count = rounds.len();
    let mut rounds = rounds.into_iter();
    let Round { mut run, mut rtt, floors } = rounds.next()?;
    for (number, mut round) in (2..).zip(rounds) {
        for interval in &mut round.run.intervals {
            interval.round = number;
        }
        run.intervals.append(&mut round.run.intervals);
        run.search.append(&mut round.run.search);
        add(&mut run, &round.run);
        let _ = rtt.add(&round.rtt);
    }
    run.floors = floors.iter().map(|(key, _)| (*key, f64::NAN)).collect();
    for Comparison { value, floor, ratio, .. } in comparisons(&run) {
        if let (Some(values), Some(floors)) = (per_round.get(value), per_round.get(floor)) {
            let ratios = values.iter().zip(floors).map(|(value, floor)| value / floor).collect();
            per_round.insert(ratio, ratios);
            run.floors.insert(ratio, f64::NAN);
        }
    }
    for (key, slot) in &mut run.floors {
        *slot = median(&per_round[key]).unwrap_or(f64::NAN);
    }
    let of = |key| median(&per_round[key]);
    run.goodput_gbps = of("goodput_gbps").unwrap_or_default();
    run.messages_per_s = of("messages_per_s").unwrap_or_default();
    run.wire_gbps = of("wire_gbps").unwrap_or_default();
    (run.rtt_us.p50, run.rtt_us.p99) = (of("p50_us"), of("p99_us"));
    run.rtt_us.p999 = median(&p999);
    for (number, flow) in run.flows.iter_mut().enumerate() {
        let rates = || flow_rates.iter().filter_map(|flows| flows.get(number));
        let of = |part: fn(&(f64, f64)) -> f64| median(&rates().map(part).collect::<Vec<_>>());
        flow.goodput_gbps = of(|rates| rates.0).unwrap_or_default();
        flow.messages_per_s = of(|rates| rates.1).unwrap_or_default();
    }
    run.cycles_per_packet.client = median(&client_cycles);
    run.cycles_per_packet.server = median(&server_cycles);
    run.rounds = count;
    run.spread = per_round.iter().map(|(key, values)| (*key, spread(values))).collect();
    run.per_round = per_round;
    Some((run, rtt))
}

/// Adds what is counted.
fn add(run: &mut Run, other: &Run) {
    run.seconds += other.seconds;
    run.warmup_seconds += other.warmup_seconds;
    run.messages += other.messages;
    run.bytes += other.bytes;
    run.corrupt += other.corrupt;
    run.missing += other.missing;
    run.losses.add(&other.losses);
    for (flow, other) in run.flows.iter_mut().zip(&other.flows) {
        flow.count.add(&other.count);
    }
    run.resumed += other.resumed;
    run.rtt_samples += other.rtt_samples;
    run.packets_sent += other.packets_sent;
    run.packets_lost += other.packets_lost;
    run.retransmits += other.retransmits;
    run.packet_bytes = run.packet_bytes.max(other.packet_bytes);
    let sum = |a: Option<f64>, b: Option<f64>| Some(a? + b?);
    run.cpu_s.client = sum(run.cpu_s.client, other.cpu_s.client);
    run.cpu_s.server = sum(run.cpu_s.server, other.cpu_s.server);
    run.cpu_s_per_gbit = run.cpu_s.per_gbit(run.bytes);
    run.rtt_us.max = match (run.rtt_us.max, other.rtt_us.max) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    };
}

/// The middle one, or the mean of the middle two; values that are not there are left out.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let lower = if sorted.len().is_multiple_of(2) { sorted[middle - 1] } else { upper };
    Some(f64::midpoint(lower, upper))
}

fn spread(values: &[f64]) -> [f64; 2] {
    // f64::min and f64::max leave NaN out.
    [
        values.iter().copied().fold(f64::NAN, f64::min),
        values.iter().copied().fold(f64::NAN, f64::max),
    ]
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the expected values are exact")]
pub mod tests {
    use super::super::figures::tests::run;
    use super::*;

    /// A round with its floors.
    pub fn round(scenario: &'static str, goodput: f64, floors: Vec<(&'static str, f64)>) -> Round {
        let mut rtt = trunkline_floor::histogram();
        rtt.record(1000).unwrap();
        Round { run: Run { goodput_gbps: goodput, ..run(scenario) }, rtt, floors }
    }

    fn bulk(goodput: f64, floor: f64) -> Round {
        round("bulk", goodput, vec![("floor_gbps", floor), ("floor_plain_gbps", 2.0 * floor)])
    }

    #[test]
    fn medians_and_the_spread() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, f64::NAN, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(spread(&[2.0, f64::NAN, 1.0, 3.0]), [1.0, 3.0]);
        assert!(spread(&[f64::NAN])[0].is_nan());
    }

    #[test]
    fn the_ratio_is_the_median_of_the_ratios() {
        // A slow phase of the machine hits figure and floor alike.
        let rounds = vec![bulk(8.0, 10.0), bulk(18.0, 20.0), bulk(7.0, 14.0)];
        let (run, rtt) = combine(rounds).unwrap();
        assert_eq!((run.rounds, run.goodput_gbps), (3, 8.0));
        assert_eq!((run.floors["floor_gbps"], run.floors["ratio"]), (14.0, 0.8));
        assert_eq!(run.floors["ratio_plain"], 0.4);
        assert_eq!(run.per_round["ratio"], [0.8, 0.9, 0.5]);
        assert_eq!(run.spread["goodput_gbps"], [7.0, 18.0]);
        assert_eq!((run.messages, run.seconds, run.rtt_samples), (9_000_000, 9.0, 3000));
        assert_eq!(run.cpu_s.server, Some(4.5));
        assert_eq!(rtt.len(), 3);
    }

    #[test]
    fn one_round_without_floors_stays_as_it_is() {
        let (run, _) = combine(vec![round("small", 0.5, Vec::new())]).unwrap();
        assert_eq!((run.rounds, run.goodput_gbps, run.messages), (1, 0.5, 3_000_000));
        assert!(run.floors.is_empty() && !run.per_round.contains_key("ratio"));
        assert!(combine(Vec::new()).is_none());
    }

    #[test]
    fn intervals_know_their_rounds() {
        let (run, _) = combine(vec![bulk(1.0, 2.0), bulk(1.0, 2.0), bulk(1.0, 2.0)]).unwrap();
        let rounds: Vec<usize> = run.intervals.iter().map(|interval| interval.round).collect();
        assert_eq!(rounds, [1, 2, 3]);
    }

    #[test]
    fn rounds_that_agree_are_enough() {
        let rounds = |goodput: &[f64]| goodput.iter().map(|g| bulk(*g, 10.0)).collect::<Vec<_>>();
        let close = known(&rounds(&[5.0, 5.01, 4.99]), 2.0).unwrap();
        assert!(close.met && close.figure == "goodput_gbps", "{close:?}");
        // Two are too few, however close they are.
        assert!(!known(&rounds(&[5.0, 5.0]), 2.0).unwrap().met);
        let apart = known(&rounds(&[5.0, 6.0, 4.0]), 2.0).unwrap();
        assert!(!apart.met && apart.percent.unwrap() > 40.0, "{apart:?}");
        assert_eq!(known(&rounds(&[5.0]), 2.0).unwrap().percent, None);
    }

    #[test]
    fn every_scenario_has_one_main_ratio() {
        let floors = ["floor_gbps", "floor_plain_gbps", "floor_per_s", "floor_us", "floor_p99_us"]
            .into_iter()
            .chain(["idle_p50_us", "idle_p99_us", "full_gbps"])
            .collect::<Vec<_>>();
        for scenario in Scenario::USUAL {
            let floors = floors.iter().map(|key| (*key, 1.0)).collect();
            let (run, _) = combine(vec![round(scenario.name(), 0.5, floors)]).unwrap();
            assert!(run.floors["ratio"] > 0.0, "{run:?}");
        }
        // Messages of many packets: goodput is what can be compared.
        let (run, _) = combine(vec![round("small", 5.0, vec![("floor_gbps", 10.0)])]).unwrap();
        assert_eq!(run.floors["ratio"], 0.5);
    }
}
