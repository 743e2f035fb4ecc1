//! What people see: two tables and two small curves.

use super::Sort;
use super::rates::{ConnRates, ShardRates, Watched};
use super::table::{self, Column};
use crate::sparkline::sparkline;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Draws as much of the text as a terminal of this height and width has room for; the last line says
/// how it ends, and what is not shown.
pub fn draw(
    out: &mut impl Write,
    text: &str,
    end: &str,
    (height, width): (usize, usize),
) -> io::Result<()> {
    let room = height.saturating_sub(1);
    let left_out = text.trim_end().lines().count().saturating_sub(room);
    let last = match left_out {
        0 => end.to_owned(),
        n => format!("{end}; {n} more lines"),
    };
    let blank = std::iter::repeat("");
    let lines = text.trim_end().lines().chain(blank).take(room).chain([last.as_str()]);
    let mut frame = String::from("\x1b[H");
    for (at, line) in lines.take(height).enumerate() {
        if at > 0 {
            frame.push_str("\r\n");
        }
        frame.extend(line.chars().take(width));
        // After the last column some terminals would erase what stands in it.
        if line.chars().count() < width {
            frame.push_str("\x1b[K");
        }
    }
    out.write_all(frame.as_bytes())
}

/// One engine in so many columns; with the curves when it is shown again and again.
pub fn text(watched: &Watched, sort: Sort, width: usize, live: bool) -> String {
    let info = watched.file.info();
    let shards = watched.shards();
    let driver = shards.first().map_or("", |s| s.sample.driver.as_str());
    // How it is comes before the path, which may be longer than the line.
    let mut text = format!(
        "{}  pid {}  trunkline {}  {}  {}\n",
        printable(&watched.health().to_string()),
        info.pid,
        printable(&info.engine),
        printable(driver),
        printable(&watched.path.display().to_string()),
    );
    if live {
        let rates: VecDeque<f64> = watched.history.iter().map(|h| h.0).collect();
        let rtts: VecDeque<f64> = watched.history.iter().map(|h| h.1).collect();
        let last = watched.history.back().copied().unwrap_or_default();
        let _ = writeln!(text, "Mb/s {:>9.1} {}", last.0, sparkline(&rates));
        let _ = writeln!(text, "RTT ms {:>7.2} {}", last.1, sparkline(&rtts));
    }
    let rows: Vec<_> = shards.iter().map(shard).collect();
    text.push('\n');
    for part in table::parts(SHARD, width) {
        table::put(&mut text, SHARD, &part, &rows);
    }
    let rows: Vec<_> = watched.connections(sort).iter().map(connection).collect();
    if let (false, Some(part)) = (rows.is_empty(), table::parts(CONNECTION, width).first()) {
        text.push('\n');
        table::put(&mut text, CONNECTION, part, &rows);
    }
    text.push('\n');
    text
}

/// Of a shard. What a terminal has no room for comes in further tables.
const SHARD: &[Column] = &[
    Column::new("SHARD", 5),
    Column::left("STATE", 13),
    Column::new("LOAD", 5),
    Column::new("TURNS/S", 8),
    Column::new("IN PKT/S", 9),
    Column::new("OUT PKT/S", 9),
    Column::new("IN Mb/S", 8),
    Column::new("OUT Mb/S", 8),
    Column::new("RTT50ms", 8),
    Column::new("RTT99ms", 8),
    Column::new("RTX/S", 7),
    Column::new("LOST/S", 7),
    Column::new("CONNS", 6),
    Column::new("CHANS", 7),
    Column::new("MAIL", 5),
    Column::new("FWD", 4),
    Column::new("WAITING", 9),
    Column::new("RX FREE", 9),
    Column::new("TX FREE", 9),
    Column::new("SEND FREE", 9),
];

