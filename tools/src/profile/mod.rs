//! `trunkline profile`: what suits the network interfaces of this machine, and setting it.
//!
//! | module | job |
//! | --- | --- |
//! | `show` | list, explain, detect, diff and verify: reading only |
//! | `change` | apply and restore |
//! | `journal` | the file with the old values |
//! | `lock` | one process at a time |
//! | `script` | export-sh |

mod change;
mod journal;
mod lock;
mod script;
mod show;
#[cfg(test)]
mod tests;

use crate::exit::{Exit, Failure};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::PathBuf;
use trunkline::hw::machine::UNKNOWN;
use trunkline::hw::tune::{Comparison, Standing, Tuner};
use trunkline::hw::{Machine, Nic, Profile, Purpose, Want};

pub const HELP: &str = "\
Examples:
  trunkline profile detect                      interfaces, drivers, and which profile suits them
  trunkline profile diff --nic eth0 --for latency
  sudo trunkline profile apply --nic eth0       and, to take it all back:
  sudo trunkline profile restore --nic eth0

Only apply and restore change anything, and need privilege. docs/profiles.md has the profiles'
format, the fields of --json and the journal.

Exit codes: 0 as the profile says, or done, 1 something differs or could not be set, 2 usage, or it
cannot be told";

/// Options of `profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The profiles that are part of the library.
    #[command(after_help = HELP)]
    List(JsonArgs),
    /// Every setting of a profile with its reason.
    #[command(after_help = HELP)]
    Explain(ExplainArgs),
    /// The network interfaces, the kernel, and which profile suits what.
    #[command(after_help = HELP)]
    Detect(JsonArgs),
    /// What is not as the profile says.
    #[command(after_help = HELP)]
    Diff(TargetArgs),
    /// As diff, with counters of loss and interrupts.
    #[command(after_help = HELP)]
    Verify(TargetArgs),
    /// Set what differs; the old values are kept first.
    #[command(after_help = HELP)]
    Apply(ApplyArgs),
    /// Take back what apply set.
    #[command(after_help = HELP)]
    Restore(RestoreArgs),
    /// Print a shell script that sets what differs, with ethtool and sysctl.
    #[command(after_help = HELP)]
    ExportSh(ExportArgs),
}

/// What an interface is to be good at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum For {
    /// The shortest delay.
    Latency,
    /// The most bytes for the processor's time.
    #[default]
    Throughput,
}

impl From<For> for Purpose {
    fn from(purpose: For) -> Self {
        match purpose {
            For::Latency => Self::Latency,
            For::Throughput => Self::Throughput,
        }
    }
}

