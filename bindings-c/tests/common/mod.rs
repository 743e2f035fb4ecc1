//! Builds the library, the tool and C programs, and runs them.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod header;
pub mod suite;
pub mod table;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a program may take before it counts as stuck.
pub const LIMIT: Duration = Duration::from_secs(120);
/// The same under something that makes it slow.
pub const SLOW_LIMIT: Duration = Duration::from_secs(400);

/// The folder of this crate.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program without what cargo told this test about its own package: it would make build scripts
/// run again.
pub fn without_cargo(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let about = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"];
        if name.to_str().is_some_and(|name| about.iter().any(|start| name.starts_with(start))) {
            command.env_remove(name);
        }
    }
    command
}

/// Cargo, in the folder of this crate.
pub fn cargo() -> Command {
    let mut command =
        without_cargo(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    command.current_dir(root());
    command
}

/// Where this test was built: target/PROFILE.
fn profile_folder() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a path");
    // target/PROFILE/deps/test-HASH, or target/TRIPLE/PROFILE/deps/test-HASH
    exe.ancestors().nth(2).expect("target/PROFILE").to_owned()
}

/// The folder that cargo builds in.
pub fn target() -> PathBuf {
    let profile = profile_folder();
    let target = profile.parent().expect("target");
    match std::env::var_os("CARGO_BUILD_TARGET") {
        Some(triple) if target.ends_with(&triple) => target.parent().expect("target"),
        _ => target,
    }
    .to_owned()
}

/// The folder with libtrunkline and the tool, both freshly built as this test was.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = profile_folder();
        let profile = match dir.file_name().and_then(OsStr::to_str) {
            Some("debug") => "dev",
            Some(other) => other,
            None => panic!("no profile in {}", dir.display()),
        };
        // What a test of the whole workspace has built is built with the features that all its
        // packages together ask of others; asking for two of them only would build all anew. Who
        // runs it says so.
        let packages = std::env::var("TRUNKLINE_TESTS_PACKAGES");
        let packages = packages.as_deref().unwrap_or("-p trunkline-c -p trunkline-tools");
        let status = cargo()
            .args(["build", "--quiet"])
            .args(packages.split_ascii_whitespace())
            .args(["--profile", profile, "--target-dir"])
            .arg(target())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the library and the tool do not build");
        dir
    })
}

/// The command-line tool.
pub fn tool() -> PathBuf {
    built().join(format!("trunkline{}", std::env::consts::EXE_SUFFIX))
}

/// Names of functions in the header that are not initialisers defined there.
pub fn declared() -> BTreeSet<String> {
    header::Header::read().functions.into_iter().map(|function| function.name).collect()
}

/// Names of the functions that the shared library exports.
pub fn exported() -> BTreeSet<String> {
    let library = built().join("libtrunkline.so");
    let output = Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(&library)
        .output()
        .expect("nm, which comes with the C compiler");
    let text = succeeded(&output);
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// How a C program gets the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Shared,
    Static,
}

/// What a static library made by rustc needs besides itself.
const NATIVE: [&str; 3] = ["-lpthread", "-ldl", "-lm"];

/// Compiles a C program of this crate with all warnings as errors.
pub fn compile(source: &str, link: Link) -> PathBuf {
    compile_with(&cc(), &[], source, link)
}

/// The C compiler.
pub fn cc() -> OsString {
    std::env::var_os("CC").unwrap_or_else(|| "cc".into())
}

/// The same with a certain compiler and more options.
pub fn compile_with(cc: &OsStr, options: &[&str], source: &str, link: Link) -> PathBuf {
    build(cc, &[&["-std=c99"], options].concat(), source, link)
}

/// Compiles a C++ program of this crate with all warnings as errors.
pub fn compile_cpp(options: &[&str], source: &str, link: Link) -> PathBuf {
    let cxx = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    compile_cpp_with(&cxx, options, source, link)
}

/// The same with a certain compiler.
pub fn compile_cpp_with(cxx: &OsStr, options: &[&str], source: &str, link: Link) -> PathBuf {
    build(cxx, &[&["-Wconversion", "-Wshadow"], options].concat(), source, link)
}

fn build(compiler: &OsStr, options: &[&str], source: &str, link: Link) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let stem = Path::new(source).file_stem().and_then(OsStr::to_str).expect("a file name");
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let exe = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{stem}-{}-{number}", std::process::id()));
    let dir = built();
    let mut command = Command::new(compiler);
    command
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"])
        .arg("-I")
        .arg(root().join("include"))
        .arg("-I")
        .arg(table::folder())
        .arg(root().join(source))
        .args(options) // behind the source, which libraries among them are for
        .arg("-o")
        .arg(&exe);
    match link {
        Link::Shared => {
            command.arg("-L").arg(dir).arg("-ltrunkline");
            command.arg(format!("-Wl,-rpath,{}", dir.display())).arg("-lpthread");
        }
        Link::Static => {
            command.arg(dir.join("libtrunkline.a")).args(NATIVE);
        }
    }
    let output =
        command.output().expect("a C or C++ compiler: cc or c++, or what $CC or $CXX names");
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    exe
}

/// A program on its way; killed when dropped.
pub struct Running {
    child: Child,
    deadline: Instant,
}

impl Running {
    /// Starts a program with its output kept for [`finish`](Self::finish).
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Self { child, deadline: Instant::now() + LIMIT }
    }

    /// With another limit.
    pub fn within(mut self, limit: Duration) -> Self {
        self.deadline = Instant::now() + limit;
        self
    }

    /// The first line that it prints.
    pub fn first_line(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().expect("piped");
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).expect("readable") == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        assert!(!line.is_empty(), "the program prints nothing: {}", self.complaint());
        String::from_utf8(line).expect("a text")
    }

    fn complaint(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        let _ = self.child.stderr.take().map(|mut e| e.read_to_string(&mut text));
        text
    }

    /// Waits for its end.
    pub fn finish(self) -> Output {
        let (output, stuck) = self.finish_or_kill();
        assert!(!stuck, "stuck; it said: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The same, and whether it was killed because it did not end in time.
    pub fn finish_or_kill(mut self) -> (Output, bool) {
        let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let _ = stream.map(|mut s| s.read_to_end(&mut bytes));
                bytes
            })
        };
        let stdout = read(self.child.stdout.take().map(|s| Box::new(s) as _));
        let stderr = read(self.child.stderr.take().map(|s| Box::new(s) as _));
        let mut stuck = false;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            if Instant::now() > self.deadline && !stuck {
                stuck = true;
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let (stdout, stderr) = (stdout.join().expect("read"), stderr.join().expect("read"));
        (Output { status, stdout, stderr }, stuck)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program that prints its address and fingerprint.
pub fn serve(command: &mut Command) -> (Running, String, String) {
    let mut running = Running::start(command);
    let line = running.first_line();
    let (address, fingerprint) = line.split_once(' ').expect("address and fingerprint");
    (running, address.to_owned(), fingerprint.to_owned())
}

/// The text of a field of a JSON object.
pub fn field<'a>(object: &'a str, name: &str) -> &'a str {
    let start = object.find(&format!("\"{name}\":\"")).expect(name) + name.len() + 4;
    object[start..].split('"').next().expect("a value")
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    Running::start(command).finish()
}

/// Panics with what a program said unless it ended well; its output otherwise.
pub fn succeeded(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A folder of its own, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("folder-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a writable target folder");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
