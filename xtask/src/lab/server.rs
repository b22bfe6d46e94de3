//! Servers that say who they are: every line (TCP) and every datagram (UDP) is answered with a line
//! of JSON, `{"endpoint":"web-1","peer":"ip:port","local":"ip:port"}`, followed by what was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, oneshot};

use super::place::Place;

/// More connections than this wait in the listener's queue.
const CONNECTIONS: usize = 8192;

/// A longer line ends its connection.
const LONGEST_LINE: u64 = 64 * 1024;

/// A server in a place of the lab; dropping it closes its sockets and connections.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Place {
    /// Serves TCP and UDP on both addresses of this place at `port`. The sockets are bound when this
    /// returns.
    pub fn serve(&self, port: u16) -> anyhow::Result<Server> {
        let addresses = self.addresses().both().map(|ip| SocketAddr::new(ip, port));
        self.serve_on(&addresses)
    }

    /// Serves TCP and UDP on these addresses of this place.
    pub fn serve_on(&self, addresses: &[SocketAddr]) -> anyhow::Result<Server> {
        let name: Arc<str> = self.name().into();
        let (addresses, endpoint) = (addresses.to_vec(), Arc::clone(&name));
        let (started, starts) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = self.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let runtime = match runtime.context("starting a server's runtime") {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(async {
                // The receiver only goes away when serve_on() itself has ended.
                let _told = started.send(serve_all(&addresses, &endpoint).await);
                // Sent or dropped: both mean stop. The tasks end with the runtime.
                let _stopped = stopped.await;
            });
        });
        let server = Server { stop: Some(stop), thread: Some(thread) };
        let started = starts.recv().context("the server's thread has ended").flatten();
        started.with_context(|| format!("starting a server in {name}"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed by the panic hook already.
            let _ended = thread.join();
        }
    }
}

async fn serve_all(addresses: &[SocketAddr], endpoint: &Arc<str>) -> anyhow::Result<()> {
    for address in addresses {
        let tcp = TcpListener::bind(address).await.with_context(|| format!("listening on TCP {address}"))?;
        let udp = UdpSocket::bind(address).await.with_context(|| format!("binding UDP {address}"))?;
        tokio::spawn(accept(tcp, Arc::clone(endpoint)));
        tokio::spawn(answer_datagrams(udp, *address, Arc::clone(endpoint)));
    }
    Ok(())
}

async fn accept(listener: TcpListener, endpoint: Arc<str>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        // A client that gave up before it was accepted is no reason to stop.
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            // A connection that the client resets is over, and that is all.
            let _ended = answer_lines(stream, peer, &endpoint).await;
            drop(place);
        });
    }
}

async fn answer_lines(mut stream: TcpStream, peer: SocketAddr, endpoint: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let hello = hello(endpoint, peer, stream.local_addr()?);
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read);
    let mut answer = Vec::new();
    loop {
        answer.clear();
        answer.extend_from_slice(hello.as_bytes());
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut answer).await?;
        if read == 0 || !answer.ends_with(b"\n") {
            return Ok(());
        }
        write.write_all(&answer).await?;
    }
}

async fn answer_datagrams(socket: UdpSocket, local: SocketAddr, endpoint: Arc<str>) {
    let mut request = vec![0; 64 * 1024];
    loop {
        // Errors are those of earlier answers, to clients that have gone.
        let Ok((length, peer)) = socket.recv_from(&mut request).await else { continue };
        let mut answer = hello(&endpoint, peer, local).into_bytes();
        answer.extend_from_slice(&request[..length]);
        let _sent = socket.send_to(&answer, peer).await;
    }
}

/// Who is answering whom.
pub(super) fn hello(endpoint: &str, peer: SocketAddr, local: SocketAddr) -> String {
    let mut line = serde_json::json!({ "endpoint": endpoint, "peer": peer, "local": local }).to_string();
    line.push('\n');
    line
}
