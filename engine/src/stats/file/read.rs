//! The reader's side. Nothing in a file is believed: every length is checked before it is used.

use super::layout::{self, DRIVEN, HEADER, MAGIC, VERSION, block, head};
use super::process;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

/// Longest block, and longest text of names, that is read.
const MAX_PART: u64 = 1 << 20;
/// Most fields of a shard, of a row, and most rows.
const MAX_COUNT: u64 = 4096;
/// How often a block is read before it is taken as it is.
const TRIES: usize = 64;
/// A shard that is this late does not answer.
const GRACE: Duration = Duration::from_secs(2);

/// Why a stats file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no stats file, or one from another machine.
    #[error("this is not a stats file")]
    NotAStatsFile,
    /// It is of a version that this reader does not know.
    #[error("version {0} of stats files is not known")]
    Version(u64),
    /// Its header does not fit its length.
    #[error("the file is damaged: {0}")]
    Damaged(&'static str),
}

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A field of every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What the header says of the engine and its process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Number of the process.
    pub pid: u64,
    /// When it started, in ticks since the system was booted; 0 = not known.
    pub started: u64,
    /// The run of the system in which it did; zeros = not known.
    pub boot: [u64; 2],
    /// When the engine started: nanoseconds since 1970.
    pub wall_ns: u64,
    /// The same moment on the monotonic clock.
    pub monotonic_ns: u64,
    /// Version of the engine.
    pub engine: String,
    /// Number of shards.
    pub shards: usize,
    /// How often awake shards bring their figures up to date.
    pub interval: Duration,
}

/// How a shard, or the whole engine, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It has not begun yet.
    Starting,
    /// It works, or sleeps because there is nothing to do.
    Running,
    /// For so long it has not done what it had to, or its process is stopped.
    NotAnswering(Duration),
    /// The process is gone.
    Died,
    /// It has ended in good order.
    Ended,
    /// It has given up, or its handler has panicked; the reason, as far as it is known.
    Failed(String),
}

impl Health {
    /// The word of lines and objects.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::NotAnswering(_) => "not answering",
            Self::Died => "died",
            Self::Ended => "ended",
            Self::Failed(_) => "failed",
        }
    }

    /// Which of several counts for all of them.
    const fn weight(&self) -> u8 {
        match self {
            Self::Ended => 0,
            Self::Running => 1,
            Self::Starting => 2,
            Self::NotAnswering(_) => 3,
            Self::Failed(_) => 4,
            Self::Died => 5,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnswering(since) => write!(f, "not answering for {} s", since.as_secs()),
            Self::Failed(why) if !why.is_empty() => write!(f, "failed: {why}"),
            _ => f.write_str(self.name()),
        }
    }
}

/// The names in a file.
#[derive(Debug, Default)]
struct Names {
    fields: Vec<Field>,
    row: Vec<String>,
}

/// A stats file that is open for reading. A new engine that takes over the path makes a new file: open
/// it again.
#[derive(Debug)]
pub struct StatsFile {
    file: File,
    info: Info,
    names: Arc<Names>,
    rows: usize,
    blocks: u64,
    block: usize,
}

/// All of it at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was taken, on the monotonic clock.
    pub monotonic_ns: u64,
    /// How the engine is: of its shards the worst, unless all have ended.
    pub health: Health,
    /// Its shards, in order.
    pub shards: Vec<ShardSample>,
}

/// One shard at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardSample {
    /// Its number.
    pub shard: usize,
    /// How it is.
    pub health: Health,
    /// Its driver.
    pub driver: String,
    /// The application drives it, and it has no thread.
    pub driven: bool,
    /// It sleeps until something comes or is due.
    pub asleep: bool,
    /// When it last said that it is there, on the monotonic clock.
    pub heartbeat_ns: u64,
    /// The figures were being written whenever they were read: they may not belong together. A
    /// process that was stopped or died in the middle leaves them so.
    pub torn: bool,
    /// The value of every field; `waited_ns` with the sleep that the shard is in.
    pub values: Vec<u64>,
    /// Connections of it, in no particular order: at most 64, those that moved the most bytes between
    /// the last two walks. Which of those that moved equally much is not said.
    pub connections: Vec<ConnRow>,
    names: Arc<Names>,
}

impl ShardSample {
    /// The value of a field; `None` when the file does not have it.
    pub fn get(&self, name: &str) -> Option<u64> {
        let at = self.names.fields.iter().position(|f| f.name == name)?;
        self.values.get(at).copied()
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnRow {
    values: Vec<u64>,
    names: Arc<Names>,
}

impl ConnRow {
    /// The value of a field; `None` when the file does not have it.
    pub fn get(&self, name: &str) -> Option<u64> {
        let at = self.names.row.iter().position(|n| n == name)?;
        self.values.get(at).copied()
    }

    /// All fields with their values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.row.iter().map(String::as_str).zip(self.values.iter().copied())
    }

    /// Its handle as a number, the same as long as it lives; 0 when the file does not have it.
    pub fn id(&self) -> u64 {
        self.get("id").unwrap_or(0)
    }

    /// Where the peer is.
    pub fn remote(&self) -> Option<SocketAddr> {
        let bits =
            u128::from(self.get("address_high")?) << 64 | u128::from(self.get("address_low")?);
        let v6 = Ipv6Addr::from_bits(bits);
        let ip = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4);
        Some(SocketAddr::new(ip, self.get("port")? as u16))
    }