fn shard(shard: &ShardRates<'_>) -> Vec<String> {
    let value = |name| shard.value(name);
    let ms = |name| format!("{:.2}", value(name) as f64 / 1e3);
    let rate = |name| format!("{:.0}", shard.rate(name));
    let mb = |name| format!("{:.1}", shard.rate(name) * 8.0 / 1e6);
    let free =
        |name: &str| format!("{}/{}", shard.value(&format!("{name}_free")), shard.value(name));
    let health = shard.sample.health.name();
    let state = if shard.sample.asleep && health == "running" { "asleep" } else { health };
    vec![
        shard.sample.shard.to_string(),
        state.to_owned(),
        format!("{:.0}%", shard.load() * 100.0),
        rate("turns"),
        rate("datagrams_received"),
        rate("datagrams_sent"),
        mb("bytes_received"),
        mb("bytes_sent"),
        ms("rtt_us_p50"),
        ms("rtt_us_p99"),
        rate("retransmits"),
        rate("packets_lost"),
        value("connections").to_string(),
        value("channels").to_string(),
        value("mailbox_depth").to_string(),
        value("forwards_depth").to_string(),
        bytes(value("queue_waiting_bytes") + value("unsent_bytes")),
        free("rx_buffers"),
        free("tx_buffers"),
        free("send_buffers"),
    ]
}

/// Of a connection. What a terminal has no room for is left out: the most telling come first.
const CONNECTION: &[Column] = &[
    Column::new("SHARD", 5),
    Column::left("REMOTE", 21),
    Column::left("STATE", 12),
    Column::new("RTT ms", 8),
    Column::new("IN Mb/S", 8),
    Column::new("OUT Mb/S", 8),
    Column::new("RTX", 7),
    Column::new("LOST", 7),
    Column::new("CHANS", 6),
    Column::new("UNACKED", 8),
    Column::new("WINDOW", 8),
    Column::new("IN", 8),
    Column::new("OUT", 8),
    Column::left("PEER", 16),
];

fn connection(conn: &ConnRates<'_>) -> Vec<String> {
    let value = |name| conn.value(name);
    vec![
        conn.shard.to_string(),
        conn.row.remote().map_or_else(String::new, |r| r.to_string()),
        conn.row.status().to_owned(),
        format!("{:.2}", value("rtt_ns") as f64 / 1e6),
        format!("{:.1}", conn.received * 8.0 / 1e6),
        format!("{:.1}", conn.sent * 8.0 / 1e6),
        value("retransmits").to_string(),
        value("packets_lost").to_string(),
        value("channels").to_string(),
        bytes(value("unacked_bytes")),
        bytes(value("window")),
        bytes(value("bytes_received")),
        bytes(value("bytes_sent")),
        conn.row.peer(),
    ]
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
    fn nothing_of_a_file_steers_the_terminal() {
        assert_eq!(printable("0.1\x1b[2J"), "0.1?[2J");
    }

    fn drawn(text: &str, size: (usize, usize)) -> String {
        let mut out = Vec::new();
        draw(&mut out, text, "q: end", size).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_frame_is_as_large_as_the_terminal() {
        let frame = drawn(&format!("{}\n", "x".repeat(500)).repeat(500), (24, 80));
        assert_eq!(frame.matches("\r\n").count(), 23);
        assert_eq!(frame.matches('x').count(), 23 * 80);
        assert!(frame.ends_with("q: end; 477 more lines\x1b[K"), "{frame}");
        let short = drawn("a\nb\n\n", (24, 80));
        assert!(short.starts_with("\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[K\r\n"), "{short}");
        assert!(short.ends_with("\r\nq: end\x1b[K"), "{short}");
        assert_eq!(short.matches("\r\n").count(), 23);
        for size in [(0, 0), (1, 1), (2, 3)] {
            let frame = drawn("xxxxxx\nxxxxxx\nxxxxxx", size);
            assert_eq!(frame.matches("\r\n").count(), size.0.saturating_sub(1));
            assert!(frame.matches('x').count() <= size.0 * size.1);
        }
    }

    #[test]
    fn nothing_is_erased_behind_the_last_column() {
        let frame = drawn("12345\n1234\n", (3, 5));
        assert_eq!(frame, "\x1b[H12345\r\n1234\x1b[K\r\nq: en");
    }
}
