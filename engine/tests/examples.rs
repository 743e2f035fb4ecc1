//! The examples run and do what they say.

use std::path::PathBuf;
use std::process::Command;

/// `cargo test` builds the examples beside the tests; a single test is run without that.
fn example(name: &str) -> Command {
    let mut built: PathBuf = std::env::current_exe().unwrap();
    built.pop();
    built.pop();
    built.push("examples");
    built.push(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if built.exists() {
        return Command::new(built);
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--quiet", "--package", "trunkline", "--example", name]);
    cargo
}

#[test]
fn echo() {
    let output = example("echo").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("back: hello\n"), "{text}");
}
