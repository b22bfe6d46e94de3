//! What a configuration has to fulfil beyond its types (KUBE-PROXY.md 4.3).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{
    Configuration, GoDuration,
    kube_proxy::{DetectLocal, KubeProxyConfiguration},
};
use crate::{
    datapath::{ClusterCidr, SourcePorts},
    plan::NodePortAddresses,
};

/// The kernel makes no hash map of more than 2^27 entries, and a flow is two.
pub const MOST_FLOWS: u32 = 1 << 26;

/// kube-proxy's modes; none is iptables.
const MODES: [&str; 4] = ["", "iptables", "ipvs", "nftables"];

const DETECTORS: [&str; 4] = ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];

/// Everything that is wrong, each with its path.
pub(super) fn check(configuration: &Configuration) -> Vec<String> {
    let mut checks = Checks::default();
    checks.kube_proxy(&configuration.kube_proxy);
    checks.ferroute(&configuration.ferroute);
    checks.0
}

#[derive(Default)]
struct Checks(Vec<String>);

impl Checks {
    fn expect(&mut self, good: bool, path: &str, value: impl std::fmt::Debug, rule: &str) {
        if !good {
            self.0.push(format!("{path}: {value:?} {rule}"));
        }
    }

    fn kube_proxy(&mut self, config: &KubeProxyConfiguration) {
        self.one_of("mode", &config.mode, &MODES);
        self.one_of("detectLocalMode", &config.detect_local_mode, &DETECTORS);
        self.one_of("logging.format", &config.logging.format, &["text", "json"]);
        self.expect(
            config.bind_address.parse::<IpAddr>().is_ok(),
            "bindAddress",
            &config.bind_address,
            "is not an IP address",
        );
        // Empty is what --healthz-port 0 makes of it.
        if !config.healthz_bind_address.is_empty() {
            self.endpoint("healthzBindAddress", &config.healthz_bind_address);
        }
        self.endpoint("metricsBindAddress", &config.metrics_bind_address);
        let score = config.oom_score_adj;
        self.expect((-1000..=1000).contains(&score), "oomScoreAdj", score, "is not from -1000 to 1000");
        for (path, bit) in [
            ("iptables.masqueradeBit", config.iptables.masquerade_bit),
            ("nftables.masqueradeBit", config.nftables.masquerade_bit),
        ] {
            self.expect((0..=31).contains(&bit), path, bit, "is not from 0 to 31");
        }
        for (section, period, least) in [
            ("iptables", config.iptables.sync_period, config.iptables.min_sync_period),
            ("ipvs", config.ipvs.sync_period, config.ipvs.min_sync_period),
            ("nftables", config.nftables.sync_period, config.nftables.min_sync_period),
        ] {
            self.positive(&format!("{section}.syncPeriod"), period);
            self.expect(
                least <= period,
                &format!("{section}.minSyncPeriod"),
                least.to_string(),
                &format!("is longer than syncPeriod, {period}"),
            );
        }
        self.positive("configSyncPeriod", config.config_sync_period);
        let conntrack = &config.conntrack;
        self.not_negative("conntrack.maxPerCore", conntrack.max_per_core);
        self.not_negative("conntrack.min", conntrack.min);
        self.not_negative("clientConnection.burst", config.client_connection.burst);
        self.detectors(config);
        if let Err(error) = config.cluster_cidr.parse::<ClusterCidr>() {
            self.0.push(format!("clusterCIDR: {error}"));
        }
        if let Err(error) = config.node_port_addresses.join(",").parse::<NodePortAddresses>() {
            self.0.push(format!("nodePortAddresses: {error}"));
        }
        for (index, cidr) in config.ipvs.exclude_cidrs.iter().enumerate() {
            let path = format!("ipvs.excludeCIDRs[{index}]");
            self.expect(cidr.parse::<IpNet>().is_ok(), &path, cidr, "is not a network in CIDR notation");
        }
    }

    fn detectors(&mut self, config: &KubeProxyConfiguration) {
        let DetectLocal { bridge_interface, interface_name_prefix } = &config.detect_local;
        for (mode, path, name) in [
            ("BridgeInterface", "detectLocal.bridgeInterface", bridge_interface),
            ("InterfaceNamePrefix", "detectLocal.interfaceNamePrefix", interface_name_prefix),
        ] {
            let needed = config.detect_local_mode == mode;
            self.expect(
                !needed || !name.is_empty(),
                path,
                name,
                &format!("is empty, and detectLocalMode is {mode}"),
            );
        }
    }

    fn ferroute(&mut self, config: &super::FerrouteConfiguration) {
        let capacities = &config.capacities;
        for (name, value, most) in [
            ("frontends", capacities.frontends, u32::MAX),
            ("backends", capacities.backends.unwrap_or(1), u32::MAX),
            ("slots", capacities.slots, u32::MAX),
            ("services", capacities.services, u32::MAX),
            ("sourceRanges", capacities.source_ranges, u32::MAX),
            ("flows", capacities.flows, MOST_FLOWS),
            ("newFlows", capacities.new_flows, MOST_FLOWS),
        ] {
            let good = (1..=most).contains(&value);
            self.expect(good, &format!("capacities.{name}"), value, &format!("is not from 1 to {most}"));
        }
        if let Some(Err(error)) = config.source_ports.as_deref().map(str::parse::<SourcePorts>) {
            self.0.push(format!(
                "sourcePorts: {:?} {error}",
                config.source_ports.as_deref().unwrap_or_default()
            ));
        }
        for (index, link) in config.uplinks.iter().enumerate() {
            let good = !link.trim().is_empty() && !link.contains(',');
            self.expect(good, &format!("uplinks[{index}]"), link, "is not the name of a link");
        }
    }

    fn one_of(&mut self, path: &str, value: &str, known: &[&str]) {
        if !known.contains(&value) {
            let known: Vec<&str> = known.iter().copied().filter(|word| !word.is_empty()).collect();
            self.0.push(format!("{path}: {value:?} is none of {}", known.join(", ")));
        }
    }

    fn endpoint(&mut self, path: &str, value: &str) {
        let good = value.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0);
        self.expect(good, path, value, "is not an IP address and a port from 1 to 65535");
    }

    fn positive(&mut self, path: &str, duration: GoDuration) {
        self.expect(!duration.is_zero(), path, duration.to_string(), "is not more than 0");
    }

    fn not_negative(&mut self, path: &str, value: i32) {
        self.expect(value >= 0, path, value, "is less than 0");
    }
}
