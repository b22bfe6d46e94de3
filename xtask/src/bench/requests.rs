//! Whole requests: connect, ask, answer, close; to a Service and to its endpoint, turn by turn.

use std::{net::SocketAddr, time::Instant};

use anyhow::Result;

use super::{
    Cluster,
    cluster::{ENDPOINT_PORT, ENDPOINT4, PROBE_PORT, PROBE4},
    report::{Report, Row, median},
};
use crate::lab::{Via, ask};

const REQUESTS: u32 = 20;

pub(super) fn measure(cluster: &Cluster, services: usize, rounds: usize, report: &mut Report) -> Result<()> {
    let _server = cluster.lab.pod("server").serve(ENDPOINT_PORT)?;
    let client = cluster.lab.pod("client");
    let (mut direct, mut service) = (Vec::new(), Vec::new());
    client.run(|| {
        for _ in 0..rounds {
            direct.push(burst((ENDPOINT4, ENDPOINT_PORT).into())?);
            service.push(burst((PROBE4, PROBE_PORT).into())?);
        }
        anyhow::Ok(())
    })?;
    report.add(Row {
        what: "TCP request to a Service over the same to its pod".to_owned(),
        services,
        value: median(&mut service) / median(&mut direct),
        unit: "x",
        baseline: Some(1.0),
        goal: None,
    });
    Ok(())
}

/// Seconds for some requests.
pub(super) fn burst(to: SocketAddr) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..REQUESTS {
        ask(Via::Tcp, to)?;
    }
    Ok(start.elapsed().as_secs_f64())
}
