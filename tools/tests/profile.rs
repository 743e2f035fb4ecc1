//! `trunkline profile` on a veth pair in network namespaces (Linux, root, iproute2). What it did is
//! seen with the kernel's own answers: sysfs, and features through SIOCETHTOOL.
#![cfg(target_os = "linux")]

mod common;

use common::veth::Veth;
use common::{Home, PATIENCE, run, text};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

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
    // Other interfaces without a device are no pairs.
    for kind in ["bridge", "ifb"] {
        if let Err(why) = veth.ip(0, &format!("link add odd type {kind}")) {
            println!("skipped: no {kind}: {why}");
            continue;
        }
        let detected = json(&at("detect --json"));
        let odd = detected["nics"].as_array().unwrap().iter().find(|nic| nic["name"] == "odd");
        let odd = odd.unwrap();
        assert_eq!(
            (odd["driver"].as_str(), odd["profile"].as_str()),
            (Some(kind), Some("generic"))
        );
        let told = text(&at("diff --nic odd").stdout);
        assert!(told.contains(&format!("no profile names its kind ({kind})")), "{told}");
        veth.ip(0, "link del odd").unwrap();
    }

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
    let engine = json(&verified)["engine"].as_array().unwrap().clone();
    assert!(engine.iter().any(|setting| setting["setting"] == "shards"), "{engine:?}");
    let near = text(&at("verify --nic eth --profile ice").stdout);
    assert!(near.contains("engine   placement = processors "), "{near}");

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

    // What an interface took with it is said, and another one of its name is left as it is.
    assert_eq!(code(&at("apply --nic eth --state STATE")), 0);
    veth.ip(0, "link del eth").unwrap();
    veth.ip(0, "link add eth type veth peer name other").unwrap();
    let before = kernel(&veth);
    let another = at("restore --nic eth --state STATE");
    assert_eq!(code(&another), 0, "{}", text(&another.stderr));
    assert!(text(&another.stdout).contains("another interface now"), "{}", text(&another.stdout));
    assert_eq!(kernel(&veth), before);
    assert_eq!(code(&at("apply --nic eth --state STATE")), 0);
    veth.ip(0, "link del eth").unwrap();
    let gone = at("restore --nic eth --state STATE");
    assert_eq!(code(&gone), 0, "{}", text(&gone.stderr));
    assert!(text(&gone.stdout).contains("gone      gro_flush_timeout"), "{}", text(&gone.stdout));
    assert!(state.join("profile-eth.stale").exists(), "{}", text(&gone.stdout));
    assert_eq!(code(&at("restore --nic eth --state STATE")), 2, "nothing is left to restore");
}

