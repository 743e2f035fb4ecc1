//! `trunkline top` as somebody at a terminal sees it: a pseudo-terminal, and an interpreter of what is
//! written to it.
#![cfg(target_os = "linux")]

mod common;

use common::{Home, PATIENCE, Recv, signal, wait};
use nix::pty::{Winsize, openpty};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a terminal shows. It does what terminals do of which most is asked: behind the last column
/// the cursor stays there until the next character, and erasing then erases that column.
struct Screen {
    size: (usize, usize),
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    alternate: bool,
    entered: u32,
    cursor: bool,
    rest: String,
}

impl Screen {
    fn new() -> Self {
        let (size, cells) = ((0, 0), Vec::new());
        let mut new = Self {
            size,
            cells,
            at: (0, 0),
            alternate: false,
            entered: 0,
            cursor: true,
            rest: String::new(),
        };
        new.resize(24, 80);
        new
    }

    fn resize(&mut self, height: usize, width: usize) {
        self.size = (height, width);
        self.cells.resize(height, Vec::new());
        self.cells.iter_mut().for_each(|row| row.resize(width, ' '));
        self.at = (self.at.0.min(height - 1), self.at.1.min(width));
    }

    fn write(&mut self, text: &str) {
        let text = std::mem::take(&mut self.rest) + text;
        let mut chars = text.char_indices();
        while let Some((start, c)) = chars.next() {
            match c {
                '\r' => self.at.1 = 0,
                '\n' => {
                    self.at.0 += 1;
                    if self.at.0 == self.size.0 {
                        self.at.0 -= 1;
                        self.cells.remove(0);
                        self.cells.push(vec![' '; self.size.1]);
                    }
                }
                '\x1b' => {
                    let Some(end) = text[start..].find(|c: char| c.is_ascii_alphabetic()) else {
                        text[start..].clone_into(&mut self.rest);
                        return;
                    };
                    let sequence = &text[start + 1..=start + end];
                    self.obey(sequence);
                    for _ in sequence.chars() {
                        chars.next();
                    }
                }
                c => {
                    if self.at.1 == self.size.1 {
                        self.at = ((self.at.0 + 1).min(self.size.0 - 1), 0);
                    }
                    self.cells[self.at.0][self.at.1] = c;
                    self.at.1 += 1;
                }
            }
        }
    }

    fn obey(&mut self, sequence: &str) {
        match sequence {
            "[H" => self.at = (0, 0),
            "[K" => {
                let from = self.at.1.min(self.size.1 - 1);
                self.cells[self.at.0][from..].fill(' ');
            }
            "[?1049h" => {
                (self.alternate, self.entered) = (true, self.entered + 1);
                self.cells.iter_mut().for_each(|row| row.fill(' '));
            }
            "[?1049l" => self.alternate = false,
            "[?25h" => self.cursor = true,
            "[?25l" => self.cursor = false,
            // Colours, of an error.
            other if other.ends_with('m') => {}
            other => panic!("sequence {other:?}"),
        }
    }

    fn text(&self) -> String {
        let lines = self.cells.iter().map(|row| row.iter().collect::<String>());
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// `top` at a terminal of its own.
struct Seat {
    child: Child,
    keyboard: File,
    slave: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<Screen>>,
}

impl Seat {
    fn new(home: &Home, args: &[&str]) -> Self {
        Self::of_shell(home, "exec \"$0\" top \"$@\"", args)
    }

    /// With what a shell makes of it; `$0` is the tool.
    fn of_shell(home: &Home, script: &str, args: &[&str]) -> Self {
        // A process that a signal ends leaves no core behind.
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let top = home.trunkline();
        // It has the terminal to itself, so that Ctrl-C is a signal.
        let mut command = Command::new("setsid");
        // Whoever runs the tests in the background ignores the signal, and all below inherit that.
        command.args(["--ctty", "env", "--default-signal=QUIT", "sh", "-c", script]);
        command.arg(top.get_program()).args(args);
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(pty.master);
        let screen = Arc::new(Mutex::new(Screen::new()));
        let (mut from, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                bytes.extend_from_slice(&buffer[..n]);
                let whole = match std::str::from_utf8(&bytes) {
                    Ok(_) => bytes.len(),
                    Err(e) => e.valid_up_to(),
                };
                let text: Vec<u8> = bytes.drain(..whole).collect();
                shown.lock().unwrap().write(std::str::from_utf8(&text).unwrap());
            }
        });
        Self { child, keyboard, slave: pty.slave, before, screen }
    }

