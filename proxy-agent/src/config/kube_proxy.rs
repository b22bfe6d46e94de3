use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::duration::{GoDuration, or_nanoseconds};

/// What stands in `apiVersion`.
pub(super) const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// What stands in `kind`.
pub(super) const KIND: &str = "KubeProxyConfiguration";

const SYNC_PERIOD: GoDuration = GoDuration::seconds(30);
const MIN_SYNC_PERIOD: GoDuration = GoDuration::seconds(1);
const CONFIG_SYNC_PERIOD: GoDuration = GoDuration::seconds(900);
const FLUSH_FREQUENCY: GoDuration = GoDuration::seconds(5);
const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";
const QPS: f32 = 5.0;
const BURST: i32 = 10;
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// kube-proxy's own configuration, `kubeproxy.config.k8s.io/v1alpha1` (KUBE-PROXY.md 4.2): names, types and
/// defaults are upstream's. A field that is missing or null has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "docs/configuration.md explains every field, under the same name")]
pub struct KubeProxyConfiguration {
    pub api_version: String,
    pub kind: String,
    pub feature_gates: BTreeMap<String, bool>,
    pub client_connection: ClientConnection,
    pub logging: Logging,
    pub hostname_override: String,
    pub bind_address: String,
    pub healthz_bind_address: String,
    pub metrics_bind_address: String,
    pub bind_address_hard_fail: bool,
    pub enable_profiling: bool,
    pub show_hidden_metrics_for_version: String,
    pub mode: String,
    pub iptables: Iptables,
    pub ipvs: Ipvs,
    pub nftables: Nftables,
    pub winkernel: Winkernel,
    pub detect_local_mode: String,
    pub detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    pub node_port_addresses: Vec<String>,
    pub oom_score_adj: i32,
    pub conntrack: Conntrack,
    pub config_sync_period: GoDuration,
    pub port_range: String,
    pub windows_run_as_service: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: f32,
    pub burst: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Logging {
    pub format: String,
    #[serde(deserialize_with = "or_nanoseconds")]
    pub flush_frequency: GoDuration,
    pub verbosity: u32,
    pub vmodule: Vec<VModule>,
    pub options: LoggingOptions,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "see the whole")]
