//! Bursts of system calls, timed. Each returns nanoseconds a call.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, sendto, socket,
};

const REUSED: u32 = 2_000;
const FRESH: u32 = 300;
const DATAGRAMS: u32 = 300;
/// As many as surely fit into a socket's receive buffer.
const QUEUED: u32 = 64;

/// connect() of one UDP socket, again and again.
pub(super) fn connect_reused(to: SocketAddr) -> Result<f64> {
    let socket = udp(to)?;
    let address = SockaddrStorage::from(to);
    connect(socket.as_raw_fd(), &address).context("connect()")?;
    timed(REUSED, || connect(socket.as_raw_fd(), &address).context("connect()"))
}

/// socket(), connect() and close() of UDP sockets.
pub(super) fn connect_fresh(to: SocketAddr) -> Result<f64> {
    let address = SockaddrStorage::from(to);
    timed(FRESH, || {
        let socket = udp(to)?;
        connect(socket.as_raw_fd(), &address).context("connect()")
    })
}

/// sendto() of one unconnected UDP socket.
pub(super) fn send(to: SocketAddr) -> Result<f64> {
    let socket = udp(to)?;
    let address = SockaddrStorage::from(to);
    timed(DATAGRAMS, || {
        sendto(socket.as_raw_fd(), b"x", &address, MsgFlags::empty()).map(drop).context("sendto()")
    })
}

/// recvfrom() of one unconnected UDP socket that has sent to `to`, of datagrams that wait already. They come
/// from `endpoint`, which is bound to what `to` is translated to, or is `to` itself.
pub(super) fn receive(to: SocketAddr, endpoint: &UdpSocket) -> Result<f64> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("binding a UDP socket")?;
    let mut buffer = [0; 8];
    socket.send_to(b"x", to).context("sendto()")?;
    let (_length, client) = endpoint.recv_from(&mut buffer).context("recvfrom() at the endpoint")?;
    for _ in 0..QUEUED {
        endpoint.send_to(b"x", client).context("answering")?;
    }
    let mut shown = to;
    let elapsed = timed(QUEUED, || {
        shown = socket.recv_from(&mut buffer).context("recvfrom()")?.1;
        Ok(())
    });
    ensure!(shown == to, "a reply from {to} was shown as from {shown}");
    elapsed
}

fn udp(like: SocketAddr) -> Result<OwnedFd> {
    let family = if like.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).context("making a UDP socket")
}

#[expect(clippy::cast_precision_loss, reason = "a burst takes far fewer than 2^52 nanoseconds")]
fn timed(times: u32, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..times {
        call()?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(times))
}
