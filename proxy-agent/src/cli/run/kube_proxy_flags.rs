use std::{net::SocketAddr, str::FromStr};

use clap::ArgMatches;

use crate::config::{Configuration, GoDuration, KubeProxyConfiguration};

/// kube-proxy's own flags, under its own names (KUBE-PROXY.md 4.1). Each is a field of its configuration file;
/// docs/configuration.md has the table.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Options of kube-proxy")]
pub(in crate::cli) struct KubeProxyFlags {
    /// Kubeconfig of the API server to follow [default: the service account of the pod].
    #[arg(long, value_name = "FILE", allow_hyphen_values = true)]
    kubeconfig: Option<String>,
    /// URL of the API server, in the place of the kubeconfig's.
    #[arg(long, value_name = "URL")]
    master: Option<String>,
    /// Name of this node's Node object [default: $NODE_NAME, then the host name].
    #[arg(long, alias = "node-name", value_name = "NAME")]
    hostname_override: Option<String>,
    /// This node's own address, where it is to be another than the first of its family in the Node object.
    #[arg(long, value_name = "IP")]
    bind_address: Option<String>,
    /// End when a server for health or metrics cannot listen.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    bind_address_hard_fail: Option<GoBool>,
    /// Where `/healthz` and `/livez` are served [default: 0.0.0.0:10256].
    #[arg(long, value_name = "IP:PORT")]
    healthz_bind_address: Option<String>,
    /// Where metrics are served [default: 127.0.0.1:10249].
    #[arg(long, value_name = "IP:PORT")]
    metrics_bind_address: Option<String>,
    /// Port of `--healthz-bind-address`; 0 for no such server.
    #[arg(long, value_name = "PORT", hide = true)]
    healthz_port: Option<u16>,
    /// Port of `--metrics-bind-address`.
    #[arg(long, value_name = "PORT", hide = true)]
    metrics_port: Option<u16>,
    /// kube-proxy's mode, which decides the defaults that depend on it: iptables, ipvs or nftables.
    #[arg(long, value_name = "MODE")]
    proxy_mode: Option<String>,
    /// Which of the node's addresses serve node ports: networks in CIDR notation, separated by commas, or the
    /// single word primary for the first of each family in the Node object [default: all; primary in mode
    /// nftables].
    #[arg(long, value_name = "LIST")]
    nodeport_addresses: Option<String>,
    /// Whether node ports are served on the loopback addresses too, for processes of the host [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    iptables_localhost_nodeports: Option<GoBool>,
    /// Networks of the cluster's pods.
    #[arg(long, value_name = "CIDR,...")]
    cluster_cidr: Option<String>,
    /// How pods are told from others: --cluster-cidr counts only in mode ClusterCIDR [default: ClusterCIDR].
    #[arg(long, value_name = "MODE")]
    detect_local_mode: Option<String>,
    /// From -1000, never killed for want of memory, to 1000 [default: -999].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Entries of the kernel's connection tracking for each processor; 0 leaves it as it is [default: 0; called
    /// as kube-proxy 32768].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    conntrack_max_per_core: Option<i32>,
    /// The least that `--conntrack-max-per-core` comes to [default: 0; called as kube-proxy 131072].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    conntrack_min: Option<i32>,
    /// How long an established TCP connection is kept without a packet, of the packet path and in the kernel's
    /// connection tracking; 0 is the default, and leaves the kernel's as it is [default: 24h0m0s].
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_established: Option<GoDuration>,
    /// The same after one side has closed it [default: 1h0m0s].
    #[arg(long, value_name = "DURATION")]
    conntrack_tcp_timeout_close_wait: Option<GoDuration>,
    /// Have the kernel's connection tracking take packets outside of the window for valid.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    conntrack_tcp_be_liberal: Option<GoBool>,
    /// How long a UDP exchange is kept without a packet until the client has gone on after an answer; 0 is 30s,
    /// and leaves the kernel's connection tracking as it is.
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout: Option<GoDuration>,
    /// The same from then on; 0 is 2m0s.
    #[arg(long, value_name = "DURATION")]
    conntrack_udp_timeout_stream: Option<GoDuration>,
    /// Twice this long without progress is unhealthy [default: 30s].
    #[arg(long, value_name = "DURATION")]
    iptables_sync_period: Option<GoDuration>,
    /// The same in mode ipvs.
    #[arg(long, value_name = "DURATION", hide = true)]
    ipvs_sync_period: Option<GoDuration>,
    /// Gates, NAME=true or NAME=false, separated by commas.
    #[arg(long, value_name = "NAME=BOOL,...")]
    feature_gates: Option<String>,
    /// How much to log: from 4 on every change, from 8 on what libraries say too.
    #[arg(short = 'v', long = "v", value_name = "LEVEL")]
    verbosity: Option<u32>,
    /// What a log line looks like: text or json.
    #[arg(long, value_name = "FORMAT")]
    logging_format: Option<String>,
    #[command(flatten)]
    without_effect: WithoutEffect,
}

