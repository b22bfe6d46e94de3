//! From one changed EndpointSlice to traffic at the new endpoint.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    Cluster, cluster,
    cluster::{ENDPOINT_PORT, PROBE_PORT, PROBE4},
    report::{Report, Row, median},
};
use crate::lab::{Via, ask};

const AT_MOST: Duration = Duration::from_secs(5);

pub(super) fn measure(cluster: &Cluster, services: usize, rounds: usize, report: &mut Report) -> Result<()> {
    let pods = ["server", "client"].map(|name| cluster.lab.pod(name));
    let _servers = [pods[0].serve(ENDPOINT_PORT)?, pods[1].serve(ENDPOINT_PORT)?];
    let probe: SocketAddr = (PROBE4, PROBE_PORT).into();
    let client = &pods[1];
    let mut samples = Vec::new();
    // Ends with the pod that the probe began with.
    for round in 0..rounds.next_multiple_of(2) {
        let wanted = &pods[1 - round % 2];
        let [_service, slice, _slice6] = cluster::probe(wanted.addresses().v4, wanted.addresses().v6);
        let start = Instant::now();
        cluster.api.apply(slice)?;
        client.run(|| {
            while ask(Via::Udp, probe)?.endpoint != wanted.name() {
                ensure!(
                    start.elapsed() < AT_MOST,
                    "a changed EndpointSlice had no effect within {AT_MOST:?}"
                );
            }
            Ok(())
        })?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    // Each round is one such line: a slice of one endpoint, whose Service has a TCP and a UDP port.
    let log = cluster.agent.log().all();
    let programmed = log.iter().rev().filter(|line| line.message() == "programmed");
    let mut in_agent: Vec<f64> =
        programmed.take(samples.len()).filter_map(|line| line.number("took_ms")).collect();
    report.add(Row {
        what: "one changed EndpointSlice, in the agent, median".to_owned(),
        services,
        value: median(&mut in_agent),
        unit: "ms",
        baseline: None,
        goal: Some(10.0),
    });
    report.add(Row {
        what: "one changed EndpointSlice to traffic, median".to_owned(),
        services,
        value: median(&mut samples),
        unit: "ms",
        baseline: None,
        goal: Some(10.0),
    });
    Ok(())
}
