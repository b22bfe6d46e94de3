//! One packet after another through the programs and through the model.

use std::collections::BTreeMap;

use bytemuck::Zeroable;
use proxy_common::Counters;

use crate::{
    compare::{compare, hex, was_passed_as_malformed},
    flows::{Change, Entry, State, Table},
    generate::Event,
    kernel::{Run, Verdict},
    model::{self, Content, Expected, Node, Observed},
    parse::{self, Frame},
    services::Services,
    world::World,
};

/// Map entries in a report.
const MOST_SHOWN: usize = 12;

/// The programs and the model, side by side.
pub(crate) struct Trial {
    pub(crate) world: World,
    pub(crate) state: State,
    pub(crate) seen: Seen,
    ports: (u16, u16),
    counters: [u64; size_of::<Counters>() / 8],
}

/// What came about, so that a test can see that it tested something.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// By program and outcome.
    pub(crate) outcomes: BTreeMap<(&'static str, &'static str), u64>,
    /// By name, summed up.
    pub(crate) counters: [u64; size_of::<Counters>() / 8],
    pub(crate) services_changed: u64,
    /// Packets to a Service, and to an endpoint's own address, whose port was another connection's.
    pub(crate) kept_apart: [u64; 2],
}

impl Trial {
    pub(crate) fn new(world: World, ports: (u16, u16)) -> Self {
        let counters = world.tables.counters();
        Self { world, state: State::default(), seen: Seen::default(), ports, counters }
    }

    /// Lets something happen on both sides.
    ///
    /// # Errors
    /// What differed, with all that is needed to see it again.
    pub(crate) fn happen(&mut self, event: Event, random: &mut rand::rngs::StdRng) -> Result<(), String> {
        let now = clock();
        match event {
            Event::Packet(run) => return self.packet(&run).map_err(|problem| self.report(&run, &problem)),
            Event::Services => {
                self.world.change_services(random);
                self.seen.services_changed += 1;
            }
            Event::Age(table, tuple, age) => {
                let entry = self.state.flow(table, &tuple);
                let entry = entry.map(|entry| Entry { last_seen: now - age, ..entry });
                self.put(Change::Flow(table, tuple, entry));
            }
            Event::AgeAffinity(client, age) => {
                let mut affinity = self.state.affinity[&client];
                affinity.last_used = now - age;
                self.put(Change::Affinity(client, Some(affinity)));
            }
            Event::Evict(tuple) => self.put(Change::Flow(Table::New, tuple, None)),
        }
        Ok(())
    }

    /// Compares everything that the maps hold with everything that the model holds.
    ///
    /// # Errors
    /// The differences.
    pub(crate) fn compare_all(&self) -> Result<(), String> {
        let theirs = self.world.tables.state();
        let equal = theirs.confirmed == self.state.confirmed
            && theirs.new == self.state.new
            && theirs.fragments == self.state.fragments
            && theirs.affinity == self.state.affinity;
        if equal {
            return Ok(());
        }
        let ours: Vec<_> = self.state.everything().filter(|one| !matches!(one, Change::Filter(..))).collect();
        let theirs: Vec<_> = theirs.everything().collect();
        let only = |one: &[Change], other: &[Change]| {
            one.iter()
                .filter(|change| !other.contains(change))
                .map(|change| format!("\n    {change:?}"))
                .collect::<String>()
        };
        Err(format!(
            "the maps do not hold what they should; only in the maps:{}\n  only in the model:{}",
            only(&theirs, &ours),
            only(&ours, &theirs)
        ))
    }

    /// Compares `FLOW_FILTER`, which takes a while.
    ///
    /// # Errors
    /// The bytes that differ.
    pub(crate) fn compare_filter(&self) -> Result<(), String> {
        let theirs = self.world.tables.filter();
        if theirs == self.state.filter {
            Ok(())
        } else {
            Err(format!("FLOW_FILTER: {:?}", theirs.symmetric_difference(&self.state.filter)))
        }
    }

    /// Empties the maps and the model.
    pub(crate) fn clear(&mut self) {
        let old = std::mem::take(&mut self.state);
        self.world.load(&old, &State::default());
    }

    /// Starts from `state`.
    pub(crate) fn load(&mut self, state: State) {
        let theirs = self.world.tables.state();
        let old = std::mem::replace(&mut self.state, state);
        self.world.load(&theirs, &State::default());
        self.world.load(&old, &self.state);
    }

