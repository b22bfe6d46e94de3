use std::{io, time::Duration};

use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR},
    sys::{self, SocketAddr},
};
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};

/// Bytes of the header of a message.
const HEADER: usize = 16;

/// The kernel answers at once; it is not waited for without an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A netlink socket of the thread's network namespace.
#[derive(Debug)]
pub(in crate::takeover) struct Socket {
    socket: sys::Socket,
    sequence: u32,
}

/// One message that is sent.
#[derive(Clone, Debug)]
pub(in crate::takeover) struct Message {
    /// Protocol's number of what is asked.
    pub(in crate::takeover) kind: u16,
    /// `NLM_F_*`, but for those that every request has.
    pub(in crate::takeover) flags: u16,
    /// The protocol's own header, and attributes.
    pub(in crate::takeover) body: Vec<u8>,
}

/// The first message of several that was refused.
#[derive(Debug)]
pub(in crate::takeover) struct Failure {
    /// Its place among them.
    pub(in crate::takeover) index: usize,
    pub(in crate::takeover) error: io::Error,
}

impl Socket {
    pub(in crate::takeover) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = sys::Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks for all there is, and hands over the bodies of the answers.
    pub(in crate::takeover) fn dump(
        &mut self,
        kind: u16,
        body: Vec<u8>,
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence += 1;
        let message = Message { kind, flags: NLM_F_DUMP, body };
        self.socket.send(&encode(&message, self.sequence), 0)?;
        self.receive(|_, kind, body| {
            match kind {
                NLMSG_DONE => return Some(errno(body).map_or(Ok(()), Err)),
                NLMSG_ERROR => return Some(errno(body).map_or(Ok(()), Err)),
                _ => each(body),
            }
            None
        })
    }

    /// Asks one thing, and hands over the bodies of the answers.
    pub(in crate::takeover) fn ask(&mut self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let message = Message { flags: message.flags | NLM_F_ACK, ..message.clone() };
        self.socket.send(&encode(&message, self.sequence), 0)?;
        let mut answers = Vec::new();
        self.receive(|_, kind, body| {
            if kind == NLMSG_ERROR {
                return Some(errno(body).map_or(Ok(()), Err));
            }
            answers.push(body.to_vec());
            None
        })?;
        Ok(answers)
    }

    /// Sends all in one piece, which the kernel takes whole or not at all. The first and the last are the protocol's
    /// brackets around the others.
    pub(in crate::takeover) fn transact(&mut self, messages: &[Message]) -> Result<(), Failure> {
        let first = self.sequence + 1;
        let last = messages.len().saturating_sub(2);
        let mut bytes = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            self.sequence += 1;
            // One acknowledgement is enough: what is refused is told in any case.
            let ack = if index == last { NLM_F_ACK } else { 0 };
            bytes.extend(encode(&Message { flags: message.flags | ack, ..message.clone() }, self.sequence));
        }
        let index = |sequence: u32| sequence.wrapping_sub(first) as usize;
        let of_all = |error| Failure { index: 0, error };
        // The kernel wants all of it in its buffer at once, and counts more than the bytes.
        set_socket_send_buffer_size_force(&self.socket, bytes.len() * 2 + (1 << 16))
            .map_err(|error| of_all(error.into()))?;
        self.socket.send(&bytes, 0).map_err(of_all)?;
        let mut refused: Option<Failure> = None;
        let end = self.receive(|sequence, kind, body| {
            if kind != NLMSG_ERROR {
                return None;
            }
            let index = index(sequence);
            if let Some(error) = errno(body) {
                refused.get_or_insert(Failure { index, error });
            }
            // About the opening bracket the kernel speaks only when it gives up on all.
            (index == last || index == 0).then_some(Ok(()))
        });
        match refused {
            Some(failure) => Err(failure),
            None => end.map_err(of_all),
        }
    }

    /// Hands over messages, by sequence number, kind and body, until `each` has the outcome.
    fn receive(&self, mut each: impl FnMut(u32, u16, &[u8]) -> Option<io::Result<()>>) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
                let [a, b, c, d, kind0, kind1, _, _, s0, s1, s2, s3, ..] = *header;
                let length = u32::from_ne_bytes([a, b, c, d]) as usize;
                let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
                let Some(body) = rest.get(HEADER..length) else {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a message longer than its datagram",
                    ));
                };
                if let Some(outcome) = each(sequence, u16::from_ne_bytes([kind0, kind1]), body) {
                    return outcome;
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn encode(message: &Message, sequence: u32) -> Vec<u8> {
    let length = HEADER + message.body.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    // Bodies are a few hundred bytes.
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(message.kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | message.flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(&message.body);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// What the body of an error, or of the end of a dump, says; none for success.
fn errno(body: &[u8]) -> Option<io::Error> {
    let code = body.first_chunk().copied().map_or(0, i32::from_ne_bytes);
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_on_a_boundary_and_know_their_length() {
        let bytes = encode(&Message { kind: 0x0a07, flags: NLM_F_DUMP, body: vec![1; 5] }, 7);
        assert_eq!(bytes.len(), 24);
        assert_eq!(bytes[..4], 21_u32.to_ne_bytes());
        assert_eq!(
            bytes[4..8],
            [0x0a07_u16.to_ne_bytes(), (NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes()].concat()
        );
        assert_eq!(bytes[8..12], 7_u32.to_ne_bytes());
        assert_eq!(bytes[16..], [1, 1, 1, 1, 1, 0, 0, 0]);
    }

    #[test]
    fn zero_is_success() {
        assert!(errno(&0_i32.to_ne_bytes()).is_none());
        assert_eq!(errno(&(-16_i32).to_ne_bytes()).and_then(|error| error.raw_os_error()), Some(16));
    }
}