#[derive(Debug, Args)]
pub struct JsonArgs {
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The profile: a name, or a file.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What the interface is to be good at.
    #[arg(long = "for", value_enum, default_value_t, value_name = "PURPOSE")]
    pub purpose: For,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ChoiceArgs {
    /// The interface [default: the one with the default route].
    #[arg(long, value_name = "NAME")]
    pub nic: Option<String>,
    /// The profile: auto (by the interface's driver), a name, or a file.
    #[arg(long, default_value = "auto", value_name = "PROFILE")]
    pub profile: String,
    /// What the interface is to be good at.
    #[arg(long = "for", value_enum, default_value_t, value_name = "PURPOSE")]
    pub purpose: For,
}

#[derive(Debug, Args)]
pub struct TargetArgs {
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Include settings that can interrupt the link for a moment.
    #[arg(long)]
    pub allow_disruptive: bool,
    /// One JSON object on standard output, with the script in it.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    pub choice: ChoiceArgs,
    /// Show what would be set, and set nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Set also what can interrupt the link for a moment: rings, channels, MTU.
    #[arg(long)]
    pub allow_disruptive: bool,
    #[command(flatten)]
    pub state: StateArgs,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The interface [default: the one with the default route].
    #[arg(long, value_name = "NAME")]
    pub nic: Option<String>,
    #[command(flatten)]
    pub state: StateArgs,
    /// One JSON object on standard output.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StateArgs {
    /// Folder of the journals.
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/trunkline")]
    pub state: PathBuf,
}

/// The subcommand.
pub fn run(args: &ProfileArgs) -> Result<Exit, Failure> {
    match &args.verb {
        Verb::List(args) => show::list(args),
        Verb::Explain(args) => show::explain(args),
        Verb::Detect(args) => show::detect(args),
        Verb::Diff(args) => show::diff(args),
        Verb::Verify(args) => show::verify(args),
        Verb::Apply(args) => change::apply(args),
        Verb::Restore(args) => change::restore(args),
        Verb::ExportSh(args) => script::run(args),
    }
}

/// It cannot be told.
fn unknown(text: impl Into<String>) -> Failure {
    Failure::usage(text)
}

/// An interface, the profile for it, and how they stand to each other.
struct Target {
    nic: Nic,
    /// With that interface only.
    machine: Machine,
    profile: Profile,
    /// Why this profile.
    chosen: String,
    purpose: Purpose,
    tuner: Tuner,
    wants: Vec<Want>,
    /// Processors that the process may use.
    cores: usize,
    compared: Vec<Comparison>,
}

/// The interface of a name, or the machine's first one.
fn nic(machine: &Machine, name: Option<&str>) -> Result<Nic, Failure> {
    let found = match name {
        None => machine.nics.first(),
        Some(name) => machine.nics.iter().find(|nic| nic.name == name),
    };
    found.cloned().ok_or_else(|| {
        let names: Vec<&str> = machine.nics.iter().map(|nic| nic.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        unknown(format!("no network interface \"{}\"; there are {names}", name.unwrap_or("")))
    })
}

/// The profile of an interface: `auto` goes by its driver.
fn profile(which: &str, machine: &Machine, nic: &Nic) -> Result<Profile, Failure> {
    let alone = Machine { nics: vec![nic.clone()], ..machine.clone() };
    Profile::find(which, &alone).map_err(|e| unknown(e.to_string()))
}

/// Why `auto` took a profile.
fn why_auto(profile: &Profile, nic: &Nic) -> String {
    let Nic { driver, is_virtual, .. } = nic;
    if profile.drivers.contains(driver) {
        format!("it names the driver {driver}")
    } else if driver == UNKNOWN {
        "the interface is virtual, and the kernel does not tell of which kind".to_owned()
    } else if *is_virtual {
        format!("the interface is virtual, and no profile names its kind ({driver})")
    } else {
        format!("no profile names the driver {driver}")
    }
}

impl Target {
    fn open(choice: &ChoiceArgs) -> Result<Self, Failure> {
        let machine = Machine::this();
        let nic = nic(&machine, choice.nic.as_deref())?;
        let profile = profile(&choice.profile, &machine, &nic)?;
        let tuner = Tuner::open(&nic.name).map_err(|e| unknown(format!("{}: {e}", nic.name)))?;
        let purpose = choice.purpose.into();
        let (wants, cores) = (profile.nic.wants(purpose), machine.cores.len());
        let compared = tuner.compare(&wants, cores);
        let machine = Machine { nics: vec![nic.clone()], ..machine };
        let chosen = match choice.profile.as_str() {
            "auto" => why_auto(&profile, &nic),
            _ => "it was asked for".to_owned(),
        };
        Ok(Self { nic, machine, profile, chosen, purpose, tuner, wants, cores, compared })
    }

    fn exit(&self) -> Exit {
        exit(&self.compared)
    }

    fn json(&self) -> Value {
        json!({
            "nic": self.nic.name, "driver": self.nic.driver, "profile": self.profile.name,
            "profile_why": self.chosen,
            "for": purpose_name(self.purpose),
            "settings": self.compared.iter().map(comparison_json).collect::<Vec<_>>(),
        })
    }
}

/// 0, 1 or 2, as `diff` ends.
fn exit(compared: &[Comparison]) -> Exit {
    let any = |is: fn(&Standing) -> bool| compared.iter().any(|c| is(&c.standing));
    if any(|s| matches!(s, Standing::Unknown(_))) {
        Exit::Usage
    } else if any(|s| *s == Standing::Differs) {
        Exit::Failed
    } else {
        Exit::Done
    }
}

fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Latency => "latency",
        Purpose::Throughput => "throughput",
    }
}

/// The word for a standing, and why, where there is more to say.
fn standing(compared: &Comparison) -> (&'static str, Option<&str>) {
    match &compared.standing {
        Standing::Matches => ("matches", None),
        Standing::Differs => ("differs", None),
        Standing::Skipped(why) => ("skipped", Some(why)),
        Standing::Unknown(why) => ("unknown", Some(why)),
    }
}

fn comparison_json(compared: &Comparison) -> Value {
    let key = &compared.key;
    let (state, note) = standing(compared);
    json!({
        "key": key.to_string(),
        "current": compared.current.map(|v| key.show(v)),
        "wanted": key.show(compared.wanted),
        "clamped_from": compared.clamped_from.map(|v| key.show(v)),
        "state": state, "note": note, "why": compared.why, "disruptive": key.disruptive(),
    })
}

/// A line of `diff` and its relatives.
fn comparison_line(compared: &Comparison) -> String {
    let key = &compared.key;
    let (state, note) = standing(compared);
    let current = compared.current.map_or_else(|| "-".to_owned(), |v| key.show(v));
    let mut line = format!(
        "{state:8} {:32} {current:>9} {:>9}  {}",
        key.to_string(),
        key.show(compared.wanted),
        note.unwrap_or(&compared.why)
    );
    if let Some(asked) = compared.clamped_from {
        let _ = write!(line, " (the profile says {}, the device takes less)", key.show(asked));
    }
    if key.disruptive() && compared.standing == Standing::Differs {
        line += " [disruptive]";
    }
    line
}
