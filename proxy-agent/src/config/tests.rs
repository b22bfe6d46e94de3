use serde_json::{Value, json};

use super::*;
use crate::{
    datapath::{Lifetimes, XdpMode},
    logging,
    plan::{NodePortAddresses, PlannerConfig},
    run::Source,
    source::kube::Access,
};

const KUBEADM: &str = include_str!("tests/kubeadm.yaml");
const KIND: &str = include_str!("tests/kind.yaml");
const MINIKUBE: &str = include_str!("tests/minikube.yaml");
const ALL: &str = include_str!("tests/all.yaml");

fn read(text: &str) -> Configuration {
    Configuration::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> Vec<String> {
    Configuration::parse(text).map_or_else(|mistakes| mistakes.0, |read| panic!("{read:?}"))
}

/// A document as a tree, to be changed.
fn tree(text: &str) -> Value {
    let document = text.split("---\n").next().unwrap();
    serde_yaml_ng::from_str(document).unwrap()
}

#[test]
fn what_kubeadm_writes_is_the_default() {
    let configuration = read(KUBEADM);
    let expected = KubeProxyConfiguration {
        client_connection: kube_proxy::ClientConnection {
            kubeconfig: "/var/lib/kube-proxy/kubeconfig.conf".to_owned(),
            ..Default::default()
        },
        cluster_cidr: "10.244.0.0/16".to_owned(),
        ..Default::default()
    };
    assert_eq!(configuration.kube_proxy, expected);
    assert_eq!(configuration.ferroute, FerrouteConfiguration::default());
    let settings = configuration.settings().unwrap();
    assert_eq!(settings.source, Source::Kube(Access::of("/var/lib/kube-proxy/kubeconfig.conf".into())));
    assert_eq!(settings.planner, PlannerConfig::default());
    assert_eq!(settings.datapath.lifetimes, Lifetimes::default());
    assert_eq!(settings.datapath.cluster_cidr, "10.244.0.0/16".parse().unwrap());
    assert_eq!(settings.conntrack, Conntrack::default());
    assert_eq!(settings.oom_score_adj, -999);
    assert_eq!(settings.servers.sync_period.as_secs(), 30);
}

#[test]
fn what_kind_and_minikube_write_leaves_the_machine_alone() {
    let kind = read(KIND).settings().unwrap();
    assert_eq!(kind.conntrack, Conntrack { max_per_core: 0, ..Conntrack::default() });
    let minikube = read(MINIKUBE).settings().unwrap();
    assert_eq!(minikube.conntrack, Conntrack { min: 131_072, ..Conntrack::untouched() });
    assert_eq!(minikube.datapath.lifetimes, Lifetimes::default(), "0 is no lifetime for flows");
    assert_eq!(minikube.servers.metrics.to_string(), "0.0.0.0:10249");
}

#[test]
fn every_field_reaches_what_it_is_for() {
    let configuration = read(ALL);
    let settings = configuration.settings().unwrap();
    assert_eq!(settings.node_name.as_deref(), Some("n1"));
    assert_eq!(settings.source, Source::Manifests("/m".into()));
    let planner = PlannerConfig {
        node_port_addresses: "192.0.2.0/24,fd00::/8".parse().unwrap(),
        loopback_node_ports: true,
        external_ips: false,
        node_address: "fd00::1".parse().ok(),
        keep_tcp_endpoints: true,
    };
    assert_eq!(settings.planner, planner);
    let Servers { healthz, metrics, hard_fail, sync_period, most_service_metrics } = settings.servers;
    assert_eq!(healthz, "[fd00::1]:11256".parse().ok());
    assert_eq!(
        (metrics.to_string(), hard_fail, sync_period.as_secs()),
        ("[fd00::1]:10249".to_owned(), true, 22)
    );
    assert_eq!((most_service_metrics, settings.datapath.close_connections), (7, true));
    assert_eq!(settings.oom_score_adj, -998);
    assert_eq!(settings.conntrack, configuration.kube_proxy.conntrack);
    let seconds = |lifetimes: Lifetimes| {
        let Lifetimes { tcp_established, tcp_close_wait, udp, udp_stream } = lifetimes;
        [tcp_established, tcp_close_wait, udp, udp_stream].map(|time| time.as_secs())
    };
    assert_eq!(seconds(settings.datapath.lifetimes), [3600, 2, 3, 4], "the own document counts more");
    let capacities = settings.datapath.capacities;
    assert_eq!((capacities.frontends, capacities.slots, capacities.services), (1, 3, 4));
    assert_eq!((capacities.backends4, capacities.backends6), (2, 2));
    assert_eq!((capacities.source_ranges, capacities.flows, capacities.new_flows), (5, 6, 7));
    assert_eq!(settings.datapath.links.xdp, XdpMode::Generic);
    assert!(settings.datapath.count_connections && settings.uplinks.names("ens3"));
    assert_eq!(
        (settings.logging.level, settings.logging.format),
        (logging::Level::Trace, logging::Format::Text)
    );

    let mut without_own: Value = tree(ALL);
    without_own["mode"] = json!("ipvs");
    let settings = read(&without_own.to_string()).settings().unwrap();
    assert_eq!(settings.logging.level, logging::Level::Debug, "by verbosity 5");
    assert_eq!(settings.logging.format, logging::Format::Json);
    assert_eq!(seconds(settings.datapath.lifetimes), [7200, 90, 10, 11]);
    assert_eq!(settings.servers.sync_period.as_secs(), 21, "the section of the mode");
}

#[test]
fn every_field_is_set_in_one_file() {
    let default = serde_json::to_value(KubeProxyConfiguration::default()).unwrap();
    let all = serde_json::to_value(&read(ALL).kube_proxy).unwrap();
    assert_no_default(&all, &default, "");
    let said = read(ALL).without_effect();
    for (path, reason) in meaning::WITHOUT_MEANING {
        let lines: Vec<_> = said.iter().filter(|line| line.starts_with(&format!("{path} "))).collect();
        assert!(matches!(lines[..], [line] if line.ends_with(reason)), "{path}: {lines:?}");
    }
    assert_eq!(said.len(), meaning::WITHOUT_MEANING.len() + 1, "and a gate: {said:?}");
    assert_eq!(Configuration::default().without_effect(), Vec::<String>::new());
    assert_eq!(read(KUBEADM).without_effect(), Vec::<String>::new());
}

fn assert_no_default(value: &Value, default: &Value, path: &str) {
    match (value, default) {
        (Value::Object(fields), Value::Object(known)) if !known.is_empty() => {
            for (name, default) in known.iter().filter(|(name, _)| *name != "apiVersion" && *name != "kind") {
                assert_no_default(&fields[name], default, &format!("{path}.{name}"));
            }
        }
        _ => assert_ne!(value, default, "{path} is not set in all.yaml"),
    }
}

#[test]
fn each_wrong_field_is_named_with_its_path() {
    for (pointer, wrong, path) in [
        ("/mode", json!("userspace"), "mode"),
        ("/detectLocalMode", json!("Guess"), "detectLocalMode"),
        ("/detectLocal/bridgeInterface", json!(""), "detectLocal.bridgeInterface"),
        ("/bindAddress", json!("eth0"), "bindAddress"),
        ("/healthzBindAddress", json!("localhost:10256"), "healthzBindAddress"),
        ("/healthzBindAddress", json!("0.0.0.0:0"), "healthzBindAddress"),
        ("/metricsBindAddress", json!("1.2.3.4:70000"), "metricsBindAddress"),
        ("/bindAddressHardFail", json!("maybe"), "bindAddressHardFail"),
        ("/oomScoreAdj", json!(-1001), "oomScoreAdj"),
        ("/iptables/masqueradeBit", json!(32), "iptables.masqueradeBit"),
        ("/nftables/masqueradeBit", json!(-1), "nftables.masqueradeBit"),
        ("/iptables/syncPeriod", json!("-1s"), "iptables.syncPeriod"),
        ("/iptables/minSyncPeriod", json!("2m0s"), "iptables.minSyncPeriod"),
        ("/iptables/localhostNodePorts", json!(1), "iptables.localhostNodePorts"),
        ("/ipvs/minSyncPeriod", json!("2m0s"), "ipvs.minSyncPeriod"),
        ("/ipvs/excludeCIDRs", json!(["10.0.0.0"]), "ipvs.excludeCIDRs[0]"),
        ("/nftables/syncPeriod", json!("1"), "nftables.syncPeriod"),
        ("/conntrack/maxPerCore", json!(-1), "conntrack.maxPerCore"),
        ("/conntrack/min", json!("many"), "conntrack.min"),
        ("/conntrack/tcpCloseWaitTimeout", json!(3600), "conntrack.tcpCloseWaitTimeout"),
        ("/conntrack/udpTimeout", json!("-5s"), "conntrack.udpTimeout"),
        ("/configSyncPeriod", json!("soon"), "configSyncPeriod"),
        ("/clientConnection/burst", json!(-1), "clientConnection.burst"),
        ("/clientConnection/qps", json!("5"), "clientConnection.qps"),
        ("/clusterCIDR", json!("10.0.0.0/8,10.0.0.0/8"), "clusterCIDR"),
        ("/clusterCIDR", json!("10.0.0.0"), "clusterCIDR"),
        ("/nodePortAddresses", json!(["primary", "10.0.0.0/8"]), "nodePortAddresses"),
        ("/nodePortAddresses", json!(["eth0"]), "nodePortAddresses"),
        ("/featureGates/Other", json!("yes"), "featureGates.Other"),
        ("/logging/format", json!("xml"), "logging.format"),
        ("/logging/verbosity", json!(-1), "logging.verbosity"),
        ("/logging/flushFrequency", json!([]), "logging.flushFrequency"),
        ("/logging/vmodule", json!([{"filePattern": "a"}]), "logging.vmodule[0]"),
        ("/winkernel", json!("none"), "winkernel"),
    ] {
        let mut all = tree(ALL);
        *all.pointer_mut(pointer).expect(pointer) = wrong;
        let found = mistakes(&all.to_string());
        let named = found.iter().any(|mistake| mistake.starts_with(&format!("{path}: ")));
        assert!(named && found.len() == 1, "{pointer}: {found:?}");
    }
    for (document, path) in [
        ("capacities: {flows: 0}", "capacities.flows"),
        ("capacities: {newFlows: 67108865}", "capacities.newFlows"),
        ("capacities: {slots: -1}", "capacities.slots"),
        ("sourcePorts: 9-1", "sourcePorts"),
        ("xdp: fast", "xdp"),
        ("tc: 1", "tc"),
        ("uplinks: eth0", "uplinks"),
        ("uplinks: ['eth0,eth1']", "uplinks[0]"),
        ("lifetimes: {udp: 1}", "lifetimes.udp"),
        ("logLevel: loud", "logLevel"),
        ("sourceports: 1-2", "sourceports"),
    ] {
        let text = format!("apiVersion: ferroute.io/v1alpha1\nkind: FerrouteConfiguration\n{document}\n");
        let found = mistakes(&text);
        assert!(found.len() == 1 && found[0].starts_with(&format!("{path}: ")), "{document}: {found:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: userspace\n\
                Mode: ''\niptables: {syncPeriod: 5, syncperiod: null}\nconntrack: {min: -2, maxPerCore: x}\n---\n\
                apiVersion: ferroute.io/v1alpha1\nkind: FerrouteConfiguration\nxdp: fast\n---\nkind: Pod\n";
    let found = mistakes(text);
    for start in [
        "Mode: there is no such field; is mode meant?",
        "iptables.syncperiod: there is no such field; is syncPeriod meant?",
        "iptables.syncPeriod: invalid type",
        "conntrack.maxPerCore: invalid type",
        "xdp: unknown variant `fast`",
        "there is a document with apiVersion \"\" and kind \"Pod\"",
        "mode: \"userspace\" is none of iptables, ipvs, nftables",
        "conntrack.min: -2 is less than 0",
    ] {
        assert!(found.iter().any(|mistake| mistake.starts_with(start)), "{start}: {found:#?}");
    }
    assert_eq!(found.len(), 8, "{found:#?}");
}

#[test]
fn documents_that_are_none_are_refused() {
    let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    for (text, said) in [
        ("".to_owned(), "there is no KubeProxyConfiguration"),
        ("# nothing\n".to_owned(), "there is no KubeProxyConfiguration"),
        (format!("{head}mode: ''\nmode: ipvs\n"), "duplicate entry with key \"mode\""),
        (
            format!("{head}iptables: {{masqueradeAll: true, masqueradeAll: true}}\n"),
            "iptables: duplicate entry",
        ),
        (format!("{head}---\n{head}"), "there are two documents of kind \"KubeProxyConfiguration\""),
        (head.replace("v1alpha1", "v1alpha2"), "apiVersion \"kubeproxy.config.k8s.io/v1alpha2\""),
        ("mode: [\n".to_owned(), "line"),
        ("- 1\n".to_owned(), "there is a document with apiVersion"),
    ] {
        let found = mistakes(&text);
        assert!(found.iter().any(|mistake| mistake.contains(said)), "{text:?}: {found:?}");
    }
}

#[test]
fn json_is_read_too() {
    let text = serde_json::to_string_pretty(&tree(KUBEADM)).unwrap().replace("  ", "\t");
    assert_eq!(read(&text), read(KUBEADM));
}

#[test]
fn what_is_written_is_read_as_the_same() {
    for text in [KUBEADM, KIND, MINIKUBE, ALL] {
        let configuration = read(text);
        assert_eq!(read(&configuration.to_yaml().unwrap()), configuration);
    }
}

#[test]
fn node_ports_of_mode_nftables_are_on_primary_addresses() {
    let mut kubeadm = tree(KUBEADM);
    kubeadm["mode"] = json!("nftables");
    let planner = read(&kubeadm.to_string()).settings().unwrap().planner;
    assert_eq!(planner.node_port_addresses, NodePortAddresses::Primary);
}

#[test]
fn the_deployed_configuration_sets_nothing_of_the_machine() {
    let deployed = read(include_str!("../../../deploy/kubernetes/base/config.yaml"));
    assert_eq!(deployed.settings().unwrap().conntrack, Conntrack::untouched());
    assert_eq!(deployed.without_effect(), Vec::<String>::new());
}
