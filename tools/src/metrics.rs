//! Metrics in Prometheus' text format, and a health check, over plain HTTP/1.1: one request a
//! connection, each on a thread of its own, everything bounded. It is for an address that only the
//! operator reaches.

use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Longest request.
const MAX_REQUEST: usize = 4096;
/// How long a client may take for everything: to ask, to take the answer, and to close.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clients at once; others wait until one of them is done, or has used up its time.
const MAX_CLIENTS: usize = 64;
/// Until it is looked again whether one is.
const FULL: Duration = Duration::from_millis(5);
/// What is read of a request that is refused, so that the refusal arrives.
const MAX_REST: usize = 256 << 10;

/// What is served.
pub trait Source: Send + Sync + 'static {
    /// All metrics, as text.
    fn render(&self) -> String;
    /// Whether everything works.
    fn is_healthy(&self) -> bool;
}

/// Starts to serve; the address, with the port that the system chose.
pub fn serve(addr: SocketAddr, source: impl Source) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(addr)?;
    let local = listener.local_addr()?;
    let source = Arc::new(source);
    thread::Builder::new().name("metrics".into()).spawn(move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.and_then(|stream| take(stream, &source)) {
                // No descriptor or no thread left, most likely.
                tracing::warn!(%error, "metrics");
                thread::sleep(Duration::from_millis(100));
            }
        }
    })?;
    Ok(local)
}

/// Has a client answered beside the others: one that says nothing keeps nobody waiting.
fn take(stream: TcpStream, source: &Arc<impl Source>) -> io::Result<()> {
    // Besides the clients there is the one that accepts them.
    while Arc::strong_count(source) > MAX_CLIENTS {
        thread::sleep(FULL);
    }
    let source = source.clone();
    let serve = move || {
        if let Err(error) = answer(stream, &*source) {
            tracing::debug!(%error, "metrics");
        }
    };
    thread::Builder::new().name("metrics".into()).spawn(serve)?;
    Ok(())
}

fn answer(stream: TcpStream, source: &impl Source) -> io::Result<()> {
    let mut client = Client { stream, deadline: Instant::now() + PATIENCE };
    let Some(request) = client.request()? else {
        // So little that it goes out, or never will, without anybody waiting for it.
        client.stream.set_nonblocking(true)?;
        let late = response(true, "408 Request Timeout", "text/plain", "too slow\n");
        return client.stream.write_all(late.as_bytes());
    };
    let (status, kind, body) = match route(&request) {
        Route::Metrics => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", source.render()),
        Route::Health if source.is_healthy() => ("200 OK", "text/plain", "ok\n".to_owned()),
        Route::Health => ("503 Service Unavailable", "text/plain", "a shard is down\n".to_owned()),
        Route::Unknown => ("404 Not Found", "text/plain", "/metrics or /healthz\n".to_owned()),
        Route::Method => ("405 Method Not Allowed", "text/plain", "GET or HEAD\n".to_owned()),
        Route::Malformed => ("400 Bad Request", "text/plain", "not HTTP/1.1\n".to_owned()),
    };
    let whole = !request.starts_with(b"HEAD ");
    client.write(response(whole, status, kind, &body).as_bytes())?;
    // Closing with bytes that nobody has read would take the answer back.
    client.stream.shutdown(Shutdown::Write)?;
    client.drain()
}

fn response(whole: bool, status: &str, kind: &str, body: &str) -> String {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    if whole { head + body } else { head }
}

/// One who asks, and until when everything has to be done: the timeouts of a socket begin anew with
/// each call, and would give one who moves a byte now and then all the time in the world.
struct Client {
    stream: TcpStream,
    deadline: Instant,
}

impl Client {
    /// What is left of its time; an error when it is up.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn read(&mut self, part: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(part) {
                Err(e) if is_late(&e) => {}
                done => return done,
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(e) if is_late(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Everything up to the empty line, within the bounds of length; `None` when it has not come in
    /// time.
    fn request(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut request = Vec::new();
        let mut part = [0; 1024];
        loop {
            let n = match self.read(&mut part) {
                Ok(n) => n,
                Err(e) if is_late(&e) => return Ok(None),
                Err(e) => return Err(e),
            };
            request.extend_from_slice(&part[..n]);
            let whole = request.windows(4).any(|w| w == b"\r\n\r\n");
            if whole || n == 0 || request.len() >= MAX_REQUEST {
                return Ok(Some(request));
            }
        }
    }

    /// Reads until the client closes, within the bounds of length and time.
    fn drain(&mut self) -> io::Result<()> {
        let mut rest = 0;
        let mut part = [0; 4096];
        while rest < MAX_REST {
            match self.read(&mut part)? {
                0 => break,
                n => rest += n,
            }
        }
        Ok(())
    }
}

/// Nothing came in time.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Metrics,
    Health,
    Unknown,
    Method,
    Malformed,
}

fn route(request: &[u8]) -> Route {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let line = core::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Route::Malformed;
    };
    if !version.starts_with("HTTP/1.") || request.len() >= MAX_REQUEST {
        return Route::Malformed;
    }
    if !matches!(method, "GET" | "HEAD") {
        return Route::Method;
    }
    match target.split('?').next() {
        Some("/metrics") => Route::Metrics,
        Some("/healthz") => Route::Health,
        _ => Route::Unknown,
    }
}

/// A page of metrics, all names with one prefix.
pub struct Page {
    pub text: String,
    prefix: &'static str,
    last: String,
}

