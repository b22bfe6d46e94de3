//! Requests to every Service, and the table of who answered them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::scenario::{SERVICES, Service};
use crate::lab::{Lab, Place, Via, ask_within};

/// Requests to each address by each protocol from each client. Enough that three endpoints all get
/// some: that one of them gets none happens once in 10^10 runs.
const REQUESTS: u32 = 60;

/// Nothing in the lab takes that long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A client that cannot reach a Service says so without waiting for all its requests.
const TOO_MANY: u32 = 2;

/// One line of the table: what came of the requests of one client to one address.
pub(super) struct Row {
    service: &'static Service,
    address: SocketAddr,
    via: Via,
    from: String,
    /// By endpoint, with its address; or by error.
    answers: BTreeMap<String, u32>,
    refused: u32,
    failed: u32,
    first_failure: Option<String>,
    /// Answers that came from another address than the Service's.
    foreign: u32,
}

/// Asks every Service in every way from a pod and from a node, and at the node ports from outside.
pub(super) fn ask_everything(lab: &Lab, outside: &Place) -> Vec<Row> {
    let clients: [Place; 2] = [(*lab.pod("client")).clone(), (*lab.node("node-a")).clone()];
    let mut rows = Vec::new();
    for service in SERVICES {
        for address in service.sockets() {
            for via in service.vias {
                rows.extend(clients.iter().map(|client| ask_often(client, service, address, *via)));
            }
        }
        for address in service.node_ports(lab) {
            rows.extend(service.vias.iter().map(|via| ask_often(outside, service, address, *via)));
        }
    }
    rows
}

/// How many requests that were.
pub(super) fn requests(rows: &[Row]) -> u32 {
    rows.iter().map(|row| row.answers.values().sum::<u32>() + row.refused + row.failed).sum()
}

fn ask_often(client: &Place, service: &'static Service, address: SocketAddr, via: Via) -> Row {
    let mut row = Row {
        service,
        address,
        via,
        from: client.name().to_owned(),
        answers: BTreeMap::new(),
        refused: 0,
        failed: 0,
        first_failure: None,
        foreign: 0,
    };
    client.run(|| {
        for _ in 0..REQUESTS {
            match ask_within(via, address, PATIENCE) {
                Ok(answer) => {
                    *row.answers.entry(format!("{} {}", answer.endpoint, answer.local)).or_default() += 1;
                    row.foreign += u32::from(answer.remote != address);
                }
                Err(failure) if failure.refused() => row.refused += 1,
                Err(failure) => {
                    row.failed += 1;
                    row.first_failure.get_or_insert_with(|| failure.to_string());
                    if row.failed == TOO_MANY {
                        break;
                    }
                }
            }
        }
    });
    row
}

/// Prints the table, one line for each endpoint that answered.
pub(super) fn print(rows: &[Row]) {
    println!();
    println!("{:<16} {:<21} {:<5} {:<7} {:>8}  ANSWERED BY", "SERVICE", "ADDRESS", "VIA", "FROM", "REQUESTS");
    let mut last = "";
    for row in rows {
        let service = if row.service.name == last { "" } else { row.service.name };
        last = row.service.name;
        let mut outcomes: Vec<(u32, String)> =
            row.answers.iter().map(|(endpoint, count)| (*count, endpoint.clone())).collect();
        if row.refused > 0 {
            outcomes.push((row.refused, "refused: no endpoints".to_owned()));
        }
        if let Some(failure) = &row.first_failure {
            outcomes.push((row.failed, format!("FAILED: {failure}")));
        }
        for (index, (count, outcome)) in outcomes.iter().enumerate() {
            if index == 0 {
                let address = row.address.to_string();
                println!(
                    "{service:<16} {address:<21} {:<5} {:<7} {count:>8}  {outcome}",
                    via(row.via),
                    row.from
                );
            } else {
                println!("{:<52} {count:>8}  {outcome}", "");
            }
        }
    }
    println!("(udp: sendto and recvfrom; udp-c: a connected UDP socket)\n");
}

/// What is not as it should be.
pub(super) fn problems(rows: &[Row]) -> Vec<String> {
    rows.iter().flat_map(Row::problems).collect()
}

impl Row {
    fn problems(&self) -> Vec<String> {
        let Self { service, address, from, .. } = self;
        let what = format!("{} ({address}, {}) from {from}", service.name, via(self.via));
        let mut problems = Vec::new();
        if let Some(failure) = &self.first_failure {
            problems.push(format!("{what}: {} requests failed: {failure}", self.failed));
        }
        if self.foreign > 0 {
            problems
                .push(format!("{what}: {} answers did not come from the Service's address", self.foreign));
        }
        if service.endpoints.is_empty() {
            if self.refused != REQUESTS {
                problems.push(format!("{what}: only {} of {REQUESTS} requests were refused", self.refused));
            }
            return problems;
        }
        if self.refused > 0 {
            problems.push(format!("{what}: {} requests were refused", self.refused));
        }
        let by: Vec<&str> = self.answers.keys().filter_map(|answer| answer.split(' ').next()).collect();
        if service.sticky {
            if by.len() != 1 {
                problems.push(format!("{what}: session affinity, yet answered by {by:?}"));
            }
        } else {
            let silent = service.endpoints.iter().filter(|endpoint| !by.contains(*endpoint));
            problems.extend(silent.map(|endpoint| format!("{what}: {endpoint} was never reached")));
        }
        let strangers = by.iter().filter(|endpoint| !service.endpoints.contains(*endpoint));
        problems.extend(strangers.map(|endpoint| format!("{what}: answered by {endpoint}, not an endpoint")));
        problems
    }
}

fn via(via: Via) -> &'static str {
    match via {
        Via::Tcp => "tcp",
        Via::Mptcp => "mptcp",
        Via::Udp => "udp",
        Via::UdpConnected => "udp-c",
        Via::Sctp => "sctp",
        Via::SctpSocket => "sctp-socket",
    }
}
