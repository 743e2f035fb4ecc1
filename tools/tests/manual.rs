//! Completions and manual pages of the built binary.

mod common;

use common::{Home, PATIENCE, run, text};
use std::process::Command;

#[test]
fn every_shell_has_its_completions() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(home.trunkline().args(["completions", shell]), PATIENCE);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let script = text(&output.stdout);
        for word in ["bench", "event-source", "find-max"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
    let output = run(home.trunkline().args(["completions", "csh"]), PATIENCE);
    assert_eq!(output.status.code(), Some(2));
    // A shell that is here takes it and completes with it.
    let script = home.at("completions.bash");
    let output = run(home.trunkline().args(["completions", "bash"]), PATIENCE);
    std::fs::write(&script, output.stdout).unwrap();
    let ask = "source $1; COMP_WORDS=(trunkline ev); COMP_CWORD=1; \
               _trunkline trunkline ev trunkline; echo \"${COMPREPLY[@]}\"";
    let Ok(output) = Command::new("bash").args(["-c", ask, "bash"]).arg(&script).output() else {
        eprintln!("skipped: there is no bash here");
        return;
    };
    assert_eq!(text(&output.stdout).trim(), "event-source", "{}", text(&output.stderr));
}

#[test]
fn every_command_has_a_page() {
    let home = Home::new();
    let dir = home.at("man1");
    let output = run(home.trunkline().args(["man", "--dir"]).arg(&dir), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let help = run(home.trunkline().arg("--help"), PATIENCE);
    let help = text(&help.stdout);
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let mut seen = 0;
    for name in commands.lines().filter_map(|line| line.strip_prefix("  ")) {
        let Some(name) = name.split(' ').next().filter(|name| !name.is_empty()) else { continue };
        if name == "help" {
            continue;
        }
        let path = dir.join(format!("trunkline-{name}.1"));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(page.contains(".SH NAME") && page.contains("Examples:"), "{name}");
        seen += 1;
    }
    assert!(seen >= 8, "{help}");
    assert!(dir.join("trunkline-bench-compare.1").exists());
    let page = run(home.trunkline().arg("man"), PATIENCE);
    assert!(text(&page.stdout).contains(".TH trunkline 1"), "{}", text(&page.stdout));
    std::fs::write(home.at("file"), "").unwrap();
    let output = run(home.trunkline().args(["man", "--dir"]).arg(home.at("file")), PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("file"), "{}", text(&output.stderr));
}
