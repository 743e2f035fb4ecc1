//! The command line.

use clap::Parser;
use std::ffi::OsString;
use std::time::Duration;
use trunkline_link::units::{self, Queue};
use trunkline_link::{Burst, ConfigError, LinkConfig};

const EXAMPLE: &str = "\
Example, as root: a quarter of a second of queue in front of 100 Mbit/s, 20 ms there and back,
1 % lost each way:

  link-emulator --delay 10ms --loss 1% --rate 100Mbit --queue 250ms -- \\
      sh -c 'ip netns exec $LINK_A ping -c 10 $LINK_B_ADDRESS'

The command runs where the emulator runs. It finds the names of the namespaces in LINK_A and LINK_B,
their addresses in LINK_A_ADDRESS and LINK_B_ADDRESS. Without a command a line on standard output
says that the link is up, and it stays so until SIGINT, SIGTERM or SIGHUP.

At the end the namespaces are removed, and the counters of both directions are printed: on standard
error as a table, on standard output with --json.

Exit status: that of the command, or 128 + the signal that ended it; 0 without a command; 2 for a
wrong command line; 125 if the link cannot be made or broke down; 126 or 127 if the command cannot
be started or is not there.";

/// Makes two network namespaces and a link between them that delays, loses and limits, the same in
/// both directions.
#[derive(Parser, Debug)]
#[command(name = "link-emulator", version, after_help = EXAMPLE)]
pub struct Args {
    /// Name of the first namespace, made and removed [default: link-PID-a]
    #[arg(long, value_name = "NETNS", value_parser = name)]
    pub a: Option<String>,
    /// Name of the second one [default: link-PID-b]
    #[arg(long, value_name = "NETNS", value_parser = name)]
    pub b: Option<String>,
    /// One way; the round trip is twice that
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "0ms")]
    pub delay: Duration,
    /// Longest deviation from the delay, either way
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "0ms")]
    pub jitter: Duration,
    /// Let packets overtake others where the jitter makes them
    #[arg(long)]
    pub reorder: bool,
    /// Packets lost, each on its own
    #[arg(long, value_name = "SHARE", value_parser = units::share, default_value = "0%")]
    pub loss: f64,
    /// Losses in bursts: the chance at each packet that one begins, and that it ends: 0.5%,25%
    #[arg(long, value_name = "P,R", value_parser = units::burst)]
    pub burst: Option<Burst>,
    /// What the line takes a second: 100Mbit [default: no bound]
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub rate: Option<u64>,
    /// Most in the queue in front of the line: 250ms of it, or bytes [default: no bound]
    #[arg(long, value_name = "TIME|BYTES", value_parser = units::queue, requires = "rate")]
    pub queue: Option<Queue>,
    /// Bytes of the largest IP packet
    #[arg(long, value_name = "BYTES", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(576..=65_000))]
    pub mtu: u16,
    /// All that is random follows from it
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// One JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// What to run while the link is up
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A name that is safe as one of a file.
fn name(text: &str) -> Result<String, String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let right = !text.is_empty() && text.len() <= 64 && text.chars().all(safe);
    let right = right && !text.starts_with(['-', '.']);
    right.then(|| text.to_owned()).ok_or_else(|| "must be letters, digits, - and _".to_owned())
}

impl Args {
    /// What both directions are like.
    ///
    /// # Errors
    /// Settings that do not fit together.
    pub fn link(&self) -> Result<LinkConfig, ConfigError> {
        let queue = self.queue.zip(self.rate).map(|(queue, rate)| queue.bytes(rate));
        let config = LinkConfig {
            delay: self.delay,
            jitter: self.jitter,
            reorder: self.reorder,
            loss: self.loss,
            burst: self.burst,
            rate: self.rate,
            queue,
        };
        config.validate().map(|()| config)
    }

    /// The names of both namespaces.
    ///
    /// # Errors
    /// They are the same.
    pub fn names(&self) -> Result<[String; 2], ConfigError> {
        let name = |given: &Option<String>, side| {
            given.clone().unwrap_or_else(|| format!("link-{}-{side}", std::process::id()))
        };
        let names = [name(&self.a, "a"), name(&self.b, "b")];
        if names[0] == names[1] {
            return Err(ConfigError { field: "b", why: "must not be the namespace of a" });
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Args, String> {
        let words = line.split_whitespace();
        Args::try_parse_from(std::iter::once("link-emulator").chain(words))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = parse("--delay 10ms --loss 1% --rate 100Mbit --queue 250ms -- ping -c 1 x");
        let args = args.unwrap();
        assert_eq!(args.command, ["ping", "-c", "1", "x"]);
        let link = args.link().unwrap();
        assert_eq!((link.rate, link.queue), (Some(100_000_000), Some(3_125_000)));
        assert_eq!((link.delay, link.loss), (Duration::from_millis(10), 0.01));
        let names = args.names().unwrap();
        assert!(names[0].ends_with("-a") && names[1].ends_with("-b"));
    }

    #[test]
    fn errors_name_the_field() {
        for (line, field) in [
            ("--delay 10", "--delay"),
            ("--loss 200%", "--loss"),
            ("--burst 1%", "--burst"),
            ("--rate fast", "--rate"),
            ("--queue 10ms", "--rate"),
            ("--queue 10x --rate 1Mbit", "--queue"),
            ("--mtu 100", "--mtu"),
            ("--a ../x", "--a"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(field), "{line}: {error}");
        }
        assert_eq!(parse("--jitter 1ms").unwrap().link().unwrap_err().field, "jitter");
        assert_eq!(parse("--a x --b x").unwrap().names().unwrap_err().field, "b");
    }
}