pub struct VModule {
    pub file_pattern: String,
    pub verbosity: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggingOptions {
    pub text: LoggingFormatOptions,
    pub json: LoggingFormatOptions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoggingFormatOptions {
    pub split_stream: bool,
    #[serde(deserialize_with = "quantity")]
    pub info_buffer_size: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Iptables {
    pub masquerade_bit: i32,
    pub masquerade_all: bool,
    pub localhost_node_ports: bool,
    pub sync_period: GoDuration,
    pub min_sync_period: GoDuration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ipvs {
    pub sync_period: GoDuration,
    pub min_sync_period: GoDuration,
    pub scheduler: String,
    #[serde(rename = "excludeCIDRs")]
    pub exclude_cidrs: Vec<String>,
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    pub tcp_timeout: GoDuration,
    pub tcp_fin_timeout: GoDuration,
    pub udp_timeout: GoDuration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Nftables {
    pub masquerade_bit: i32,
    pub masquerade_all: bool,
    pub sync_period: GoDuration,
    pub min_sync_period: GoDuration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Winkernel {
    pub network_name: String,
    pub source_vip: String,
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    pub root_hns_endpoint_name: String,
    pub forward_health_check_vip: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DetectLocal {
    pub bridge_interface: String,
    pub interface_name_prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "see the whole")]
pub struct Conntrack {
    pub max_per_core: i32,
    pub min: i32,
    pub tcp_established_timeout: GoDuration,
    pub tcp_close_wait_timeout: GoDuration,
    pub tcp_be_liberal: bool,
    pub udp_timeout: GoDuration,
    pub udp_stream_timeout: GoDuration,
}

impl Default for KubeProxyConfiguration {
    fn default() -> Self {
        let mut configuration = Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            feature_gates: BTreeMap::new(),
            client_connection: ClientConnection::default(),
            logging: Logging::default(),
            hostname_override: String::new(),
            bind_address: String::new(),
            healthz_bind_address: String::new(),
            metrics_bind_address: String::new(),
            bind_address_hard_fail: false,
            enable_profiling: false,
            show_hidden_metrics_for_version: String::new(),
            mode: String::new(),
            iptables: Iptables::default(),
            ipvs: Ipvs::default(),
            nftables: Nftables::default(),
            winkernel: Winkernel::default(),
            detect_local_mode: String::new(),
            detect_local: DetectLocal::default(),
            cluster_cidr: String::new(),
            node_port_addresses: Vec::new(),
            oom_score_adj: -999,
            conntrack: Conntrack::default(),
            config_sync_period: CONFIG_SYNC_PERIOD,
            port_range: String::new(),
            windows_run_as_service: false,
        };
        configuration.fill_in();
        configuration
    }
}

impl Default for ClientConnection {
    fn default() -> Self {
        Self {
            kubeconfig: String::new(),
            accept_content_types: String::new(),
            content_type: CONTENT_TYPE.to_owned(),
            qps: QPS,
            burst: BURST,
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            format: "text".to_owned(),
            flush_frequency: FLUSH_FREQUENCY,
            verbosity: 0,
            vmodule: Vec::new(),
            options: LoggingOptions::default(),
        }
    }
}

impl Default for LoggingFormatOptions {
    fn default() -> Self {
        Self { split_stream: false, info_buffer_size: "0".to_owned() }
    }
}

impl Default for Iptables {
    fn default() -> Self {
        Self {
            masquerade_bit: 14,
            masquerade_all: false,
            localhost_node_ports: true,
            sync_period: SYNC_PERIOD,
            min_sync_period: MIN_SYNC_PERIOD,
        }
    }
}

impl Default for Ipvs {
    fn default() -> Self {
        Self {
            sync_period: SYNC_PERIOD,
            min_sync_period: GoDuration::default(),
            scheduler: String::new(),
            exclude_cidrs: Vec::new(),
            strict_arp: false,
            tcp_timeout: GoDuration::default(),
            tcp_fin_timeout: GoDuration::default(),
            udp_timeout: GoDuration::default(),
        }
    }
}

impl Default for Nftables {
    fn default() -> Self {
        Self {
            masquerade_bit: 14,
            masquerade_all: false,
            sync_period: SYNC_PERIOD,
            min_sync_period: MIN_SYNC_PERIOD,
        }
    }
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: 32_768,
            min: 131_072,
            tcp_established_timeout: GoDuration::seconds(86_400),
            tcp_close_wait_timeout: GoDuration::seconds(3600),
            tcp_be_liberal: false,
            udp_timeout: GoDuration::default(),
            udp_stream_timeout: GoDuration::default(),
        }
    }
}

impl Conntrack {
    /// Nothing of the kernel's connection tracking is changed.
    #[must_use]
    pub fn untouched() -> Self {
        Self {
            max_per_core: 0,
            min: 0,
            tcp_established_timeout: GoDuration::default(),
            tcp_close_wait_timeout: GoDuration::default(),
            ..Self::default()
        }
    }
}

impl KubeProxyConfiguration {
    /// Puts the default in the place of each empty text, 0 and `0s` that upstream defaults too: kubeadm writes
    /// files full of them.
    pub fn fill_in(&mut self) {
        let text = |field: &mut String, default: &str| {
            if field.is_empty() {
                default.clone_into(field);
            }
        };
        text(&mut self.bind_address, "0.0.0.0");
        let (any, loopback) =
            if self.bind_address.contains(':') { ("[::]", "[::1]") } else { ("0.0.0.0", "127.0.0.1") };
        address(&mut self.healthz_bind_address, any, HEALTHZ_PORT);
        address(&mut self.metrics_bind_address, loopback, METRICS_PORT);
        text(&mut self.detect_local_mode, "ClusterCIDR");
        text(&mut self.logging.format, "text");
        text(&mut self.logging.options.text.info_buffer_size, "0");
        text(&mut self.logging.options.json.info_buffer_size, "0");
        self.logging.flush_frequency = self.logging.flush_frequency.or(FLUSH_FREQUENCY);
        let connection = &mut self.client_connection;
        text(&mut connection.content_type, CONTENT_TYPE);
        if connection.qps == 0.0 {
            connection.qps = QPS;
        }
        if connection.burst == 0 {
            connection.burst = BURST;
        }
        self.iptables.sync_period = self.iptables.sync_period.or(SYNC_PERIOD);
        self.iptables.min_sync_period = self.iptables.min_sync_period.or(MIN_SYNC_PERIOD);
        self.ipvs.sync_period = self.ipvs.sync_period.or(SYNC_PERIOD);
        self.nftables.sync_period = self.nftables.sync_period.or(SYNC_PERIOD);
        self.nftables.min_sync_period = self.nftables.min_sync_period.or(MIN_SYNC_PERIOD);
        self.config_sync_period = self.config_sync_period.or(CONFIG_SYNC_PERIOD);
    }
}

/// A default for an empty address, and the port of one that has none.
fn address(field: &mut String, host: &str, port: u16) {
    if field.is_empty() {
        *field = format!("{host}:{port}");
    } else if let Ok(address) = field.trim_start_matches('[').trim_end_matches(']').parse() {
        *field = std::net::SocketAddr::new(address, port).to_string();
    }
}

/// A resource quantity: a number, or a text.
fn quantity<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a quantity such as 0 or 64Ki")]
    enum Either {
        Number(u64),
        Text(String),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Number(number) => number.to_string(),
        Either::Text(text) => text,
    })
}
