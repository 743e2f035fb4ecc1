//! `--pcap`: what the engine of a command writes for protocol analysers (docs/wireshark.md).

use crate::cli::byte_count;
use clap::Args;
use std::path::PathBuf;
use trunkline::CaptureConfig;

/// The options of a capture.
#[derive(Clone, Debug, Args)]
pub struct CaptureArgs {
    /// Write everything that the connections say into this file, in the clear, for Wireshark
    /// (docs/wireshark.md). Whoever can read it can read every connection.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Largest size of that file; the rest is counted and left out.
    #[arg(long, value_name = "BYTES", default_value = "1G", requires = "pcap",
          value_parser = byte_count)]
    pub pcap_max: u64,
}

impl CaptureArgs {
    /// For `EngineConfig::capture`.
    pub fn config(&self) -> Option<CaptureConfig> {
        let path = self.pcap.clone()?;
        Some(CaptureConfig { max_bytes: self.pcap_max, ..CaptureConfig::new(path) })
    }
}