    /// Runs one packet on both sides. After an error the model is as before the packet.
    pub(crate) fn packet(&mut self, run: &Run) -> Result<(), String> {
        let before = clock();
        let Some((verdict, frame)) = self.world.kernel.run(run) else { return Ok(()) };
        let after = clock();
        let counters = self.world.tables.counters();
        let counts = std::array::from_fn(|at| counters[at] - self.counters[at]);
        self.counters = counters;
        let observed = Observed {
            verdict,
            frame: &frame,
            counts: bytemuck::cast(counts),
            tables: &self.world.tables,
            time: (before, after),
        };
        let node = Node { place: &self.world.place, services: &self.world.services, ports: self.ports };
        self.state.begin();
        let mut expected = model::step(&node, &mut self.state, run, &observed);
        if expected.or_malformed && was_passed_as_malformed(run, &observed) {
            self.state.undo_but_watch();
            expected = Expected {
                verdict: Verdict::Pass,
                content: Content::Same,
                counts: observed.counts,
                complaints: Vec::new(),
                or_malformed: false,
                unspecified: false,
                port_is_anothers: false,
            };
        }
        if expected.unspecified {
            expected = Expected {
                counts: observed.counts,
                verdict: observed.verdict,
                content: Content::Nothing,
                ..expected
            };
        }
        let result = compare(run, &self.state, &observed, &expected);
        if result.is_err() {
            self.state.undo();
        } else {
            self.seen.note(run, &expected, counts, &self.world.services);
        }
        result
    }

    fn put(&mut self, change: Change) {
        self.world.tables.put(&change);
        self.state.set(change);
    }

    /// A failure with the smallest packet and state that still show it.
    fn report(&mut self, run: &Run, problem: &str) -> String {
        let (state, small, problem) = crate::shrink::shrink(self, run, problem);
        let entries: String = state
            .everything()
            .filter(|change| !matches!(change, Change::Filter(..)))
            .take(MOST_SHOWN)
            .map(|change| format!("\n    {change:?}"))
            .collect();
        let link = self.world.place.link(small.link);
        format!(
            "{} on {} (link {}, packet came by link {})\n  {problem}\n  packet\n    {}\n  before shrinking\n    {}\n  \
             flows before{entries}",
            small.program.name(),
            link.name,
            small.link,
            small.came_by,
            hex(&small.frame),
            hex(&run.frame),
        )
    }
}

impl Seen {
    /// Outcomes by program, and what the programs counted, for people.
    pub(crate) fn summary(&self) -> String {
        let outcomes =
            self.outcomes.iter().map(|((program, outcome), count)| format!("{program} {outcome} {count}"));
        let outcomes: Vec<_> = outcomes.collect();
        format!(
            "{}\n{:?}, {} changes of Services, {:?} kept apart",
            outcomes.join("\n"),
            bytemuck::cast::<_, Counters>(self.counters),
            self.services_changed,
            self.kept_apart
        )
    }

    /// Fails when something never came about that a long enough run brings about.
    pub(crate) fn check(&self, few_ports: bool) {
        let counters: Counters = bytemuck::cast(self.counters);
        // What is not of the packet path, or needs full maps.
        let never = Counters {
            translated: 1,
            no_socket_storage: 1,
            bad_slot: 1,
            flow_map_full: 1,
            source_ports_exhausted: u64::from(!few_ports),
            ..Zeroable::zeroed()
        };
        let never: [u64; size_of::<Counters>() / 8] = bytemuck::cast(never);
        let missing = self.counters.iter().zip(never).any(|(count, never)| *count == 0 && never == 0);
        assert!(!missing, "something was never counted: {counters:?}");
        assert!(!self.kept_apart.contains(&0), "no port was another connection's: {:?}", self.kept_apart);
        for (program, outcome) in [
            ("uplink_ingress", "answered"),
            ("uplink_ingress", "forwarded"),
            ("uplink_egress", "forwarded"),
            ("uplink_egress", "rewritten"),
            ("workload_ingress", "forwarded"),
            ("workload_ingress", "rewritten"),
            ("workload_egress", "rewritten"),
            ("uplink_xdp", "forwarded"),
            ("uplink_xdp", "rewritten"),
        ] {
            assert!(
                self.outcomes.contains_key(&(program, outcome)),
                "{program} has never {outcome} a packet"
            );
        }
    }

    fn note(
        &mut self,
        run: &Run,
        expected: &Expected,
        counts: [u64; size_of::<Counters>() / 8],
        services: &Services,
    ) {
        if expected.port_is_anothers
            && let Frame::Ip(ip) = parse::frame(&run.frame)
        {
            let to_service = services.keys.iter().any(|(address, ..)| *address == ip.destination);
            self.kept_apart[usize::from(!to_service)] += 1;
        }
        let outcome = match (expected.verdict, &expected.content) {
            (Verdict::Pass, Content::Same) => "passed",
            (Verdict::Pass, _) => "rewritten",
            (Verdict::Drop, _) => "dropped",
            (_, Content::Error(_) | Content::Reset) => "answered",
            _ => "forwarded",
        };
        *self.outcomes.entry((run.program.name(), outcome)).or_default() += 1;
        self.counters.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
}

/// Nanoseconds of the kernel's monotonic clock.
pub(crate) fn clock() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}