impl Page {
    pub const fn new(prefix: &'static str) -> Self {
        Self { text: String::new(), prefix, last: String::new() }
    }

    /// One value of a metric; those of one name follow each other.
    pub fn value(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        let prefix = self.prefix;
        if self.last != name {
            let _ =
                write!(self.text, "# HELP {prefix}_{name} {help}\n# TYPE {prefix}_{name} {kind}\n");
            name.clone_into(&mut self.last);
        }
        let _ = write!(self.text, "{prefix}_{name}");
        for (at, (key, label)) in labels.iter().enumerate() {
            let label = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{key}=\"{label}\"", if at == 0 { "{" } else { "," });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.value(name, "gauge", help, &[], value);
    }

    /// One of a counter's values.
    pub fn counter(&mut self, name: &str, label: Option<(&str, &str)>, value: u64) {
        let help = format!("Count of {}.", name.replace('_', " "));
        self.value(&format!("{name}_total"), "counter", &help, label.as_slice(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the buffers of a connection hold.
    struct Large;

    impl Source for Large {
        fn render(&self) -> String {
            "x".repeat(16 << 20)
        }

        fn is_healthy(&self) -> bool {
            true
        }
    }

    const ASKS: &[u8] = b"GET /metrics HTTP/1.1\r\n\r\n";

    fn ask(addr: SocketAddr, request: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(request).unwrap();
        client
    }

    /// Whoever takes an answer, or ends a request, byte by byte does not have more time for it.
    #[test]
    fn no_client_takes_longer_than_the_patience() {
        type Case = (&'static [u8], fn(TcpStream));
        let bit_by_bit = |mut client: TcpStream| {
            let mut part = vec![0; 64 << 10];
            for _ in 0..50 {
                let _ = client.read(&mut part);
                thread::sleep(Duration::from_millis(100));
            }
        };
        let talks = |mut client: TcpStream| {
            while client.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        };
        let asks_late = |mut client: TcpStream| {
            thread::sleep(PATIENCE * 3 / 4);
            client.write_all(ASKS).unwrap();
            thread::sleep(PATIENCE * 2);
        };
        let cases: [Case; 5] = [
            (ASKS, |_client| thread::sleep(PATIENCE * 3)),
            (ASKS, bit_by_bit),
            (b"GET /healthz HTTP/1.1\r\n\r\n", talks),
            (b"", talks),
            (b"", asks_late),
        ];
        thread::scope(|scope| {
            for (at, (request, then)) in cases.into_iter().enumerate() {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let addr = listener.local_addr().unwrap();
                scope.spawn(move || then(ask(addr, request)));
                scope.spawn(move || {
                    let (stream, _) = listener.accept().unwrap();
                    let start = Instant::now();
                    let _ = answer(stream, &Large);
                    let took = start.elapsed();
                    assert!(took < PATIENCE * 3 / 2, "{at}: {took:?}");
                });
            }
        });
    }

    #[cfg(unix)]
    #[test]
    fn whoever_does_not_read_keeps_nobody_waiting() {
        use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
        let addr = serve("127.0.0.1:0".parse().unwrap(), Large).unwrap();
        let slow = || {
            let mut client = TcpStream::connect(addr).unwrap();
            setsockopt(&client, RcvBuf, &2048).unwrap();
            client.write_all(ASKS).unwrap();
            client
        };
        let healthy = || {
            let start = Instant::now();
            let mut text = String::new();
            let mut client = ask(addr, b"GET /healthz HTTP/1.1\r\n\r\n");
            client.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
            start.elapsed()
        };
        let mut clients: Vec<TcpStream> = (0..16).map(|_| slow()).collect();
        let took = healthy();
        assert!(took < PATIENCE / 2, "{took:?}");
        // All places taken: the time of the first is soon up.
        clients.extend((clients.len()..MAX_CLIENTS).map(|_| TcpStream::connect(addr).unwrap()));
        let took = healthy();
        assert!(took < PATIENCE * 2, "{took:?}");
    }

    #[test]
    fn requests() {
        let cases: [(&[u8], Route); 9] = [
            (b"GET /metrics HTTP/1.1\r\n\r\n", Route::Metrics),
            (b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n", Route::Metrics),
            (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", Route::Health),
            (b"GET / HTTP/1.1\r\n\r\n", Route::Unknown),
            (b"POST /metrics HTTP/1.1\r\n\r\n", Route::Method),
            (b"GET /metrics\r\n\r\n", Route::Malformed),
            (b"GET /metrics SPDY/3\r\n\r\n", Route::Malformed),
            (b"", Route::Malformed),
            (b"\xff\xff\xff", Route::Malformed),
        ];
        for (request, expected) in cases {
            assert_eq!(route(request), expected, "{}", request.escape_ascii());
        }
        assert_eq!(route(&[b'a'; MAX_REQUEST]), Route::Malformed);
    }

    #[test]
    fn a_page_says_each_name_once() {
        let mut page = Page::new("trunkline_event_source");
        page.gauge("clients", "Clients.", 3);
        page.counter("events_received", Some(("type", "ping")), 5);
        page.counter("events_received", Some(("type", "reject")), 0);
        page.counter("bytes_sent", None, 9);
        assert_eq!(page.text.matches("# TYPE").count(), 3);
        let line = "trunkline_event_source_events_received_total{type=\"ping\"} 5\n";
        assert!(page.text.contains(line), "{}", page.text);
        assert!(page.text.ends_with("trunkline_event_source_bytes_sent_total 9\n"));
    }
}
