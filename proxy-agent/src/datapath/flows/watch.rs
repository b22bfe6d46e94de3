use std::time::{Duration, Instant};

use proxy_common::{Counters, Family};

use super::collect::{Fill, Pass};

/// A map of confirmed flows that is fuller than this many percent is reported.
const NEARLY_FULL: usize = 90;
/// How soon the same thing is said again.
const REPEAT: Duration = Duration::from_secs(60);

/// What an operator should hear of the flows: each thing when it begins, and then once a minute while it lasts.
#[derive(Debug)]
pub(super) struct Watch {
    before: Counters,
    full: [Repeated; 2],
    unconfirmed: Repeated,
    no_source_port: Repeated,
    unroutable: Repeated,
}

impl Watch {
    /// What the counters say now has been somebody else's business.
    pub(super) fn new(counters: Counters) -> Self {
        Self {
            before: counters,
            full: Default::default(),
            unconfirmed: Repeated::default(),
            no_source_port: Repeated::default(),
            unroutable: Repeated::default(),
        }
    }

    /// What there is to say after a pass.
    pub(super) fn after(&mut self, pass: &Pass, counters: Counters, now: Instant) -> Vec<String> {
        let before = std::mem::replace(&mut self.before, counters);
        let more = |count: fn(&Counters) -> u64| count(&counters).saturating_sub(count(&before));
        let [full4, full6] = &mut self.full;
        let said = [
            nearly_full(full4, Family::V4, pass.v4, now),
            nearly_full(full6, Family::V6, pass.v6, now),
            self.unconfirmed.add(more(|counters| counters.flow_map_full), now).map(|flows| {
                format!(
                    "{} kept as half-open because the flow map is full, and will be lost after a minute \
                     without packets or under a flood of new ones: raise --max-flows",
                    number(flows, "flow is", "flows are")
                )
            }),
            self.no_source_port.add(more(|counters| counters.source_ports_exhausted), now).map(|packets| {
                format!(
                    "{} dropped: the node has no source port left for new connections to an endpoint; spread the \
                     Service over more endpoints, or set externalTrafficPolicy: Local, which needs no such ports",
                    number(packets, "packet was", "packets were")
                )
            }),
            self.unroutable.add(more(|counters| counters.unroutable), now).map(|packets| {
                format!(
                    "{} dropped: the node has no route to an endpoint, or no address of its own for the \
                     replies; see `ip route get ENDPOINT` for the Service's endpoints, and the network plugin",
                    number(packets, "packet was", "packets were")
                )
            }),
        ];
        said.into_iter().flatten().collect()
    }
}

fn nearly_full(said: &mut Repeated, family: Family, fill: Fill, now: Instant) -> Option<String> {
    let Fill { entries, capacity } = fill;
    // Not more than this many percent: exactly 90 is not said yet.
    let is_nearly_full = entries * 100 > capacity * NEARLY_FULL;
    if !is_nearly_full {
        said.unsaid = 0;
        return None;
    }
    said.add(1, now)?;
    let family = family.name();
    Some(format!(
        "the map of {family} flows is {} % full ({} of {} flows): new flows that do not fit are lost after a \
         minute without packets; raise --max-flows",
        fill.percent(),
        entries.div_ceil(2),
        capacity / 2
    ))
}

fn number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Something that is said when it happens first, and then at most once in [`REPEAT`], with how often it has
/// happened since.
#[derive(Debug, Default)]
struct Repeated {
    said: Option<Instant>,
    unsaid: u64,
}

impl Repeated {
    /// How often it has happened, when it is time to say so.
    fn add(&mut self, more: u64, now: Instant) -> Option<u64> {
        self.unsaid += more;
        let is_due = self.said.is_none_or(|said| now.duration_since(said) >= REPEAT);
        if self.unsaid == 0 || !is_due {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(entries: usize) -> Pass {
        Pass { v4: Fill { entries, capacity: 1000 }, ..Pass::default() }
    }

    #[test]
    fn what_went_up_is_said_at_once_and_then_once_a_minute_with_the_number() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let ports = |ports| Counters { source_ports_exhausted: ports, ..Counters::default() };
        let mut watch = Watch::new(ports(100));
        assert!(watch.after(&pass(0), ports(100), at(0)).is_empty(), "not what an earlier agent has seen");
        let said = watch.after(&pass(0), ports(101), at(5));
        assert!(
            said.len() == 1 && said[0].starts_with("1 packet was dropped: the node has no source port"),
            "{said:?}"
        );
        assert!(watch.after(&pass(0), ports(110), at(10)).is_empty());
        assert!(watch.after(&pass(0), ports(121), at(64)).is_empty());
        let said = watch.after(&pass(0), ports(121), at(65));
        assert!(said.len() == 1 && said[0].starts_with("20 packets were"), "{said:?}");
        assert!(watch.after(&pass(0), ports(121), at(200)).is_empty());
        assert_eq!(watch.after(&pass(0), ports(122), at(205)).len(), 1, "a minute is long over");
    }

    #[test]
    fn a_map_that_is_nearly_full_is_named_with_the_flag() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(Counters::default());
        let mut after = |entries, seconds| watch.after(&pass(entries), Counters::default(), at(seconds));
        assert!(after(900, 0).is_empty());
        let said = after(950, 5);
        assert!(said[0].starts_with("the map of IPv4 flows is 95 % full (475 of 500 flows)"), "{said:?}");
        assert!(said[0].contains("--max-flows"));
        assert!(after(950, 60).is_empty());
        assert_eq!(after(950, 65).len(), 1, "it lasts");
        assert!(after(100, 130).is_empty());
    }

    #[test]
    fn different_things_do_not_silence_each_other() {
        let mut watch = Watch::new(Counters::default());
        let counters =
            Counters { flow_map_full: 2, source_ports_exhausted: 1, unroutable: 7, ..Counters::default() };
        let said = watch.after(&pass(1000), counters, Instant::now());
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[1].starts_with("2 flows are kept"), "{said:?}");
        assert!(said[3].starts_with("7 packets were dropped: the node has no route"), "{said:?}");
    }
}
