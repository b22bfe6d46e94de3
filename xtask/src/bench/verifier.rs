//! Instructions that the kernel's verifier walked for each program: what bounds how they can grow.

use anyhow::{Context, Result};

use super::report::{Report, Row};
use crate::lab::Agent;

pub(super) fn measure(agent: &Agent, report: &mut Report) -> Result<()> {
    for line in agent.log().all().iter().filter(|line| line.message() == "loaded") {
        let name = line.string("program").context("a line \"program loaded\" without its program")?;
        let Some(verified) = line.number("verified_instructions") else {
            // Kernels before 5.16 do not tell.
            continue;
        };
        report.add(Row {
            what: format!("verified instructions of {name}"),
            services: 0,
            value: verified,
            unit: "instructions",
            baseline: None,
            goal: match name {
                "connect4" => Some(1_500.0),
                "connect6" => Some(2_800.0),
                _ => Some(20_000.0),
            },
        });
    }
    Ok(())
}
