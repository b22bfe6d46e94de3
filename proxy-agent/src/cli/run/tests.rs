use std::{collections::BTreeSet, fs};

use clap::{CommandFactory, FromArgMatches, Parser};
use serde_json::Value;

use super::{resolve::Resolved, *};
use crate::{
    config::{Configuration, Conntrack, GoDuration, KubeProxyConfiguration, Settings},
    datapath::{Capacities, Lifetimes, LinkOptions, SourcePorts, TcMode},
    logging,
    plan::NodePortAddresses,
    privileges::{Privileges, Unexpected},
    run::Source,
    source::kube::Access,
};

const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");

/// Every flag of kube-proxy on Linux.
const UPSTREAM: &str = "
    config write-config-to cleanup init-only kubeconfig master kube-api-qps kube-api-burst kube-api-content-type
    config-sync-period hostname-override bind-address bind-address-hard-fail healthz-bind-address
    metrics-bind-address healthz-port metrics-port profiling show-hidden-metrics-for-version feature-gates
    proxy-mode iptables-masquerade-bit masquerade-all iptables-localhost-nodeports iptables-sync-period
    iptables-min-sync-period ipvs-sync-period ipvs-min-sync-period ipvs-scheduler ipvs-exclude-cidrs
    ipvs-strict-arp ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout detect-local-mode cluster-cidr
    pod-bridge-interface pod-interface-name-prefix nodeport-addresses oom-score-adj conntrack-max-per-core
    conntrack-min conntrack-tcp-timeout-established conntrack-tcp-timeout-close-wait conntrack-tcp-be-liberal
    conntrack-udp-timeout conntrack-udp-timeout-stream v vmodule logging-format log-flush-frequency
    log-json-info-buffer-size log-json-split-stream log-text-info-buffer-size log-text-split-stream version
    boot-id-file machine-id-file";

#[derive(Parser, Debug)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn resolve_as(called: Called, flags: &[&str]) -> Result<Resolved, String> {
    let matches = Command::command().try_get_matches_from([&["run"], flags].concat());
    let matches = matches.map_err(|error| error.to_string())?;
    let args = Command::from_arg_matches(&matches).map_err(|error| error.to_string())?.args;
    let given = KubeProxyFlags::given(&matches);
    Resolver::new(args, given, called).resolve().map_err(|error| format!("{error:#}"))
}

fn resolve(flags: &[&str]) -> Result<Resolved, String> {
    resolve_as(Called::ProxyAgent, flags)
}

fn settings(flags: &[&str]) -> Settings {
    resolve(flags).unwrap().settings
}

