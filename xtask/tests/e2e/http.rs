//! A client of the agent's own HTTP servers.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;
use xtask::lab::Place;

use crate::world::eventually;

/// How long a step of a request may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) code: u16,
    /// By names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON, {error}: {self:?}"))
    }
}

/// GET, on a connection of its own.
pub(crate) fn get(place: &Place, to: SocketAddr, path: &str) -> Result<Response, String> {
    request(place, to, "GET", path)
}

/// The same by another method.
pub(crate) fn request(place: &Place, to: SocketAddr, method: &str, path: &str) -> Result<Response, String> {
    place.run(|| {
        let failed = |error: std::io::Error| format!("{method} {path} at {to}: {error}");
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(failed)?;
        parse(&text).ok_or_else(|| format!("{method} {path} at {to}: no response: {text:?}"))
    })
}

/// Waits until a path is answered with this code, and for a response that is as wanted.
pub(crate) fn until(
    place: &Place,
    to: SocketAddr,
    path: &str,
    code: u16,
    wanted: impl Fn(&Response) -> bool,
) -> Response {
    eventually(&format!("{code} for {path} at {to} from {}", place.name()), || {
        let response = get(place, to, path)?;
        if response.code == code && wanted(&response) { Ok(response) } else { Err(format!("{response:?}")) }
    })
}

/// Waits until nobody listens.
pub(crate) fn until_closed(place: &Place, to: SocketAddr) {
    eventually(&format!("nobody at {to} for {}", place.name()), || {
        match place.run(|| TcpStream::connect_timeout(&to, PATIENCE)) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn parse(text: &str) -> Option<Response> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let code = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    Some(Response { code, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}
