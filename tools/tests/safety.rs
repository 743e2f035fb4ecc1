//! What a receiver does with senders that mean no good, and with limits.

mod common;
#[path = "common/rogue.rs"]
mod rogue;

use common::{Home, PATIENCE, Recv, names_in, noise, run, send_command, send_ok, text};
use rogue::{Heard, Say, header, say};
use std::fs;
use trunkline::{ChannelKind, ChannelOptions};

const EXISTS: u32 = 3;
const NAME_REFUSED: u32 = 2;

fn is_malformed(heard: &Heard) -> bool {
    matches!(heard, Heard::Answer(6, _))
}

#[test]
fn names_never_lead_out_of_the_folder() {
    let home = Home::new();
    let mut recv = Recv::start(&home, &[]);
    let outside = home.at("stolen").display().to_string();
    let long = "x".repeat(256);
    let names = [
        "../stolen",
        "..",
        ".",
        "",
        "/etc/trunkline-test",
        &outside,
        "a/b",
        "a/../../stolen",
        "nul\0byte",
        "line\nbreak",
        "esc\u{1b}[2J",
        ".trunkline-0-0-0-0.part",
        &long,
        "inbox/../../stolen",
    ];
    let heard =
        say(&recv.address, &recv.fingerprint, None, names.map(|n| Say::file(n, b"bad")).to_vec());
    for (name, heard) in names.iter().zip(heard) {
        assert_eq!(heard, Heard::Declined(NAME_REFUSED), "{name:?}");
    }
    assert!(recv.names().is_empty(), "{:?}", recv.names());
    assert_eq!(names_in(&home.at("")), ["home", "inbox"]);
    // What is shown of such names is harmless in a terminal.
    for _ in names {
        let event = recv.event("failed");
        assert!(!event["file"].as_str().unwrap().contains(char::is_control));
    }
    // And the receiver goes on.
    let good = home.file("out/good", b"good");
    send_ok(&home, &recv, &[good]);
}

#[test]
fn nothing_is_replaced_and_links_are_not_followed() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let target = home.file("target", b"mine");
    fs::write(recv.dir.join("taken"), b"mine").unwrap();
    fs::create_dir(recv.dir.join("folder")).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&target, recv.dir.join("link")).unwrap();
        std::os::unix::fs::symlink(home.at("nowhere"), recv.dir.join("dangling")).unwrap();
    }
    let names = ["taken", "folder", "link", "dangling"];
    let before = recv.names();
    let files: Vec<Say> = names.iter().map(|n| Say::file(n, &noise(100_000, 1))).collect();
    for heard in say(&recv.address, &recv.fingerprint, None, files) {
        assert!(matches!(heard, Heard::Answer(3, _)), "{heard:?}");
    }
    assert_eq!(recv.names(), before);
    assert_eq!(fs::read(&target).unwrap(), b"mine");
    assert_eq!(fs::read(recv.dir.join("taken")).unwrap(), b"mine");
    assert!(!home.at("nowhere").exists());
}

#[test]
fn one_name_twice_keeps_the_first() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let both = vec![Say::file("same", b"first"), Say::file("same", b"second")];
    let heard = say(&recv.address, &recv.fingerprint, None, both);
    assert_eq!(heard[0], Heard::Answer(0, String::new()));
    assert!(matches!(heard[1], Heard::Declined(EXISTS) | Heard::Answer(3, _)), "{:?}", heard[1]);
    assert_eq!(fs::read(recv.dir.join("same")).unwrap(), b"first");
    assert_eq!(recv.names(), ["same"]);
    // The tool itself: a second send of the same name fails and says why.
    let file = home.file("out/same", b"third");
    let output = run(&mut send_command(&home, &recv, &[file]), PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("already"), "{}", text(&output.stderr));
    assert_eq!(fs::read(recv.dir.join("same")).unwrap(), b"first");
}