/// Flags that are taken and come to nothing, with a line in the log.
#[derive(clap::Args, Debug)]
struct WithoutEffect {
    #[arg(long, hide = true)]
    kube_api_qps: Option<f32>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    kube_api_burst: Option<i32>,
    #[arg(long, hide = true)]
    kube_api_content_type: Option<String>,
    #[arg(long, hide = true)]
    config_sync_period: Option<GoDuration>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    profiling: Option<GoBool>,
    #[arg(long, hide = true)]
    show_hidden_metrics_for_version: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    iptables_masquerade_bit: Option<i32>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    masquerade_all: Option<GoBool>,
    #[arg(long, hide = true)]
    iptables_min_sync_period: Option<GoDuration>,
    #[arg(long, hide = true)]
    ipvs_min_sync_period: Option<GoDuration>,
    #[arg(long, hide = true)]
    ipvs_scheduler: Option<String>,
    #[arg(long, hide = true, value_delimiter = ',')]
    ipvs_exclude_cidrs: Option<Vec<String>>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipvs_strict_arp: Option<GoBool>,
    #[arg(long, hide = true)]
    ipvs_tcp_timeout: Option<GoDuration>,
    #[arg(long, hide = true)]
    ipvs_tcpfin_timeout: Option<GoDuration>,
    #[arg(long, hide = true)]
    ipvs_udp_timeout: Option<GoDuration>,
    #[arg(long, hide = true)]
    pod_bridge_interface: Option<String>,
    #[arg(long, hide = true)]
    pod_interface_name_prefix: Option<String>,
    #[arg(long, hide = true)]
    vmodule: Option<String>,
    #[arg(long, hide = true)]
    log_flush_frequency: Option<GoDuration>,
    #[arg(long, hide = true)]
    log_json_info_buffer_size: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    log_json_split_stream: Option<GoBool>,
    #[arg(long, hide = true)]
    log_text_info_buffer_size: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    log_text_split_stream: Option<GoBool>,
    #[arg(long, hide = true)]
    boot_id_file: Option<String>,
    #[arg(long, hide = true)]
    machine_id_file: Option<String>,
}

/// Flags that kube-proxy reads besides a file, as long as they are none of its logging.
const BESIDES_A_FILE: [&str; 2] = ["hostname-override", "master"];
/// Flags that are no field of a file either.
const WITHOUT_FIELD: [&str; 2] = ["boot-id-file", "machine-id-file"];

impl KubeProxyFlags {
    /// The flags of kube-proxy that are on the command line, without dashes.
    pub(super) fn given(matches: &ArgMatches) -> Vec<String> {
        let command = <Self as clap::Args>::augment_args(clap::Command::new(""));
        let given = command.get_arguments().filter(|arg| {
            matches.value_source(arg.get_id().as_str()) == Some(clap::parser::ValueSource::CommandLine)
        });
        given.filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
    }

    /// Those of `given` that a file makes irrelevant.
    pub(super) fn ignored_with_a_file(given: &[String]) -> impl Iterator<Item = &str> {
        let counts = |flag: &&str| is_of_logging(flag) || BESIDES_A_FILE.contains(flag);
        given.iter().map(String::as_str).filter(move |flag| !counts(flag) && !WITHOUT_FIELD.contains(flag))
    }

    /// A sentence for each flag without effect that is no field of the configuration either.
    pub(super) fn without_field(&self) -> Vec<String> {
        let WithoutEffect { boot_id_file, machine_id_file, .. } = &self.without_effect;
        WITHOUT_FIELD
            .into_iter()
            .zip([boot_id_file, machine_id_file])
            .filter(|(_, value)| value.is_some())
            .map(|(flag, _)| format!("--{flag} has no effect: nothing here asks which machine this is"))
            .collect()
    }