#[test]
fn flags_are_as_documented() {
    let kubeconfig = settings(&["--kubeconfig", "k", "--hostname-override", "n1", "--log-format", "json"]);
    assert_eq!(kubeconfig.node_name.as_deref(), Some("n1"));
    assert_eq!(kubeconfig.source, Source::Kube(Access::of("k".into())));
    assert_eq!(kubeconfig.logging.format, logging::Format::Json);
    assert_eq!(kubeconfig.logging.level, logging::Level::Info);
    let default = settings(&[]);
    let privileges = Privileges::Drop(Unexpected::Refuse);
    assert_eq!(default.datapath, crate::datapath::Options { privileges, ..Default::default() });
    assert_eq!(settings(&["--privileges", "keep"]).datapath.privileges, Privileges::Keep);
    assert_eq!(default.source, Source::Kube(Access::default()));
    assert!(resolve(&["--kubeconfig", "k", "--manifests", "m"]).is_err(), "one source");
    let options = settings(&["--max-backends", "7", "--cgroup", "/c", "--count-connections"]).datapath;
    assert_eq!((options.capacities.backends4, options.capacities.backends6), (7, 7));
    assert_eq!(options.capacities.slots, Capacities::default().slots);
    assert_eq!(options.cgroup, Some("/c".into()));
    assert!(options.count_connections);
    assert_eq!(options.links, LinkOptions::default(), "nothing is attached to a driver unless asked for");
    let set = settings(&["--uplinks", "eth0,ens*", "--tc", "clsact", "--source-ports", "2000-9999"]);
    assert!(set.uplinks.names("ens5"));
    assert_eq!(set.datapath.links.tc, TcMode::Clsact);
    assert_eq!(set.datapath.source_ports, Some(SourcePorts { first: 2000, last: 9999 }));
    for wrong in [
        &["--max-slots", "0"][..],
        &["--log-level", "loud"],
        &["--max-flows", "100000000"],
        &["--conntrack-tcp-timeout-established", "1"],
        &["--nodeport-addresses", "eth0"],
        &["--metrics-port", "0"],
        &["--feature-gates", "Some=perhaps"],
        &["--source-ports", "9-1"],
    ] {
        assert!(resolve(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn times_are_those_of_flows_and_of_the_kernel() {
    let set = settings(&["--max-flows", "1000", "--conntrack-udp-timeout", "90s"]);
    assert_eq!((set.datapath.capacities.flows, set.datapath.capacities.new_flows), (1000, 32_768));
    let udp = std::time::Duration::from_secs(90);
    assert_eq!(set.datapath.lifetimes, Lifetimes { udp, ..Lifetimes::default() });
    assert_eq!(set.conntrack, Conntrack { udp_timeout: GoDuration(udp), ..Conntrack::untouched() });
    let as_kube_proxy = resolve_as(Called::KubeProxy, &[]).unwrap().settings;
    assert_eq!(as_kube_proxy.conntrack, Conntrack::default());
}

#[test]
fn a_mode_decides_the_defaults_of_node_ports() {
    for (flags, addresses, loopback) in [
        (&[][..], NodePortAddresses::All, true),
        (&["--proxy-mode=nftables"], NodePortAddresses::Primary, true),
        (&["--proxy-mode=ipvs"], NodePortAddresses::All, false),
        (&["--iptables-localhost-nodeports=false"], NodePortAddresses::All, false),
        (&["--nodeport-addresses=primary"], NodePortAddresses::Primary, true),
    ] {
        let planner = settings(flags).planner;
        assert_eq!(
            (planner.node_port_addresses, planner.loopback_node_ports),
            (addresses, loopback),
            "{flags:?}"
        );
    }
    assert!(settings(&[]).planner.external_ips);
    assert!(!settings(&["--feature-gates=AllowServiceExternalIPs=false"]).planner.external_ips);
    assert_eq!(settings(&["--bind-address=::"]).planner.node_address, None);
    assert_eq!(settings(&["--bind-address=192.0.2.9"]).planner.node_address, "192.0.2.9".parse().ok());
}

#[test]
fn servers_follow_addresses_and_ports() {
    let at = |flags: &[&str]| {
        let servers = settings(flags).servers;
        (servers.healthz.map(|address| address.to_string()), servers.metrics.to_string())
    };
    for (flags, healthz, metrics) in [
        (&[][..], Some("0.0.0.0:10256"), "127.0.0.1:10249"),
        (&["--bind-address=::"], Some("[::]:10256"), "[::1]:10249"),
        (
            &["--healthz-bind-address=192.0.2.1", "--metrics-bind-address=[::]:9"],
            Some("192.0.2.1:10256"),
            "[::]:9",
        ),
        (&["--healthz-bind-address=", "--metrics-port=7"], Some("0.0.0.0:10256"), "127.0.0.1:7"),
        (
            &["--healthz-bind-address=192.0.2.1:99", "--healthz-port=98"],
            Some("192.0.2.1:99"),
            "127.0.0.1:10249",
        ),
        (&["--healthz-bind-address=[::1]", "--healthz-port=98"], Some("[::1]:98"), "127.0.0.1:10249"),
        (&["--healthz-port=0"], None, "127.0.0.1:10249"),
    ] {
        assert_eq!(at(flags), (healthz.map(str::to_owned), metrics.to_owned()), "{flags:?}");
    }
}

#[test]
fn beside_a_file_few_flags_of_kube_proxy_count() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "{apiVersion: kubeproxy.config.k8s.io/v1alpha1, kind: KubeProxyConfiguration, hostnameOverride: n1, \
                mode: nftables, logging: {verbosity: 2}}\n---\n{apiVersion: ferroute.io/v1alpha1, kind: \
                FerrouteConfiguration, bpffs: /b, capacities: {flows: 9}}\n";
    fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let resolved = resolve(&[
        "--config",
        path,
        "--hostname-override=N2",
        "--proxy-mode=ipvs",
        "-v=4",
        "--max-flows=10",
        "--master=http://a",
    ])
    .unwrap();
    let Settings { node_name, datapath, logging, conntrack, source, planner, .. } = resolved.settings;
    assert_eq!(node_name.as_deref(), Some("N2"));
    assert_eq!(planner.node_port_addresses, NodePortAddresses::Primary, "by the file's mode");
    assert_eq!(logging.level, logging::Level::Debug);
    assert_eq!((datapath.bpffs, datapath.capacities.flows), ("/b".into(), 10));
    assert_eq!(conntrack, Conntrack::default());
    assert_eq!(source, Source::Kube(Access { kubeconfig: None, server: Some("http://a".to_owned()) }));
    let [said] = &resolved.said[..] else { panic!("{:?}", resolved.said) };
    assert!(said.starts_with("--proxy-mode has no effect beside --config"), "{said}");
    // A variable that is not set makes an empty name, which is none.
    let named = resolve(&["--config", path, "--hostname-override="]).unwrap().settings.node_name;
    assert_eq!(named.as_deref(), Some("n1"));
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let resolved = resolve(&[
        "--manifests=/m",
        "--proxy-mode=nftables",
        "--nodeport-addresses=10.0.0.0/8,fd00::/8",
        "--max-slots=12",
        "--conntrack-tcp-timeout-established=1h30m",
        "--feature-gates=A=true,B=false",
        "--vmodule=a=1,b=2",
        "--uplinks=eth0,eth1",
        "--source-ports=2000-9999",
        "--xdp=off",
        "--oom-score-adj=-5",
        "-v=6",
    ])
    .unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, resolved.configuration.to_yaml().unwrap()).unwrap();
    assert_eq!(Configuration::read(&file).unwrap(), resolved.configuration);
    assert_eq!(resolve(&["--config", file.to_str().unwrap()]).unwrap().settings, resolved.settings);
}

/// A row of a table of the documentation: flags, field, the rest.
struct Row {
    flag: Option<String>,
    field: Option<String>,
    rest: String,
}

fn rows(heading: &str) -> Vec<Row> {
    let (_, section) = DOCUMENTATION.split_once(&format!("## {heading}\n")).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let name = |cell: &str, start: &str| {
        let (_, rest) = cell.split_once('`')?;
        let (name, _) = rest.split_once('`')?;
        Some(name.strip_prefix(start)?.to_owned())
    };
    let table = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| flag") && !line.starts_with("| ---"));
    table
        .map(|line| {
            // A cell without a name leaves one blank between two bars.
            let (first, rest) = line[1..].split_once("| ").expect("cells");
            let (second, rest) = rest.split_once("| ").expect("cells");
            Row { flag: name(first, "--"), field: name(second, ""), rest: rest.to_owned() }
        })
        .collect()
}

/// Every path of a tree that ends in something else than a tree with names of its own.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
            }
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

fn fields(value: &impl serde::Serialize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves(&serde_json::to_value(value).unwrap(), "", &mut found);
    found.remove("apiVersion");
    found.remove("kind");
    found
}

fn flags_of<A: clap::Args>() -> BTreeSet<String> {
    let command = A::augment_args(clap::Command::new(""));
    command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
}

#[test]
fn the_documentation_has_every_flag_and_field() {
    let rows = rows("kube-proxy's flags and fields");
    let mut flags = flags_of::<KubeProxyFlags>();
    let more = ["config", "write-config-to", "cleanup", "init-only", "version"];
    flags.extend(more.map(str::to_owned));
    assert_eq!(rows.iter().filter_map(|row| row.flag.clone()).collect::<BTreeSet<_>>(), flags);
    let upstream: BTreeSet<String> = UPSTREAM.split_whitespace().map(str::to_owned).collect();
    assert_eq!(flags, upstream, "KUBE-PROXY.md 4.1, those of Windows apart");
    let documented: BTreeSet<String> = rows.iter().filter_map(|row| row.field.clone()).collect();
    assert_eq!(documented, fields(&KubeProxyConfiguration::default()));

    let own = self::rows("Ferroute's own");
    assert_eq!(
        own.iter().filter_map(|row| row.flag.clone()).collect::<BTreeSet<_>>(),
        flags_of::<FerrouteFlags>()
    );
    let documented: BTreeSet<String> = own.iter().filter_map(|row| row.field.clone()).collect();
    assert_eq!(documented, fields(&crate::config::FerrouteConfiguration::default()));
}

/// A value for a flag that is not the default, and what stands in its field then.
fn sample(flag: &str, default: &Value) -> (String, Value) {
    let text = |text: &str| (text.to_owned(), Value::from(text));
    match flag {
        "proxy-mode" => text("nftables"),
        "bind-address" => text("192.0.2.1"),
        "healthz-bind-address" | "metrics-bind-address" => text("192.0.2.1:99"),
        "detect-local-mode" => text("NodeCIDR"),
        "cluster-cidr" => text("10.0.0.0/8"),
        "logging-format" => text("json"),
        "workload-links" => text("always"),
        "tc" => text("clsact"),
        "xdp" => text("generic"),
        "source-ports" => text("2000-9999"),
        "privileges" => text("keep"),
        "log-level" => text("debug"),
        "log-format" => text("json"),
        "nodeport-addresses" | "ipvs-exclude-cidrs" => {
            ("10.0.0.0/8".to_owned(), serde_json::json!(["10.0.0.0/8"]))
        }
        "uplinks" => ("eth7".to_owned(), serde_json::json!(["eth7"])),
        "feature-gates" => ("Some=true".to_owned(), serde_json::json!({"Some": true})),
        "vmodule" => ("a=1".to_owned(), serde_json::json!([{"filePattern": "a", "verbosity": 1}])),
        "max-backends" => ("77".to_owned(), 77.into()),
        _ => match default {
            Value::Bool(on) => ((!on).to_string(), (!on).into()),
            Value::Number(number) if number.is_f64() => ("2.5".to_owned(), 2.5.into()),
            Value::Number(_) => ("17".to_owned(), 17.into()),
            Value::String(duration) if duration.parse::<GoDuration>().is_ok() && duration.len() > 1 => {
                text("17s")
            }
            _ => text("some-text"),
        },
    }
}

#[test]
fn every_row_of_the_documentation_is_true() {
    let tree = |configuration: &Configuration| {
        let mut both = serde_json::to_value(&configuration.kube_proxy).unwrap();
        let own = serde_json::to_value(&configuration.ferroute).unwrap();
        both.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        both
    };
    let plain = tree(&resolve(&[]).unwrap().configuration);
    let own = rows("Ferroute's own");
    for Row { flag, field, rest } in rows("kube-proxy's flags and fields").into_iter().chain(own) {
        let no_effect = rest.starts_with("no effect");
        let (Some(flag), Some(field)) = (&flag, &field) else { continue };
        let pointer = format!("/{}", field.replace('.', "/"));
        let (value, expected) = sample(flag, plain.pointer(&pointer).expect(field));
        let argument = if ["count-connections", "close-connections-of-gone-endpoints"].contains(&&**flag) {
            format!("--{flag}")
        } else {
            format!("--{flag}={value}")
        };
        let mut arguments = vec![argument.as_str()];
        if flag == "iptables-sync-period" || flag == "ipvs-sync-period" {
            // Not longer than the other.
            arguments.push("--iptables-min-sync-period=1s");
        }
        let resolved = resolve(&arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
        let mut now = tree(&resolved.configuration);
        assert_eq!(now.pointer(&pointer), Some(&expected), "{arguments:?}");
        *now.pointer_mut(&pointer).unwrap() = plain.pointer(&pointer).unwrap().clone();
        assert_eq!(now, plain, "{arguments:?} changes more than {field}");
        let said = resolved.said.iter().any(|line| line.starts_with(field.as_str()));
        let gate = flag == "feature-gates";
        assert_eq!(said, no_effect || gate, "{arguments:?}: {:?}", resolved.said);
        if !no_effect && !gate && flag != "proxy-mode" {
            let other = resolved.settings != settings(&[]);
            // Some mean something only in another mode, or together with another.
            let alone = !matches!(flag.as_str(), "ipvs-sync-period" | "detect-local-mode");
            assert_eq!(other, alone, "{arguments:?}");
        }
    }
}
