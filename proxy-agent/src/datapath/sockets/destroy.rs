use std::{
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use proxy_common::StaleSocket;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG},
};

const AF_INET: u16 = 2;
/// Sockets in one request. Only what fails is answered, and the last: the answers of so many have room.
const BATCH: usize = 128;

/// What became of the sockets of one network namespace.
#[derive(Debug, Default)]
pub(super) struct Destroyed {
    pub(super) destroyed: usize,
    /// Not found by their addresses: closed by their owner meanwhile, or behind another socket that shares all four.
    pub(super) missed: usize,
    /// How many the kernel did not destroy, and what it said last.
    pub(super) refused: usize,
    pub(super) error: Option<io::Error>,
}

/// Destroys sockets of the thread's network namespace: whoever uses one gets `ECONNABORTED`, once; a UDP socket is without
/// a peer from then on. Needs `CAP_NET_ADMIN` over the namespace.
pub(super) fn destroy(sockets: &[&StaleSocket]) -> io::Result<Destroyed> {
    let mut netlink = Socket::new(NETLINK_SOCK_DIAG)?;
    netlink.bind_auto()?;
    netlink.connect(&SocketAddr::new(0, 0))?;
    let mut outcome = Destroyed::default();
    for batch in sockets.chunks(BATCH) {
        netlink.send(&requests(batch), 0)?;
        outcome.destroyed += batch.len();
        while !read_answers(&netlink, batch.len(), &mut outcome)? {}
    }
    Ok(outcome)
}

/// One request a socket, numbered from 1.
fn requests(batch: &[&StaleSocket]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (socket, number) in batch.iter().zip(1..) {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | if number as usize == batch.len() { NLM_F_ACK } else { 0 };
        header.sequence_number = number;
        let request = SockDiagDestroy::new(SockDiagMessage::InetRequest(request(socket)));
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..start + message.buffer_len()]);
    }
    bytes
}

fn request(socket: &StaleSocket) -> InetRequest {
    let address = |bytes: [u8; 16]| -> IpAddr {
        if socket.family == AF_INET {
            let [a, b, c, d, ..] = bytes;
            Ipv4Addr::new(a, b, c, d).into()
        } else {
            bytes.into()
        }
    };
    InetRequest {
        family: u8::try_from(socket.family).unwrap_or_default(),
        protocol: socket.protocol as u8,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: socket.local_port,
            destination_port: socket.remote_port,
            source_address: address(socket.local_address),
            destination_address: address(socket.remote_address),
            interface_id: socket.interface,
            cookie: cookie(socket.cookie),
        },
    }
}

/// As two words, the lower first; all ones asks for no particular socket.
fn cookie(cookie: u64) -> [u8; 8] {
    if cookie == 0 {
        return [0xff; 8];
    }
    let [a, b, c, d, e, f, g, h] = cookie.to_le_bytes();
    let halves = [[a, b, c, d], [e, f, g, h]].map(|half| u32::from_le_bytes(half).to_ne_bytes());
    halves.concat().try_into().unwrap_or([0xff; 8])
}

/// Takes in one datagram of answers; true when the last request's is among them.
fn read_answers(netlink: &Socket, last: usize, outcome: &mut Destroyed) -> io::Result<bool> {
    let (datagram, _) = netlink.recv_from_full()?;
    let mut rest = datagram.as_slice();
    let mut done = false;
    while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize)
        && length >= 16
        && rest.len() >= length
    {
        let (one, after) = rest.split_at(length);
        rest = after.get(length.next_multiple_of(4) - length..).unwrap_or_default();
        let answer = NetlinkMessage::<SockDiagDestroy>::deserialize(one).map_err(io::Error::other)?;
        done |= answer.header.sequence_number as usize == last;
        let NetlinkPayload::Error(error) = answer.payload else { continue };
        if error.code.is_none() {
            continue;
        }
        outcome.destroyed -= 1;
        let error = error.to_io();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESTALE) => outcome.missed += 1,
            _ => {
                outcome.refused += 1;
                outcome.error = Some(error);
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use proxy_common::Protocol;

    use super::*;

    #[test]
    fn a_request_is_of_one_socket_of_its_family() {
        let [mut local_address, mut remote_address] = [[0; 16]; 2];
        local_address[..4].copy_from_slice(&[10, 0, 0, 1]);
        remote_address[..4].copy_from_slice(&[10, 0, 0, 2]);
        let socket = StaleSocket {
            cookie: 0x0102_0304_0506_0708,
            local_address,
            remote_address,
            interface: 3,
            local_port: 4000,
            remote_port: 53,
            family: AF_INET,
            protocol: Protocol::Udp,
            ..StaleSocket::zeroed()
        };
        let request = request(&socket);
        assert_eq!((request.family, request.protocol), (2, 17));
        assert_eq!(request.socket_id.source_address, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(request.socket_id.destination_address, IpAddr::from([10, 0, 0, 2]));
        assert_eq!((request.socket_id.source_port, request.socket_id.destination_port), (4000, 53));
        assert_eq!(request.socket_id.interface_id, 3);
        let words = request.socket_id.cookie.as_chunks::<4>().0;
        assert_eq!(
            words.iter().map(|word| u32::from_ne_bytes(*word)).collect::<Vec<_>>(),
            [0x0506_0708, 0x0102_0304]
        );
    }

    #[test]
    fn only_the_last_request_asks_for_an_answer() {
        let socket = StaleSocket { family: 10, ..StaleSocket::zeroed() };
        let bytes = requests(&[&socket; 3]);
        assert_eq!(bytes.len(), 3 * 72);
        let flags: Vec<_> =
            bytes.chunks(72).map(|one| u16::from_ne_bytes([one[6], one[7]]) & NLM_F_ACK).collect();
        assert_eq!(flags, [0, 0, NLM_F_ACK]);
    }
}
