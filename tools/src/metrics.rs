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
/// How long a client may take to ask, and to take the answer.
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

fn answer(mut stream: TcpStream, source: &impl Source) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let Some(request) = read_request(&mut stream)? else {
        return respond(&mut stream, true, "408 Request Timeout", "text/plain", "too slow\n");
    };
    let (status, kind, body) = match route(&request) {
        Route::Metrics => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", source.render()),
        Route::Health if source.is_healthy() => ("200 OK", "text/plain", "ok\n".to_owned()),
        Route::Health => ("503 Service Unavailable", "text/plain", "a shard is down\n".to_owned()),
        Route::Unknown => ("404 Not Found", "text/plain", "/metrics or /healthz\n".to_owned()),
        Route::Method => ("405 Method Not Allowed", "text/plain", "GET or HEAD\n".to_owned()),
        Route::Malformed => ("400 Bad Request", "text/plain", "not HTTP/1.1\n".to_owned()),
    };
    respond(&mut stream, !request.starts_with(b"HEAD "), status, kind, &body)?;
    // Closing with bytes that nobody has read would take the answer back.
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + PATIENCE;
    let mut rest = 0;
    let mut part = [0; 4096];
    while rest < MAX_REST && Instant::now() < deadline {
        stream.set_read_timeout(Some(PATIENCE))?;
        match stream.read(&mut part) {
            Ok(n @ 1..) => rest += n,
            _ => break,
        }
    }
    Ok(())
}

fn respond(
    stream: &mut TcpStream,
    whole: bool,
    status: &str,
    kind: &str,
    body: &str,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    let body = if whole { body } else { "" };
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())
}

/// Everything up to the empty line, within the bounds of length; `None` when it has not come in time.
fn read_request(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        let n = match stream.read(&mut part) {
            Ok(n) => n,
            Err(e) if is_late(&e) => continue,
            Err(e) => return Err(e),
        };
        request.extend_from_slice(&part[..n]);
        let whole = request.windows(4).any(|w| w == b"\r\n\r\n");
        if whole || n == 0 || request.len() >= MAX_REQUEST {
            return Ok(Some(request));
        }
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
