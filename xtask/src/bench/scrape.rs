//! What one look at `/metrics` takes.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Cluster,
    report::{Report, Row, median},
};

const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn measure(
    cluster: &Cluster,
    what: &str,
    services: usize,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let node = cluster.lab.node("node-a");
    let scrape = || -> Result<f64> {
        let start = Instant::now();
        let text = node.run(get).context("asking for /metrics")?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        ensure!(text.starts_with("HTTP/1.1 200"), "/metrics was answered with {text:.100}");
        Ok(took)
    };
    let mut samples = (0..rounds).map(|_| scrape()).collect::<Result<Vec<_>>>()?;
    report.add(Row {
        what: format!("a scrape of /metrics{what}, median"),
        services,
        value: median(&mut samples),
        unit: "ms",
        baseline: None,
        goal: None,
    });
    Ok(())
}

fn get() -> std::io::Result<String> {
    let mut stream = TcpStream::connect(AT)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
