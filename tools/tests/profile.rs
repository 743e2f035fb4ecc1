//! `trunkline profile` on a veth pair in network namespaces (Linux, root, iproute2). What it did is
//! seen with the kernel's own answers: sysfs, and features through SIOCETHTOOL.
#![cfg(target_os = "linux")]

mod common;

use common::veth::Veth;
use common::{Home, PATIENCE, run, text};
use serde_json::Value;
use std::process::{Command, Output};

fn profile(home: &Home, arguments: &str) -> Command {
    let mut command = home.trunkline();
    command.arg("profile").args(arguments.split(' ').filter(|a| !a.is_empty()));
    command
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// What the kernel says of the interface: two files, and a feature asked for by an ioctl of Python.
fn kernel(veth: &Veth) -> Vec<String> {
    const ASK: &str = "\
import array, fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def call(data):
    words = array.array('B', data)
    request = struct.pack('16sP', b'eth', words.buffer_info()[0]) + bytes(16)
    fcntl.ioctl(s, 0x8946, request)
    return words.tobytes()
for name in ('gro_flush_timeout', 'napi_defer_hard_irqs'):
    print(open('/sys/class/net/eth/' + name).read().strip())
print(struct.unpack('II', call(struct.pack('II', 0x2b, 0)))[1])
";
    let mut python = Command::new("python3");
    python.args(["-c", ASK]);
    let output = run(&mut veth.at(0, &python), PATIENCE);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_veth_is_set_and_set_back() {
    let veth = match Veth::new(1500) {
        Ok(veth) => veth,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let home = Home::new();
    let state = home.at("state");
    let at = |arguments: &str| {
        let arguments = arguments.replace("STATE", state.to_str().unwrap());
        run(&mut veth.at(0, &profile(&home, &arguments)), PATIENCE)
    };
    let code = |output: &Output| output.status.code().unwrap();

    let detected = json(&at("detect --json"));
    let nics = detected["nics"].as_array().unwrap();
    let eth = nics.iter().find(|nic| nic["name"] == "eth").unwrap();
    assert_eq!((eth["profile"].as_str(), eth["driver"].as_str()), (Some("veth"), Some("veth")));
    assert_eq!(eth["driver_by_ethtool"], "veth");

    let before = kernel(&veth);
    assert_eq!(before, ["0", "0", "0"]);
    let diff = at("diff --nic eth --json");
    assert_eq!(code(&diff), 1, "{}", text(&diff.stdout));
    let dry = at("apply --nic eth --dry-run --state STATE");
    assert!(code(&dry) == 1 && text(&dry.stdout).contains("would be set"));
    assert!(kernel(&veth) == before && !state.exists(), "a dry run sets nothing and keeps nothing");

    let applied = at("apply --nic eth --state STATE --json");
    assert_eq!(code(&applied), 0, "{}{}", text(&applied.stdout), text(&applied.stderr));
    assert_eq!(kernel(&veth), ["20000", "10", "1"]);
    let verified = at("verify --nic eth --json");
    assert_eq!(code(&verified), 0, "{}", text(&verified.stdout));
    assert_eq!(json(&verified)["counters"]["rx_dropped"], 0);

    // What such a device lacks is said, and no reason to fail.
    let other = json(&at("diff --nic eth --profile ena --json"));
    let settings = other["settings"].as_array().unwrap();
    let ring = settings.iter().find(|s| s["key"] == "ring.rx").unwrap();
    assert_eq!((ring["state"].as_str(), &ring["current"]), (Some("skipped"), &Value::Null));

    let script = at("export-sh --nic eth --for latency");
    assert!(text(&script.stdout).contains("ethtool -K \"$nic\" 'rx-gro' off"));

    let restored = at("restore --nic eth --state STATE");
    assert_eq!(code(&restored), 0, "{}{}", text(&restored.stdout), text(&restored.stderr));
    assert_eq!(kernel(&veth), before);
    let again = at("restore --nic eth --state STATE");
    assert!(code(&again) == 2 && text(&again.stderr).contains("nothing to restore"));

    // Another interface of the same name has nothing to take back.
    assert_eq!(code(&at("apply --nic eth --state STATE")), 0);
    veth.ip(0, "link del eth").unwrap();
    let gone = at("restore --nic eth --state STATE");
    assert!(code(&gone) == 2 && text(&gone.stderr).contains("gone"), "{}", text(&gone.stderr));
    veth.ip(0, "link add eth type veth peer name other").unwrap();
    let another = at("restore --nic eth --state STATE");
    assert!(code(&another) == 2 && text(&another.stderr).contains("another interface"));
}

#[test]
fn a_journal_that_cannot_be_written_stops_apply() {
    let veth = match Veth::new(1500) {
        Ok(veth) => veth,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let home = Home::new();
    let file = home.file("file", b"");
    let arguments = format!("apply --nic eth --state {}/state", file.display());
    let output = run(&mut veth.at(0, &profile(&home, &arguments)), PATIENCE);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nothing was changed"), "{}", text(&output.stderr));
    assert_eq!(kernel(&veth), ["0", "0", "0"]);
}

#[test]
fn reading_needs_no_interface_and_mistakes_are_usage_errors() {
    let home = Home::new();
    let listed = json(&run(&mut profile(&home, "list --json"), PATIENCE));
    let names = listed["profiles"].as_array().unwrap();
    assert!(names.iter().any(|p| p["name"] == "mlx5"), "{listed}");
    for profile_of in names {
        let name = profile_of["name"].as_str().unwrap();
        let explained = run(&mut profile(&home, &format!("explain {name} --json")), PATIENCE);
        assert_eq!(explained.status.code(), Some(0));
        assert!(!json(&explained)["nic"].as_array().unwrap().is_empty(), "{name}");
    }
    for (arguments, word) in [
        ("explain nonsense", "there are"),
        ("diff --nic nonsense0", "no network interface"),
        ("diff --nic lo --profile nonsense", "no profile"),
        ("diff --nic lo --profile /nonsense.toml", "cannot read"),
        ("restore --nic ../x", "no interface"),
    ] {
        let output = run(&mut profile(&home, arguments), PATIENCE);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
}
