use super::*;
use crate::takeover::tables::{Chain, Ip, RuleId};

/// A table from chains, those with `!` of the kernel's hooks, and rules by chain and where they lead.
fn table(name: &str, chains: &[&str], rules: &[(&str, &str)]) -> Table {
    let chains = chains
        .iter()
        .map(|name| Chain { name: name.trim_start_matches('!').to_owned(), hooked: name.starts_with('!') });
    let rules = rules.iter().zip(1..).map(|((chain, to), handle)| Rule {
        chain: (*chain).to_owned(),
        id: RuleId::Handle(handle),
        leads_to: (!to.is_empty()).then(|| (*to).to_owned()),
        comment: None,
    });
    Table { ip: Ip::V4, name: name.to_owned(), chains: chains.collect(), rules: rules.collect() }
}

fn removed(table: &Table) -> (Vec<String>, Vec<String>) {
    let mut found = Leftovers::default();
    decide(Backend::Nft, table, &mut found);
    let text = |all: Vec<String>| all;
    (
        text(found.remove.iter().map(ToString::to_string).collect()),
        text(found.kept.iter().map(|kept| kept.what.clone()).collect()),
    )
}

const SVC: &str = "KUBE-SVC-ERIFXISQEP7F7OF4";

#[test]
fn jumps_and_chains_go_and_others_stay() {
    let nat = table(
        "nat",
        &[
            "!PREROUTING",
            "!POSTROUTING",
            "KUBE-SERVICES",
            SVC,
            "KUBE-MARK-MASQ",
            "KUBE-POSTROUTING",
            "DOCKER",
            "KUBE-KUBELET-CANARY",
        ],
        &[
            ("PREROUTING", "DOCKER"),
            ("PREROUTING", "KUBE-SERVICES"),
            ("POSTROUTING", "KUBE-POSTROUTING"),
            ("KUBE-SERVICES", SVC),
            (SVC, "KUBE-MARK-MASQ"),
            (SVC, ""),
            ("KUBE-POSTROUTING", ""),
            ("DOCKER", ""),
        ],
    );
    let (removed, kept) = removed(&nat);
    assert_eq!(
        removed,
        [
            "rule ip nat PREROUTING -> KUBE-SERVICES",
            "rule ip nat POSTROUTING -> KUBE-POSTROUTING",
            "chain ip nat KUBE-MARK-MASQ with 0 rules",
            "chain ip nat KUBE-POSTROUTING with 1 rule",
            "chain ip nat KUBE-SERVICES with 1 rule",
            "chain ip nat KUBE-SVC-ERIFXISQEP7F7OF4 with 2 rules",
        ]
    );
    assert_eq!(kept, [""; 0]);
}

#[test]
fn masquerading_that_others_ask_for_stays() {
    for (user, rules) in [
        (
            "CNI-HOSTPORT-SETMARK",
            [("CNI-HOSTPORT-SETMARK", "KUBE-MARK-MASQ"), ("PREROUTING", "KUBE-SERVICES")],
        ),
        ("PREROUTING", [("PREROUTING", "KUBE-MARK-MASQ"), ("PREROUTING", "KUBE-SERVICES")]),
    ] {
        let chains = [
            "!PREROUTING",
            "!POSTROUTING",
            "KUBE-SERVICES",
            "KUBE-MARK-MASQ",
            "KUBE-POSTROUTING",
            "CNI-HOSTPORT-SETMARK",
        ];
        let nat = table("nat", &chains, &[&rules[..], &[("POSTROUTING", "KUBE-POSTROUTING")]].concat());
        let (removed, kept) = removed(&nat);
        assert_eq!(
            removed,
            ["rule ip nat PREROUTING -> KUBE-SERVICES", "chain ip nat KUBE-SERVICES with 0 rules"],
            "{user}"
        );
        assert_eq!(kept, ["chain ip nat KUBE-MARK-MASQ", "chain ip nat KUBE-POSTROUTING"], "{user}");
    }
}

#[test]
fn a_chain_to_which_others_lead_is_emptied_only() {
    let filter = table(
        "filter",
        &["!FORWARD", "MINE", "KUBE-FORWARD"],
        &[("MINE", "KUBE-FORWARD"), ("FORWARD", "KUBE-FORWARD"), ("KUBE-FORWARD", "")],
    );
    let (removed, kept) = removed(&filter);
    assert_eq!(
        removed,
        [
            "rule ip filter FORWARD -> KUBE-FORWARD",
            "the 1 rule of chain ip filter KUBE-FORWARD, which others use"
        ]
    );
    assert_eq!(kept, [""; 0]);
    let emptied = table("filter", &["!FORWARD", "MINE", "KUBE-FORWARD"], &[("MINE", "KUBE-FORWARD")]);
    assert_eq!(super::tests::removed(&emptied).0, [""; 0], "nothing is left to remove");
}

#[test]
fn a_node_without_kube_proxy() {
    let nat = table("nat", &["!PREROUTING", "KUBE-MARK-DROP"], &[("PREROUTING", "KUBE-MARK-DROP")]);
    assert_eq!(removed(&nat).0, [""; 0]);
    assert_eq!(removed(&table("kube-proxy-2", &["KUBE-SERVICES"], &[])).0, [""; 0]);
}

#[test]
fn the_table_of_nftables_mode_goes_whole() {
    let found = removed(&table(
        "kube-proxy",
        &["!nat-prerouting", "services", "mark-for-masquerade"],
        &[("services", "")],
    ));
    assert_eq!(found.0, ["table ip kube-proxy with 3 chains"]);
}