    /// Writes what kube-proxy reads besides a file into a configuration.
    ///
    /// # Errors
    /// A flag whose value cannot be read.
    pub(super) fn apply_besides_a_file(&self, configuration: &mut Configuration) -> Result<(), String> {
        // An empty name, as of a variable that is not set, is none.
        if let Some(name) = self.hostname_override.as_deref().filter(|name| !name.is_empty()) {
            name.clone_into(&mut configuration.kube_proxy.hostname_override);
        }
        set(&mut configuration.server, self.master.as_ref());
        self.logging(&mut configuration.kube_proxy)
    }

    /// Writes all flags into a configuration.
    ///
    /// # Errors
    /// A flag whose value cannot be read.
    pub(super) fn apply(&self, configuration: &mut Configuration) -> Result<(), String> {
        self.apply_besides_a_file(configuration)?;
        let config = &mut configuration.kube_proxy;
        set(&mut config.client_connection.kubeconfig, self.kubeconfig.as_ref());
        set(&mut config.mode, self.proxy_mode.as_ref());
        set(&mut config.cluster_cidr, self.cluster_cidr.as_ref());
        set(&mut config.detect_local_mode, self.detect_local_mode.as_ref());
        set(&mut config.oom_score_adj, self.oom_score_adj.as_ref());
        set(&mut config.bind_address_hard_fail, GoBool::of(&self.bind_address_hard_fail));
        set(&mut config.iptables.localhost_node_ports, GoBool::of(&self.iptables_localhost_nodeports));
        set(&mut config.iptables.sync_period, self.iptables_sync_period.as_ref());
        set(&mut config.ipvs.sync_period, self.ipvs_sync_period.as_ref());
        if let Some(list) = &self.nodeport_addresses {
            config.node_port_addresses =
                if list.is_empty() { Vec::new() } else { list.split(',').map(str::to_owned).collect() };
        }
        for (gate, on) in self.feature_gates.iter().flat_map(|gates| pairs(gates)) {
            let on = on.parse::<GoBool>().map_err(|error| format!("--feature-gates {gate}: {error}"))?;
            config.feature_gates.insert(gate.to_owned(), on.0);
        }
        let conntrack = &mut config.conntrack;
        set(&mut conntrack.max_per_core, self.conntrack_max_per_core.as_ref());
        set(&mut conntrack.min, self.conntrack_min.as_ref());
        set(&mut conntrack.tcp_established_timeout, self.conntrack_tcp_timeout_established.as_ref());
        set(&mut conntrack.tcp_close_wait_timeout, self.conntrack_tcp_timeout_close_wait.as_ref());
        set(&mut conntrack.tcp_be_liberal, GoBool::of(&self.conntrack_tcp_be_liberal));
        set(&mut conntrack.udp_timeout, self.conntrack_udp_timeout.as_ref());
        set(&mut conntrack.udp_stream_timeout, self.conntrack_udp_timeout_stream.as_ref());
        self.without_effect.apply(config);
        self.servers(config);
        Ok(())
    }

    /// The addresses of the servers: their defaults depend on the family of `--bind-address`.
    fn servers(&self, config: &mut KubeProxyConfiguration) {
        if let Some(address) = &self.bind_address {
            config.bind_address.clone_from(address);
            config.healthz_bind_address.clear();
            config.metrics_bind_address.clear();
        }
        set(&mut config.healthz_bind_address, self.healthz_bind_address.as_ref());
        set(&mut config.metrics_bind_address, self.metrics_bind_address.as_ref());
        config.fill_in();
        // A port that stands with the address counts more.
        let with_port = |address: &mut String, flag: Option<&String>, port: u16| {
            let has_port = flag.is_some_and(|flag| flag.parse::<SocketAddr>().is_ok());
            if let Some(mut parsed) = address.parse::<SocketAddr>().ok().filter(|_| !has_port) {
                parsed.set_port(port);
                *address = parsed.to_string();
            }
        };
        match self.healthz_port {
            Some(0) => config.healthz_bind_address.clear(),
            Some(port) => {
                with_port(&mut config.healthz_bind_address, self.healthz_bind_address.as_ref(), port);
            }
            None => {}
        }
        if let Some(port) = self.metrics_port {
            with_port(&mut config.metrics_bind_address, self.metrics_bind_address.as_ref(), port);
        }
    }

