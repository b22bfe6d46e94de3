//! SCTP by the kernel's own sockets, where it has them. One association is one socket, and is used like a TCP
//! connection.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{SockaddrStorage, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::packet::PROTOCOL;
use crate::lab::links::ETH0;
use crate::lab::place::Place;
use crate::lab::server::hello;

/// How often a server looks whether it is to end.
const PAUSE: Duration = Duration::from_millis(5);

/// A server by the kernel's sockets; dropping it ends it.
#[derive(Debug)]
pub struct SctpSocketServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Place {
    /// Serves SCTP on both addresses of this place at `port` by the kernel's sockets, with the answers of
    /// [`Place::serve`]. It is there when this returns.
    pub fn serve_sctp_sockets(&self, port: u16) -> anyhow::Result<SctpSocketServer> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut server = SctpSocketServer { stop: Arc::clone(&stop), threads: Vec::new() };
        for ip in self.addresses().both() {
            let local = SocketAddr::new(ip, port);
            let listener = self.run(|| listen(local)).with_context(|| format!("serving SCTP on {local}"))?;
            let (stop, name) = (Arc::clone(&stop), self.name().to_owned());
            server.threads.push(self.spawn(move || accept(&listener, local, &name, &stop)));
        }
        Ok(server)
    }
}

impl Drop for SctpSocketServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic has been printed by the panic hook already.
            let _ended = thread.join();
        }
    }
}

/// A socket for one association.
pub(in crate::lab) fn kernel_socket(ipv6: bool) -> io::Result<Socket> {
    let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
    Socket::new(domain, Type::STREAM, Some(Protocol::from(PROTOCOL)))
}

/// Sets an association up from one address alone: another one of this end would be told to the other end, which
/// would then talk to it.
pub(in crate::lab) fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = kernel_socket(to.is_ipv6())?;
    // Without it an ICMP error is only a hint.
    if to.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
    }
    socket.bind(&own_address(to.is_ipv6())?.into())?;
    socket.connect_timeout(&to.into(), patience)?;
    Ok(socket.into())
}

/// The address of this place. A route to the destination would not tell: to ask for one is to connect a socket, and the
/// programs of a node refuse that where a Service has no such port.
fn own_address(ipv6: bool) -> io::Result<SocketAddr> {
    let ip = |address: SockaddrStorage| -> Option<IpAddr> {
        match address.as_sockaddr_in6() {
            Some(v6) => (ipv6 && !v6.ip().is_unicast_link_local()).then(|| v6.ip().into()),
            None => address.as_sockaddr_in().filter(|_| !ipv6).map(|v4| v4.ip().into()),
        }
    };
    let mut all = getifaddrs()?.filter(|one| one.interface_name == ETH0).filter_map(|one| one.address);
    let own = all.find_map(ip).ok_or(ErrorKind::AddrNotAvailable)?;
    Ok(SocketAddr::new(own, 0))
}

fn listen(local: SocketAddr) -> io::Result<TcpListener> {
    let socket = kernel_socket(local.is_ipv6())?;
    socket.bind(&local.into())?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn accept(listener: &TcpListener, local: SocketAddr, name: &str, stop: &Arc<AtomicBool>) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                // An association that the client ends is over, and that is all.
                Ok((stream, peer)) => {
                    drop(scope.spawn(move || answer(stream, &hello(name, peer, local), stop)));
                }
                Err(_nobody) => thread::sleep(PAUSE),
            }
        }
    });
}

fn answer(stream: TcpStream, hello: &str, stop: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        }
        let message = [hello.as_bytes(), &line].concat();
        lines.get_mut().write_all(&message)?;
        line.clear();
    }
    Ok(())
}
