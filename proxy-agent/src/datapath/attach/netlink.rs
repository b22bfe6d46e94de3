use std::io;

use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// What the kernel answered: a message that cannot be read is one about something of another program's.
pub(super) type Answer = Result<RouteNetlinkMessage, DecodeError>;

/// A netlink socket of the thread's network namespace, for requests that are answered at once: unlike those
/// of rtnetlink they need no runtime.
#[derive(Debug)]
pub(super) struct Netlink(Socket);

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Asks for something to be done.
    pub(super) fn execute(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_ACK | flags).map(drop)
    }

    /// Asks for all there is.
    pub(super) fn dump(&self, message: RouteNetlinkMessage) -> io::Result<Vec<Answer>> {
        self.request(message, NLM_F_DUMP)
    }

    /// Whether a link's XDP program is run by its driver; `None` without one.
    pub(super) fn has_native_xdp(&self, interface: u32) -> io::Result<Option<bool>> {
        let mut get = LinkMessage::default();
        get.header.index = interface;
        let answers = self.request(RouteNetlinkMessage::GetLink(get), NLM_F_ACK)?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            Ok(RouteNetlinkMessage::NewLink(link)) => Some(link.attributes),
            _ => None,
        });
        Ok(links.flatten().find_map(|attribute| {
            let LinkAttribute::Xdp(facts) = attribute else { return None };
            facts.iter().find_map(|fact| match fact {
                LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(false),
                LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => Some(true),
                _ => None,
            })
        }))
    }

    fn request(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<Answer>> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.0.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some(length) = first_length(rest) {
                let (one, after) = rest.split_at(length.min(rest.len()));
                // To a boundary of four bytes, which the last one need not reach.
                rest = after.get(length.next_multiple_of(4) - length..).unwrap_or_default();
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one).map(|one| one.payload) {
                    Ok(NetlinkPayload::InnerMessage(answer)) => answers.push(Ok(answer)),
                    Ok(NetlinkPayload::Done(_)) => return Ok(answers),
                    Ok(NetlinkPayload::Error(error)) => {
                        return if error.code.is_none() { Ok(answers) } else { Err(error.to_io()) };
                    }
                    Ok(_) => {}
                    Err(error) => answers.push(Err(error)),
                }
            }
        }
    }
}

/// Length of the message at the start, without what fills up its last four bytes.
fn first_length(bytes: &[u8]) -> Option<usize> {
    const HEADER: usize = 16;
    let length = u32::from_ne_bytes(bytes.first_chunk().copied()?) as usize;
    (length >= HEADER && bytes.len() >= HEADER).then_some(length)
}
