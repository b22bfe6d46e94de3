//! What went over a link, in a file that tcpdump and Wireshark read: kept when a test fails.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::place::Place;

/// So much of each frame: every header, and the beginning of what it carries.
const KEPT: u32 = 256;

/// A file grows to about this, in bytes. What comes later is not kept.
const LARGEST: u64 = 16 << 20;

/// A running capture. Dropped while a test fails it says where its file is; otherwise it leaves none.
#[derive(Debug)]
pub struct Capture {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Place {
    /// Begins to write down what goes over a link.
    pub fn capture(&self, link: &str) -> anyhow::Result<Capture> {
        let socket = self.packets(link)?;
        // Floods must not push out what came before them while this thread waits for a processor.
        socket.set_buffer(8 << 20).context("enlarging the buffer of a capture")?;
        let file = format!("{}-{}-{link}.pcap", lab_name(self), self.name());
        let path = self.scratch().join(file);
        let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        file.write_all(&file_header()).with_context(|| format!("writing {}", path.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = self.spawn(move || {
            let mut file = BufWriter::new(file);
            let mut frame = vec![0; super::raw::LARGEST];
            let mut size = 0;
            // Once asked to stop it still writes what has arrived.
            while size < LARGEST {
                match socket.receive_into(&mut frame)? {
                    Some(length) => {
                        let record = record(&frame[..length]);
                        file.write_all(&record)?;
                        size += record.len() as u64;
                    }
                    None if until.load(Ordering::Relaxed) => break,
                    None => (),
                }
            }
            file.flush()
        });
        Ok(Capture { path, stop, thread: Some(thread) })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            // It goes with the lab's folder anyway.
            let _removed = fs::remove_file(&self.path);
            return;
        }
        if let Some(Ok(Err(error))) = written {
            eprintln!("lab: {} is not complete: {error}", self.path.display());
        }
        let name = self.path.file_name().unwrap_or_default();
        let kept = std::env::temp_dir().join("ferroute-captures").join(name);
        let folder = kept.parent().map_or(Ok(()), fs::create_dir_all);
        match folder.and_then(|()| fs::copy(&self.path, &kept)) {
            Ok(_bytes) => eprintln!("captured: {}", kept.display()),
            Err(error) => eprintln!("lab: a capture is lost, {}: {error}", kept.display()),
        }
    }
}

/// The name of the lab, as its folder has it.
fn lab_name(place: &Place) -> String {
    place.scratch().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The header of a pcap file of Ethernet frames, with microseconds.
fn file_header() -> Vec<u8> {
    let version: u32 = 2 | 4 << 16;
    [0xa1b2_c3d4_u32, version, 0, 0, KEPT, 1].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A frame, with its header, as the file has it.
fn record(frame: &[u8]) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let kept = &frame[..frame.len().min(KEPT as usize)];
    let header = [seconds, now.subsec_micros(), length.min(KEPT), length];
    header.iter().flat_map(|word| word.to_ne_bytes()).chain(kept.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_the_head_of_a_frame_and_its_length() {
        assert_eq!(file_header().len(), 24);
        let record = record(&[7; 1000]);
        assert_eq!(record.len(), 16 + KEPT as usize);
        assert_eq!(record[8..12], KEPT.to_ne_bytes());
        assert_eq!(record[12..16], 1000_u32.to_ne_bytes());
    }
}