#[test]
fn rename_finds_free_names() {
    let home = Home::new();
    let recv = Recv::start(&home, &["--rename"]);
    let a = home.file("one/same.txt", b"1");
    let b = home.file("two/same.txt", b"2");
    send_ok(&home, &recv, &[a, b]);
    assert_eq!(recv.names(), ["same (1).txt", "same.txt"]);
    let mut contents: Vec<_> =
        recv.names().iter().map(|n| fs::read(recv.dir.join(n)).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, [b"1", b"2"]);
}

#[test]
fn malformed_files_are_refused_and_leave_nothing() {
    let home = Home::new();
    let recv = Recv::start(&home, &[]);
    let whole = Say::file("f", b"content").bytes;
    let mut wrong_digest = Say::file("wrong-digest", b"content");
    wrong_digest.bytes[13] ^= 1;
    let mut version = whole.clone();
    version[0] = 9;
    let beyond = [&whole[..], b"more"].concat();
    let mut huge = header(u64::MAX);
    huge.extend_from_slice(b"not that much");
    let heard = say(
        &recv.address,
        &recv.fingerprint,
        None,
        vec![
            wrong_digest,
            Say::raw("file://version", version),
            Say::raw("file://beyond", beyond),
            Say::raw("file://short", whole[..20].to_vec()),
            Say::raw("file://nothing", Vec::new()),
            Say::raw("file://huge", huge),
            Say::raw("mailto://x", whole.clone()),
            Say {
                options: ChannelOptions {
                    kind: ChannelKind::Messages,
                    ..ChannelOptions::default()
                },
                ..Say::file("messages", b"x")
            },
        ],
    );
    assert!(matches!(heard[0], Heard::Answer(1, _)), "{:?}", heard[0]);
    for (n, heard) in heard[1..6].iter().enumerate() {
        assert!(is_malformed(heard), "{}: {heard:?}", n + 1);
    }
    assert_eq!(heard[6], Heard::Declined(NAME_REFUSED));
    assert_eq!(heard[7], Heard::Declined(NAME_REFUSED));
    assert!(recv.names().is_empty(), "{:?}", recv.names());
}

#[test]
fn max_bytes_is_a_limit_of_all_files_together() {
    let home = Home::new();
    let recv = Recv::start(&home, &["--max-bytes", "1000"]);
    let six = home.file("out/six", &noise(600, 1));
    let five = home.file("out/five", &noise(500, 2));
    let four = home.file("out/four", &noise(400, 3));
    send_ok(&home, &recv, &[six]);
    let output = run(&mut send_command(&home, &recv, &[five]), PATIENCE);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--max-bytes"), "{}", text(&output.stderr));
    send_ok(&home, &recv, &[four]);
    assert_eq!(recv.names(), ["four", "six"]);
    // A size that lies does not help: bytes beyond it are refused.
    let mut lie = header(0);
    lie.extend_from_slice(&noise(5000, 4));
    let heard = say(&recv.address, &recv.fingerprint, None, vec![Say::raw("file://lie", lie)]);
    assert!(is_malformed(&heard[0]), "{heard:?}");
    assert_eq!(recv.names(), ["four", "six"]);
}

#[test]
fn only_allowed_senders() {
    let home = Home::new();
    let friend = home.at("friend.pem");
    let output = run(home.trunkline().args(["keygen", "--json", "--out"]).arg(&friend), PATIENCE);
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut recv = Recv::start(&home, &["--allow", made["fingerprint"].as_str().unwrap()]);
    let file = home.file("out/a", b"a");
    let mut command = send_command(&home, &recv, std::slice::from_ref(&file));
    let output = run(&mut command, PATIENCE);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("--allow"), "{}", text(&output.stderr));
    assert!(recv.event("refused")["fingerprint"].is_string());
    // A sender without any key.
    let heard = say(&recv.address, &recv.fingerprint, None, vec![Say::file("nobody", b"x")]);
    assert!(matches!(heard[0], Heard::Ended(_)), "{heard:?}");
    assert!(recv.names().is_empty());
    let mut command = send_command(&home, &recv, &[file]);
    let output = run(command.arg("--identity").arg(&friend), PATIENCE);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(recv.names(), ["a"]);
}
