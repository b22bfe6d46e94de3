//! Attributes of netlink messages.

use rtnetlink::packet_core::{NLA_F_NESTED, NLA_HEADER_SIZE, NlasIterator};

/// Attributes that are being written.
#[derive(Clone, Debug, Default)]
pub(in crate::takeover) struct Attributes(Vec<u8>);

impl Attributes {
    /// After a header that the protocol has of its own.
    pub(in crate::takeover) fn after(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// Adds one.
    ///
    /// # Panics
    /// When the value does not fit the 64 KiB of an attribute, as nothing does that is written here.
    pub(in crate::takeover) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(NLA_HEADER_SIZE + value.len()).expect("a short value");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a string, with the zero at its end that nf_tables and ipset want.
    pub(in crate::takeover) fn text(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds a number as nf_tables has them: most significant byte first.
    pub(in crate::takeover) fn number(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Adds others inside of one.
    pub(in crate::takeover) fn nest(self, kind: u16, inner: Self) -> Self {
        self.put(kind | NLA_F_NESTED, &inner.0)
    }

    pub(in crate::takeover) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Attributes as they come, up to the first that cannot be read.
pub(in crate::takeover) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let inner = attribute.into_inner();
        let kind = rtnetlink::packet_core::NlaBuffer::new(inner).kind();
        let length = rtnetlink::packet_core::NlaBuffer::new(inner).length();
        Some((kind, inner.get(NLA_HEADER_SIZE..length.into())?))
    })
}

/// The value of the first attribute of a kind.
pub(in crate::takeover) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A string, without the zero at its end.
pub(in crate::takeover) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// Of two bytes in this machine's order.
pub(in crate::takeover) fn number16(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_ne_bytes)
}

/// Of four bytes, the most significant first.
pub(in crate::takeover) fn number32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Of eight bytes, the most significant first.
pub(in crate::takeover) fn number64(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let inner = Attributes::default().number(2, 0xffff_fffd).text(1, "KUBE-SERVICES");
        let bytes = Attributes::after(&[2, 0, 0, 10]).nest(4, inner).put(7, &[9]).into_bytes();
        assert_eq!(bytes.len() % 4, 0);
        let all: Vec<_> = attributes(&bytes[4..]).collect();
        assert_eq!(all.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [4, 7], "without the nested flag");
        assert_eq!(find(all[0].1, 1).map(text).as_deref(), Some("KUBE-SERVICES"));
        assert_eq!(find(all[0].1, 2).and_then(number32), Some(0xffff_fffd));
        assert_eq!(all[1].1, [9]);
    }

    #[test]
    fn lying_lengths_end_the_list() {
        for bytes in [&[3, 0, 1, 0][..], &[200, 0, 1, 0, 5], &[8, 0, 1, 0, 1], &[0, 0, 0, 0], &[4, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(number32(&[1, 2, 3]), None);
    }
}
