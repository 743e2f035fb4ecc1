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

/// What is given away has the pages and completions of the very program that is in it.
#[cfg(target_os = "linux")]
#[test]
fn the_packages_have_pages_and_completions() {
    let home = Home::new();
    let out = home.at("packages");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/package.py");
    let mut pack = Command::new(script);
    pack.arg(env!("CARGO_BIN_EXE_trunkline")).arg(&out).arg("--fast");
    let packed = run(&mut pack, PATIENCE);
    assert_eq!(packed.status.code(), Some(0), "{}", text(&packed.stderr));
    let packages = text(&packed.stdout);
    let mut trees = Vec::new();
    for package in packages.lines() {
        let tree = home.at(&format!("tree{}", trees.len()));
        std::fs::create_dir(&tree).unwrap();
        let debian = std::path::Path::new(package).extension().is_some_and(|end| end == "deb");
        let mut unpack = if debian {
            let mut unpack = Command::new("dpkg-deb");
            unpack.arg("-x").arg(package).arg(&tree);
            unpack
        } else {
            let mut unpack = Command::new("tar");
            unpack.args(["--strip-components=1", "-xzf", package, "-C"]).arg(&tree);
            unpack
        };
        assert!(run(&mut unpack, PATIENCE).status.success(), "{package}");
        trees.push(if debian { tree.join("usr") } else { tree });
    }
    assert!(!trees.is_empty(), "{packages}");
    for tree in trees {
        let said = run(Command::new(tree.join("bin/trunkline")).arg("--version"), PATIENCE);
        assert_eq!(text(&said.stdout).trim(), concat!("trunkline ", env!("CARGO_PKG_VERSION")));
        let share = tree.join("share");
        let script = run(home.trunkline().args(["completions", "bash"]), PATIENCE).stdout;
        let completions = share.join("bash-completion/completions/trunkline");
        assert_eq!(std::fs::read(completions).unwrap(), script);
        let exists = |names: &[&str]| names.iter().any(|name| share.join(name).exists());
        assert!(exists(&["zsh/site-functions/_trunkline", "zsh/vendor-completions/_trunkline"]));
        assert!(exists(&["fish/vendor_completions.d/trunkline.fish"]));
        assert!(exists(&["man/man1/trunkline-bench.1", "man/man1/trunkline-bench.1.gz"]));
        assert!(exists(&["man/man1/trunkline-profile-apply.1", "man/man1/trunkline-top.1.gz"]));
        assert!(exists(&["trunkline/wireshark/trunkline.lua"]));
        assert!(exists(&["doc/trunkline-tools/tuning.md"]));
    }
}
