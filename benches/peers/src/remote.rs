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
use std::time::Duration;

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

/// Drives one measurement and prints what the server has delivered.
///
/// # Errors
/// No server, or either side failed.
pub fn drive(args: &Drive) -> Result<(), String> {
    let seconds = |s| Duration::try_from_secs_f64(s).map_err(|e| e.to_string());
    let mut job = Job::new(&args.peer, Workload::Bulk);
    job.tcp_congestion.clone_from(&args.tcp_congestion);
    let mut questions = Questions::connect(args.connect)?;
    let mut client = Process::start(Role::Client, &job, Some(args.connect))?;
    client.running()?;
    std::thread::sleep(seconds(args.warm_up)?);
    let (before, client_before) = (questions.ask(Ask::Mark)?, client.sample(Ask::Mark)?);
    std::thread::sleep(seconds(args.seconds)?);
    let (after, client_after) = (questions.ask(Ask::Sample)?, client.sample(Ask::Sample)?);
    if after.corrupt > 0 {
        return Err(format!("{} messages were not right", after.corrupt));
    }
    let elapsed = after.at_ns.saturating_sub(before.at_ns).max(1) as f64 / 1e9;
    let bytes = after.bytes - before.bytes;
    let mbps = bytes as f64 * 8.0 / elapsed / 1e6;
    let cores = |a: &Sample, b: &Sample| (b.cpu_ns - a.cpu_ns) as f64 / 1e9 / elapsed;
    if args.json {
        let object = json!({
            "peer": args.peer,
            "tcp_congestion": args.tcp_congestion,
            "seconds": elapsed,
            "bytes": bytes,
            "goodput_mbps": mbps,
            "server_cores": cores(&before, &after),
            "client_cores": cores(&client_before, &client_after),
        });
        println!("{object}");
    } else {
        println!("{}: {mbps:.2} Mb/s delivered in {elapsed:.2} s", args.peer);
    }
    Ok(())
}
