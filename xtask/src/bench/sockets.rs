//! What connect(), sendto() and recvfrom() cost: without programs, to other destinations, to a frontend.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Cluster, calls,
    cluster::{ENDPOINT_PORT, ENDPOINT4, ENDPOINT6, PROBE_PORT, PROBE4, PROBE6},
    report::{Report, Row, tenth},
};

/// A kind of call, with the goals for other destinations and for frontends.
struct Kind {
    name: &'static str,
    burst: fn(SocketAddr, &UdpSocket) -> Result<f64>,
    other: Option<f64>,
    frontend: Option<f64>,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "connect(), socket reused",
        burst: |to, _endpoint| calls::connect_reused(to),
        other: Some(40.0),
        frontend: Some(100.0),
    },
    Kind {
        name: "socket(), connect(), close()",
        burst: |to, _endpoint| calls::connect_fresh(to),
        other: Some(40.0),
        frontend: Some(200.0),
    },
    Kind { name: "sendto()", burst: |to, _endpoint| calls::send(to), other: None, frontend: None },
    Kind { name: "recvfrom()", burst: calls::receive, other: None, frontend: None },
];

pub(super) fn measure(cluster: &Cluster, services: usize, rounds: usize, report: &mut Report) -> Result<()> {
    // The client is the endpoint's own pod: nothing but the calls themselves is measured.
    let inside = cluster.lab.pod("server");
    let outside = inside.without_programs();
    let destinations: [(&str, SocketAddr, SocketAddr); 2] = [
        ("IPv4", (ENDPOINT4, ENDPOINT_PORT).into(), (PROBE4, PROBE_PORT).into()),
        ("IPv6", (ENDPOINT6, ENDPOINT_PORT).into(), (PROBE6, PROBE_PORT).into()),
    ];
    for (family, pod, frontend) in destinations {
        for Kind { name, burst, other: other_goal, frontend: frontend_goal } in KINDS {
            let [mut none, mut other, mut hit] = [const { Vec::<f64>::new() }; 3];
            let at_pod = |to: SocketAddr| {
                let endpoint = UdpSocket::bind(pod).context("binding the endpoint's socket")?;
                endpoint.set_read_timeout(Some(Duration::from_secs(2))).context("setting a time limit")?;
                burst(to, &endpoint)
            };
            for _ in 0..rounds {
                none.push(outside.run(|| at_pod(pod))?);
                other.push(inside.run(|| at_pod(pod))?);
                hit.push(inside.run(|| at_pod(frontend))?);
            }
            let none = tenth(&mut none);
            for (side, mut samples, goal) in
                [("no frontend", other, other_goal), ("frontend", hit, frontend_goal)]
            {
                report.add(Row {
                    what: format!("{name}, {family}, {side}: adds"),
                    services,
                    value: tenth(&mut samples) - none,
                    unit: "ns",
                    baseline: Some(none),
                    goal,
                });
            }
        }
    }
    Ok(())
}
