use std::net::{Ipv4Addr, Ipv6Addr};

use proxy_common::Family;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Servers on loopback, and the health that they speak of.
struct Servers {
    checks: HealthChecks,
    health: Arc<Health>,
}

impl Servers {
    async fn new() -> Self {
        let health = Arc::new(Health::new(Duration::from_secs(30), true));
        health.programmed(|_| true);
        let mut checks = HealthChecks::new(Arc::clone(&health), Events::nowhere("n1"));
        checks.listen_on(LOOPBACK.into()).await;
        Self { checks, health }
    }

    /// Changes one Service in one family.
    async fn set(&mut self, name: &str, family: Family, check: Option<(u16, usize)>) {
        let check = check.map(|(port, endpoints)| HealthCheck { port, endpoints });
        let id = HealthCheckId { service: ObjectName::new("shop", name), family };
        self.checks.change(vec![HealthCheckChange { id, check }]).await;
    }
}

/// A port that is free in both families.
fn free_port() -> u16 {
    loop {
        let v4 = std::net::TcpListener::bind((LOOPBACK[0], 0)).unwrap();
        let port = v4.local_addr().unwrap().port();
        if std::net::TcpListener::bind((LOOPBACK[1], port)).is_ok() {
            return port;
        }
    }
}

/// The response to a request, and `None` where nobody listens.
async fn ask(address: IpAddr, port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect((address, port)).await.ok()?;
    stream
        .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    (!response.is_empty()).then_some(response)
}

async fn status(address: IpAddr, port: u16) -> Option<u16> {
    let response = ask(address, port, "GET /").await?;
    Some(response.split(' ').nth(1).unwrap().parse().unwrap())
}

#[tokio::test]
async fn the_answer_is_as_kube_proxy_gives_it() {
    let mut servers = Servers::new().await;
    let port = free_port();
    servers.set("web", Family::V4, Some((port, 2))).await;
    let response = ask(LOOPBACK[0], port, "POST /any/path?at=all").await.unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    for line in [
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-load-balancing-endpoint-weight: 2",
    ] {
        assert!(head.lines().any(|header| header == line), "{line} is not in {head}");
    }
    assert_eq!(
        body,
        r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#
    );
}

#[tokio::test]
async fn a_server_follows_its_service() {
    let mut servers = Servers::new().await;
    let [first, second] = [free_port(), free_port()];
    servers.set("web", Family::V4, Some((first, 1))).await;
    assert_eq!((status(LOOPBACK[0], first).await, status(LOOPBACK[1], first).await), (Some(200), None));
    servers.set("web", Family::V6, Some((first, 0))).await;
    assert_eq!((status(LOOPBACK[0], first).await, status(LOOPBACK[1], first).await), (Some(200), Some(503)));
    servers.set("web", Family::V4, Some((first, 0))).await;
    assert_eq!(status(LOOPBACK[0], first).await, Some(503));
    servers.set("web", Family::V4, Some((second, 3))).await;
    assert_eq!((status(LOOPBACK[0], first).await, status(LOOPBACK[0], second).await), (None, Some(200)));
    servers.set("web", Family::V4, None).await;
    assert_eq!((status(LOOPBACK[0], second).await, status(LOOPBACK[1], first).await), (None, Some(503)));
    // Gone and back in one step, and a port that goes from one Service to another.
    for _ in 0..20 {
        servers.set("web", Family::V4, None).await;
        servers.set("web", Family::V4, Some((second, 1))).await;
        let id = |name| HealthCheckId { service: ObjectName::new("shop", name), family: Family::V4 };
        let check = Some(HealthCheck { port: second, endpoints: 0 });
        let swap = vec![
            HealthCheckChange { id: id("other"), check },
            HealthCheckChange { id: id("web"), check: None },
        ];
        servers.checks.change(swap).await;
        assert_eq!(status(LOOPBACK[0], second).await, Some(503), "the other Service's");
        servers.set("other", Family::V4, None).await;
    }
}

#[tokio::test]
async fn an_unhealthy_proxy_says_so_for_every_service() {
    let mut servers = Servers::new().await;
    let port = free_port();
    servers.set("web", Family::V4, Some((port, 1))).await;
    servers.checks.health = Arc::new(Health::new(Duration::from_secs(30), true));
    servers.set("late", Family::V6, Some((port, 1))).await;
    let response = ask(LOOPBACK[1], port, "GET /").await.unwrap();
    assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
    assert!(response.contains(r#""localEndpoints":1,"serviceProxyHealthy":false"#), "{response}");
    servers.health.set_eligible(false);
    assert_eq!(status(LOOPBACK[0], port).await, Some(200), "the Node is no concern of it");
}

#[tokio::test]
async fn a_port_that_is_taken_is_tried_again() {
    let mut servers = Servers::new().await;
    let port = free_port();
    let other = listener::bind((LOOPBACK[0], port).into(), Families::One).unwrap();
    servers.set("web", Family::V4, Some((port, 1))).await;
    servers.set("web", Family::V6, Some((port, 1))).await;
    assert_eq!(status(LOOPBACK[1], port).await, Some(200), "the other family has its own");
    assert_eq!(servers.checks.lacking.len(), 1);
    servers.checks.try_again();
    assert_eq!(servers.checks.lacking.len(), 1);
    drop(other);
    servers.checks.try_again();
    assert!(servers.checks.lacking.is_empty());
    assert_eq!(status(LOOPBACK[0], port).await, Some(200));
    // What is gone is not tried any more.
    let other = listener::bind((LOOPBACK[0], port + 1).into(), Families::One);
    if let Ok(other) = other {
        servers.set("more", Family::V4, Some((other.local_addr().unwrap().port(), 1))).await;
        assert_eq!(servers.checks.lacking.len(), 1);
        servers.set("more", Family::V4, None).await;
        assert!(servers.checks.lacking.is_empty());
    }
}

#[tokio::test]
async fn addresses_come_and_go() {
    let mut servers = Servers::new().await;
    let port = free_port();
    servers.set("web", Family::V4, Some((port, 1))).await;
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    servers.checks.listen_on(vec![other]).await;
    assert_eq!((status(LOOPBACK[0], port).await, status(other, port).await), (None, Some(200)));
    servers.checks.listen_on(vec![Ipv4Addr::UNSPECIFIED.into()]).await;
    assert_eq!((status(LOOPBACK[0], port).await, status(other, port).await), (Some(200), Some(200)));
    servers.checks.listen_on(Vec::new()).await;
    assert_eq!((status(LOOPBACK[0], port).await, status(other, port).await), (None, None));
}
