//! `export-sh`: a shell script that sets what differs, for machines without this program.

use super::{ExportArgs, Target, change, purpose_name};
use crate::exit::{Exit, Failure};
use crate::print;
use serde_json::json;
use std::fmt::Write as _;
use trunkline::hw::nic::Key;
use trunkline::hw::tune::Comparison;

pub fn run(args: &ExportArgs) -> Result<Exit, Failure> {
    let target = Target::open(&args.choice)?;
    let changes = change::to_change(&target.compared, args.allow_disruptive);
    let title = format!(
        "profile {} for {}, as of {} on this machine",
        target.profile.name,
        purpose_name(target.purpose),
        target.nic.name
    );
    let text = script(&title, &target.nic.name, &changes);
    let object = json!({"nic": target.nic.name, "profile": target.profile.name, "script": text});
    print::result(args.json, &object, text.trim_end())?;
    Ok(Exit::Done)
}

/// As one word of a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Without line ends, for a comment.
fn comment(text: &str) -> String {
    format!("# {}\n", text.replace(char::is_control, " "))
}

/// The script. It stops at the first command that fails.
pub fn script(title: &str, nic: &str, changes: &[&Comparison]) -> String {
    let mut text = "#!/bin/sh\n".to_owned();
    text += &comment(title);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "set -eu\nnic={}", quote(nic));
    for change in changes {
        text += "\n";
        text += &comment(&change.why);
        text += &command(change);
        text += "\n";
    }
    text
}

fn command(change: &Comparison) -> String {
    let value = change.key.show(change.wanted);
    match &change.key {
        Key::Channels => format!("ethtool -L \"$nic\" combined {value}"),
        Key::RxRing => format!("ethtool -G \"$nic\" rx {value}"),
        Key::TxRing => format!("ethtool -G \"$nic\" tx {value}"),
        Key::Udp4Hash => format!("ethtool -N \"$nic\" rx-flow-hash udp4 {value}"),
        Key::Udp6Hash => format!("ethtool -N \"$nic\" rx-flow-hash udp6 {value}"),
        Key::GroFlushTimeout | Key::NapiDeferHardIrqs | Key::Mtu => {
            format!("echo {value} > \"/sys/class/net/$nic/{}\"", change.key)
        }
        Key::Feature(name) => format!("ethtool -K \"$nic\" {} {value}", quote(name)),
        Key::Sysctl(name) => format!("sysctl -w {}", quote(&format!("{name}={value}"))),
        // Those of interrupt moderation are named as ethtool names them.
        moderation => {
            let name = moderation.to_string();
            let name = name.trim_start_matches("coalesce.");
            format!("ethtool -C \"$nic\" {name} {value}")
        }
    }
}
