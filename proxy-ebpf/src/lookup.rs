//! Is this destination a frontend?

use proxy_common::{ANY_PORT, Frontend, Protocol};

use crate::{ip::Ip, maps::ADDRESS_FILTER};

/// Finds the frontend of a destination; the entry for unknown ports where the address is a cluster IP that
/// does not serve this one. Host-order port.
///
/// What is no Service address pays for one array read and no more.
#[inline(always)]
pub(crate) fn frontend<I: Ip>(address: I::Address, port: u16, protocol: Protocol) -> Option<Frontend> {
    let (word, bit) = I::filter_position(address);
    if ADDRESS_FILTER.get(word)? & bit == 0 {
        return None;
    }
    sealed::<I>(address, port, protocol).or_else(|| sealed::<I>(address, ANY_PORT, Protocol::Any))
}

/// One entry, copied whole. The second look is for an entry that was replaced while it was copied; that a
/// copy is broken twice running would need two replacements within nanoseconds.
#[inline(always)]
fn sealed<I: Ip>(address: I::Address, port: u16, protocol: Protocol) -> Option<Frontend> {
    let (mut words, mut expected) = I::frontend(address, port, protocol)?;
    if words[4] != expected {
        (words, expected) = I::frontend(address, port, protocol)?;
        if words[4] != expected {
            return None;
        }
    }
    // SAFETY: the words are those that the agent wrote for this key: the seal says so.
    Some(unsafe { core::mem::transmute::<[u64; 5], Frontend>(words) })
}
