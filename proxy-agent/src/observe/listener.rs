use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, task::JoinSet};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Connections at the same time to one address; more wait. Anybody outside may connect, and what is taken up is
/// memory of the agent.
const MOST: usize = 256;
/// How long a client may take for its request, and be silent before the next.
const PATIENCE: Duration = Duration::from_secs(30);
/// Before the system is asked again for a connection that it could not give.
const PAUSE: Duration = Duration::from_secs(1);

/// Whose clients the IPv6 wildcard address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Families {
    /// Its own: IPv4 has another listener on the port.
    One,
    /// Those of IPv4 too.
    Both,
}

/// A listener on an address.
pub(super) fn bind(address: SocketAddr, families: Families) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // What the last listener's connections leave behind does not keep the port from the next.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(families == Families::One)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Answers the requests that come in, for as long as it is polled: dropping it closes the port and every
/// connection, so that the port can be bound again at once.
pub(super) async fn serve(listener: TcpListener, router: Router) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_of_the_connection(&error) => continue,
            // Out of file descriptors or memory: it would fail again at once.
            Err(error) => {
                tracing::debug!("accepting a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // A client that breaks off is nobody's concern.
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use axum::routing::any;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn ask(stream: &mut TcpStream) -> io::Result<String> {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await?;
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).await?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[tokio::test]
    async fn a_port_that_is_closed_can_be_bound_at_once_and_its_connections_end() {
        let router = Router::new().fallback(any(|| async { "here" }));
        let mut address: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        for _ in 0..3 {
            let listener = bind(address, Families::One).unwrap();
            address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, router.clone()));
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert!(ask(&mut stream).await.unwrap().ends_with("here"));
            server.abort();
            assert!(server.await.unwrap_err().is_cancelled());
            // Whatever way the connection ends: nothing is answered on it any more.
            assert!(ask(&mut stream).await.unwrap_or_default().is_empty());
        }
    }

    #[tokio::test]
    async fn both_families_have_the_wildcard_address_of_a_port() {
        let v4 = bind((Ipv4Addr::UNSPECIFIED, 0).into(), Families::One).unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = bind((Ipv6Addr::UNSPECIFIED, port).into(), Families::One).unwrap();
        assert_eq!(v6.local_addr().unwrap().port(), port);
        assert_eq!(
            bind((Ipv4Addr::UNSPECIFIED, port).into(), Families::One).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
    }
}
