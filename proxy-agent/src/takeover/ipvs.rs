//! IPVS mode: virtual servers, by generic netlink, and the link that has their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rtnetlink::sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType, netdevice::name_to_index, socket},
};

use super::{
    error::Error,
    ipsets::NodePorts,
    leftovers::{Kept, Leftover, Leftovers},
    names::IPVS_LINK,
    netlink::{Attributes, Message, Socket, find, number16},
    read_proc,
};

/// Of generic netlink: the family of families.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Of IPVS, in linux/ip_vs.h.
const DELETE_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const SERVICE: u16 = 1;
const SERVICE_FAMILY: u16 = 1;
const SERVICE_PROTOCOL: u16 = 2;
const SERVICE_ADDRESS: u16 = 3;
const SERVICE_PORT: u16 = 4;
const HEADER: usize = 4;
/// Of rtnetlink.
const DELETE_LINK: u16 = 17;
const GET_ADDRESS: u16 = 22;
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
/// Bytes before the attributes of an address and of a link.
const ADDRESS_HEADER: usize = 8;
const LINK_HEADER: usize = 16;

/// Adds what there is of IPVS mode. Virtual servers of others stay: on addresses that are not the link's, at ports
/// that are not in kube-proxy's sets of node ports.
pub(super) fn read(node_ports: &NodePorts, found: &mut Leftovers) -> Result<(), Error> {
    let link = index_of_link()?;
    let addresses = link.map(addresses_of).transpose()?.unwrap_or_default();
    for server in servers()? {
        let is_ours = addresses.contains(&server.address.ip())
            || node_ports.contains(&(server.protocol, server.address.port()));
        let leftover = server.leftover();
        if is_ours {
            found.remove.push(leftover);
        } else {
            found.kept.push(Kept {
                what: leftover.to_string(),
                why: format!("its address is not on {IPVS_LINK}, and it is no node port of an IP set"),
            });
        }
    }
    if let Some(index) = link {
        let (link, addresses) = (IPVS_LINK.to_owned(), addresses.len());
        found.remove.push(Leftover::Link { link, addresses, index });
    }
    Ok(())
}

/// Whether IPVS mode has left its link.
pub(super) fn index_of_link() -> Result<Option<u32>, Error> {
    let doing = || format!("asking for the link {IPVS_LINK}");
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None);
    let any = any.map_err(|error| Error::kernel(doing())(error.into()))?;
    match name_to_index(&any, IPVS_LINK) {
        Ok(index) => Ok(Some(index)),
        Err(Errno::NODEV) => Ok(None),
        Err(error) => Err(Error::kernel(doing())(error.into())),
    }
}

/// Removes virtual servers, then the link. What fails is returned.
pub(super) fn remove(found: &Leftovers) -> Vec<Error> {
    let mut failed = Vec::new();
    for one in &found.remove {
        let removed = match one {
            Leftover::VirtualServer { address, number, .. } => {
                delete_server(&Server { protocol: *number, address: *address })
            }
            Leftover::Link { index, .. } => delete_link(*index),
            _ => Ok(()),
        };
        failed.extend(
            removed
                .map_err(|error| match error {
                    Error::Kernel { source, .. } => Error::kernel(format!("removing {one}"))(source),
                    other => other,
                })
                .err(),
        );
    }
    failed
}

fn addresses_of(index: u32) -> Result<Vec<IpAddr>, Error> {
    let doing = format!("reading the addresses of {IPVS_LINK}");
    let mut addresses = Vec::new();
    let mut socket = Socket::open(NETLINK_ROUTE).map_err(Error::kernel(doing.as_str()))?;
    let read = socket.dump(GET_ADDRESS, vec![0; ADDRESS_HEADER], |body| {
        let Some((header, rest)) = body.split_first_chunk::<ADDRESS_HEADER>() else { return };
        let [_, _, _, _, of @ ..] = *header;
        if u32::from_ne_bytes(of) == index {
            addresses.extend(find(rest, LOCAL).or_else(|| find(rest, ADDRESS)).and_then(ip));
        }
    });
    read.map_err(Error::kernel(doing))?;
    Ok(addresses)
}

fn delete_link(index: u32) -> Result<(), Error> {
    let mut body = vec![0; LINK_HEADER];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let deleted = Socket::open(NETLINK_ROUTE)
        .and_then(|mut socket| socket.ask(&Message { kind: DELETE_LINK, flags: 0, body }));
    deleted.map(drop).map_err(Error::kernel("removing a link"))
}

