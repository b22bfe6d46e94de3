//! The names that kube-proxy gives, in iptables mode, IPVS mode and nftables mode, up to 1.36. Others begin theirs with
//! `KUBE-` too: the kubelet (`KUBE-FIREWALL`, `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`, `KUBE-MARK-DROP`), kube-router
//! (`KUBE-ROUTER-…`, `KUBE-POD-FW-…`). So names are compared whole.

/// Table of nftables mode, in both families.
pub(super) const TABLE: &str = "kube-proxy";

/// The link that holds the addresses of Services in IPVS mode.
pub(super) const IPVS_LINK: &str = "kube-ipvs0";

/// Asks for masquerading by [`POSTROUTING`]. Plug-ins for host ports may lead packets to it too.
pub(super) const MARK_MASQ: &str = "KUBE-MARK-MASQ";

/// Masquerades what carries the mark.
pub(super) const POSTROUTING: &str = "KUBE-POSTROUTING";

/// The chain that stands for all of them.
pub(super) const SERVICES: &str = "KUBE-SERVICES";

const CANARY: &str = "KUBE-PROXY-CANARY";

/// Chains of table nat to which a rule in a chain of the kernel's hooks leads.
const NAT_ENTRIES: [&str; 2] = [SERVICES, POSTROUTING];

/// Other chains of table nat, of IPVS mode too. `KUBE-FIREWALL` there was kube-proxy's; the kubelet's is in filter.
const NAT_OTHERS: [&str; 6] =
    ["KUBE-NODEPORTS", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-FIREWALL", MARK_MASQ, CANARY];

/// As [`NAT_ENTRIES`], in table filter.
const FILTER_ENTRIES: [&str; 9] = [
    SERVICES,
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];

/// Chains of one Service port or endpoint: these letters, and a hash in base32.
const HASHED: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-FW-", "KUBE-XLB-"];

/// Characters of the hash.
const HASH: usize = 16;

/// Sets of IPVS mode, without `KUBE-` or, for IPv6, `KUBE-6-`.
const SETS: [&str; 17] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
];

/// Whether iptables mode or IPVS mode keeps chains in a table of this name.
pub(super) fn is_classic_table(table: &str) -> bool {
    matches!(table, "nat" | "filter" | "mangle")
}

/// Whether a chain of a table of iptables is kube-proxy's.
pub(super) fn is_chain(table: &str, chain: &str) -> bool {
    let hashed =
        || HASHED.iter().any(|prefix| chain.strip_prefix(prefix).is_some_and(is_hash)) && table != "mangle";
    is_entry(table, chain)
        || match table {
            "nat" => NAT_OTHERS.contains(&chain),
            "filter" | "mangle" => chain == CANARY,
            _ => false,
        }
        || (is_classic_table(table) && hashed())
}

/// Whether kube-proxy puts rules into chains of the kernel's hooks that lead to this one.
pub(super) fn is_entry(table: &str, chain: &str) -> bool {
    match table {
        "nat" => NAT_ENTRIES.contains(&chain),
        "filter" => FILTER_ENTRIES.contains(&chain),
        _ => false,
    }
}

/// Whether an IP set is kube-proxy's.
pub(super) fn is_set(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("KUBE-") else { return false };
    SETS.contains(&rest.strip_prefix("6-").unwrap_or(rest))
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_known_by_their_whole_name() {
        for chain in ["KUBE-SERVICES", "KUBE-SVC-ERIFXISQEP7F7OF4", "KUBE-SEP-6E7XQMQ4RAYOWTTM", MARK_MASQ] {
            assert!(is_chain("nat", chain), "{chain}");
        }
        for chain in ["KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-EXTERNAL-SERVICES", CANARY] {
            assert!(is_chain("filter", chain), "{chain}");
        }
        assert!(is_chain("mangle", CANARY));
    }

    #[test]
    fn chains_of_the_kubelet_and_of_others_are_not() {
        for chain in [
            "KUBE-FIREWALL",
            "KUBE-KUBELET-CANARY",
            "KUBE-ROUTER-FORWARD",
            "KUBE-POD-FW-ERIFXISQEP7F7OF4",
            "KUBE-NWPLCY-DEFAULT",
            "KUBE-SVC-MINE",
            "KUBE-SVC-ERIFXISQEP7F7OF1",
            MARK_MASQ,
            "PREROUTING",
        ] {
            assert!(!is_chain("filter", chain), "{chain}");
        }
        assert!(!is_chain("nat", "KUBE-MARK-DROP"), "the kubelet's");
        assert!(is_chain("nat", "KUBE-FIREWALL"), "kube-proxy's, in IPVS mode");
        assert!(!is_chain("mangle", "KUBE-IPTABLES-HINT"));
        assert!(!is_chain("raw", SERVICES), "a table without kube-proxy");
    }

    #[test]
    fn sets_of_both_families() {
        assert!(is_set("KUBE-CLUSTER-IP") && is_set("KUBE-6-NODE-PORT-LOCAL-SCTP-HASH"));
        assert!(!is_set("KUBE-MINE") && !is_set("kube-router-pods") && !is_set("CLUSTER-IP"));
    }
}
