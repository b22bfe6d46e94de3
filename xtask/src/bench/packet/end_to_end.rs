//! Whole requests and transfers through a node port, over the same to the endpoint itself.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::setting::{NEAR, Setting, TARGET};
use crate::{
    bench::{
        report::{Report, Row, median},
        requests::burst,
    },
    lab::Stream,
};

/// Where the endpoint is asked without a node port. Not at the Service's own port: a client that has one of its ports in
/// use at the node port cannot use it there as well (README, limits).
const DIRECT: u16 = TARGET + 1;
const TRANSFER: Duration = Duration::from_millis(500);

pub(super) fn measure(setting: &Setting, rounds: usize, report: &mut Report) -> Result<()> {
    let pod = setting.lab.pod("near");
    let _servers = [pod.serve(TARGET)?, pod.serve(DIRECT)?];
    for (family, name) in [(0, "IPv4"), (1, "IPv6")] {
        let to = setting.node_port(family, NEAR);
        let direct = SocketAddr::new(pod.addresses().both()[family], DIRECT);
        let seconds = |to: SocketAddr| setting.outside.run(|| burst(to));
        compare(
            report,
            &format!("TCP request through a node port over direct, {name}"),
            rounds,
            to,
            direct,
            seconds,
        )?;
        let per_byte = |to: SocketAddr| transfer(setting, to);
        let what = format!("TCP transfer through a node port over direct, {name}, seconds a byte");
        compare(report, &what, rounds.min(20), to, direct, per_byte)?;
    }
    Ok(())
}

fn compare(
    report: &mut Report,
    what: &str,
    rounds: usize,
    to: SocketAddr,
    direct: SocketAddr,
    take: impl Fn(SocketAddr) -> Result<f64>,
) -> Result<()> {
    let (mut through, mut past) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        past.push(take(direct)?);
        through.push(take(to)?);
    }
    report.add(Row {
        what: what.to_owned(),
        services: 1,
        value: median(&mut through) / median(&mut past),
        unit: "x",
        baseline: Some(1.0),
        goal: None,
    });
    Ok(())
}

/// Seconds that a byte of a long transfer takes.
fn transfer(setting: &Setting, to: SocketAddr) -> Result<f64> {
    let stream = Stream::start(&setting.outside, to, Duration::ZERO);
    let start = Instant::now();
    std::thread::sleep(TRANSFER);
    let seconds = start.elapsed().as_secs_f64();
    let report = stream.stop();
    if let Some(failure) = report.failure {
        anyhow::bail!("a transfer to {to}: {failure}");
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let bytes = report.bytes as f64;
    (bytes > 0.0).then_some(seconds / bytes).with_context(|| format!("no bytes from {to}"))
}
