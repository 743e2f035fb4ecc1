//! Runs `peer.py` and reads what it prints.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use trunkline::Identity;

/// Set where the tests must not be skipped.
const REQUIRED: &str = "TRUNKLINE_INTEROP_REQUIRED";

/// A Python with what the peer needs.
fn python() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&'static str>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        ["python3", "/usr/bin/python3", "python"].into_iter().find(|python| {
            let mut command = Command::new(python);
            command.args(["-c", "import msgpack, ssl, sys; sys.exit(not ssl.HAS_TLSv1_3)"]);
            command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        })
    })
}

/// Whether there is a Python with the msgpack package; without it says so, past the test harness.
///
/// # Panics
/// Where the environment says that these tests must not be skipped.
pub fn is_possible() -> bool {
    if python().is_some() {
        return true;
    }
    let why = "no python3 with the package msgpack (python3-msgpack, or pip install msgpack)";
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, but there is {why}");
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: interoperation tests: {why}\n");
    false
}

/// A certificate and its key in files that are there as long as this is.
pub struct Certificate {
    dir: PathBuf,
    cert: String,
    key: String,
}

impl Certificate {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("trunkline-interop-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let params = rcgen::CertificateParams::new(vec!["trunkline".into()]).unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        std::fs::write(dir.join("cert.pem"), &cert).unwrap();
        std::fs::write(dir.join("key.pem"), &key).unwrap();
        Self { dir, cert, key }
    }

    pub fn identity(&self) -> Identity {
        Identity::from_pem(self.cert.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The running script; it ends with this.
pub struct Peer {
    child: Child,
    out: RefCell<BufReader<ChildStdout>>,
}

impl Peer {
    /// Connects to a port of ours.
    pub fn client(port: u16, certificate: &Certificate, alpn: &str, scenario: &[&str]) -> Self {
        Self::run(&["client", &port.to_string(), &certificate.path("cert.pem"), alpn], scenario)
    }

    /// Listens for us.
    pub fn server(certificate: &Certificate, alpn: &str, scenario: &[&str]) -> Self {
        let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
        Self::run(&["server", &cert, &key, alpn], scenario)
    }

    fn run(who: &[&str], scenario: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/peer.py");
        let mut child = Command::new(python().expect("a Python"))
            .arg("-B")
            .arg(script)
            .args(who)
            .args(scenario)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = RefCell::new(BufReader::new(child.stdout.take().unwrap()));
        Self { child, out }
    }

    /// Where a server listens.
    pub fn port(&self) -> u16 {
        self.line().strip_prefix("port ").expect("a port").parse().unwrap()
    }

    /// The next line that it prints.
    pub fn line(&self) -> String {
        let mut line = String::new();
        self.out.borrow_mut().read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the peer is gone: {line:?}");
        line.trim_end_matches('\n').to_owned()
    }

    /// All that are to come.
    pub fn lines(&self) -> Vec<String> {
        let mut out = self.out.borrow_mut();
        std::iter::from_fn(|| {
            let mut line = String::new();
            let n = out.read_line(&mut line).unwrap();
            (n > 0).then(|| line.trim_end_matches('\n').to_owned())
        })
        .collect()
    }

    /// All up to the one that tells of the end.
    pub fn lines_until_end(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.starts_with("end")) {
            lines.push(self.line());
        }
        lines
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
