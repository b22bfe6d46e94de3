//! Large clusters: from the complete list to programmed, and the agent's memory.

use std::path::Path;

use anyhow::{Context, Result};

use super::{
    Cluster, cluster,
    report::{Report, Row},
};

const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn measure(agent: &Path, services: usize, endpoints: usize, report: &mut Report) -> Result<()> {
    let cluster = Cluster::start(agent, &cluster::plain(services, endpoints))?;
    let ready = cluster.agent.log().all().into_iter().find(|line| line.message() == "ready");
    let ready = ready.context("the agent's log has no line \"ready\"")?;
    let took =
        ready.number("list_to_programmed_ms").context("the line \"ready\" does not say how long it took")?;
    report.add(Row {
        what: format!("complete list to programmed, {endpoints} endpoints each"),
        services,
        value: took,
        unit: "ms",
        baseline: None,
        goal: Some(2_000.0),
    });
    #[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
    let peak = cluster.agent.rss_peak()? as f64 / MIB;
    report.add(Row {
        what: format!("peak memory of the agent, {endpoints} endpoints each"),
        services,
        value: peak,
        unit: "MiB",
        baseline: None,
        goal: (services == 10_000 && endpoints == 10).then_some(64.0),
    });
    Ok(())
}
