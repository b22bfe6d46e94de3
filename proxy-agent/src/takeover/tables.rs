//! Tables of rules as they are read, from nftables and from legacy iptables alike.

use std::fmt;

use serde::Serialize;

/// The IP family of a table, by the name that nft gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ip {
    /// IPv4.
    #[serde(rename = "ip")]
    V4,
    /// IPv6.
    #[serde(rename = "ip6")]
    V6,
}

impl Ip {
    /// IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        })
    }
}

/// All tables of nftables at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    /// Changes with every transaction of anybody.
    pub(super) generation: u32,
    pub(super) tables: Vec<Table>,
}

/// One table. Rules are there only where it matters what they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) ip: Ip,
    pub(super) name: String,
    pub(super) chains: Vec<Chain>,
    pub(super) rules: Vec<Rule>,
}

/// One chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    /// Packets come to it by themselves, as to PREROUTING.
    pub(super) hooked: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: String,
    pub(super) id: RuleId,
    /// The chain that it jumps or goes to.
    pub(super) leads_to: Option<String>,
    pub(super) comment: Option<String>,
}

/// How a rule is named to the one who removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleId {
    /// nftables' number of it.
    Handle(u64),
    /// The words of legacy iptables, after `-A CHAIN`.
    Words(String),
}
