//! Archives in the "newc" form that the kernel takes as its first root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const TRAILER: &str = "TRAILER!!!";

/// Writes an archive. Folders have to be added before what lies in them.
pub(super) struct Writer<W> {
    output: W,
    entries: u32,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(output: W) -> Self {
        Self { output, entries: 0 }
    }

    /// Adds a folder; `path` is relative to the root, without a slash at either end.
    pub(super) fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER | 0o755, &[])
    }

    /// Adds a file that everybody may read and run.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | 0o755, content)
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, LINK | 0o777, target.as_bytes())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.entry(TRAILER, 0, &[])?;
        self.output.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let inode = if path == TRAILER { 0 } else { self.entries };
        // The kernel takes a file that counts several names for a hard link.
        let links = 1;
        let (user, group, modified, device) = (0, 0, 0, 0);
        let size = small(content.len())?;
        // With the zero byte that ends it.
        let name = small(path.len() + 1)?;
        let fields =
            [inode, mode, user, group, links, modified, size, device, device, device, device, name, 0];
        write!(self.output, "070701")?;
        for field in fields {
            write!(self.output, "{field:08x}")?;
        }
        self.output.write_all(path.as_bytes())?;
        // The name begins after 110 bytes; it and the content are filled up to a multiple of four.
        let filled = (110 + path.len() + 1).next_multiple_of(4) - 110 - path.len();
        self.zeroes(filled)?;
        self.output.write_all(content)?;
        self.zeroes(content.len().next_multiple_of(4) - content.len())
    }

    fn zeroes(&mut self, count: usize) -> io::Result<()> {
        const ZEROES: [u8; 4] = [0; 4];
        self.output.write_all(&ZEROES[..count])
    }
}

fn small(length: usize) -> io::Result<u32> {
    u32::try_from(length)
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 GiB do not fit the archive"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn bytes_are_those_of_the_format() {
        let mut bytes = Vec::new();
        let mut archive = Writer::new(&mut bytes);
        archive.folder("bin").unwrap();
        archive.file("bin/a", b"hello").unwrap();
        archive.link("bin/b", "/a").unwrap();
        archive.finish().unwrap();
        let zeroes = |count| "\0".repeat(count);
        let header = |inode, mode, links, size, name| {
            format!(
                "070701{inode:08x}{mode:08x}0000000000000000{links:08x}00000000{size:08x}{}{name:08x}00000000",
                "0".repeat(32)
            )
        };
        let expected = [
            header(1, 0o040_755, 1, 0, 4),
            format!("bin{}", zeroes(3)),
            header(2, 0o100_755, 1, 5, 6),
            format!("bin/a{}", zeroes(1)),
            format!("hello{}", zeroes(3)),
            header(3, 0o120_777, 1, 2, 6),
            format!("bin/b{}", zeroes(1)),
            format!("/a{}", zeroes(2)),
            header(0, 0, 1, 0, 11),
            format!("TRAILER!!!{}", zeroes(4)),
        ]
        .concat();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn cpio_lists_it() {
        let mut bytes = Vec::new();
        let mut archive = Writer::new(&mut bytes);
        archive.folder("bin").unwrap();
        archive.file("bin/some", b"hello").unwrap();
        archive.link("init", "/bin/some").unwrap();
        archive.finish().unwrap();
        let Ok(mut cpio) =
            Command::new("cpio").args(["-t", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            eprintln!("skipped: this machine lacks cpio");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "bin\nbin/some\ninit\n");
    }

    #[test]
    fn every_part_begins_at_a_multiple_of_four() {
        for name in ["a", "ab", "abc", "abcd"] {
            for length in 0..5 {
                let mut bytes = Vec::new();
                let mut archive = Writer::new(&mut bytes);
                archive.file(name, &vec![b'x'; length]).unwrap();
                archive.finish().unwrap();
                let starts: Vec<_> = bytes
                    .windows(6)
                    .enumerate()
                    .filter(|(_, six)| six == b"070701")
                    .map(|(at, _)| at)
                    .collect();
                assert_eq!(starts.len(), 2);
                assert!(starts.iter().all(|start| start % 4 == 0) && bytes.len() % 4 == 0, "{name} {length}");
            }
        }
    }
}
