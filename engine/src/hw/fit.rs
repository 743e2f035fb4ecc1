//! Fitting a profile to this machine, as settings of an engine.

use super::machine::Machine;
use super::profile::{Profile, ProfileError, Setting, Shards, ShardsBy};
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

impl Profile {
    /// Changes `config` as the profile says, fitted to the machine; what was set, in order.
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
        let numbers: [(&str, &Option<Setting<usize>>, &mut usize); 5] = [
            ("socket_buffer_bytes", &settings.socket_buffer_bytes, &mut config.socket_buffer_bytes),
            ("rx_buffers", &settings.rx_buffers, &mut config.rx_buffers),
            ("tx_buffers", &settings.tx_buffers, &mut config.tx_buffers),
            ("initial_packet", &settings.initial_packet, &mut config.connection.initial_packet),
            ("max_packet", &settings.max_packet, &mut config.connection.max_packet),
        ];
        for (setting, from, to) in numbers {
            if let Some(Setting { value, why }) = from {
                *to = *value;
                tell(setting, value.to_string(), why);
            }
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
    /// route), the name of one that is part of the library, or the path of a file. Change single
    /// settings afterwards. What was set is told, with the reasons.
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
