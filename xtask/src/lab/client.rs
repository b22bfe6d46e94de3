//! Clients of the lab's servers. To be called inside a place: `pod.run(|| ask(Via::Tcp, address))`.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, connect};
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};

use super::sctp::{self, SctpSession};
use super::sys;

/// How long `ask` waits for a connection and for an answer, each.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a request is sent. Give a [`mapped`](super::mapped) address to go through an IPv6 socket to IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// connect(), write, read.
    Tcp,
    /// The same on an MPTCP socket; the lab's servers speak TCP, which it then falls back to.
    Mptcp,
    /// sendto() and recvfrom() on a socket that is not connected.
    Udp,
    /// connect(), send(), recv().
    UdpConnected,
    /// An association on a raw socket, which the socket programs of a node do not see; ended in order.
    Sctp,
    /// An association on a socket of the kernel's.
    SctpSocket,
}

/// What a server said, and what the client's socket says about it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Name of the server.
    pub endpoint: String,
    /// The client as the server saw it.
    pub peer: SocketAddr,
    /// The server's own address.
    pub local: SocketAddr,
    /// Who the answer came from, by getpeername(), or by recvfrom() on a socket that is not connected.
    pub remote: SocketAddr,
    /// What was sent, as it came back.
    pub echo: Vec<u8>,
}

/// A request that was not answered.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was being done.
    pub step: Step,
    /// What kind of error.
    pub kind: ErrorKind,
    /// The kernel's error number, when it is its error.
    pub errno: Option<i32>,
    /// The error in words.
    pub text: String,
}

/// A step of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the socket.
    Open,
    /// connect().
    Connect,
    /// Sending the request.
    Send,
    /// Waiting for the answer.
    Receive,
    /// Understanding the answer.
    Parse,
}

impl Failure {
    /// Whether the destination refused: ECONNREFUSED.
    #[must_use]
    pub fn refused(&self) -> bool {
        self.kind == ErrorKind::ConnectionRefused
    }

    /// Whether nothing came back in time.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        matches!(self.kind, ErrorKind::TimedOut | ErrorKind::WouldBlock)
    }

    pub(super) fn at(step: Step) -> impl Fn(io::Error) -> Self {
        move |error| Self { step, kind: error.kind(), errno: error.raw_os_error(), text: error.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.step, self.text)
    }
}

impl std::error::Error for Failure {}

/// Sends one request and waits for the answer.
pub fn ask(via: Via, to: SocketAddr) -> Result<Answer, Failure> {
    ask_within(via, to, PATIENCE)
}

/// The same with a limit of one's own for each step.
pub fn ask_within(via: Via, to: SocketAddr, patience: Duration) -> Result<Answer, Failure> {
    match via {
        Via::Tcp => TcpSession::connect(to, patience)?.ask(b"who are you?"),
        Via::Mptcp => TcpSession::connect_mptcp(to, patience)?.ask(b"who are you?"),
        Via::Udp => UdpSession::open(to, patience)?.ask_to(b"who are you?", to),
        Via::UdpConnected => ask_connected(to, patience),
        Via::SctpSocket => TcpSession::connect_sctp(to, patience)?.ask(b"who are you?"),
        Via::Sctp => {
            let mut session = SctpSession::connect(to, patience)?;
            let answer = session.ask(b"who are you?")?;
            session.shutdown()?;
            Ok(answer)
        }
    }
}

/// A socket whose endpoint has gone meanwhile is closed by the agent: like any program, this one then connects again.
fn ask_connected(to: SocketAddr, patience: Duration) -> Result<Answer, Failure> {
    let ask = || UdpSession::connect(to, patience)?.ask(b"who are you?");
    match ask() {
        Err(Failure { errno: Some(nix::libc::ECONNABORTED | nix::libc::EDESTADDRREQ), .. }) => ask(),
        asked => asked,
    }
}

/// A TCP connection that can ask more than once.
#[derive(Debug)]
pub struct TcpSession {
    stream: BufReader<TcpStream>,
}

