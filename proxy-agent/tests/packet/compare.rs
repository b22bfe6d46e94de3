//! Whether the programs did what the model expects.

use std::fmt::Write as _;

use proxy_common::Counters;

use crate::{
    flows::State,
    kernel::{Run, Verdict},
    model::{Content, Expected, Observed, OwnError, Rewritten},
    parse::{self, ETHERNET, Frame, Ip, Transport, tcp},
    sums,
};

/// Compares everything about one packet. `state` is the model's after it.
///
/// # Errors
/// Every difference, in words.
pub(crate) fn compare(
    run: &Run,
    state: &State,
    observed: &Observed<'_>,
    expected: &Expected,
) -> Result<(), String> {
    let mut differences = expected.complaints.clone();
    if observed.verdict != expected.verdict {
        differences.push(format!("verdict {:?}, expected {:?}", observed.verdict, expected.verdict));
    } else {
        differences.extend(content(run, observed.frame, &expected.content));
    }
    differences.extend(counters(&observed.counts, &expected.counts));
    for change in state.touched() {
        let theirs = observed.tables.now(&change);
        if theirs != change {
            differences.push(format!("map entry\n    got      {theirs:?}\n    expected {change:?}"));
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n  ")) }
}

/// Whether the packet was passed as it was, and as malformed.
pub(crate) fn was_passed_as_malformed(run: &Run, observed: &Observed<'_>) -> bool {
    observed.verdict == Verdict::Pass && observed.counts.malformed == 1 && observed.frame == run.frame
}

fn content(run: &Run, got: &[u8], expected: &Content) -> Option<String> {
    match expected {
        Content::Nothing => None,
        Content::Same => differs(got, &run.frame, &[]),
        Content::Exactly(Rewritten { frame, checksums }) => {
            differs(got, frame, checksums).or_else(|| vanished_checksum(got, frame, checksums))
        }
        Content::Error(error) => own_error(run, got, error).err(),
        Content::Reset => reset(run, got).err(),
    }
}

/// `checksums`: where 0 and 65,535 are the same.
fn differs(got: &[u8], expected: &[u8], checksums: &[usize]) -> Option<String> {
    let mut normal = got.to_vec();
    for at in checksums {
        let (Some(one), Some(other)) = (parse::word(got, *at), parse::word(expected, *at)) else { continue };
        if sums::same(one, other) {
            normal[*at..at + 2].copy_from_slice(&expected[*at..at + 2]);
        }
    }
    if normal == expected {
        return None;
    }
    let at = normal.iter().zip(expected).position(|(one, other)| one != other);
    let at = at.unwrap_or(normal.len().min(expected.len()));
    Some(format!(
        "the packet differs from byte {at} on\n    got      {}\n    expected {}",
        hex(got),
        hex(expected)
    ))
}

/// A UDP checksum of zero means that there is none: one that comes out as zero is sent as 65,535 (RFC 768).
fn vanished_checksum(got: &[u8], expected: &[u8], checksums: &[usize]) -> Option<String> {
    let Frame::Ip(ip) = parse::frame(expected) else { return None };
    let at = ip.transport + 6;
    let vanished = ip.protocol == 17 && checksums.contains(&at) && parse::word(got, at) == Some(0);
    vanished.then(|| "a UDP checksum became zero".to_owned())
}

/// An ICMP error of the node's own about the packet that came.
fn own_error(run: &Run, got: &[u8], expected: &OwnError) -> Result<(), String> {
    let (ip, about) = answer(run, got)?;
    let wrong = |what: &str| Err(format!("ICMP error {expected:?}: {what} is wrong: {}", hex(got)));
    let Transport::Icmp { kind, code } = parse::transport(got, &ip) else { return wrong("the protocol") };
    if (kind, code) != (expected.kind, expected.code) {
        return wrong("type or code");
    }
    let message = &got[ip.transport..];
    if message[4..8] != expected.mtu.to_be_bytes() {
        return wrong("the MTU, or a field that should be zero");
    }
    // RFC 792 asks for 8 bytes; of TCP there is the checksum, too, and of SCTP the tag of an INIT.
    let kept = match about.protocol {
        6 => 20,
        132 if about.transport + 20 <= about.end => 20,
        _ => 8,
    };
    if message[8..] != run.frame[ETHERNET..about.transport + kept] {
        return wrong("the quotation");
    }
    Ok(())
}

/// A TCP reset for the packet that came.
fn reset(run: &Run, got: &[u8]) -> Result<(), String> {
    const FLAGS: u16 = 5 << 12 | (tcp::RST | tcp::ACK) as u16;
    let (ip, about) = answer(run, got)?;
    let (header, segment) = (&got[ip.transport..], &run.frame[about.transport..about.end]);
    let sequence = u32::from_be_bytes(segment[4..8].try_into().unwrap());
    let payload = segment.len() - usize::from(segment[12] >> 4) * 4;
    let acknowledged = sequence.wrapping_add(u32::try_from(payload).unwrap() + 1);
    let expected =
        [&segment[2..4], &segment[..2], &[0; 4], &acknowledged.to_be_bytes(), &FLAGS.to_be_bytes(), &[0; 2]]
            .concat();
    if ip.protocol == 6 && header.len() == 20 && header[..16] == expected && header[18..] == [0; 2] {
        return Ok(());
    }
    Err(format!("a reset that begins with {} was expected: {}", hex(&expected), hex(got)))
}

/// What every answer has: it goes back to where the packet came from, and its checksums are right. The IP
/// headers of both.
fn answer(run: &Run, got: &[u8]) -> Result<(Ip, Ip), String> {
    let wrong = |what: &str| Err(format!("an answer's {what} is wrong: {}", hex(got)));
    let (Frame::Ip(ip), Frame::Ip(about)) = (parse::frame(got), parse::frame(&run.frame)) else {
        return wrong("IP header");
    };
    let v4 = ip.source.is_ipv4();
    if (ip.source, ip.destination) != (about.destination, about.source) {
        return wrong("address");
    }
    if got[..6] != run.frame[6..12] || got[6..12] != run.frame[..6] {
        return wrong("MAC address");
    }
    let header = if v4 { 20 } else { 40 };
    if ip.transport != ETHERNET + header || ip.end != got.len() || ip.fragment.is_some() {
        return wrong("length, or a header that should not be there,");
    }
    if v4 && sums::sum(&got[ETHERNET..ip.transport]) != 0 {
        return wrong("checksum of the IP header");
    }
    let addresses = if v4 { ETHERNET + 12..ETHERNET + 20 } else { ETHERNET + 8..ETHERNET + 40 };
    let length = u16::try_from(got.len() - ip.transport).unwrap().to_be_bytes();
    let message = sums::sum(&got[ip.transport..]);
    let pseudo = sums::sum(&got[addresses]) + sums::sum(&[length[0], length[1], 0, ip.protocol]);
    if !(message + if ip.protocol == 1 { 0 } else { pseudo }).is_multiple_of(65_535) {
        return wrong("checksum");
    }
    if got[ETHERNET + if v4 { 8 } else { 7 }] != 64 {
        return wrong("hop limit");
    }
    Ok((ip, about))
}

fn counters(got: &Counters, expected: &Counters) -> Option<String> {
    if got == expected {
        return None;
    }
    Some(format!("counters\n    got      {got:?}\n    expected {expected:?}"))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
