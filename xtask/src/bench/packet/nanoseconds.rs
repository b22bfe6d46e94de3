//! Nanoseconds that the programs take for a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use rand::Rng;

use super::{
    Options,
    frames::{self, Segment},
    programs::{Program, Run, expect},
    setting::{FAR, NEAR, Setting},
};
use crate::bench::report::{Report, Row, tenth};

const PASS: [u32; 2] = [u32::MAX, 2];
/// Sent on: `TC_ACT_REDIRECT`, `XDP_TX`, `XDP_REDIRECT`.
const SENT: [u32; 3] = [7, 3, 4];

/// A kind of program with its budgets (DESIGN.md section 4): forwarded, to an endpoint on the node, new, not ours.
struct Kind {
    name: &'static str,
    program: &'static str,
    goals: [Option<f64>; 4],
}

const KINDS: [Kind; 2] = [
    Kind { name: "TC", program: "uplink_ingress", goals: [None, None, None, Some(40.0)] },
    Kind { name: "XDP", program: "uplink_xdp", goals: [Some(300.0), Some(200.0), Some(900.0), Some(40.0)] },
];

pub(super) fn measure(
    setting: &Setting,
    services: usize,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    let node = setting.lab.node("node-a");
    let links = node.bpffs().join("links");
    let mut clients = 0;
    for (family, family_name) in [(0, "IPv4"), (1, "IPv6")] {
        let (far, near) = (setting.node_port(family, FAR), setting.node_port(family, NEAR));
        for &flows in &options.flows {
            node.run(|| {
                let ingress = Program::find(&links, "uplink_ingress")?;
                let egress = Program::find(&links, "uplink_egress")?;
                // Where the answers of the endpoints come by.
                let far_flows = open(&ingress, &ingress, flows, far, &mut clients)?;
                let near_flows = open(&ingress, &egress, flows, near, &mut clients)?;
                for kind in &KINDS {
                    let program = Program::find(&links, kind.program)?;
                    let mut measured = Measured { program, services, runs: options.runs, report };
                    let what = |what: &str| format!("{}, {family_name}, {what}, {flows} flows", kind.name);
                    let [goal_far, goal_near, goal_new, goal_foreign] = kind.goals;
                    let mut random = rand::rng();
                    let mut any = |of: &[Vec<u8>]| of[random.random_range(0..of.len())].clone();
                    measured.take(&what("to another node"), goal_far, &SENT, || Ok(any(&far_flows)))?;
                    measured.take(&what("to this node"), goal_near, &PASS, || Ok(any(&near_flows)))?;
                    if flows == options.flows[0] {
                        let new = || frames::tcp(client(&mut clients, far.ip()), far, Segment::Syn);
                        measured.take(&what("new, to another node"), goal_new, &SENT, new)?;
                        let stranger =
                            frames::tcp(client(&mut 0, far.ip()), stranger(far.ip()), Segment::Ack)?;
                        measured.take(&what("not ours"), goal_foreign, &PASS, || Ok(stranger.clone()))?;
                    }
                }
                anyhow::Ok(())
            })?;
        }
    }
    Ok(())
}

struct Measured<'a> {
    program: Program,
    services: usize,
    runs: u32,
    report: &'a mut Report,
}

impl Measured<'_> {
    /// Runs the program on frames, turn by turn with one that is not looked at.
    fn take(
        &mut self,
        what: &str,
        goal: Option<f64>,
        verdicts: &[u32],
        mut frame: impl FnMut() -> Result<Vec<u8>>,
    ) -> Result<()> {
        let foreign = frames::foreign()?;
        let (mut empty, mut taken) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            empty.push(self.program.run(&foreign)?.nanoseconds);
            let run: Run = self.program.run(&frame()?)?;
            expect(&run, verdicts, what)?;
            taken.push(run.nanoseconds);
        }
        let baseline = tenth(&mut empty);
        self.report.add(Row {
            what: what.to_owned(),
            services: self.services,
            value: tenth(&mut taken) - baseline,
            unit: "ns",
            baseline: Some(baseline),
            goal,
        });
        Ok(())
    }
}

/// Opens connections, all the way to where nothing is evicted. Returns a segment of each.
fn open(
    program: &Program,
    replies: &Program,
    flows: u32,
    to: SocketAddr,
    clients: &mut u32,
) -> Result<Vec<Vec<u8>>> {
    let mut segments = Vec::with_capacity(flows as usize);
    for _ in 0..flows {
        let from = client(clients, to.ip());
        let syn = program.run(&frames::tcp(from, to, Segment::Syn)?)?;
        let (source, destination) = frames::ends(&syn.frame)?;
        replies.run(&frames::tcp(destination, source, Segment::SynAck)?)?;
        let segment = frames::tcp(from, to, Segment::Ack)?;
        program.run(&segment)?;
        segments.push(segment);
    }
    Ok(segments)
}

/// Another client each time, behind the node's default route.
fn client(clients: &mut u32, like: IpAddr) -> SocketAddr {
    let number = *clients;
    *clients += 1;
    let port = 10_000 + u16::try_from(number % 50_000).unwrap_or(0);
    let host = number / 50_000 + 1;
    match like {
        IpAddr::V4(_) => (Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + host), port).into(),
        IpAddr::V6(_) => {
            let network = u128::from(Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, 0));
            (Ipv6Addr::from(network + u128::from(host)), port).into()
        }
    }
}

/// An address that no Service has.
fn stranger(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => (Ipv4Addr::new(198, 51, 100, 7), 443).into(),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 7), 443).into(),
    }
}
