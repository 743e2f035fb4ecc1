//! One of the two processes of a measurement: it runs one side of a peer and answers questions
//! on its standard streams, one line each.

use crate::counters::{Counters, Sample};
use crate::peer::{self, Peer};
use crate::workload::Job;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Listens, receives, checks, counts.
    Server,
    /// Connects and sends.
    Client,
}

impl Role {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    /// The processor of this side, of those that may be used.
    pub const fn processor(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }
}

/// What a side is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// What was counted?
    Sample,
    /// The same; delays are counted from now on.
    Mark,
    /// Send no more.
    Quiet,
}

/// What a side says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// The server listens.
    Listening(SocketAddr),
    /// The client's connections stand and the load runs.
    Running,
    /// The answer to [`Ask::Sample`] and [`Ask::Mark`].
    Sample(Sample),
    /// It cannot go on.
    Failed(String),
}

/// What a peer's code needs of the process it runs in.
#[derive(Clone)]
pub struct Side {
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Of further threads.
    others: Arc<Mutex<Vec<Arc<Counters>>>>,
}

impl Default for Side {
    fn default() -> Self {
        Self::new()
    }
}

impl Side {
    /// With nothing counted.
    pub fn new() -> Self {
        Self { counters: Arc::new(Counters::new()), others: Arc::default() }
    }

    /// Counters for one thread of several: each has one writer.
    pub fn another(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::new());
        self.others().push(Arc::clone(&counters));
        counters
    }

    fn others(&self) -> MutexGuard<'_, Vec<Arc<Counters>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all threads counted; `reset`: delays are counted from now on.
    fn sample(&self, reset: bool) -> Sample {
        self.counters.sample(&self.others(), reset)
    }

    fn be_quiet(&self) {
        self.counters.be_quiet();
        self.others().iter().for_each(|counters| counters.be_quiet());
    }

    /// The server listens here.
    pub fn listening(&self, address: SocketAddr) {
        say(&Said::Listening(address));
    }

    /// The client's load runs.
    pub fn running(&self) {
        say(&Said::Running);
    }

    /// Ends the process: a thread or callback of the peer cannot go on.
    pub fn fail(&self, why: &str) -> ! {
        say(&Said::Failed(why.to_owned()));
        std::process::exit(1)
    }
}

fn say(said: &Said) {
    let line = serde_json::to_string(said).unwrap_or_default();
    let mut out = io::stdout().lock();
    // Nobody listens any more when this fails, and the end of standard input says so too.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Pins the calling thread, and with it every thread that it starts.
pub fn pin(role: Role) {
    let mut cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.sort_unstable_by_key(|core| core.id);
    if let Some(core) = cores.get(role.processor()).or(cores.last()) {
        core_affinity::set_for_current(*core);
    }
}

/// Runs a side until standard input ends.
pub fn run(role: Role, job: &Job, connect: Option<SocketAddr>) -> ! {
    // Several shards pin themselves.
    if job.point.as_ref().is_none_or(|point| point.shards == 1) {
        pin(role);
    }
    let side = Side::new();
    let Some(peer) = peer::find(&job.peer) else {
        side.fail(&format!("there is no peer {:?}", job.peer));
    };
    let answering = side.clone();
    std::thread::spawn(move || answer(&answering));
    if let Err(e) = start(role, peer, job, connect, &side) {
        side.fail(&format!("{} {}: {e}", job.peer, role.name()));
    }
    loop {
        std::thread::park();
    }
}

fn start(
    role: Role,
    peer: &dyn Peer,
    job: &Job,
    connect: Option<SocketAddr>,
    side: &Side,
) -> peer::Outcome {
    match (role, connect) {
        (Role::Server, _) => peer.serve(job, side),
        (Role::Client, Some(server)) => peer.drive(job, server, side),
        (Role::Client, None) => Err("a client needs an address".into()),
    }
}

fn answer(side: &Side) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Ask::Sample) => say(&Said::Sample(side.sample(false))),
            Ok(Ask::Mark) => say(&Said::Sample(side.sample(true))),
            Ok(Ask::Quiet) => side.be_quiet(),
            Err(e) => side.fail(&format!("not a question: {line}: {e}")),
        }
    }
    std::process::exit(0);
}