#[test]
fn a_veth_that_is_renamed_is_found_and_one_of_another_namespace_is_not_taken_for_it() {
    let veth = match Veth::new(1500) {
        Ok(veth) => veth,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let home = Home::new();
    let state = home.at("state");
    let at = |end: usize, verb: &str| {
        let arguments = format!("{verb} --nic eth --state {}", state.display());
        run(&mut veth.at(end, &profile(&home, &arguments)), PATIENCE)
    };
    let before = kernel(&veth);
    assert_eq!(at(0, "apply").status.code(), Some(0));
    assert_ne!(kernel(&veth), before);
    // The other end has the same name, and may have the same number.
    for verb in ["apply", "restore"] {
        let refused = at(1, verb);
        assert_eq!(refused.status.code(), Some(2), "{verb}: {}", text(&refused.stdout));
        let error = text(&refused.stderr);
        assert!(error.contains("another network namespace"), "{verb}: {error}");
    }
    let rename = |from: &str, to: &str| {
        veth.ip(0, &format!("link set {from} down")).unwrap();
        veth.ip(0, &format!("link set {from} name {to}")).unwrap();
        veth.ip(0, &format!("link set {to} up")).unwrap();
    };
    rename("eth", "wan");
    let restored = at(0, "restore");
    let told = text(&restored.stdout);
    assert_eq!(restored.status.code(), Some(0), "{told}{}", text(&restored.stderr));
    assert!(told.contains("eth is called wan now"), "{told}");
    rename("wan", "eth");
    assert_eq!(kernel(&veth), before);
}

/// Holds a lease on a file: who opens it for writing waits until the lease is given up.
const LEASE: &str = "\
import fcntl, os, signal, sys
def say(word):
    print(word, flush=True)
signal.signal(signal.SIGIO, lambda *_: say('waited for'))
try:
    fcntl.fcntl(os.open(sys.argv[1], os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
except OSError as error:
    say(error)
    sys.exit()
say('held')
while True:
    signal.pause()
";

/// A process that holds a lease, ended when dropped.
struct Lease(Child, BufReader<ChildStdout>);

impl Lease {
    fn of(file: &Path) -> Result<Self, String> {
        let mut python = Command::new("python3");
        python.args(["-c", LEASE]).arg(file).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = python.spawn().map_err(|e| format!("needs python3: {e}"))?;
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lease = Self(child, out);
        let said = lease.line();
        if said == "held" { Ok(lease) } else { Err(format!("no lease on a file: {said}")) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that is killed in the middle of a change leaves a journal, and no lock. Nothing is
/// made up but the files of two sysctls, which are mounted over those of the namespace.
#[test]
fn what_a_killed_apply_did_is_restored_and_two_processes_do_not_mix() {
    const WITH_SYSCTLS: &str = "\
mount --bind \"$1\" /proc/sys/net/core/rmem_max &&
mount --bind \"$2\" /proc/sys/net/core/wmem_max && shift 2 && exec \"$@\"";
    // Killed at the first of the two, and at the second one.
    for (stops_at, changed) in [("rmem_max", ["1000", "2000"]), ("wmem_max", ["8388608", "2000"])] {
        let veth = match Veth::new(1500) {
            Ok(veth) => veth,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let home = Home::new();
        let files = [home.file("rmem_max", b"1000\n"), home.file("wmem_max", b"2000\n")];
        let sysctls = || files.each_ref().map(|f| fs::read_to_string(f).unwrap().trim().to_owned());
        let state = home.at("state");
        let command = |verb: &str| {
            let arguments = format!("{verb} --nic eth --state {}", state.display());
            let program = profile(&home, &arguments);
            let mut shell = Command::new("sh");
            shell.args(["-c", WITH_SYSCTLS, "sh"]).args(&files);
            shell.arg(program.get_program()).args(program.get_args());
            for (name, value) in program.get_envs() {
                shell.env(name, value.unwrap_or_default());
            }
            veth.at(0, &shell)
        };
        let before = kernel(&veth);
        let mut lease = match Lease::of(&home.at(stops_at)) {
            Ok(lease) => lease,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let mut first = command("apply").stdout(Stdio::null()).spawn().unwrap();
        assert_eq!(lease.line(), "waited for");
        for verb in ["apply", "restore"] {
            let second = run(&mut command(verb), PATIENCE);
            let error = text(&second.stderr);
            assert_eq!(second.status.code(), Some(2), "{verb}: {error}");
            let process = format!("process {} ", first.id());
            assert!(error.contains(&process) && error.contains("profile.lock"), "{error}");
        }
        first.kill().unwrap();
        first.wait().unwrap();
        drop(lease);
        assert_eq!(kernel(&veth), ["20000", "10", "1"], "these were set");
        assert_eq!(sysctls(), changed);
        let journal = fs::read_to_string(state.join("profile-eth.jsonl")).unwrap();
        assert!(journal.contains(stops_at), "{journal}");

        let restored = run(&mut command("restore"), PATIENCE);
        assert_eq!(restored.status.code(), Some(0), "{}", text(&restored.stderr));
        assert_eq!((kernel(&veth), sysctls()), (before, ["1000", "2000"].map(str::to_owned)));
    }
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