impl TcpSession {
    /// Connects; the limit also holds for each answer.
    pub fn connect(to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&to, patience).map_err(Failure::at(Step::Connect))?;
        Self::over(stream, patience)
    }

    /// The same from a source port, which may have been in use until just now.
    pub fn connect_from(port: u16, to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let open = |error| Failure::at(Step::Open)(error);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).map_err(open)?;
        socket.set_reuse_address(true).map_err(open)?;
        socket.bind(&any(to, port).into()).map_err(open)?;
        socket.connect_timeout(&to.into(), patience).map_err(Failure::at(Step::Connect))?;
        Self::over(socket.into(), patience)
    }

    /// The same with MPTCP.
    pub fn connect_mptcp(to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let stream = sys::mptcp_socket(to.is_ipv6()).map_err(Failure::at(Step::Open))?;
        // This also limits connect().
        stream.set_write_timeout(Some(patience)).map_err(Failure::at(Step::Open))?;
        let connected = connect(stream.as_raw_fd(), &SockaddrStorage::from(to));
        connected.map_err(io::Error::from).map_err(Failure::at(Step::Connect))?;
        Self::over(stream, patience)
    }

    /// The same with SCTP of the kernel's.
    pub fn connect_sctp(to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let stream = sctp::connect_by_kernel(to, patience).map_err(Failure::at(Step::Connect))?;
        Self::with_limit(stream, patience)
    }

    fn over(stream: TcpStream, patience: Duration) -> Result<Self, Failure> {
        stream.set_nodelay(true).map_err(Failure::at(Step::Open))?;
        Self::with_limit(stream, patience)
    }

    fn with_limit(stream: TcpStream, patience: Duration) -> Result<Self, Failure> {
        let set = stream.set_read_timeout(Some(patience));
        set.and_then(|()| stream.set_write_timeout(Some(patience))).map_err(Failure::at(Step::Open))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a line (without its end) and waits for the answer.
    pub fn ask(&mut self, line: &[u8]) -> Result<Answer, Failure> {
        let mut request = line.to_vec();
        request.push(b'\n');
        self.stream.get_mut().write_all(&request).map_err(Failure::at(Step::Send))?;
        let (mut hello, mut echo) = (Vec::new(), Vec::new());
        for part in [&mut hello, &mut echo] {
            let read = self.stream.read_until(b'\n', part).map_err(Failure::at(Step::Receive))?;
            if read == 0 {
                let end = io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection");
                return Err(Failure::at(Step::Receive)(end));
            }
        }
        echo.pop();
        let remote = self.stream.get_ref().peer_addr().map_err(Failure::at(Step::Receive))?;
        answer(&hello, echo, remote)
    }

    /// The socket, for what this type does not do.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

/// A UDP socket that can ask more than once.
#[derive(Debug)]
pub struct UdpSession {
    socket: UdpSocket,
}

impl UdpSession {
    /// A socket of the family of `like`, not connected.
    pub fn open(like: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        Self::open_at(0, like, patience)
    }

    /// The same with a source port.
    pub fn open_at(port: u16, like: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let deadline = Instant::now() + patience;
        let socket = loop {
            match UdpSocket::bind(any(like, port)) {
                // A socket that was closed just now lives on in a process that is being started, until it is.
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                bound => break bound.map_err(Failure::at(Step::Open))?,
            }
        };
        socket.set_read_timeout(Some(patience)).map_err(Failure::at(Step::Open))?;
        Ok(Self { socket })
    }

    /// A socket that is connected to `to`.
    pub fn connect(to: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let session = Self::open(to, patience)?;
        session.socket.connect(to).map_err(Failure::at(Step::Connect))?;
        Ok(session)
    }

    /// Sends on a connected socket and waits for the answer.
    pub fn ask(&self, payload: &[u8]) -> Result<Answer, Failure> {
        self.socket.send(payload).map_err(Failure::at(Step::Send))?;
        let mut datagram = vec![0; 64 * 1024];
        let length = self.socket.recv(&mut datagram).map_err(Failure::at(Step::Receive))?;
        let remote = self.socket.peer_addr().map_err(Failure::at(Step::Receive))?;
        answer_datagram(&datagram[..length], remote)
    }

    /// Sends on a socket that is not connected and waits for an answer, from whomever.
    pub fn ask_to(&self, payload: &[u8], to: SocketAddr) -> Result<Answer, Failure> {
        self.socket.send_to(payload, to).map_err(Failure::at(Step::Send))?;
        let mut datagram = vec![0; 64 * 1024];
        let (length, from) = self.socket.recv_from(&mut datagram).map_err(Failure::at(Step::Receive))?;
        answer_datagram(&datagram[..length], from)
    }

    /// The socket, for what this type does not do.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}

/// No address in particular, of the family of `like`.
fn any(like: SocketAddr, port: u16) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// Understands an answer that came in one datagram.
pub(super) fn answer_datagram(datagram: &[u8], remote: SocketAddr) -> Result<Answer, Failure> {
    let (hello, echo) = match datagram.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&datagram[..end], datagram[end + 1..].to_vec()),
        None => (datagram, Vec::new()),
    };
    answer(hello, echo, remote)
}

fn answer(hello: &[u8], echo: Vec<u8>, remote: SocketAddr) -> Result<Answer, Failure> {
    #[derive(Deserialize)]
    struct Hello {
        endpoint: String,
        peer: SocketAddr,
        local: SocketAddr,
    }
    let Hello { endpoint, peer, local } =
        serde_json::from_slice(hello).map_err(|error| Failure::at(Step::Parse)(error.into()))?;
    Ok(Answer { endpoint, peer, local, remote, echo })
}
