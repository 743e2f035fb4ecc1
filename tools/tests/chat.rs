//! `trunkline chat`: two people and an event source, all of them the built binary; once at
//! terminals, as people have them, and otherwise through pipes.
#![cfg(unix)]

mod common;

use common::netns::here;
use common::person::Person;
use common::source::Source;
use common::{Home, PATIENCE, run, signal, text};
use std::thread;
use std::time::{Duration, Instant};

/// Two people at two terminals type the same code, talk, and one of them leaves.
#[test]
fn two_people_at_two_terminals() {
    let home = Home::new();
    let source = Source::start(&home, "127.0.0.1:0", here);
    let code = source.code(&home);
    let mut one = Person::at_terminal(&home, &["--pair", &code]);
    one.sees("* connecting to the event source");
    one.sees("* searching for the other one");
    one.types("are you there?");
    let mut two = Person::at_terminal(&home, &["--pair", &code]);
    one.sees("* the other one is there");
    two.sees("* the other one is there");
    two.sees("> are you there?");
    two.types("yes. Grüße!");
    one.sees("> yes. Grüße!");
    // What would move the cursor or ring the bell is shown, not done.
    two.types("\u{16}\u{1b}[2J");
    one.waits("escape", |screen| screen.contains("> \\u{1b}[2J"));
    two.types("/quit");
    two.sees("* ended");
    assert_eq!(two.exit(), 0);
    // The other one is searched for again, and found.
    one.waits("search", |screen| screen.matches("* searching for the other one").count() >= 2);
    one.types("come back");
    let again = Person::at_terminal(&home, &["--pair", &code]);
    again.sees("> come back");
    assert!(!again.screen().contains("> are you there?"), "said once");
    // Ctrl-D: the end of input.
    one.types("\u{4}");
    assert_eq!(one.exit(), 0);
}

/// Lines arrive once and in order, also those that are said while the event source is away.
#[test]
fn lines_survive_a_restart_of_the_event_source() {
    let home = Home::new();
    let mut source = Source::start(&home, "127.0.0.1:0", here);
    let code = source.code(&home);
    let mut one = Person::at_pipe(&home, &["--pair", &code]);
    let mut two = Person::at_pipe(&home, &["--pair", &code]);
    one.waits_for_event("state", "state", "interacting");
    for n in 0..100 {
        one.types(&format!("line {n}"));
    }
    two.waits_for_event("line", "text", "line 50");
    source.restart(&home, here);
    for n in 100..120 {
        one.types(&format!("line {n}"));
    }
    two.waits_for_event("line", "text", "line 119");
    let lines = two.events("line");
    let texts: Vec<&str> = lines.iter().map(|l| l["text"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..120).map(|n| format!("line {n}")).collect();
    assert_eq!(texts, expected);
    one.waits_for_event("delivered", "number", 120);
    assert_eq!(one.events("said").len(), 120);
    signal(two.child.id(), "TERM");
    assert_eq!(two.exit(), 0);
    assert_eq!(two.events("ended")[0]["exit"], 0);
    one.types("/quit");
    assert_eq!(one.exit(), 0);
}

/// Who creates the code waits for the one who gets it.
#[test]
fn the_one_who_creates_the_code_waits() {
    let home = Home::new();
    let source = Source::start(&home, "127.0.0.1:0", here);
    let key = format!("k1={}", home.at("k1.key").display());
    let args = ["--create", "--source", &source.address, "--pin", &source.fingerprint];
    let one = Person::at_pipe(&home, &[&args[..], &["--key", &key]].concat());
    one.waits("code", |_| one.events("code").len() == 1);
    let code = one.events("code")[0]["code"].as_str().unwrap().to_owned();
    let mut two = Person::at_pipe(&home, &["--pair", &code]);
    two.types("hello");
    one.waits_for_event("line", "text", "hello");
    // A third one with the code: somebody has to go, and is told why.
    let _three = Person::at_pipe(&home, &["--pair", &code]);
    let start = Instant::now();
    let mut people = [one, two];
    loop {
        assert!(start.elapsed() < PATIENCE);
        for person in &mut people {
            if person.child.try_wait().unwrap().is_none() {
                continue;
            }
            assert_eq!(person.exit(), 3, "{}", person.screen());
            let ended = &person.events("ended")[0];
            assert_eq!(ended["reason"], "somebody else has come with this code");
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The two get a connection of their own, and find each other again when one starts anew.
#[test]
fn the_two_get_a_connection_of_their_own() {
    let home = Home::new();
    let source = Source::start(&home, "127.0.0.1:0", here);
    let code = source.code(&home);
    let person = || Person::at_pipe(&home, &["--pair", &code]);
    // Relayed or direct, as the addresses of this machine have it.
    let has_own = |person: &Person| {
        person.waits("a connection", |_| {
            person.events("route").last().is_some_and(|event| event["route"] != "events")
        });
    };
    let (mut one, mut two) = (person(), person());
    has_own(&one);
    has_own(&two);
    one.types("over it");
    two.waits_for_event("line", "text", "over it");
    let _ = two.child.kill();
    let _ = two.child.wait();
    // Said to nobody, heard by the next.
    one.types("are you back?");
    let mut two = person();
    two.waits_for_event("line", "text", "are you back?");
    has_own(&two);
    two.types("yes");
    one.waits_for_event("line", "text", "yes");
    has_own(&one);
    one.types("/quit");
    assert_eq!(one.exit(), 0);
}

#[test]
fn mistakes_have_exit_codes() {
    let home = Home::new();
    let code = |args: &[&str]| {
        let output = run(home.trunkline().arg("chat").args(args), PATIENCE);
        (output.status.code().unwrap(), text(&output.stderr))
    };
    assert_eq!(code(&[]).0, 2);
    assert_eq!(code(&["--pair", "blue-otter"]).0, 2);
    assert_eq!(code(&["--create"]).0, 2);
    let source = Source::start(&home, "127.0.0.1:0", here);
    let good = source.code(&home);
    assert_eq!(code(&["--pair", &good, "--create"]).0, 2);
    assert_eq!(code(&["--create", "--source", "x", "--pin", &source.fingerprint]).0, 2, "no key");
    // A token that the event source does not know.
    let spoiled = format!("{}AAAA", &good[..good.len() - 4]);
    let mut person = Person::at_pipe(&home, &["--pair", &spoiled]);
    assert_eq!(person.exit(), 3, "{}", person.screen());
    let why = person.events("ended")[0]["reason"].as_str().unwrap().to_owned();
    assert!(why.contains("invalid_access_token"), "{why}");
    assert!(!person.screen().contains("tk1."), "no token is shown");
}
