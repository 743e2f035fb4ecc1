//! `--pcap`: what two processes that talk with each other capture, each for itself. Without tshark
//! only the blocks of the files are looked at.
#![cfg(unix)]

mod common;

use common::netns::here;
use common::person::Person;
use common::source::Source;
use common::{Home, PATIENCE, Recv, finish, noise, run, send_command};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Packets in a capture, each with whether it was sent. It is a whole file that its owner alone can
/// read, and nothing was left out of it.
fn packets(path: &Path) -> Vec<bool> {
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let bytes = std::fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut sent, mut statistics, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let (kind, len) = (word(at), word(at + 4) as usize);
        assert_eq!(word(at + len - 4) as usize, len, "a block is whole");
        match kind {
            6 => {
                let options = at + 28 + (word(at + 20) as usize).next_multiple_of(4);
                sent.push(word(options + 4) == 2);
            }
            // Received and dropped.
            5 => {
                statistics += word(at + 24);
                assert_eq!(word(at + 36), 0, "some were dropped");
            }
            _ => {}
        }
        at += len;
    }
    assert_eq!(statistics as usize, sent.len());
    sent
}

/// The values of a field in the packets that pass the filter; `None` without tshark.
fn tshark(path: &Path, filter: &str, field: &str) -> Option<Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/wireshark/trunkline.lua");
    let mut command = Command::new("tshark");
    command.arg("-X").arg(format!("lua_script:{}", script.display())).arg("-r").arg(path);
    command.args(["-T", "fields", "-E", "occurrence=a", "-e", field]);
    if !filter.is_empty() {
        command.args(["-Y", filter]);
    }
    let Ok(output) = command.output() else {
        assert!(std::env::var_os("TRUNKLINE_WIRESHARK_REQUIRED").is_none(), "no tshark");
        eprintln!("skipped: no tshark");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("Lua"), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().flat_map(|l| l.split(',')).map(str::to_owned).collect())
}

fn check_sound(path: &Path) {
    if let Some(problems) = tshark(path, "trunkline.malformed || _ws.lua.error", "frame.number") {
        assert!(problems.is_empty(), "{problems:?} of {}", path.display());
    }
}

/// The bytes of channels have this in them, but for what is cut where packets or blocks end.
fn check_holds(path: &Path, content: &[u8]) {
    let Some(said) = tshark(path, "trunkline.data", "trunkline.data") else { return };
    let (said, pieces) = (said.concat(), content.chunks(32));
    let all = pieces.len();
    let found = pieces.filter(|piece| said.contains(&hex(piece))).count();
    assert!(found * 10 >= all * 9, "{found} of {all} pieces of {}", path.display());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[test]
fn send_and_recv_capture_what_passes_between_them() {
    let home = Home::new();
    let content = noise(40_000, 3);
    let file = home.file("out/notes", &content);
    for link in ["udp", "tls"] {
        let (theirs, ours) = (home.at("recv.pcapng"), home.at("send.pcapng"));
        let option = ["--link", link, "--rename", "--pcap", theirs.to_str().unwrap()];
        let recv = Recv::start(&home, &option);
        let mut send = send_command(&home, &recv, std::slice::from_ref(&file));
        let output = run(send.args(["--link", link, "--pcap"]).arg(&ours), PATIENCE);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(recv.stop(), 0);
        for path in [&ours, &theirs] {
            let sent = packets(path);
            assert!(sent.contains(&true) && sent.contains(&false) && sent.len() > 6, "{sent:?}");
            check_sound(path);
            check_holds(path, &content);
            let names = tshark(path, "trunkline.control.name", "trunkline.control.name");
            assert!(names.is_none_or(|n| n.iter().any(|n| n.contains("notes"))), "{link}");
        }
    }
}

/// A sender that is killed leaves a file that can be read up to the last tenth of a second.
#[test]
fn a_killed_process_leaves_a_capture_that_can_be_read() {
    let home = Home::new();
    let path = home.at("recv.pcapng");
    let mut recv = Recv::start(&home, &["--pcap", path.to_str().unwrap()]);
    let file = home.file("out/a", &noise(1000, 3));
    let mut send = send_command(&home, &recv, &[file]);
    assert_eq!(run(&mut send, PATIENCE).status.code(), Some(0));
    let start = std::time::Instant::now();
    while std::fs::metadata(&path).unwrap().len() < 2000 {
        assert!(start.elapsed() < PATIENCE, "nothing is written");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    recv.kill();
    check_sound(&path);
    check_holds(&path, &noise(1000, 3));
}

#[test]
fn both_ends_of_a_chat_capture_it() {
    let home = Home::new();
    let source = Source::start(&home, "127.0.0.1:0", here);
    let code = source.code(&home);
    let paths = [home.at("one.pcapng"), home.at("two.pcapng")];
    let [mut one, mut two] = paths
        .clone()
        .map(|path| Person::at_pipe(&home, &["--pair", &code, "--pcap", path.to_str().unwrap()]));
    one.waits_for_event("state", "state", "interacting");
    one.types("are you there?");
    two.waits_for_event("line", "text", "are you there?");
    for person in [&mut two, &mut one] {
        person.types("/quit");
        assert_eq!(person.exit(), 0);
    }
    for path in &paths {
        let sent = packets(path);
        assert!(sent.contains(&true) && sent.contains(&false), "{sent:?}");
        check_sound(path);
        // It is sealed between the two of them once more.
        let said = tshark(path, "trunkline.data", "trunkline.data");
        let line = hex(b"are you there?");
        assert!(said.is_none_or(|s| !s.is_empty() && !s.iter().any(|s| s.contains(&line))));
    }
}

#[test]
fn a_capture_that_cannot_be_written_is_told_at_once() {
    let home = Home::new();
    let mut command = home.trunkline();
    command.args(["recv", "--listen", "127.0.0.1:0", "--pcap", "/no/such/folder/x.pcapng"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = finish(&mut child, PATIENCE);
    assert_eq!(output.status.code(), Some(4));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("capture /no/such/folder/x.pcapng"), "{error}");
}
