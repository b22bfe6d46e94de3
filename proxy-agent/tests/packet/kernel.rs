//! The real programs, run one packet at a time.

use std::{io::ErrorKind, net::IpAddr, path::PathBuf};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    programs::{ProgramError, SchedClassifier, Xdp, XdpMode},
};
use ipnet::IpNet;
use proxy_common::Hook;

use crate::place::{CLUSTER, Place};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxy-ebpf"));

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    UplinkIngress,
    UplinkEgress,
    WorkloadIngress,
    WorkloadEgress,
    UplinkXdp,
}

/// One packet on its way through a program.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) program: Program,
    /// Index of the link where the program stands.
    pub(crate) link: u32,
    /// Index of the link that the packet came in by; 0 for one that was made on this node.
    pub(crate) came_by: u32,
    pub(crate) frame: Vec<u8>,
}

/// What a program said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Goes on.
    Pass,
    Drop,
    /// Leaves by a link that the program chose, or by the one it came in from.
    Redirect,
    /// None of those it may say.
    Unknown(u32),
}

/// The loaded programs.
pub(crate) struct Kernel {
    ebpf: Ebpf,
}

/// Largest frame that a program may make out of another.
const ROOM: usize = 4096;
/// Ethernet and IPv6.
const SHORTEST_IP: usize = 54;

impl Program {
    pub(crate) const ALL: [Self; 5] = [
        Self::UplinkIngress,
        Self::UplinkEgress,
        Self::WorkloadIngress,
        Self::WorkloadEgress,
        Self::UplinkXdp,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UplinkIngress => "uplink_ingress",
            Self::UplinkEgress => "uplink_egress",
            Self::WorkloadIngress => "workload_ingress",
            Self::WorkloadEgress => "workload_egress",
            Self::UplinkXdp => "uplink_xdp",
        }
    }

    /// Where it stands, in the terms of the flows.
    pub(crate) fn hook(self) -> Hook {
        match self {
            Self::UplinkIngress | Self::UplinkXdp => Hook::UplinkIngress,
            Self::UplinkEgress => Hook::UplinkEgress,
            Self::WorkloadIngress => Hook::WorkloadIngress,
            Self::WorkloadEgress => Hook::WorkloadEgress,
        }
    }
}

impl Kernel {
    /// Loads the programs against the maps that are pinned at `pins`; every source port that they give out is
    /// one of `ports` from `first`. `None` where there is no object.
    pub(crate) fn load(pins: &[PathBuf], first: u16, ports: u16) -> Option<Self> {
        if OBJECT.is_empty() {
            return None;
        }
        let (first, ports) = (u32::from(first), u32::from(ports));
        let networks = CLUSTER.map(|network| network.parse::<IpNet>().unwrap());
        let words = networks.map(|network| [words(network.network()), words(network.netmask())].concat());
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .override_global("SOURCE_PORT_FIRST", &first, true)
            .override_global("SOURCE_PORT_COUNT", &ports, true)
            .override_global("CLUSTER_CIDR4", &words[0][..], true)
            .override_global("CLUSTER_CIDR6", &words[1][..], true)
            .override_global("HAS_COARSE_CLOCK", &1_u32, true);
        for pin in pins {
            loader.map_pin_path(pin.file_name().unwrap().to_str().unwrap(), pin);
        }
        let mut ebpf = loader.load(OBJECT).unwrap();
        for program in Program::ALL {
            let loaded = ebpf.program_mut(program.name()).unwrap();
            if program == Program::UplinkXdp {
                <&mut Xdp>::try_from(loaded).unwrap().load().unwrap();
            } else {
                <&mut SchedClassifier>::try_from(loaded).unwrap().load().unwrap();
            }
        }
        Some(Self { ebpf })
    }

    /// Attaches the XDP program to the uplinks: only then do they have the receive queues that a test run
    /// names.
    pub(crate) fn attach_xdp(&mut self, place: &Place) {
        let program: &mut Xdp = self.ebpf.program_mut(Program::UplinkXdp.name()).unwrap().try_into().unwrap();
        for link in ["up0", "up1", "tun0"] {
            program.attach_to_if_index(place.named(link).index, XdpMode::Driver).unwrap();
        }
    }

    /// Runs one packet through one program. `None` where the kernel refuses to: it does, for TC, when an IP header
    /// is cut short.
    pub(crate) fn run(&self, run: &Run) -> Option<(Verdict, Vec<u8>)> {
        let mut out = vec![0; ROOM];
        let options =
            TestRunOptions { data_in: Some(&run.frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let program = self.ebpf.program(run.program.name()).unwrap();
        let result = if run.program == Program::UplinkXdp {
            let context = xdp_context(run);
            let program: &Xdp = program.try_into().unwrap();
            program.test_run(TestRunOptions { ctx_in: Some(&context), ..options })
        } else {
            let context = skb_context(run);
            let program: &SchedClassifier = program.try_into().unwrap();
            program.test_run(TestRunOptions { ctx_in: Some(&context), ..options })
        };
        let result = match result {
            Ok(result) => result,
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == ErrorKind::InvalidInput && run.frame.len() < SHORTEST_IP =>
            {
                return None;
            }
            Err(error) => panic!("{error:?}: {run:?}"),
        };
        out.truncate(result.data_size_out as usize);
        Some((verdict(run.program, result.return_value), out))
    }
}

/// An address as words in network order.
fn words(address: IpAddr) -> Vec<u32> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
}

fn verdict(program: Program, value: u32) -> Verdict {
    const UNSPEC: u32 = u32::MAX;
    match (program, value) {
        (Program::UplinkXdp, 1) => Verdict::Drop,
        (Program::UplinkXdp, 2) => Verdict::Pass,
        (Program::UplinkXdp, 3 | 4) => Verdict::Redirect,
        (Program::UplinkXdp, other) => Verdict::Unknown(other),
        (_, UNSPEC) => Verdict::Pass,
        (_, 2) => Verdict::Drop,
        (_, 7) => Verdict::Redirect,
        (_, other) => Verdict::Unknown(other),
    }
}

/// A `struct __sk_buff` with only the links set.
fn skb_context(run: &Run) -> [u8; 192] {
    const INGRESS_IFINDEX: usize = 36;
    const IFINDEX: usize = 40;
    let mut context = [0; 192];
    context[INGRESS_IFINDEX..][..4].copy_from_slice(&run.came_by.to_ne_bytes());
    context[IFINDEX..][..4].copy_from_slice(&run.link.to_ne_bytes());
    context
}

/// A `struct xdp_md`.
fn xdp_context(run: &Run) -> [u8; 24] {
    const DATA_END: usize = 4;
    const INGRESS_IFINDEX: usize = 12;
    let mut context = [0; 24];
    let end = u32::try_from(run.frame.len()).unwrap();
    context[DATA_END..][..4].copy_from_slice(&end.to_ne_bytes());
    context[INGRESS_IFINDEX..][..4].copy_from_slice(&run.link.to_ne_bytes());
    context
}