/// A virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Server {
    /// Number of the protocol.
    protocol: u16,
    address: SocketAddr,
}

impl Server {
    fn leftover(&self) -> Leftover {
        let protocol = match i32::from(self.protocol) {
            libc::IPPROTO_TCP => "tcp",
            libc::IPPROTO_UDP => "udp",
            libc::IPPROTO_SCTP => "sctp",
            _ => "other",
        };
        Leftover::VirtualServer { protocol, address: self.address, number: self.protocol }
    }

    /// None for one of marked packets, which kube-proxy has not.
    fn parse(body: &[u8]) -> Option<Self> {
        let service = find(body.get(HEADER..)?, SERVICE)?;
        let family = i32::from(number16(find(service, SERVICE_FAMILY)?)?);
        let address = find(service, SERVICE_ADDRESS)?;
        let address = if family == libc::AF_INET { ip(address.get(..4)?)? } else { ip(address)? };
        let port = find(service, SERVICE_PORT)?.try_into().ok().map(u16::from_be_bytes)?;
        let protocol = number16(find(service, SERVICE_PROTOCOL)?)?;
        Some(Self { protocol, address: SocketAddr::new(address, port) })
    }

    fn attributes(&self) -> Attributes {
        let (family, mut address) = match self.address.ip() {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        address.resize(16, 0);
        let family = u16::try_from(family).unwrap_or_default();
        let service = Attributes::default()
            .put(SERVICE_FAMILY, &family.to_ne_bytes())
            .put(SERVICE_PROTOCOL, &self.protocol.to_ne_bytes())
            .put(SERVICE_ADDRESS, &address)
            .put(SERVICE_PORT, &self.address.port().to_be_bytes());
        command(DELETE_SERVICE).nest(SERVICE, service)
    }
}

/// Every virtual server; none when the kernel has not been asked for IPVS yet. Asking netlink would load it.
fn servers() -> Result<Vec<Server>, Error> {
    if read_proc("/proc/net/ip_vs")?.is_none() {
        return Ok(Vec::new());
    }
    let (mut socket, family) = open()?;
    let mut servers = Vec::new();
    let read =
        socket.dump(family, command(GET_SERVICE).into_bytes(), |body| servers.extend(Server::parse(body)));
    read.map_err(Error::kernel("reading the virtual servers of IPVS"))?;
    Ok(servers)
}

fn delete_server(server: &Server) -> Result<(), Error> {
    let (mut socket, family) = open()?;
    let message = Message { kind: family, flags: 0, body: server.attributes().into_bytes() };
    socket.ask(&message).map(drop).map_err(Error::kernel("removing a virtual server"))
}

/// A socket, and the number of IPVS among the families of generic netlink.
fn open() -> Result<(Socket, u16), Error> {
    let doing = "asking for IPVS over netlink";
    let mut socket = Socket::open(NETLINK_GENERIC).map_err(Error::kernel(doing))?;
    let body = command(GET_FAMILY).text(FAMILY_NAME, "IPVS").into_bytes();
    let answers = socket.ask(&Message { kind: CONTROL, flags: 0, body }).map_err(Error::kernel(doing))?;
    let family = |body: &Vec<u8>| number16(find(body.get(HEADER..)?, FAMILY_ID)?);
    let family = answers.iter().find_map(family).ok_or_else(|| Error::Answer { doing: doing.to_owned() })?;
    Ok((socket, family))
}

/// Header of generic netlink: command, version, two bytes of nothing.
fn command(number: u8) -> Attributes {
    Attributes::after(&[number, 1, 0, 0])
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into());
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_is_what_was_read() {
        for address in ["10.96.0.10:53", "[fd00:10:96::a]:53"] {
            let server = Server { protocol: 17, address: address.parse().unwrap() };
            assert_eq!(Server::parse(&server.attributes().into_bytes()), Some(server));
        }
    }

    #[test]
    fn a_server_of_marked_packets_is_nobody_we_know() {
        let service =
            Attributes::default().put(SERVICE_FAMILY, &2_u16.to_ne_bytes()).put(5, &7_u32.to_ne_bytes());
        assert_eq!(Server::parse(&command(1).nest(SERVICE, service).into_bytes()), None);
        assert_eq!(Server::parse(&[1]), None);
    }
}
