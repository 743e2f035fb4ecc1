//! `docs/systems.md` lists every row of the source systems with the tests that show it. This holds
//! it to that: a test that is named exists, and every row has one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

struct Row {
    number: String,
    what: String,
    tests: Vec<String>,
}

/// The rows of the tables: number, what it says, tests.
fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("docs/systems.md")).expect("docs/systems.md");
    let mut rows = Vec::new();
    for line in text.lines().filter(|l| l.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, what, tests] = cells[..] else { panic!("not three cells: {line}") };
        if number == "row" || number.starts_with("---") {
            continue;
        }
        let found: Vec<String> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.push(Row { number: number.to_owned(), what: what.to_owned(), tests: found });
    }
    assert!(rows.len() > 80, "{} rows", rows.len());
    rows
}

/// Whether the source has a test of this name.
fn has_test(source: &str, is_c: bool, name: &str) -> bool {
    if is_c {
        // A function, and its place in the list of tests.
        let listed = source.split("tests[] = {").nth(1).unwrap_or_default();
        return source.contains(&format!("void {name}(void)"))
            && listed.contains(&format!("\"{name}\""));
    }
    let function = format!("fn {name}(");
    source.match_indices(&function).any(|(at, _)| {
        let before = source[..at].trim_end();
        // Attributes stand between blank lines or other items and the function.
        let item = before.rsplit("\n\n").next().unwrap_or(before);
        let attributes = item.rsplit_once("#[test]").map(|(_, after)| after);
        attributes.is_some_and(|a| a.lines().all(|l| l.is_empty() || l.trim().starts_with('#')))
    })
}

#[test]
fn every_test_that_is_named_exists() {
    let mut sources: BTreeMap<String, String> = BTreeMap::new();
    let mut missing = Vec::new();
    for row in rows() {
        for test in &row.tests {
            let (path, name) = test.split_once(": ").unwrap_or_else(|| {
                panic!("{}: {test} is not of the form `path: name`", row.number)
            });
            let source = sources
                .entry(path.to_owned())
                .or_insert_with(|| fs::read_to_string(root().join(path)).unwrap_or_default());
            let is_c = Path::new(path).extension().is_some_and(|e| e == "c");
            if !has_test(source, is_c, name) {
                missing.push(format!("{}: {test}", row.number));
            }
        }
    }
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn every_row_has_a_test() {
    let bare: Vec<String> = rows()
        .iter()
        .filter(|row| row.tests.is_empty())
        .map(|row| format!("{}: {}", row.number, row.what))
        .collect();
    assert!(bare.is_empty(), "rows without a test:\n{}", bare.join("\n"));
}

#[test]
fn rows_are_numbered_once_and_say_something() {
    let rows = rows();
    for (i, row) in rows.iter().enumerate() {
        assert!(!row.what.is_empty(), "{} says nothing", row.number);
        let section = row.number.split('.').next().unwrap_or_default();
        assert!(["1", "2", "3", "4", "5"].contains(&section), "{}", row.number);
        let first = rows.iter().position(|r| r.number == row.number);
        assert_eq!(first, Some(i), "{} twice", row.number);
    }
}

/// The finder itself: what it must not take for a test.
#[test]
fn a_name_alone_is_no_test() {
    let rust = "#[test]\nfn real() {}\n\nfn helper() {}\n\n#[test]\nfn outer() {\n    fn inner() {}\n}\n\n/// Text.\n#[test]\n#[ignore]\nfn other() {}\n";
    assert!(has_test(rust, false, "real") && has_test(rust, false, "other"));
    assert!(!has_test(rust, false, "inner"));
    assert!(!has_test(rust, false, "helper") && !has_test(rust, false, "rea"));
    let c = "static void real(void) {\n}\nstatic void helper(void) {\n}\n\
             static const test tests[] = {\n    {\"real\", real},\n};\n";
    assert!(has_test(c, true, "real") && !has_test(c, true, "helper"));
}
