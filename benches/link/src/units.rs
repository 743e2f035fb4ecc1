//! Numbers with units, as on a command line.

use crate::config::Burst;
use std::time::Duration;

/// The number that `text` begins with, and its unit.
fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    Ok((number, unit.trim_start()))
}

/// `10ms`, `250us`, `1.5s`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ if number == 0.0 && unit.is_empty() => 0.0,
        _ => return Err(format!("{text:?} needs a unit: ns, us, ms or s")),
    };
    Ok(Duration::from_nanos((number * ns).round() as u64))
}

/// `1%`, or the same as a share, `0.01`.
///
/// # Errors
/// What is wrong with it.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text)?;
    let share = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return Err(format!("{text:?} is no share: 1% or 0.01")),
    };
    if share <= 1.0 { Ok(share) } else { Err(format!("{text:?} is more than all")) }
}

/// Begin and end of bursts, `0.5%,25%`.
///
/// # Errors
/// What is wrong with it.
pub fn burst(text: &str) -> Result<Burst, String> {
    let (begin, end) = text.split_once(',').ok_or("must be P,R: 0.5%,25%")?;
    Ok(Burst { begin: share(begin)?, end: share(end)? })
}

/// `100Mbit`, `56kbit`, `1Gbit`; bits a second without a unit.
///
/// # Errors
/// What is wrong with it.
pub fn rate(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let unit = unit.to_ascii_lowercase();
    let factor = match unit.trim_end_matches("/s") {
        "" | "bit" => 1.0,
        "k" | "kbit" => 1e3,
        "m" | "mbit" => 1e6,
        "g" | "gbit" => 1e9,
        _ => return Err(format!("{text:?} needs a unit: kbit, Mbit or Gbit")),
    };
    Ok((number * factor).round() as u64)
}

/// The length of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// In bytes.
    Bytes(u64),
    /// In time on the line.
    Time(Duration),
}

impl Queue {
    /// Bytes on a line of `rate` bits a second.
    pub fn bytes(self, rate: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Time(time) => (time.as_nanos() * u128::from(rate) / 8_000_000_000) as u64,
        }
    }
}

/// `250ms` of the rate, or bytes: `64000`, `64kB`, `1MB`.
///
/// # Errors
/// What is wrong with it.
pub fn queue(text: &str) -> Result<Queue, String> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        _ => return duration(text).map(Queue::Time).map_err(|e| e + ", or B, kB, MB"),
    };
    Ok(Queue::Bytes((number * factor).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        let us = Duration::from_micros;
        assert_eq!(duration("10ms"), Ok(us(10_000)));
        assert_eq!(duration("1.5 s"), Ok(us(1_500_000)));
        assert_eq!(duration("250us"), Ok(us(250)));
        assert_eq!(duration("0"), Ok(us(0)));
        assert_eq!(share("1%"), Ok(0.01));
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(burst("0.5%,25%"), Ok(Burst { begin: 0.005, end: 0.25 }));
        assert_eq!(rate("100Mbit"), Ok(100_000_000));
        assert_eq!(rate("1.5Gbit/s"), Ok(1_500_000_000));
        assert_eq!(rate("64000"), Ok(64_000));
        assert_eq!(queue("64kB"), Ok(Queue::Bytes(64_000)));
        assert_eq!(queue("250ms"), Ok(Queue::Time(us(250_000))));
        assert_eq!(queue("250ms").unwrap().bytes(100_000_000), 3_125_000);
        assert_eq!(queue("1500").unwrap().bytes(1), 1500);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "ms", "10", "10 m", "-1ms", "1.2.3s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for text in ["1 x", "2", "101%", "-1%"] {
            assert!(share(text).is_err(), "{text}");
        }
        for text in ["1%", "1%,", "x,y"] {
            assert!(burst(text).is_err(), "{text}");
        }
        assert!(rate("100MB").is_err() && rate("fast").is_err());
        assert!(queue("10 x").unwrap_err().contains("kB"));
    }
}
