//! Damage.

use rand::Rng as _;

use super::Generator;
use crate::{kernel::Run, parse::ETHERNET};

/// The kernel refuses to test with less than an Ethernet header and a byte.
const SHORTEST: usize = ETHERNET + 1;
/// A test run's frame has to fit into a page, with room at both ends.
const LONGEST: usize = 3_400;

impl Generator {
    /// Damages one packet in eight.
    pub(super) fn mutate(&mut self, run: &mut Run) {
        let frame = &mut run.frame;
        if self.random.random_bool(0.1) {
            // What Ethernet fills short frames up with.
            let padding = self.random.random_range(0..32);
            frame.extend(std::iter::repeat_n(0xee, padding));
        }
        match self.random.random_range(0..160) {
            0..4 => {
                let length = self.random.random_range(SHORTEST..=frame.len().max(SHORTEST));
                frame.truncate(length);
            }
            4..12 => {
                for _ in 0..self.random.random_range(1..4) {
                    let at = self.random.random_range(12..frame.len().min(90));
                    frame[at] ^= 1 << self.random.random_range(0..8);
                }
            }
            // Version, header length, type of service, total length.
            12..15 => frame[ETHERNET + self.random.random_range(0..6)] = self.random.random(),
            // What follows: flags, protocol, extension headers, ports.
            15..18 => {
                let at = self.random.random_range(ETHERNET..frame.len().min(100));
                frame[at] = self.random.random();
            }
            18 => {
                let tag = [0x81, 0x00, 0x00, 0x07];
                frame.splice(12..12, tag);
            }
            19 => {
                let at = self.random.random_range(ETHERNET..frame.len());
                let count = self.random.random_range(1..40.min(frame.len() - at + 1));
                frame.drain(at..(at + count).min(frame.len()));
            }
            _ => {}
        }
        frame.resize(frame.len().clamp(SHORTEST, LONGEST), 0);
    }
}
