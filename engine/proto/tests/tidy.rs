//! Rules of style that the compiler does not check, for every crate of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, without its tests.
const MAX_LINES: usize = 620;
/// Lines of a function.
const MAX_FUNCTION: usize = 110;

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["engine", "bindings-c", "tools", "benches"].iter().map(|f| root.join(f)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "the source tree is not where it should be");
    found
}

fn is_test(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests") || path.ends_with("tests.rs")
}

fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

#[test]
fn files_fit_in_the_head() {
    let mut long = Vec::new();
    for path in sources().into_iter().filter(|p| !is_test(p)) {
        let text = fs::read_to_string(&path).unwrap();
        let lines = without_tests(&text).lines().count();
        if lines > MAX_LINES {
            long.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(long.is_empty(), "longer than {MAX_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn functions_fit_on_a_screen() {
    let mut long = Vec::new();
    for path in sources().into_iter().filter(|p| !is_test(p)) {
        let text = fs::read_to_string(&path).unwrap();
        let mut start: Option<(usize, usize, String)> = None;
        for (number, line) in without_tests(&text).lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let is_fn = [
                "fn ",
                "pub fn ",
                "pub(crate) fn ",
                "pub(super) fn ",
                "const fn ",
                "pub const fn ",
            ]
            .iter()
            .any(|p| code.starts_with(p));
            if is_fn && start.is_none() {
                start = Some((number, indent, code.to_owned()));
            } else if let Some((first, depth, name)) = &start
                && indent == *depth
                && (code == "}" || code.ends_with(';'))
            {
                if number - first > MAX_FUNCTION {
                    long.push(format!(
                        "{}:{}: {} lines: {name}",
                        path.display(),
                        first + 1,
                        number - first
                    ));
                }
                start = None;
            }
        }
    }
    assert!(long.is_empty(), "longer than {MAX_FUNCTION} lines:\n{}", long.join("\n"));
}

#[test]
fn modules_say_what_they_are_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|p| !is_test(p))
        .filter(|p| !fs::read_to_string(p).unwrap().trim_start().starts_with("//!"))
        .map(|p| p.display().to_string())
        .collect();
    assert!(silent.is_empty(), "no module documentation:\n{}", silent.join("\n"));
}

#[test]
fn the_protocol_reads_no_clock_and_opens_no_socket() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let banned = [
        "std::time::",
        "SystemTime",
        "UdpSocket",
        "TcpStream",
        "std::thread",
        "thread_rng",
        "unsafe {",
    ];
    for path in sources().into_iter().filter(|p| p.starts_with(&root) && !is_test(p)) {
        let text = fs::read_to_string(&path).unwrap();
        for word in banned {
            assert!(!without_tests(&text).contains(word), "{} has {word}", path.display());
        }
    }
}