    /// The first half of what a peer's fingerprint begins with: 16 digits; empty = it showed none.
    pub fn peer(&self) -> String {
        match self.get("peer") {
            None | Some(0) => String::new(),
            Some(bits) => format!("{bits:016x}"),
        }
    }

    /// Its status, as [`Status`](crate::Status) has them.
    pub fn status(&self) -> &'static str {
        match self.get("status").map(u64::cast_signed) {
            Some(1) => "connecting",
            Some(2) => "finding route",
            Some(3) => "connected",
            Some(4) => "closed by peer",
            Some(5) => "broken",
            Some(-1) => "fin wait",
            Some(-2) => "linger",
            _ => "",
        }
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |part: &[u8]| part.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    bytes.chunks_exact(8).map(word).collect()
}

fn read_at(mut file: &File, at: u64, bytes: usize) -> io::Result<Vec<u64>> {
    let mut buffer = vec![0; bytes];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut buffer)?;
    Ok(words(&buffer))
}

impl StatsFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(ReadError::NotAStatsFile);
        }
        let cut = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::NotAStatsFile,
            _ => ReadError::Io(e),
        };
        let header = read_at(&file, 0, HEADER * 8).map_err(cut)?;
        if header[head::MAGIC] != MAGIC {
            return Err(ReadError::NotAStatsFile);
        }
        if header[head::VERSION] != VERSION {
            return Err(ReadError::Version(header[head::VERSION]));
        }
        Self::check(file, &header)
    }

    fn check(file: File, header: &[u64]) -> Result<Self, ReadError> {
        let bad = |ok: bool, what| if ok { Ok(()) } else { Err(ReadError::Damaged(what)) };
        let (fields, row, rows) =
            (header[head::FIELDS], header[head::ROW_FIELDS], header[head::ROWS]);
        bad(fields <= MAX_COUNT && row <= MAX_COUNT && rows <= MAX_COUNT, "number of fields")?;
        let (shards, block, blocks) =
            (header[head::SHARDS], header[head::BLOCK], header[head::BLOCKS]);
        let head_bytes = header[head::HEADER];
        bad((HEADER as u64 * 8..=MAX_PART).contains(&head_bytes), "length of the header")?;
        let least = (block::FIELDS as u64 + fields + row * rows) * 8;
        bad(block >= least && block <= MAX_PART && block % 8 == 0, "length of a block")?;
        bad((1..=crate::config::MAX_SHARDS as u64).contains(&shards), "number of shards")?;
        let names_bytes = header[head::NAMES_BYTES];
        bad(names_bytes <= MAX_PART, "length of the names")?;
        bad(blocks >= head_bytes + names_bytes && blocks <= 4 * MAX_PART, "place of the blocks")?;
        let len = file.metadata()?.len();
        bad(len >= blocks + shards * block, "it is cut off")?;
        let text = layout::text(&read_at(&file, head_bytes, names_bytes as usize)?);
        let mut names = Names::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.split_once(' ') {
                Some(("c", name)) => {
                    names.fields.push(Field { name: name.into(), kind: Kind::Counter });
                }
                Some(("g", name)) => {
                    names.fields.push(Field { name: name.into(), kind: Kind::Gauge });
                }
                Some(("r", name)) => names.row.push(name.into()),
                _ => return Err(ReadError::Damaged("names of the fields")),
            }
        }
        let told = (names.fields.len() as u64, names.row.len() as u64);
        bad(told == (fields, row), "names of the fields")?;
        let info = Info {
            pid: header[head::PID],
            started: header[head::STARTED],
            boot: [header[head::BOOT], header[head::BOOT + 1]],
            wall_ns: header[head::WALL],
            monotonic_ns: header[head::MONOTONIC],
            engine: layout::text(&header[head::ENGINE..][..4]),
            shards: shards as usize,
            interval: Duration::from_nanos(header[head::INTERVAL]),
        };
        let (rows, block) = (rows as usize, block as usize);
        Ok(Self { file, info, names: Arc::new(names), rows, blocks, block })
    }

    /// What the header says.
    pub const fn info(&self) -> &Info {
        &self.info
    }

    /// The fields of every shard, in the order of [`ShardSample::values`].
    pub fn fields(&self) -> &[Field] {
        &self.names.fields
    }

    /// Reads the figures of all shards.
    ///
    /// # Errors
    /// The system's; a file that was cut off meanwhile.
    pub fn read(&self) -> Result<Sample, ReadError> {
        let shards: Vec<(ShardSample, u64)> =
            (0..self.info.shards).map(|i| self.shard(i)).collect::<Result<_, _>>()?;
        // Afterwards, so that nothing in it is later.
        let now = monotonic_ns();
        let process = self.process();
        let shards: Vec<ShardSample> = shards
            .into_iter()
            .map(|(shard, asleep)| self.judge(shard, asleep, now, process))
            .collect();
        let worst = shards.iter().map(|s| &s.health).max_by_key(|h| h.weight());
        let health = worst.cloned().unwrap_or(Health::Died);
        Ok(Sample { monotonic_ns: now, health, shards })
    }

    /// Reads one shard's block; with it until when the shard sleeps.
    fn shard(&self, shard: usize) -> Result<(ShardSample, u64), ReadError> {
        let start = self.blocks + shard as u64 * self.block as u64;
        let word = |at: usize| read_at(&self.file, start + at as u64 * 8, 8).map(|w| w[0]);
        // Before the heartbeat, which a shard that wakes writes first.
        let asleep = word(block::ASLEEP)?;
        fence(Ordering::SeqCst);
        let mut tries = 0;
        let (words, torn) = loop {
            let before = word(block::SEQUENCE)?;
            fence(Ordering::SeqCst);
            let words = read_at(&self.file, start, self.block)?;
            fence(Ordering::SeqCst);
            let whole = before % 2 == 0 && word(block::SEQUENCE)? == before;
            tries += 1;
            if whole || tries == TRIES {
                break (words, !whole);
            }
            std::thread::yield_now();
        };
        // One that has woken meanwhile has counted its sleep itself.
        let asleep = if word(block::ASLEEP)? == asleep { asleep } else { 0 };
        let (fields, row) = (self.names.fields.len(), self.names.row.len());
        let values = words[block::FIELDS..][..fields].to_vec();
        let failure = layout::text(&words[block::FAILURE..][..block::FAILURE_WORDS]);
        let mut sample = ShardSample {
            shard,
            health: match words[block::STATE] {
                0 => Health::Starting,
                2 => Health::Ended,
                3 => Health::Failed(failure),
                _ => Health::Running,
            },
            driver: layout::text(&words[block::DRIVER..][..2]),
            driven: words[block::FLAGS] & DRIVEN != 0,
            asleep: asleep != 0,
            heartbeat_ns: words[block::HEARTBEAT],
            torn,
            values,
            connections: Vec::new(),
            names: self.names.clone(),
        };
        let filled = (sample.get("rows").unwrap_or(0) as usize).min(self.rows);
        let rows = words[block::FIELDS + fields..].chunks_exact(row.max(1)).take(filled);
        sample.connections =
            rows.map(|r| ConnRow { values: r.to_vec(), names: self.names.clone() }).collect();
        Ok((sample, asleep))
    }

    /// The process that wrote the file. `Err` = it is gone; `Ok(None)` = nobody tells.
    fn process(&self) -> Result<Option<process::Process>, ()> {
        let info = &self.info;
        if info.boot != [0, 0] && process::boot_id() != info.boot {
            return Err(());
        }
        match process::look(info.pid) {
            Some(found) if found.ended || (info.started != 0 && found.started != info.started) => {
                Err(())
            }
            Some(found) => Ok(Some(found)),
            None if process::is_told() => Err(()),
            None => Ok(None),
        }
    }

    fn judge(
        &self,
        mut shard: ShardSample,
        asleep: u64,
        now: u64,
        process: Result<Option<process::Process>, ()>,
    ) -> ShardSample {
        if !matches!(shard.health, Health::Starting | Health::Running) {
            return shard;
        }
        let late = |since: u64| Duration::from_nanos(now.saturating_sub(since));
        let Ok(process) = process else {
            shard.health = Health::Died;
            return shard;
        };
        let beat = late(shard.heartbeat_ns);
        if process.is_some_and(|p| p.stopped) {
            shard.health = Health::NotAnswering(beat);
        } else if shard.health == Health::Running {
            let overdue = if asleep == 0 { beat } else { late(asleep) };
            let limit = GRACE.max(self.info.interval.saturating_mul(4));
            if asleep != u64::MAX && overdue > limit {
                shard.health = Health::NotAnswering(overdue);
            }
        }
        let waited = self.names.fields.iter().position(|f| f.name == layout::WAITED_NAME);
        if let (Some(at), true) = (waited, asleep != 0) {
            let slept = now.min(asleep).saturating_sub(shard.heartbeat_ns);
            shard.values[at] = shard.values[at].saturating_add(slept);
        }
        shard
    }
}

#[cfg(unix)]
fn monotonic_ns() -> u64 {
    crate::sys::map::monotonic_ns()
}

/// Engines write no stats files here; those of elsewhere are read without telling who is late.
#[cfg(not(unix))]
fn monotonic_ns() -> u64 {
    0
}
