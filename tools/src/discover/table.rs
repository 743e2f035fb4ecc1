//! Devices as a table for people.

use std::fmt::Write as _;
use trunkline::discovery::{Device, Path};
use trunkline::{Duration, Instant};

const HEAD: [&str; 9] =
    ["name", "type", "mode", "address", "port", "age", "RTT", "service", "fingerprint"];
/// Least widths of a line that stands alone.
const WIDTHS: [usize; 9] = [20, 11, 7, 25, 5, 6, 8, 16, 0];
/// Columns of numbers.
const RIGHT: [usize; 3] = [4, 5, 6];

/// One row for each device, with its shortest way; further rows for its other addresses.
pub fn table(devices: &[&Device], now: Instant) -> String {
    let mut rows: Vec<Vec<String>> = vec![HEAD.map(str::to_owned).to_vec()];
    for device in devices {
        let mut paths: Vec<&Path> = device.paths.iter().collect();
        paths.sort_by_key(|p| p.rtt);
        for (n, path) in paths.into_iter().enumerate() {
            let mut row = cells(device, path, now);
            if n > 0 {
                for column in [0, 1, 2, 7, 8] {
                    row[column].clear();
                }
            }
            rows.push(row);
        }
    }
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    rows.iter().map(|row| aligned(row, &widths) + "\n").collect()
}

/// The head of lines that come one by one.
pub fn head() -> String {
    format!("  {}", aligned(&HEAD.map(str::to_owned), &WIDTHS))
}

/// One device, with a sign of what happened.
pub fn line(sign: char, device: &Device, now: Instant) -> String {
    let Some(path) = device.nearest() else { return format!("{sign} {}", device.name) };
    format!("{sign} {}", aligned(&cells(device, path, now), &WIDTHS))
}

fn cells(device: &Device, path: &Path, now: Instant) -> Vec<String> {
    vec![
        device.name.clone(),
        device.device_type.to_string(),
        device.mode.to_string(),
        host(path),
        path.address.port().to_string(),
        age(now.since(path.heard)),
        format!("{:.2} ms", path.rtt.as_secs_f64() * 1e3),
        device.service.clone(),
        device.peer.to_string(),
    ]
}

/// The address without its port; link-local ones with their scope.
fn host(path: &Path) -> String {
    match path.address {
        std::net::SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            format!("{}%{}", v6.ip(), v6.scope_id())
        }
        address => address.ip().to_string(),
    }
}

fn age(age: Duration) -> String {
    match age.as_millis() / 1000 {
        s @ 0..120 => format!("{s} s"),
        s => format!("{} min", s / 60),
    }
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let _ = if RIGHT.contains(&column) {
            write!(line, "{cell:>width$}  ")
        } else {
            write!(line, "{cell:<width$}  ")
        };
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline::PeerId;
    use trunkline::discovery::{ClientState, DeviceType, Links, Mode};

    fn device() -> Device {
        let path = |address: &str, us, heard| Path {
            address: address.parse().unwrap(),
            rtt: Duration::from_micros(us),
            heard: Instant::ZERO + Duration::from_secs(heard),
        };
        Device {
            peer: PeerId([0xAB; 32]),
            service: "trunkline.files".into(),
            name: "Küche".into(),
            device_type: DeviceType::Laptop,
            mode: Mode::Known,
            links: Links::UDP,
            protocol: 1,
            id_proven: false,
            paths: vec![path("[fe80::1%3]:7470", 900, 5), path("10.0.0.1:7470", 300, 9)],
            found: Instant::ZERO,
            state: ClientState::Ready,
        }
    }

    #[test]
    fn one_row_for_each_address_the_nearest_first() {
        let shown = table(&[&device()], Instant::ZERO + Duration::from_secs(10));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3);
        let words = |n: usize| lines[n].split_whitespace().collect::<Vec<_>>();
        let fingerprint = "ab".repeat(32);
        assert_eq!(words(0), HEAD);
        assert_eq!(
            words(1),
            [
                "Küche",
                "laptop",
                "known",
                "10.0.0.1",
                "7470",
                "1",
                "s",
                "0.30",
                "ms",
                "trunkline.files",
                &fingerprint,
            ]
        );
        assert_eq!(words(2), ["fe80::1%3", "7470", "5", "s", "0.90", "ms"]);
        let column =
            |line: &str, text: &str| line.find(text).map(|at| line[..at].chars().count()).unwrap();
        assert_eq!(column(lines[0], "address"), column(lines[1], "10.0.0.1"));
        assert_eq!(column(lines[0], "address"), column(lines[2], "fe80"));
    }

    #[test]
    fn lines_of_their_own_fit_their_head() {
        let line = line('+', &device(), Instant::ZERO + Duration::from_secs(300));
        assert!(line.starts_with("+ Küche") && line.contains("4 min"), "{line}");
        let head = head();
        let at = |text: &str, part: &str| {
            text.chars().count() - text[text.find(part).unwrap()..].chars().count()
        };
        assert_eq!(at(&head, "address"), at(&line, "10.0.0.1"));
        assert_eq!(at(&head, "fingerprint"), at(&line, "abab"));
    }
}
