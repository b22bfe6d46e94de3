//! The client's side of an association.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::packet::{
    ABORT, COOKIE_ACK, Chunk, DATA, INIT_ACK, Packet, SACK, SHUTDOWN_ACK, SHUTDOWN_COMPLETE,
};
use super::socket::{Arrived, RawSctp};
use crate::lab::client::{Answer, Failure, Step, answer_datagram};

/// A packet that is not answered is sent again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// An association that can ask more than once.
#[derive(Debug)]
pub struct SctpSession {
    socket: RawSctp,
    to: SocketAddr,
    port: u16,
    patience: Duration,
    /// What packets to us, and to the peer, carry.
    tag: u32,
    peer_tag: u32,
    /// The number of our next DATA, and that of the last of the peer's.
    next: u32,
    last: u32,
}

impl SctpSession {
    /// Sets an association up; the limit also holds for each answer.
    pub fn connect(to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        // Above what the packet path uses for clients that it hides.
        Self::connect_from(rand::random_range(40_000..60_000), to, patience)
    }

    /// The same from a source port.
    pub fn connect_from(port: u16, to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let socket = RawSctp::for_client(to).map_err(Failure::at(Step::Open))?;
        let (tag, next) = (rand::random_range(1..u32::MAX), rand::random());
        let mut session = Self { socket, to, port, patience, tag, peer_tag: 0, next, last: 0 };
        let failed = Failure::at(Step::Connect);
        let init = Chunk::init(tag, next);
        let (_, init_ack) = session.exchange(&init, INIT_ACK).map_err(&failed)?;
        let understood = init_ack.beginning().zip(init_ack.cookie());
        let ((peer_tag, first), cookie) =
            understood.ok_or_else(|| failed(io::Error::new(ErrorKind::InvalidData, "an odd INIT ACK")))?;
        (session.peer_tag, session.last) = (peer_tag, first.wrapping_sub(1));
        session.exchange(&Chunk::cookie_echo(cookie), COOKIE_ACK).map_err(&failed)?;
        Ok(session)
    }

    /// Sends a message and waits for the answer.
    pub fn ask(&mut self, message: &[u8]) -> Result<Answer, Failure> {
        let data = Chunk::data(self.next, message);
        let (from, answer) = self.exchange(&data, DATA).map_err(Failure::at(Step::Receive))?;
        self.next = self.next.wrapping_add(1);
        self.last = answer.sequence().unwrap_or_default();
        let acknowledged = self.send(&Chunk::sack(self.last));
        acknowledged.map_err(Failure::at(Step::Send))?;
        answer_datagram(answer.message(), from)
    }

    /// Ends the association as both sides should see it.
    pub fn shutdown(self) -> Result<(), Failure> {
        let failed = Failure::at(Step::Receive);
        self.exchange(&Chunk::shutdown(self.last), SHUTDOWN_ACK).map_err(&failed)?;
        self.send(&Chunk::bare(SHUTDOWN_COMPLETE)).map_err(&failed)
    }

    /// Sends a chunk until one of the wanted type comes back, from whomever.
    fn exchange(&self, chunk: &Chunk, wanted: u8) -> io::Result<(SocketAddr, Chunk)> {
        let deadline = Instant::now() + self.patience;
        loop {
            self.send(chunk)?;
            let again = deadline.min(Instant::now() + AGAIN_AFTER);
            while let Some(left) = again.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            {
                let (from, packet) = match self.socket.receive(left) {
                    Ok(Arrived::Packet(from, packet)) => (from, packet),
                    Ok(Arrived::Broken(from, broken)) => {
                        eprintln!("lab: an SCTP packet from {from} is broken: {broken:?}");
                        continue;
                    }
                    Ok(Arrived::Nothing) => continue,
                    Err(error) if self.socket.is_about(self.port) => return Err(error),
                    Err(_) => continue,
                };
                if packet.destination_port != self.port || packet.tag != self.tag {
                    continue;
                }
                match packet.chunk.kind {
                    ABORT => return Err(ErrorKind::ConnectionReset.into()),
                    // The answer to an earlier message may come once more.
                    DATA if packet.chunk.sequence() == Some(self.last) => {
                        self.send(&Chunk::sack(self.last))?;
                    }
                    SACK => (),
                    kind if kind == wanted => return Ok((from, packet.chunk)),
                    _ => (),
                }
            }
            if Instant::now() >= deadline {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    fn send(&self, chunk: &Chunk) -> io::Result<()> {
        let packet = Packet {
            source_port: self.port,
            destination_port: self.to.port(),
            tag: self.peer_tag,
            chunk: chunk.clone(),
        };
        // A call reports what earlier packets met, also those of other sockets; then it has sent nothing.
        match self.socket.send(&packet, self.to.ip()) {
            Err(error) if self.socket.is_about(self.port) => Err(error),
            Err(_) => self.socket.send(&packet, self.to.ip()),
            Ok(()) => Ok(()),
        }
    }
}