    fn logging(&self, config: &mut KubeProxyConfiguration) -> Result<(), String> {
        let (logging, flags) = (&mut config.logging, &self.without_effect);
        set(&mut logging.verbosity, self.verbosity.as_ref());
        set(&mut logging.format, self.logging_format.as_ref());
        set(&mut logging.flush_frequency, flags.log_flush_frequency.as_ref());
        set(&mut logging.options.json.info_buffer_size, flags.log_json_info_buffer_size.as_ref());
        set(&mut logging.options.json.split_stream, GoBool::of(&flags.log_json_split_stream));
        set(&mut logging.options.text.info_buffer_size, flags.log_text_info_buffer_size.as_ref());
        set(&mut logging.options.text.split_stream, GoBool::of(&flags.log_text_split_stream));
        for (pattern, verbosity) in flags.vmodule.iter().flat_map(|list| pairs(list)) {
            let verbosity = verbosity.parse().map_err(|error| format!("--vmodule {pattern}: {error}"))?;
            logging.vmodule.push(crate::config::VModule { file_pattern: pattern.to_owned(), verbosity });
        }
        Ok(())
    }
}

impl WithoutEffect {
    fn apply(&self, config: &mut KubeProxyConfiguration) {
        set(&mut config.client_connection.qps, self.kube_api_qps.as_ref());
        set(&mut config.client_connection.burst, self.kube_api_burst.as_ref());
        set(&mut config.client_connection.content_type, self.kube_api_content_type.as_ref());
        set(&mut config.config_sync_period, self.config_sync_period.as_ref());
        set(&mut config.enable_profiling, GoBool::of(&self.profiling));
        set(&mut config.show_hidden_metrics_for_version, self.show_hidden_metrics_for_version.as_ref());
        set(&mut config.iptables.masquerade_bit, self.iptables_masquerade_bit.as_ref());
        set(&mut config.iptables.masquerade_all, GoBool::of(&self.masquerade_all));
        set(&mut config.iptables.min_sync_period, self.iptables_min_sync_period.as_ref());
        set(&mut config.ipvs.min_sync_period, self.ipvs_min_sync_period.as_ref());
        set(&mut config.ipvs.scheduler, self.ipvs_scheduler.as_ref());
        set(&mut config.ipvs.exclude_cidrs, self.ipvs_exclude_cidrs.as_ref());
        set(&mut config.ipvs.strict_arp, GoBool::of(&self.ipvs_strict_arp));
        set(&mut config.ipvs.tcp_timeout, self.ipvs_tcp_timeout.as_ref());
        set(&mut config.ipvs.tcp_fin_timeout, self.ipvs_tcpfin_timeout.as_ref());
        set(&mut config.ipvs.udp_timeout, self.ipvs_udp_timeout.as_ref());
        set(&mut config.detect_local.bridge_interface, self.pod_bridge_interface.as_ref());
        set(&mut config.detect_local.interface_name_prefix, self.pod_interface_name_prefix.as_ref());
    }
}

/// A flag without a value, or with one that Go takes for a boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoBool(bool);

impl GoBool {
    /// Whether the flag is there, and not to say no.
    pub(super) fn is_set(flag: Option<Self>) -> bool {
        flag.is_some_and(|flag| flag.0)
    }

    fn of(flag: &Option<Self>) -> Option<&bool> {
        flag.as_ref().map(|flag| &flag.0)
    }
}

impl FromStr for GoBool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }
}

pub(super) fn set<T: Clone>(field: &mut T, flag: Option<&T>) {
    if let Some(value) = flag {
        field.clone_from(value);
    }
}

/// `NAME=VALUE,NAME=VALUE`.
fn pairs(list: &str) -> impl Iterator<Item = (&str, &str)> {
    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
    items.map(|item| item.split_once('=').unwrap_or((item, "")))
}

fn is_of_logging(flag: &str) -> bool {
    matches!(flag, "v" | "vmodule" | "logging-format") || flag.starts_with("log-")
}
