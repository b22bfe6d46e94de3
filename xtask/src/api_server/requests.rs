use std::sync::Mutex;

use super::lock;

/// One request that the server got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, ...
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query, with its percent escapes decoded.
    pub query: String,
}

impl Request {
    pub(super) fn new(method: &str, path: &str, query: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), query: decode(query) }
    }
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Log(Mutex<Vec<Request>>);

impl Log {
    pub(super) fn add(&self, request: Request) {
        lock(&self.0).push(request);
    }

    pub(super) fn all(&self) -> Vec<Request> {
        lock(&self.0).clone()
    }
}

fn decode(query: &str) -> String {
    let bytes = query.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| query.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_are_decoded() {
        assert_eq!(super::decode("a=%21b%3D1+2&c=%zz"), "a=!b=1 2&c=%zz");
    }
}