    fn types(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    fn resize(&self, height: usize, width: usize) {
        self.screen.lock().unwrap().resize(height, width);
        let mut stty = Command::new("stty");
        stty.args(["rows", &height.to_string(), "cols", &width.to_string()]);
        let stdin = Stdio::from(self.slave.try_clone().unwrap());
        assert!(stty.stdin(stdin).status().unwrap().success());
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().text()
    }

    fn waits(&self, what: &str, f: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !f(&self.text()) {
            assert!(start.elapsed() < PATIENCE, "no {what}; on the screen:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn enters(&self, times: u32) {
        let start = Instant::now();
        while self.screen.lock().unwrap().entered < times {
            assert!(start.elapsed() < PATIENCE, "it does not begin anew:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How it ended; the terminal is as it was.
    fn exit(&mut self) -> i32 {
        self.status().code().unwrap_or(-1)
    }

    fn status(&mut self) -> ExitStatus {
        let status = wait(&mut self.child, PATIENCE).unwrap_or_else(|| panic!("{}", self.text()));
        let start = Instant::now();
        while self.screen.lock().unwrap().alternate {
            assert!(start.elapsed() < PATIENCE, "the other screen is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(self.screen.lock().unwrap().cursor, "no cursor");
        assert!(tcgetattr(&self.slave).unwrap() == self.before, "other modes");
        status
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `bench`, killed when dropped.
struct Bench(Child);

impl Bench {
    fn start(home: &Home, file: &Path) -> Self {
        let mut command = home.trunkline();
        command.args(["bench", "--scenario", "bulk", "-t", "100", "-b", "50M", "--stats-file"]);
        command.arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let bench = Self(command.spawn().unwrap());
        let start = Instant::now();
        while !file.exists() {
            assert!(start.elapsed() < PATIENCE, "no file");
            std::thread::sleep(Duration::from_millis(20));
        }
        bench
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first row below the heading that has this title; titles are separated by blanks, and values
/// end where their title ends.
fn column(text: &str, title: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let (at, end) = lines.iter().enumerate().find_map(|(at, line)| {
        let found = line.starts_with("SHARD ").then(|| line.find(title)).flatten()?;
        Some((at, found + title.len()))
    })?;
    let row = lines.get(at + 1)?.get(..end).unwrap_or(lines[at + 1]);
    row.split_whitespace().last().map(str::to_owned)
}

fn number(text: &str, title: &str) -> f64 {
    let value = column(text, title).unwrap_or_else(|| panic!("no {title}:\n{text}"));
    value.trim_end_matches('%').parse().unwrap_or_else(|_| panic!("{title} {value}:\n{text}"))
}

/// Titles of the table of shards, those behind the second.
const SHARD: [&str; 18] = [
    "LOAD",
    "TURNS/S",
    "IN PKT/S",
    "OUT PKT/S",
    "IN Mb/S",
    "OUT Mb/S",
    "RTT50ms",
    "RTT99ms",
    "RTX/S",
    "LOST/S",
    "CONNS",
    "CHANS",
    "MAIL",
    "FWD",
    "WAITING",
    "RX FREE",
    "TX FREE",
    "SEND FREE",
];

#[test]
fn the_screen_of_a_bench_that_runs_hangs_and_dies() {
    let home = Home::new();
    let file = home.at("bench.stats");
    let bench = Bench::start(&home, &file);
    let mut seat = Seat::new(&home, &["-i", "0.5", file.to_str().unwrap()]);
    seat.waits("transfer", |text| text.contains("connected") && number(text, "OUT Mb/S") > 20.0);
    let text = seat.text();
    // Over the second half of a second: not more than the bench sends, nor much less.
    assert!((20.0..100.0).contains(&number(&text, "OUT Mb/S")), "{text}");
    assert!(text.starts_with("running  pid "), "{text}");
    for title in SHARD {
        assert!(column(&text, title).is_some(), "no {title} at 80 columns:\n{text}");
    }
    assert_eq!(column(&text, "CONNS").as_deref(), Some("1"), "{text}");
    assert!(number(&text, "CHANS") >= 1.0 && number(&text, "RTT50ms") > 0.0, "{text}");
    assert!(number(&text, "OUT PKT/S") > 100.0 && number(&text, "LOAD") <= 100.0, "{text}");
    for pool in ["RX FREE", "TX FREE", "SEND FREE"] {
        let value = column(&text, pool).unwrap();
        let (free, all) = value.split_once('/').unwrap();
        let (free, all): (u64, u64) = (free.parse().unwrap(), all.parse().unwrap());
        assert!(free <= all && all > 0, "{pool} {value}");
    }
    assert!(text.contains("127.0.0.1:") && text.trim_end().ends_with("q: end"), "{text}");
    seat.resize(40, 200);
    seat.waits("wide table", |text| {
        let wide = |line: &str| line.contains("STATE") && line.contains("SEND FREE");
        text.lines().any(wide) && text.lines().nth(39).is_some_and(|l| l.starts_with("q: end"))
    });
    seat.resize(6, 40);
    seat.waits("small table", |text| text.lines().nth(5).is_some_and(|l| l.contains("more lines")));
    seat.resize(24, 80);
    signal(bench.0.id(), "STOP");
    seat.waits("silence", |text| text.starts_with("not answering for "));
    seat.waits("idle shard", |text| text.contains("    0 not answering"));
    signal(bench.0.id(), "CONT");
    seat.waits("work", |text| text.starts_with("running ") && number(text, "OUT Mb/S") > 20.0);
    signal(bench.0.id(), "KILL");
    seat.waits("death", |text| text.starts_with("died "));
    assert!(seat.text().contains("    0 died"), "{}", seat.text());
    assert!(!tcgetattr(&seat.slave).unwrap().local_flags.contains(LocalFlags::ECHO));
    seat.types(b"xq");
    assert_eq!(seat.exit(), 4, "{}", seat.text());
}

#[test]
fn keys_signals_and_another_size_do_not_wait_for_the_next_sample() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let _recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    let args = ["-i", "3600", file.to_str().unwrap()];
    let mut seat = Seat::new(&home, &args);
    seat.waits("picture", |text| text.contains("SEND FREE") && text.contains("q: end"));
    seat.resize(30, 100);
    seat.waits("other size", |text| text.lines().nth(29).is_some_and(|l| l.starts_with("q: end")));
    // Nobody would continue it here, so the system does not stop it: it comes back at once.
    seat.types(b"\x1a");
    seat.enters(2);
    seat.waits("picture", |text| text.contains("SEND FREE") && text.contains("q: end"));
    seat.types(b"q");
    assert_eq!(seat.exit(), 0);
    let mut seat = Seat::new(&home, &args);
    seat.waits("picture", |text| text.contains("q: end"));
    // Ctrl-C
    seat.types(b"\x03");
    assert_eq!(seat.exit(), 0);
    let mut seat = Seat::new(&home, &args);
    seat.waits("picture", |text| text.contains("q: end"));
    signal(seat.child.id(), "TERM");
    assert_eq!(seat.exit(), 0);
}

#[test]
fn however_it_ends_the_terminal_is_as_it_was() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let _recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    let args = ["-i", "3600", file.to_str().unwrap()];
    // Ctrl-\, and the same signal from elsewhere: the process ends by it, as others do.
    for typed in [true, false] {
        let mut seat = Seat::new(&home, &args);
        seat.waits("picture", |text| text.contains("q: end"));
        if typed {
            seat.types(b"\x1c");
        } else {
            signal(seat.child.id(), "QUIT");
        }
        assert_eq!(seat.status().signal(), Some(3));
    }
    // Two requests to end at once: the second one does not wait for what the first one began.
    for _ in 0..5 {
        let mut seat = Seat::new(&home, &args);
        seat.waits("picture", |text| text.contains("q: end"));
        for name in ["STOP", "TERM", "INT", "CONT"] {
            signal(seat.child.id(), name);
        }
        let code = seat.exit();
        assert!([0, 130].contains(&code), "{code}");
    }
    // Ctrl-S: it hangs in a write. The first request does nothing then, the second one ends it, and
    // what the terminal still takes is put right.
    let mut seat = Seat::new(&home, &["-i", "0.1", file.to_str().unwrap()]);
    seat.waits("picture", |text| text.contains("q: end"));
    seat.types(b"\x13");
    std::thread::sleep(Duration::from_millis(500));
    signal(seat.child.id(), "TERM");
    assert!(wait(&mut seat.child, Duration::from_secs(1)).is_none(), "it did not hang");
    signal(seat.child.id(), "TERM");
    let status = wait(&mut seat.child, PATIENCE).expect("no end");
    assert_eq!(status.code(), Some(130));
    assert!(tcgetattr(&seat.slave).unwrap() == seat.before, "other modes");
}

/// Keys come from the standard input. Without it the terminal still has Ctrl-C, Ctrl-\ and Ctrl-Z.
#[test]
fn without_keys_the_screen_says_how_it_ends() {
    let home = Home::new();
    let file = home.at("recv.stats");
    let _recv = Recv::start(&home, &["--stats-file", file.to_str().unwrap()]);
    let args = ["-i", "3600", file.to_str().unwrap()];
    let script = "exec \"$0\" top \"$@\" < /dev/null";
    let seat = || {
        let seat = Seat::of_shell(&home, script, &args);
        seat.waits("picture", |text| text.trim_end().ends_with("\nCtrl-C: end"));
        seat
    };
    let mut one = seat();
    one.types(b"q\x1a");
    one.enters(2);
    one.types(b"\x03");
    assert_eq!(one.exit(), 0);
    let mut one = seat();
    one.types(b"\x1c");
    assert_eq!(one.status().signal(), Some(3));
}
