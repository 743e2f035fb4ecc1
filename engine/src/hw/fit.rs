//! Fitting a profile to this machine, as settings of an engine.

use super::machine::Machine;
use super::profile::{Placement, Profile, ProfileError, Setting, Shards, ShardsBy};
use super::quirks::{self, Effect};
use crate::config::{EngineConfig, MAX_SHARDS, Pinning};
use std::fmt;
use std::time::Duration;

/// One setting that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its name.
    pub setting: &'static str,
    /// The value that was set.
    pub value: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.setting, self.value, self.why)
    }
}

/// Puts shards that have a processor each on those that suit; says which. `ours` says that the
/// processors are the profile's choice: those that the caller named stay as they are.
fn place(how: Placement, ours: bool, config: &mut EngineConfig, machine: &Machine) -> String {
    let shards = config.shards;
    let Pinning::Cores(cores) = &mut config.pin else {
        return "of no effect: shards are not pinned".to_owned();
    };
    let near = (how == Placement::Near && ours).then(|| machine.near());
    if let Some(near) = near.filter(|near| near.len() >= shards) {
        *cores = near;
    }
    let Some(used) = cores.get(..shards) else {
        return "of no effect: fewer processors than shards".to_owned();
    };
    let note = match how {
        Placement::Any => "",
        Placement::Near if !ours => " (named before, and left so: the profile does not pin)",
        Placement::Near => drawback(used, machine),
    };
    let numbers: Vec<String> = used.iter().map(usize::to_string).collect();
    format!("processors {}{note}", numbers.join(","))
}

/// What is not as good as it could be about processors near the interface.
fn drawback(used: &[usize], machine: &Machine) -> &'static str {
    let any = |is: &dyn Fn(usize) -> bool| used.iter().any(|core| is(*core));
    if any(&|core| machine.is_far(core)) {
        " (more shards than the interface's node has)"
    } else if any(&|core| machine.takes_interrupts(core)) {
        " (some take its interrupts, too)"
    } else if any(&|core| machine.is_beside_interrupts(core)) {
        " (some are threads of a core that takes its interrupts)"
    } else if any(&|core| machine.siblings_of(core).any(|other| used.contains(&other))) {
        " (some are threads of one core)"
    } else {
        ""
    }
}

impl Profile {
    /// Changes `config` as the profile says, fitted to the machine; what was set, in order. What is
    /// set in `config` afterwards goes before the profile.
    pub fn apply(&self, config: &mut EngineConfig, machine: &Machine) -> Vec<Applied> {
        let mut done = Vec::new();
        let mut tell = |setting, value: String, why: &str| {
            done.push(Applied { setting, value, why: why.to_owned() });
        };
        let cores = machine.cores.len().max(1);
        let settings = &self.engine;
        if let Some(Setting { value, why }) = &settings.shards {
            let queues = machine.nics.first().map_or(0, |nic| nic.rx_queues).max(1);
            let wanted = match value {
                Shards::Number(number) => *number,
                Shards::By(ShardsBy::Cores) => cores,
                Shards::By(ShardsBy::Queues) => queues,
            };
            config.shards = wanted.min(cores).clamp(1, MAX_SHARDS);
            tell("shards", config.shards.to_string(), why);
        }
        if let Some(Setting { value, why }) = &settings.pin {
            let pinned = *value && machine.cores.len() >= config.shards;
            config.pin = if pinned { Pinning::Cores(machine.cores.clone()) } else { Pinning::None };
            tell("pin", pinned.to_string(), why);
        }
        if let Some(Setting { value, why }) = &settings.placement {
            let ours = settings.pin.is_some();
            tell("placement", place(*value, ours, config, machine), why);
        }
        let numbers: [(&str, &Option<Setting<usize>>, &mut usize); 6] = [
            ("socket_buffer_bytes", &settings.socket_buffer_bytes, &mut config.socket_buffer_bytes),
            ("rx_buffers", &settings.rx_buffers, &mut config.rx_buffers),
            ("tx_buffers", &settings.tx_buffers, &mut config.tx_buffers),
            ("initial_packet", &settings.initial_packet, &mut config.connection.initial_packet),
            ("max_packet", &settings.max_packet, &mut config.connection.max_packet),
            ("gso_segments", &settings.gso_segments, &mut config.gso_segments),
        ];
        for (setting, from, to) in numbers {
            if let Some(Setting { value, why }) = from {
                *to = *value;
                tell(setting, value.to_string(), why);
            }
        }
        if let Some(Setting { value, why }) = &settings.pacing_burst {
            config.connection.pacing_burst = *value;
            tell("pacing_burst", value.to_string(), why);
        }
        let broken = quirks::of(&machine.kernel).find(|quirk| quirk.effect == Effect::NoGso);
        for (setting, from, to) in
            [("gso", &settings.gso, &mut config.gso), ("gro", &settings.gro, &mut config.gro)]
        {
            if let ("gso", Some(quirk)) = (setting, broken) {
                *to = false;
                tell(setting, false.to_string(), quirk.what);
            } else if let Some(Setting { value, why }) = from {
                *to = *value;
                tell(setting, value.to_string(), why);
            }
        }
        if let Some(Setting { value, why }) = &settings.busy_poll_us {
            config.busy_poll = Some(Duration::from_micros(*value));
            tell("busy_poll_us", value.to_string(), why);
        }
        done
    }
}

impl EngineConfig {
    /// Takes over the settings of a hardware profile: `auto` (for the interface with the default
    /// route), the name of one that is part of the library, or the path of a file. What was set is
    /// told, with the reasons. Load it first: what is set afterwards goes before the profile, and
    /// nothing of it is looked at again when the engine starts.
    ///
    /// # Errors
    /// There is no such profile, or its file is unusable.
    pub fn load_profile(&mut self, which: &str) -> Result<Vec<Applied>, ProfileError> {
        let machine = Machine::this();
        let profile = Profile::find(which, &machine)?;
        tracing::info!(profile = profile.name, "hardware profile");
        Ok(profile.apply(self, &machine))
    }
}
