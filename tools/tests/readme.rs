//! The README keeps its promises. (Its Rust example is a documentation test of `trunkline`.)

mod common;

use common::{Home, PATIENCE, run, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn include() -> PathBuf {
    root().join("bindings-c/include")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// Code blocks of one language.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let fence = format!("```{language}\n");
    let mut parts = text.split(&fence);
    parts.next();
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_first_two_commands() {
    let first = &blocks("sh")[0];
    let commands: Vec<&str> =
        first.lines().map(|line| line.split('#').next().unwrap().trim()).collect();
    assert_eq!(
        commands,
        ["cargo run --release --bin trunkline -- bench", "cargo test --workspace"]
    );
}

/// Every file that is named exists.
#[test]
fn files_that_are_named_exist() {
    let documents = ["README.md", "CONTRIBUTING.md", "docs/file-transfer.md", "docs/bench-json.md"];
    for document in documents {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for word in text.split('`').skip(1).step_by(2) {
            let is_path = ["docs/", "engine/", "tools/", "bindings-c/", "benches/"]
                .iter()
                .any(|start| word.starts_with(start));
            // A tree without the C library has none of its files.
            let absent = word.starts_with("bindings-c/") && !include().exists();
            if is_path && !absent && !word.contains([' ', '*']) {
                assert!(root().join(word).exists(), "{document} names {word}");
            }
        }
    }
}

/// Every `trunkline …` command line that is shown is one that the tool understands.
#[test]
fn commands_that_are_shown_exist() {
    let home = Home::new();
    for block in blocks("sh") {
        for line in block.lines().filter(|line| line.starts_with("trunkline ")) {
            let sub = line.split(' ').nth(1).unwrap();
            let help = text(&run(home.trunkline().args([sub, "--help"]), PATIENCE).stdout);
            let code = line.split('#').next().unwrap();
            for option in code.split(' ').filter(|word| word.starts_with("--")) {
                assert!(help.contains(option), "{line}: {option}");
            }
        }
    }
}

/// The C example compiles against the header, with the strictest warnings.
#[test]
fn the_c_example_compiles() {
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if Command::new(&cc).arg("--version").output().is_err() {
        eprintln!("skipped: no C compiler");
        return;
    }
    if !include().exists() {
        eprintln!("skipped: no C library in this tree");
        return;
    }
    let home = Home::new();
    for (n, block) in blocks("c").iter().enumerate() {
        let source = home.file(&format!("example-{n}.c"), block.as_bytes());
        let mut command = Command::new(&cc);
        command
            .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"])
            .arg(include())
            .arg(source);
        let output = run(&mut command, PATIENCE);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}
