//! A server of associations: every message is answered as the lab's UDP servers answer a datagram.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use super::packet::{
    ABORT, COOKIE_ACK, COOKIE_ECHO, Chunk, DATA, INIT, Packet, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE,
};
use super::socket::{Arrived, RawSctp};
use crate::lab::place::Place;
use crate::lab::server::hello;

/// A server in a place of the lab; dropping it ends it.
#[derive(Debug)]
pub struct SctpServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Place {
    /// Serves SCTP on both addresses of this place at `port`. It is there when this returns.
    pub fn serve_sctp(&self, port: u16) -> anyhow::Result<SctpServer> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut server = SctpServer { stop: Arc::clone(&stop), threads: Vec::new() };
        for ip in self.addresses().both() {
            let socket = self.run(|| RawSctp::bind(ip));
            let socket = socket.with_context(|| format!("serving SCTP in {}", self.name()))?;
            let (until, local) = (Arc::clone(&stop), SocketAddr::new(ip, port));
            let mut listener =
                Listener { name: self.name().to_owned(), local, socket, peers: HashMap::new() };
            server.threads.push(self.spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    // Errors are those of earlier answers, to clients that have gone.
                    let _done = listener.serve_one();
                }
            }));
        }
        Ok(server)
    }
}

impl Drop for SctpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic has been printed by the panic hook already.
            let _ended = thread.join();
        }
    }
}

struct Listener {
    name: String,
    local: SocketAddr,
    socket: RawSctp,
    peers: HashMap<SocketAddr, Association>,
}

struct Association {
    /// What packets to us, and to the peer, carry.
    tag: u32,
    peer_tag: u32,
    cookie: [u8; 8],
    established: bool,
    /// The number of the last DATA of the peer's, and of our last.
    last: u32,
    sent: u32,
    /// The last answer, in case it was lost.
    answer: Option<Chunk>,
}

impl Listener {
    fn serve_one(&mut self) -> io::Result<()> {
        match self.socket.receive(Duration::from_millis(50))? {
            Arrived::Packet(peer, packet) if packet.destination_port == self.local.port() => {
                self.answer(peer, &packet)
            }
            Arrived::Broken(from, broken) => {
                eprintln!("lab: {}: an SCTP packet from {from} is broken: {broken:?}", self.name);
                Ok(())
            }
            Arrived::Packet(..) | Arrived::Nothing => Ok(()),
        }
    }

    fn answer(&mut self, peer: SocketAddr, packet: &Packet) -> io::Result<()> {
        let chunk = &packet.chunk;
        if chunk.kind == INIT {
            let (peer_tag, first) = chunk.beginning().ok_or(ErrorKind::InvalidData)?;
            let association = Association::new(peer_tag, first);
            let init_ack =
                Chunk::init_ack(association.tag, association.sent.wrapping_add(1), association.cookie);
            self.peers.insert(peer, association);
            return self.send(peer, peer_tag, init_ack);
        }
        let Some(association) = self.peers.get_mut(&peer).filter(|known| known.tag == packet.tag) else {
            return Ok(());
        };
        let peer_tag = association.peer_tag;
        match chunk.kind {
            COOKIE_ECHO if chunk.body == association.cookie => {
                association.established = true;
                self.send(peer, peer_tag, Chunk::bare(COOKIE_ACK))
            }
            DATA if association.established => {
                let answers = association.take(chunk, || hello(&self.name, peer, self.local));
                answers.into_iter().try_for_each(|answer| self.send(peer, peer_tag, answer))
            }
            SHUTDOWN => self.send(peer, peer_tag, Chunk::bare(SHUTDOWN_ACK)),
            SHUTDOWN_COMPLETE | ABORT => {
                self.peers.remove(&peer);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn send(&self, peer: SocketAddr, tag: u32, chunk: Chunk) -> io::Result<()> {
        let packet = Packet { source_port: self.local.port(), destination_port: peer.port(), tag, chunk };
        let ip: IpAddr = peer.ip();
        self.socket.send(&packet, ip)
    }
}

impl Association {
    fn new(peer_tag: u32, first: u32) -> Self {
        Self {
            tag: rand::random_range(1..u32::MAX),
            peer_tag,
            cookie: rand::random(),
            established: false,
            last: first.wrapping_sub(1),
            sent: rand::random(),
            answer: None,
        }
    }

    /// What a DATA chunk is answered with.
    fn take(&mut self, data: &Chunk, hello: impl FnOnce() -> String) -> Vec<Chunk> {
        let sequence = data.sequence();
        if sequence == Some(self.last.wrapping_add(1)) {
            self.last = self.last.wrapping_add(1);
            self.sent = self.sent.wrapping_add(1);
            let message = [hello().as_bytes(), data.message()].concat();
            self.answer = Some(Chunk::data(self.sent, &message));
        } else if sequence != Some(self.last) {
            return Vec::new();
        }
        [Some(Chunk::sack(self.last)), self.answer.clone()].into_iter().flatten().collect()
    }
}
