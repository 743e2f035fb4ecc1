//! What a link is like.

use serde::Serialize;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Losses in bursts (Gilbert-Elliott): all packets are lost in the bad state, none in the good one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Burst {
    /// Probability, at each packet, that the good state ends.
    pub begin: f64,
    /// Probability, at each packet, that the bad state ends; one over the mean length of a burst.
    pub end: f64,
}

impl Burst {
    /// The share of packets that is lost in the long run.
    pub fn loss(&self) -> f64 {
        if self.begin <= 0.0 { 0.0 } else { self.begin / (self.begin + self.end) }
    }
}

/// One direction of a link. By default nothing happens to a packet.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LinkConfig {
    /// One way, after the line.
    pub delay: Duration,
    /// Longest deviation from `delay`, either way; all are as likely.
    pub jitter: Duration,
    /// Packets that `jitter` moved may overtake others. Otherwise they wait for those before them.
    pub reorder: bool,
    /// Share of packets lost, each on its own: 0 to 1.
    pub loss: f64,
    /// Losses in bursts, besides.
    pub burst: Option<Burst>,
    /// Bits a second on the line; `None` = no bound, and no queue.
    pub rate: Option<u64>,
    /// Most bytes in the queue, the packet on the line included; `None` = no bound. A line that
    /// does nothing takes every packet.
    pub queue: Option<u64>,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Which, by its name in [`LinkConfig`].
    pub field: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl Error for ConfigError {}

/// Longest delay.
const LONGEST: Duration = Duration::from_secs(60);

impl LinkConfig {
    /// # Errors
    /// The first setting that cannot be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |right: bool, field, why| {
            if right { Ok(()) } else { Err(ConfigError { field, why }) }
        };
        let probability = |p: f64| (0.0..=1.0).contains(&p);
        check(self.delay <= LONGEST, "delay", "must be at most 60 s")?;
        check(self.jitter <= self.delay, "jitter", "must not be above delay")?;
        check(probability(self.loss), "loss", "must be 0 to 100 %")?;
        if let Some(burst) = self.burst {
            check(probability(burst.begin), "burst", "must begin with 0 to 100 %")?;
            check(probability(burst.end), "burst", "must end with 0 to 100 %")?;
            check(burst.end > 0.0, "burst", "must end some time")?;
        }
        check(self.rate.is_none_or(|rate| rate >= 1000), "rate", "must be at least 1 kbit")?;
        check(self.queue.is_none_or(|bytes| bytes > 0), "queue", "must be at least a byte")?;
        check(self.queue.is_none() || self.rate.is_some(), "queue", "needs a rate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field() {
        let ms = Duration::from_millis;
        let base = LinkConfig { delay: ms(1), rate: Some(1_000_000), ..LinkConfig::default() };
        assert_eq!(base.validate(), Ok(()));
        let field = |config: LinkConfig| config.validate().unwrap_err().field;
        assert_eq!(field(LinkConfig { delay: ms(60_001), ..base.clone() }), "delay");
        assert_eq!(field(LinkConfig { jitter: ms(2), ..base.clone() }), "jitter");
        for loss in [-0.1, 1.1, f64::NAN] {
            assert_eq!(field(LinkConfig { loss, ..base.clone() }), "loss");
        }
        for (begin, end) in [(2.0, 0.5), (0.5, -1.0), (0.5, 0.0)] {
            let burst = Some(Burst { begin, end });
            assert_eq!(field(LinkConfig { burst, ..base.clone() }), "burst");
        }
        assert_eq!(field(LinkConfig { rate: Some(0), ..base.clone() }), "rate");
        assert_eq!(field(LinkConfig { queue: Some(0), ..base.clone() }), "queue");
        let unlimited = LinkConfig { rate: None, queue: Some(1), ..base };
        assert_eq!(unlimited.validate().unwrap_err().to_string(), "queue: needs a rate");
    }

    #[test]
    fn bursts_have_a_share() {
        assert!((Burst { begin: 0.01, end: 0.24 }.loss() - 0.04).abs() < 1e-12);
        assert!(Burst { begin: 0.0, end: 0.0 }.loss() < 1e-12);
    }
}
