//! What of a rule's expressions matters: where it leads, and what is said of it.

use super::super::netlink::{attributes, find, number32, text};

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const MATCH_NAME: u16 = 1;
const MATCH_INFO: u16 = 3;

/// The chain that a rule jumps or goes to.
pub(super) fn leads_to(expressions: &[u8]) -> Option<String> {
    each(expressions).filter(|(name, _)| name == "immediate").find_map(|(_, data)| {
        let verdict = find(find(data, IMMEDIATE_DATA)?, DATA_VERDICT)?;
        let code = number32(find(verdict, VERDICT_CODE)?)?.cast_signed();
        let chain = find(verdict, VERDICT_CHAIN)?;
        matches!(code, libc::NFT_JUMP | libc::NFT_GOTO).then(|| text(chain))
    })
}

/// The comment that iptables keeps in a match of its own.
pub(super) fn comment(expressions: &[u8]) -> Option<String> {
    each(expressions).filter(|(name, _)| name == "match").find_map(|(_, data)| {
        let is_comment = text(find(data, MATCH_NAME)?) == "comment";
        is_comment.then(|| find(data, MATCH_INFO).map(text)).flatten()
    })
}

/// The comment that nft keeps beside a rule: entries of a kind, a length, and so many bytes.
pub(super) fn comment_of_userdata(mut userdata: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        userdata = &rest[value.len()..];
    }
    None
}

fn each(expressions: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    attributes(expressions).filter(|(kind, _)| *kind == LIST_ELEMENT).filter_map(|(_, expression)| {
        Some((text(find(expression, EXPRESSION_NAME)?), find(expression, EXPRESSION_DATA)?))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::super::netlink::Attributes, *};

    fn expression(name: &str, data: Attributes) -> Attributes {
        Attributes::default().text(EXPRESSION_NAME, name).nest(EXPRESSION_DATA, data)
    }

    fn verdict(code: i32, chain: &str) -> Attributes {
        let verdict =
            Attributes::default().number(VERDICT_CODE, code.cast_unsigned()).text(VERDICT_CHAIN, chain);
        let data = Attributes::default().nest(DATA_VERDICT, verdict);
        expression("immediate", Attributes::default().number(1, 0).nest(IMMEDIATE_DATA, data))
    }

    fn list(all: impl IntoIterator<Item = Attributes>) -> Vec<u8> {
        let all = all.into_iter();
        all.fold(Attributes::default(), |list, one| list.nest(LIST_ELEMENT, one)).into_bytes()
    }

    #[test]
    fn jumps_are_found_behind_matches() {
        let comment =
            Attributes::default().text(MATCH_NAME, "comment").put(MATCH_INFO, b"service portals\0\0\0");
        let rule = list([
            expression("match", comment),
            expression("counter", Attributes::default()),
            verdict(libc::NFT_JUMP, "KUBE-SERVICES"),
        ]);
        assert_eq!(leads_to(&rule).as_deref(), Some("KUBE-SERVICES"));
        assert_eq!(super::comment(&rule).as_deref(), Some("service portals"));
        assert_eq!(leads_to(&list([verdict(libc::NFT_GOTO, "X")])).as_deref(), Some("X"));
        assert_eq!(leads_to(&list([verdict(0, "X")])), None, "a drop leads nowhere");
        assert_eq!(leads_to(&rule[..rule.len() - 20]), None, "cut short");
    }

    #[test]
    fn comments_of_nft() {
        assert_eq!(comment_of_userdata(&[9, 1, 7, 0, 3, b'a', b'b', 0]).as_deref(), Some("ab"));
        assert_eq!(comment_of_userdata(&[0, 9, b'a']), None);
        assert_eq!(comment_of_userdata(&[]), None);
    }
}
