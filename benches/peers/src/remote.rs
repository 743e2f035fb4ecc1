//! A bulk measurement whose two sides are started separately: on two machines, or in two network
//! namespaces with a link between them that loses and delays.
//!
//! The server answers questions on TCP, at the port above its own: one connection for each
//! measurement, lines of JSON as on the standard streams of a side. So what counts is what the
//! server has delivered, by the server's clock.

use crate::counters::Sample;
use crate::run::{Process, WARM_UP};
use crate::side::{Ask, Role, Said};
use crate::workload::{Job, PATIENCE, TCP_CONGESTION, Workload};
use clap::Args;
use serde_json::json;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Shortest part of the measured time: the questions themselves need the link.
const SHORTEST: Duration = Duration::from_millis(50);

/// The command line of the client.
#[derive(Args)]
pub struct Drive {
    /// trunkline, quinn, tcp, …; the same as the server's.
    #[arg(long)]
    peer: String,
    /// Where the server listens.
    #[arg(long)]
    connect: SocketAddr,
    /// Measured seconds, after a warm-up.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = WARM_UP.as_secs_f64())]
    warm_up: f64,
    /// Also say what was delivered in each part of the measured time that is this long, in seconds.
    #[arg(long)]
    interval: Option<f64>,
    /// Congestion control of TCP sockets: cubic, bbr, reno, …
    #[arg(long, default_value = TCP_CONGESTION)]
    tcp_congestion: String,
    /// One JSON object instead of words.
    #[arg(long)]
    json: bool,
}

/// Where questions are answered.
fn control(server: SocketAddr) -> Result<SocketAddr, String> {
    let port = server.port().checked_add(1).ok_or("the port is too high")?;
    Ok(SocketAddr::new(server.ip(), port))
}

/// Serves one measurement after another, each with a process of its own.
///
/// # Errors
/// The port above is taken.
pub fn serve(peer: &str, listen: SocketAddr, tcp: String) -> Result<(), String> {
    let mut job = Job { tcp_congestion: tcp, ..Job::new(peer, Workload::Bulk) };
    job.listen = listen.to_string();
    let at = control(listen)?;
    let listener = TcpListener::bind(at).map_err(|e| format!("cannot listen at {at}: {e}"))?;
    println!("{}", json!({ "listening": listen.to_string(), "control": at.to_string() }));
    for stream in listener.incoming().flatten() {
        if let Err(why) = answer(&job, &stream) {
            eprintln!("peers: {why}");
            let _ = write_line(&stream, &Said::Failed(why));
        }
    }
    Ok(())
}

/// One measurement: ends when the client closes the connection.
fn answer(job: &Job, stream: &TcpStream) -> Result<(), String> {
    let mut server = Process::start(Role::Server, job, None)?;
    write_line(stream, &Said::Listening(server.address()?))?;
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| e.to_string())?;
        let ask: Ask = serde_json::from_str(&line).map_err(|e| e.to_string())?;
        write_line(stream, &Said::Sample(server.sample(ask)?))?;
    }
    Ok(())
}

fn write_line(mut stream: &TcpStream, value: &impl serde::Serialize) -> Result<(), String> {
    let line = serde_json::to_string(value).map_err(|e| e.to_string())? + "\n";
    stream.write_all(line.as_bytes()).map_err(|e| format!("the other side has gone: {e}"))
}

/// The client's end of the questions.
struct Questions {
    stream: BufReader<TcpStream>,
}

impl Questions {
    fn connect(server: SocketAddr) -> Result<Self, String> {
        let at = control(server)?;
        let failed = |e| format!("cannot reach {at}: {e}");
        let stream = TcpStream::connect_timeout(&at, PATIENCE).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut this = Self { stream: BufReader::new(stream) };
        match this.read()? {
            Said::Listening(_) => Ok(this),
            other => Err(format!("not a greeting: {other:?}")),
        }
    }

    fn read(&mut self) -> Result<Said, String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|e| format!("no answer: {e}"))?;
        match serde_json::from_str(&line).map_err(|e| format!("no answer: {e}"))? {
            Said::Failed(why) => Err(why),
            said => Ok(said),
        }
    }

    fn ask(&mut self, ask: Ask) -> Result<Sample, String> {
        write_line(self.stream.get_ref(), &ask)?;
        match self.read()? {
            Said::Sample(sample) => Ok(sample),
            other => Err(format!("not a sample: {other:?}")),
        }
    }
}

/// Seconds between two samples, by the clock of their process.
fn elapsed_s(from: &Sample, to: &Sample) -> f64 {
    to.at_ns.saturating_sub(from.at_ns) as f64 / 1e9
}

/// What was delivered between two samples.
fn delivered_mbps(from: &Sample, to: &Sample) -> f64 {
    to.bytes.saturating_sub(from.bytes) as f64 * 8.0 / elapsed_s(from, to).max(1e-9) / 1e6
}

/// Drives one measurement and prints what the server has delivered.
///
/// # Errors
/// No server, or either side failed.
pub fn drive(args: &Drive) -> Result<(), String> {
    let seconds = |s| Duration::try_from_secs_f64(s).map_err(|e| e.to_string());
    let mut job = Job::new(&args.peer, Workload::Bulk);
    job.listen = args.connect.to_string();
    job.tcp_congestion.clone_from(&args.tcp_congestion);
    let mut questions = Questions::connect(args.connect)?;
    let mut client = Process::start(Role::Client, &job, Some(args.connect))?;
    client.running()?;
    std::thread::sleep(seconds(args.warm_up)?);
    let (before, client_before) = (questions.ask(Ask::Mark)?, client.sample(Ask::Mark)?);
    let end = Instant::now() + seconds(args.seconds)?;
    let mut samples = vec![before];
    if let Some(interval) = args.interval {
        let interval = seconds(interval)?;
        if interval < SHORTEST {
            return Err(format!("--interval must be at least {} s", SHORTEST.as_secs_f64()));
        }
        let mut next = Instant::now() + interval;
        // What is left at the end belongs to the last part.
        while next + interval / 2 < end {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            samples.push(questions.ask(Ask::Sample)?);
            next += interval;
        }
    }
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    let (after, client_after) = (questions.ask(Ask::Sample)?, client.sample(Ask::Sample)?);
    if after.corrupt > 0 {
        return Err(format!("{} messages were not right", after.corrupt));
    }
    samples.push(after);
    let elapsed = elapsed_s(&before, &after);
    let mbps = delivered_mbps(&before, &after);
    let cores = |a: &Sample, b: &Sample| (b.cpu_ns - a.cpu_ns) as f64 / 1e9 / elapsed;
    if args.json {
        let mut object = json!({
            "peer": args.peer,
            "tcp_congestion": args.tcp_congestion,
            "seconds": elapsed,
            "bytes": after.bytes - before.bytes,
            "goodput_mbps": mbps,
            "server_cores": cores(&before, &after),
            "client_cores": cores(&client_before, &client_after),
        });
        if args.interval.is_some() {
            let part = |pair: &[Sample]| {
                json!({
                    "from": elapsed_s(&before, &pair[0]),
                    "to": elapsed_s(&before, &pair[1]),
                    "goodput_mbps": delivered_mbps(&pair[0], &pair[1]),
                })
            };
            object["intervals"] = samples.windows(2).map(part).collect();
        }
        println!("{object}");
    } else {
        println!("{}: {mbps:.2} Mb/s delivered in {elapsed:.2} s", args.peer);
    }
    Ok(())
}
