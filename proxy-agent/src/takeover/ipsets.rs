//! IP sets of IPVS mode, over netlink.

use std::collections::BTreeSet;

use super::{
    error::Error,
    leftovers::{Leftover, Leftovers},
    names::{POSTROUTING, is_set},
    netlink::{Attributes, Message, attributes, find, text},
    nft::{open, open_if_there},
};

/// Number of ipset among the parts of netfilter, and of its commands.
const IPSET: u16 = 6 << 8;
const DESTROY: u16 = IPSET | 3;
const LIST: u16 = IPSET | 7;
/// Attributes, of linux/netfilter/ipset/ip_set.h.
const PROTOCOL: u16 = 1;
const NAME: u16 = 2;
const MEMBERS: u16 = 8;
const DATA: u16 = 7;
const PORT: u16 = 4;
/// The protocol's version that every kernel speaks.
const VERSION: u8 = 6;
const HEADER: usize = 4;

/// Node ports by protocol number.
pub(super) type NodePorts = BTreeSet<(u16, u16)>;

/// Adds the sets that are there, and returns the node ports that stand in them: they tell kube-proxy's virtual
/// servers from those of others.
pub(super) fn read(found: &mut Leftovers) -> Result<NodePorts, Error> {
    let mut node_ports = NodePorts::new();
    let mut sets: BTreeSet<String> = BTreeSet::new();
    let Some(mut socket) = open_if_there()? else { return Ok(node_ports) };
    let read = socket.dump(LIST, start().into_bytes(), |body| {
        let Some(body) = body.get(HEADER..) else { return };
        let Some(name) = find(body, NAME).map(text).filter(|name| is_set(name)) else { return };
        if let Some(protocol) = protocol_of_node_ports(&name) {
            node_ports.extend(ports(body).map(|port| (protocol, port)));
        }
        sets.insert(name);
    });
    match read {
        // nfnetlink knows no ipset.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
        read => read.map_err(Error::kernel("reading the IP sets"))?,
    }
    // Rules that stay name it.
    let stays = |set: &str| {
        let loops = set == "KUBE-LOOP-BACK" || set == "KUBE-6-LOOP-BACK";
        loops && found.kept.iter().any(|kept| kept.what.ends_with(POSTROUTING))
    };
    let gone: Vec<_> = sets.into_iter().filter(|set| !stays(set)).map(|set| Leftover::Set { set }).collect();
    found.remove.extend(gone);
    Ok(node_ports)
}

/// Destroys the sets. What fails is returned: a set that a rule still names.
pub(super) fn remove(found: &Leftovers) -> Vec<Error> {
    let sets =
        found.remove.iter().filter_map(|one| if let Leftover::Set { set } = one { Some(set) } else { None });
    let destroy = |set: &String| {
        let message = Message { kind: DESTROY, flags: 0, body: start().text(NAME, set).into_bytes() };
        let done = open()?.ask(&message);
        done.map_err(Error::kernel(format!("destroying IP set {set} (a rule may still name it)"))).map(drop)
    };
    sets.filter_map(|set| destroy(set).err()).collect()
}

fn protocol_of_node_ports(set: &str) -> Option<u16> {
    let rest = set.strip_prefix("KUBE-")?;
    let rest = rest.strip_prefix("6-").unwrap_or(rest).strip_prefix("NODE-PORT-")?;
    let protocol = match rest.strip_prefix("LOCAL-").unwrap_or(rest) {
        "TCP" => libc::IPPROTO_TCP,
        "UDP" => libc::IPPROTO_UDP,
        "SCTP-HASH" => libc::IPPROTO_SCTP,
        _ => return None,
    };
    u16::try_from(protocol).ok()
}

/// The ports of a set's members.
fn ports(body: &[u8]) -> impl Iterator<Item = u16> {
    let members = find(body, MEMBERS).unwrap_or_default();
    attributes(members).filter(|(kind, _)| *kind == DATA).filter_map(|(_, member)| {
        let port = find(member, PORT)?;
        port.try_into().ok().map(u16::from_be_bytes)
    })
}

fn start() -> Attributes {
    Attributes::after(&[0, 0, 0, 0]).put(PROTOCOL, &[VERSION])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_members() {
        let member = |port: u16| Attributes::default().put(PORT | 0x4000, &port.to_be_bytes());
        let members = Attributes::default().nest(DATA, member(30080)).nest(DATA, member(32767));
        let set = start().text(NAME, "KUBE-NODE-PORT-TCP").nest(MEMBERS, members).into_bytes();
        assert_eq!(ports(&set[HEADER..]).collect::<Vec<_>>(), [30080, 32767]);
        assert_eq!(ports(&[]).count(), 0);
    }

    #[test]
    fn sets_of_node_ports() {
        assert_eq!(protocol_of_node_ports("KUBE-NODE-PORT-TCP"), Some(6));
        assert_eq!(protocol_of_node_ports("KUBE-6-NODE-PORT-LOCAL-UDP"), Some(17));
        assert_eq!(protocol_of_node_ports("KUBE-NODE-PORT-SCTP-HASH"), Some(132));
        assert_eq!(protocol_of_node_ports("KUBE-CLUSTER-IP"), None);
    }
}
