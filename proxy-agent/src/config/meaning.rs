//! Fields of kube-proxy's configuration that mean nothing here, and why.

use serde_json::Value;

use super::kube_proxy::KubeProxyConfiguration;

/// Feature gate that takes external IPs away from Services.
pub(super) const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

const NO_NAT: &str = "a socket's packets leave with the address that the kernel has for the way to the endpoint, and \
                      forwarded ones get the node's only where answers would not come back otherwise";
const NO_MARK: &str = "no packet is marked: nothing here works by netfilter";
const AT_ONCE: &str = "a change is applied as it comes, and costs what it changes";
const NO_IPVS: &str = "there is no IPVS here";
const BY_LINK: &str = "a packet of a pod is known by the link that it comes from";
const NO_BUFFER: &str = "each log line is written at once, to standard error";
const WINDOWS: &str = "it is for Windows";

/// Path, and why it has no meaning.
pub(super) const WITHOUT_MEANING: &[(&str, &str)] = &[
    ("clientConnection.acceptContentTypes", "the API server is asked for JSON"),
    ("clientConnection.contentType", "the API server is asked for JSON"),
    (
        "clientConnection.qps",
        "three watches are kept open, and what fails is tried again with growing pauses",
    ),
    (
        "clientConnection.burst",
        "three watches are kept open, and what fails is tried again with growing pauses",
    ),
    ("logging.flushFrequency", NO_BUFFER),
    ("logging.vmodule", "there is one level for everything: logging.verbosity"),
    ("logging.options.text.splitStream", NO_BUFFER),
    ("logging.options.text.infoBufferSize", NO_BUFFER),
    ("logging.options.json.splitStream", NO_BUFFER),
    ("logging.options.json.infoBufferSize", NO_BUFFER),
    ("enableProfiling", "there is no Go profile of a program that is not written in Go"),
    ("showHiddenMetricsForVersion", "no metric is hidden"),
    ("iptables.masqueradeBit", NO_MARK),
    ("iptables.masqueradeAll", NO_NAT),
    ("iptables.minSyncPeriod", AT_ONCE),
    ("ipvs.minSyncPeriod", AT_ONCE),
    ("ipvs.scheduler", "endpoints are chosen at random"),
    ("ipvs.excludeCIDRs", NO_IPVS),
    ("ipvs.strictARP", "no address of a Service is put on a link, so none is answered for by ARP"),
    ("ipvs.tcpTimeout", NO_IPVS),
    ("ipvs.tcpFinTimeout", NO_IPVS),
    ("ipvs.udpTimeout", NO_IPVS),
    ("nftables.masqueradeBit", NO_MARK),
    ("nftables.masqueradeAll", NO_NAT),
    ("nftables.minSyncPeriod", AT_ONCE),
    ("winkernel.networkName", WINDOWS),
    ("winkernel.sourceVip", WINDOWS),
    ("winkernel.enableDSR", WINDOWS),
    ("winkernel.rootHnsEndpointName", WINDOWS),
    ("winkernel.forwardHealthCheckVip", WINDOWS),
    ("windowsRunAsService", WINDOWS),
    ("detectLocal.bridgeInterface", BY_LINK),
    ("detectLocal.interfaceNamePrefix", BY_LINK),
    ("configSyncPeriod", "nothing is listed anew that a watch keeps up to date"),
    ("portRange", "kube-proxy has no use for it either"),
];

/// A sentence for each field without meaning that is set to something other than its default.
pub(super) fn without_meaning(configuration: &KubeProxyConfiguration) -> Vec<String> {
    // Neither has anything in it that JSON cannot say.
    let [set, default] = [configuration, &KubeProxyConfiguration::default()]
        .map(|configuration| serde_json::to_value(configuration).unwrap_or_default());
    let at = |value: &Value, path: &str| value.pointer(&format!("/{}", path.replace('.', "/"))).cloned();
    let mut said: Vec<String> = WITHOUT_MEANING
        .iter()
        .filter_map(|(path, reason)| {
            let value = at(&set, path).filter(|value| Some(value) != at(&default, path).as_ref())?;
            Some(format!("{path} {value} has no effect: {reason}"))
        })
        .collect();
    let gates = configuration.feature_gates.keys().filter(|gate| *gate != EXTERNAL_IPS);
    said.extend(gates.map(|gate| format!("featureGates.{gate} has no effect: there is no such gate here")));
    said
}
