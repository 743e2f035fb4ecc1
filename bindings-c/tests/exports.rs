//! The shared library exports what the header declares, and nothing else.

mod common;

use std::collections::BTreeSet;
use std::process::Command;

/// Names of functions in the header that are not initialisers defined there.
fn declared() -> BTreeSet<String> {
    let header = std::fs::read_to_string(common::root().join("include/trunkline.h")).unwrap();
    let code: String = header
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let body = code.split("#include <stdint.h>").nth(1).expect("the part after the intro");
    let body = body.split("/*").next().expect("the part before the initialisers");
    body.match_indices("trunk_")
        .filter(|(at, _)| {
            let before = &body[..*at];
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '(')
        })
        .filter_map(|(at, _)| {
            let rest = &body[at..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
            rest[end..].starts_with('(').then(|| rest[..end].to_owned())
        })
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn only_the_declared_functions_are_exported() {
    let library = common::built().join("libtrunkline.so");
    let output = Command::new("nm")
        .args(["-D", "--defined-only", "--format=posix"])
        .arg(&library)
        .output()
        .expect("nm, which comes with the C compiler");
    let text = common::succeeded(&output);
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(exported, declared());
    assert!(exported.len() > 50, "{}", exported.len());
}
