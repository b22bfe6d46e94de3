//! `cargo xtask bench packet`: what the packet path costs.
//!
//! The programs that the agent has put on the links of a lab node are run on packets by the kernel
//! (`BPF_PROG_TEST_RUN`), which takes the time. Each run gets a packet as it would arrive: a program that has
//! rewritten one would not know it again. So a run is a system call, and its time includes that the CPU has done
//! something else before; the time of the same program on a frame that is neither IPv4 nor IPv6, taken the same way,
//! is subtracted. A figure is the value below which a tenth of the runs lie.

mod end_to_end;
mod frames;
mod nanoseconds;
mod programs;
mod setting;

use std::path::Path;

use anyhow::Result;

use super::{report::Report, verifier, write};
use setting::Setting;

/// The agent's own, for each IP family.
const DEFAULT_MAX_FLOWS: u32 = 262_144;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Numbers of Services in the cluster.
    services: Vec<usize>,
    /// Numbers of flows to another node, and as many to this one, that a packet's own is one of.
    flows: Vec<u32>,
    /// Runs of each kind.
    runs: u32,
    /// Rounds of each comparison of whole requests.
    rounds: usize,
}

impl Options {
    /// What the documentation's figures come from; takes some minutes.
    #[must_use]
    pub fn full() -> Self {
        Self { services: vec![1, 50_000], flows: vec![1, 4_096, 262_144], runs: 100_000, rounds: 60 }
    }

    /// A look at everything in a minute.
    #[must_use]
    pub fn quick() -> Self {
        Self { services: vec![1, 1_000], flows: vec![1, 4_096], runs: 20_000, rounds: 10 }
    }
}

/// Measures with the real agent in a lab, prints a table as it goes, and writes the JSON that was asked for.
///
/// # Errors
/// When the lab cannot be made (it needs root), the agent does not start, or the JSON cannot be written.
pub fn run(agent: &Path, options: &Options, json: Option<&Path>) -> Result<()> {
    let mut report = Report::default();
    // Those of each number stay, beside those of the numbers before.
    let flows = (2 * options.flows.iter().sum::<u32>()).max(DEFAULT_MAX_FLOWS).to_string();
    for (number, services) in options.services.iter().enumerate() {
        let setting = Setting::new(agent, *services, &["--xdp", "native", "--max-flows", &flows])?;
        nanoseconds::measure(&setting, *services, options, &mut report)?;
        if number == 0 {
            verifier::measure(&setting.agent, &mut report)?;
        }
    }
    let setting = Setting::new(agent, 1, &[])?;
    end_to_end::measure(&setting, options.rounds, &mut report)?;
    write(&report, json)
}
