//! What people see: two tables and two small curves.

use super::Sort;
use super::rates::{ConnRates, ShardRates, Watched};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};

/// The other screen of the terminal, without a cursor; left again when dropped.
pub struct Alternate;

impl Alternate {
    pub fn enter() -> Self {
        let _ = io::stdout().write_all(b"\x1b[?1049h\x1b[?25l");
        Self
    }
}

impl Drop for Alternate {
    fn drop(&mut self) {
        let mut out = io::stdout();
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

/// Draws as much of the text as the terminal has room for.
pub fn draw(out: &mut impl Write, text: &str) -> io::Result<()> {
    let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
    let mut frame = String::from("\x1b[H");
    for line in text.lines().take(usize::from(height).saturating_sub(1)) {
        frame.extend(line.chars().take(usize::from(width)));
        frame.push_str("\x1b[K\r\n");
    }
    frame.push_str("\x1b[J");
    out.write_all(frame.as_bytes())
}

/// One engine; with the curves when it is shown again and again.
pub fn text(watched: &Watched, sort: Sort, live: bool) -> String {
    let info = watched.file.info();
    let shards = watched.shards();
    let driver = shards.first().map_or("", |s| s.sample.driver.as_str());
    let mut text = format!(
        "{}  pid {}  trunkline {}  {driver}  {}\n",
        printable(&watched.path.display().to_string()),
        info.pid,
        printable(&info.engine),
        printable(&watched.health().to_string()),
    );
    if live {
        let rates: VecDeque<f64> = watched.history.iter().map(|h| h.0).collect();
        let rtts: VecDeque<f64> = watched.history.iter().map(|h| h.1).collect();
        let last = watched.history.back().copied().unwrap_or_default();
        let _ = writeln!(text, "Mb/s {:>9.1} {}", last.0, curve(&rates));
        let _ = writeln!(text, "RTT ms {:>7.2} {}", last.1, curve(&rtts));
    }
    text.push_str(
        "\nSHARD  STATE          LOAD  TURNS/S  IN PKT/S OUT PKT/S  IN Mb/S OUT Mb/S  RTT50ms  \
         RTT99ms   RTX/S  LOST/S  CONNS   CHANS  MAIL  FWD   WAITING  RX FREE  TX FREE SEND FREE\n",
    );
    for one in &shards {
        shard(&mut text, one);
    }
    let connections = watched.connections(sort);
    if !connections.is_empty() {
        text.push_str(
            "\nSHARD  REMOTE                 PEER              STATE           RTT ms   WINDOW  \
             IN Mb/S OUT Mb/S        IN       OUT     RTX    LOST  CHANS   UNACKED\n",
        );
    }
    for one in &connections {
        connection(&mut text, one);
    }
    text.push('\n');
    text
}

fn shard(text: &mut String, shard: &ShardRates<'_>) {
    let value = |name| shard.value(name);
    let ms = |name| value(name) as f64 / 1e3;
    let mb = |name| shard.rate(name) * 8.0 / 1e6;
    let free =
        |name: &str| format!("{}/{}", shard.value(&format!("{name}_free")), shard.value(name));
    let health = shard.sample.health.name();
    let state = if shard.sample.asleep && health == "running" { "asleep" } else { health };
    let _ = writeln!(
        text,
        "{:>5}  {state:<13} {:>4.0}% {:>8.0} {:>9.0} {:>9.0} {:>8.1} {:>8.1} {:>8.2} {:>8.2} {:>7.0} \
         {:>7.0} {:>6} {:>7} {:>5} {:>4} {:>9} {:>8} {:>8} {:>9}",
        shard.sample.shard,
        shard.load() * 100.0,
        shard.rate("turns"),
        shard.rate("datagrams_received"),
        shard.rate("datagrams_sent"),
        mb("bytes_received"),
        mb("bytes_sent"),
        ms("rtt_us_p50"),
        ms("rtt_us_p99"),
        shard.rate("retransmits"),
        shard.rate("packets_lost"),
        value("connections"),
        value("channels"),
        value("mailbox_depth"),
        value("forwards_depth"),
        bytes(value("queue_waiting_bytes") + value("unsent_bytes")),
        free("rx_buffers"),
        free("tx_buffers"),
        free("send_buffers"),
    );
}

fn connection(text: &mut String, conn: &ConnRates<'_>) {
    let value = |name| conn.value(name);
    let remote = conn.row.remote().map_or_else(String::new, |r| r.to_string());
    let _ = writeln!(
        text,
        "{:>5}  {remote:<22} {:<16}  {:<14} {:>7.2} {:>8} {:>8.1} {:>8.1} {:>9} {:>9} {:>7} {:>7} \
         {:>6} {:>9}",
        conn.shard,
        conn.row.peer(),
        conn.row.status(),
        value("rtt_ns") as f64 / 1e6,
        bytes(value("window")),
        conn.received * 8.0 / 1e6,
        conn.sent * 8.0 / 1e6,
        bytes(value("bytes_received")),
        bytes(value("bytes_sent")),
        value("retransmits"),
        value("packets_lost"),
        value("channels"),
        bytes(value("unacked_bytes")),
    );
}

/// Bytes in few digits, in powers of 1024.
fn bytes(value: u64) -> String {
    let mut shown = value as f64;
    for unit in ["", "K", "M", "G", "T"] {
        if shown < 1000.0 {
            let digits = usize::from(!unit.is_empty() && shown < 100.0);
            return format!("{shown:.digits$}{unit}");
        }
        shown /= 1024.0;
    }
    format!("{shown:.1}P")
}

/// Heights of a curve from 0 to its largest value.
fn curve(values: &VecDeque<f64>) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let step = |v: &f64| STEPS[((v / most * 7.0).round() as usize).min(7)];
    values.iter().map(step).collect()
}

/// Text of a file, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        for (value, shown) in
            [(0, "0"), (999, "999"), (1000, "1.0K"), (150 << 10, "150K"), (5 << 30, "5.0G")]
        {
            assert_eq!(bytes(value), shown);
        }
        assert_eq!(bytes(u64::MAX), "16384.0P");
    }

    #[test]
    fn curves_reach_from_nothing_to_the_top() {
        assert_eq!(curve(&VecDeque::from([0.0, 3.5, 7.0])), "▁▅█");
        assert_eq!(curve(&VecDeque::from([0.0, 0.0])), "▁▁");
    }

    #[test]
    fn nothing_of_a_file_steers_the_terminal() {
        assert_eq!(printable("0.1\x1b[2J"), "0.1?[2J");
    }

    #[test]
    fn a_frame_is_no_larger_than_the_terminal() {
        let mut out = Vec::new();
        draw(&mut out, &format!("{}\n", "x".repeat(500)).repeat(500)).unwrap();
        let frame = String::from_utf8(out).unwrap();
        let (height, width) = console::Term::stdout().size_checked().unwrap_or((24, 80));
        assert_eq!(frame.matches("\r\n").count(), usize::from(height) - 1);
        assert_eq!(frame.matches('x').count(), (usize::from(height) - 1) * usize::from(width));
    }
}
