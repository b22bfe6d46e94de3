//! One guest, from its start to its end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::init::HELLO;
use super::kernel::Kernel;
use super::outcome::{End, Outcome, Tests, done};

/// Lines of the log that are shown of a kernel that failed.
const TAIL: usize = 100;

/// Boots the kernel, keeps what the guest prints in `log`, and waits for the end.
pub(super) fn boot(kernel: &Kernel, initramfs: &Path, log: &Path, timeout: Duration) -> Result<Outcome> {
    let mut log_file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
    let start = Instant::now();
    let mut guest = Guest(
        command(&kernel.image(), initramfs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting qemu-system-x86_64")?,
    );
    let output = guest.0.stdout.take().context("QEMU was started without an output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let mut outcome =
        Outcome { end: End::Died, tests: Tests::default(), booted: None, ended: Duration::ZERO };
    loop {
        match lines.recv_timeout(timeout.saturating_sub(start.elapsed())) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end_matches('\r');
                writeln!(log_file, "{line}").with_context(|| format!("writing {}", log.display()))?;
                if line.starts_with(HELLO) {
                    outcome.booted = Some(start.elapsed());
                }
                outcome.tests.add(line);
                if let Some(failed) = done(line) {
                    outcome.end = End::Done { failed };
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                outcome.end = End::TimedOut;
                break;
            }
        }
    }
    drop(guest);
    outcome.ended = start.elapsed();
    Ok(outcome)
}

/// The end of a log.
pub(super) fn tail(log: &Path) -> Result<String> {
    let text = fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL)..].join("\n"))
}

fn command(image: &Path, initramfs: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"])
        // Not -nographic, at which the firmware sends the terminal control sequences.
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none", "-no-reboot"])
        // A kernel that panics reboots at once, which ends QEMU. Of the kernel's messages only alerts are
        // wanted, and what it says of a crash, which it says at any level: others would break test lines.
        .args(["-append", "mitigations=off loglevel=2 panic=-1 console=ttyS0"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs);
    command
}

/// A running QEMU, ended when it is no longer looked at.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let lines: Vec<_> = (0..150).map(|number| number.to_string()).collect();
        fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(tail(&log).unwrap(), lines[50..].join("\n"));
        fs::write(&log, "one\ntwo\n").unwrap();
        assert_eq!(tail(&log).unwrap(), "one\ntwo");
    }
}
