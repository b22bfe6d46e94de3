use std::{io, time::Duration};

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use tokio::time::timeout;

use super::trouble::Trouble;

/// No object is a hundredth as long: a server that sends such a line is not sending events.
const LONGEST_LINE: usize = 64 << 20;
/// A page of 500 objects of the largest size that etcd takes, and some.
const LONGEST_PAGE: usize = 1 << 30;

/// The lines of a watch.
pub(super) struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    silence: Duration,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads lines out of `reader`; none may take longer than `silence` to come.
    pub(super) fn new(reader: R, silence: Duration) -> Self {
        Self { reader, line: Vec::new(), silence }
    }

    /// The next line, or `None` at the proper end of the response. What is left before the end without a line
    /// feed is no line: the server was cut short.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, Trouble> {
        self.line.clear();
        // The memory of a large event is given back.
        self.line.shrink_to(1 << 20);
        let mut reader = (&mut self.reader).take(LONGEST_LINE as u64);
        let read = timeout(self.silence, reader.read_until(b'\n', &mut self.line)).await;
        match read {
            Err(_) => Err(Trouble::Silent(self.silence)),
            Ok(Err(error)) => Err(Trouble::Broken(error)),
            Ok(Ok(0)) => Ok(None),
            Ok(Ok(_)) if self.line.ends_with(b"\n") => Ok(Some(self.line.trim_ascii())),
            Ok(Ok(read)) if read >= LONGEST_LINE => {
                Err(Trouble::Garbage(format!("a line of more than {LONGEST_LINE} bytes")))
            }
            Ok(Ok(_)) => Err(Trouble::Broken(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// The whole body of a response, each piece of which may take up to `patience`.
pub(super) async fn read_page(
    mut reader: impl AsyncBufRead + Unpin,
    patience: Duration,
) -> Result<Vec<u8>, Trouble> {
    let mut page = Vec::new();
    loop {
        let piece = match timeout(patience, reader.fill_buf()).await {
            Err(_) => return Err(Trouble::Silent(patience)),
            Ok(Err(error)) => return Err(Trouble::Broken(error)),
            Ok(Ok(piece)) => piece,
        };
        if piece.is_empty() {
            return Ok(page);
        }
        if page.len() + piece.len() > LONGEST_PAGE {
            return Err(Trouble::Garbage(format!("a list of more than {LONGEST_PAGE} bytes")));
        }
        page.extend_from_slice(piece);
        let length = piece.len();
        reader.consume_unpin(length);
    }
}
