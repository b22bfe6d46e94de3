use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use proxy_common::Family;
use serde::Serialize;

/// Whether Services are programmed as they should be, by IP family, and whether the node is to get new traffic.
/// The loop says what it does; servers ask.
#[derive(Debug)]
pub struct Health {
    /// A change that has waited for so long makes the proxy unhealthy.
    lag: Duration,
    state: Mutex<State>,
    answers: Answers,
}

#[derive(Clone, Copy, Debug)]
struct State {
    families: [Progress; 2],
    eligible: bool,
}

/// How far one IP family is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When it was last as it should be; `None` before the first time.
    updated: Option<Timestamp>,
    /// Since when a change waits.
    pending: Option<Instant>,
}

/// How often each path was asked, by outcome.
#[derive(Debug, Default)]
pub(super) struct Answers {
    healthz: [AtomicU64; 2],
    livez: [AtomicU64; 2],
}

/// Which of the questions is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is new traffic from outside to come here? Load balancers ask this (KEP-3836).
    Healthz,
    /// Does the proxy need a restart? One that has not had its first complete lists does not: what an earlier
    /// one has programmed is served, and a restart would not bring them.
    Livez,
    /// Has the proxy programmed all there is?
    Readyz,
}

/// The answer, as JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "Families::is_empty")]
    status: Families,
    /// What the status code says.
    #[serde(skip)]
    pub(super) good: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Families {
    #[serde(rename = "IPv4", skip_serializing_if = "Option::is_none")]
    v4: Option<FamilyStatus>,
    #[serde(rename = "IPv6", skip_serializing_if = "Option::is_none")]
    v6: Option<FamilyStatus>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyStatus {
    last_updated: String,
    healthy: bool,
}

/// What kube-proxy writes for a time that has not come yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Health {
    /// Of a proxy that has programmed nothing yet. It is late when a change has waited for two `sync_period`s, as
    /// kube-proxy has it. `eligible` counts until the Node is heard of.
    #[must_use]
    pub fn new(sync_period: Duration, eligible: bool) -> Self {
        let state = State { families: [Progress::default(); 2], eligible };
        Self { lag: sync_period * 2, state: Mutex::new(state), answers: Answers::default() }
    }

    /// A change has come that is not programmed yet.
    pub fn received(&self) {
        self.received_at(Instant::now());
    }

    /// Everything that was received has been looked at: a family is as it should be, or what the kernel has
    /// refused of it waits.
    pub fn programmed(&self, is_complete: impl Fn(Family) -> bool) {
        self.programmed_at(is_complete, Instant::now(), Timestamp::now());
    }

    /// Whether the Node object lets new traffic from outside come here.
    pub fn set_eligible(&self, eligible: bool) {
        self.state().eligible = eligible;
    }

    /// Whether everything has been programmed once, and nothing has been waiting for long.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_ready_at(Instant::now())
    }

    /// Answers, and counts that it did.
    #[must_use]
    pub fn answer(&self, question: Question) -> Answer {
        let answer = self.answer_at(question, Instant::now(), Timestamp::now());
        self.answers.count(question, answer.good);
        answer
    }

    /// How often a question was answered: by 200, and by 503.
    #[must_use]
    pub fn answered(&self, question: Question) -> [u64; 2] {
        self.answers.of(question).map_or([0; 2], |counts| {
            let [good, bad] = counts;
            [good.load(Ordering::Relaxed), bad.load(Ordering::Relaxed)]
        })
    }

    fn received_at(&self, now: Instant) {
        for family in &mut self.state().families {
            family.pending.get_or_insert(now);
        }
    }

    fn programmed_at(&self, is_complete: impl Fn(Family) -> bool, now: Instant, time: Timestamp) {
        let mut state = self.state();
        for (family, progress) in [Family::V4, Family::V6].into_iter().zip(&mut state.families) {
            if is_complete(family) {
                *progress = Progress { updated: Some(time), pending: None };
            } else {
                progress.pending.get_or_insert(now);
            }
        }
    }

    fn is_ready_at(&self, now: Instant) -> bool {
        let state = *self.state();
        state.families.iter().all(|family| family.updated.is_some() && !self.is_late(*family, now))
    }

    fn is_late(&self, family: Progress, now: Instant) -> bool {
        family.pending.is_some_and(|since| now.saturating_duration_since(since) >= self.lag)
    }

    fn answer_at(&self, question: Question, now: Instant, time: Timestamp) -> Answer {
        let State { families, eligible } = *self.state();
        let healthy = families.iter().all(|family| match family.updated {
            None => question == Question::Livez,
            Some(_) => !self.is_late(*family, now),
        });
        let newest = families.iter().filter_map(|family| family.updated).max();
        let status = families.map(|family| {
            let last_updated = family.updated?.to_string();
            Some(FamilyStatus { last_updated, healthy: !self.is_late(family, now) })
        });
        let [v4, v6] = status;
        Answer {
            // "Now" while healthy: there are clients that take an old time for a proxy that is stuck.
            last_updated: match newest {
                _ if healthy => time.to_string(),
                Some(newest) => newest.to_string(),
                None => NEVER.into(),
            },
            current_time: time.to_string(),
            node_eligible: (question == Question::Healthz).then_some(eligible),
            healthy,
            status: Families { v4, v6 },
            good: healthy && (eligible || question != Question::Healthz),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change to it is complete, whoever panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Families {
    fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }
}

impl Answers {
    fn of(&self, question: Question) -> Option<&[AtomicU64; 2]> {
        match question {
            Question::Healthz => Some(&self.healthz),
            Question::Livez => Some(&self.livez),
            // Not one of kube-proxy's.
            Question::Readyz => None,
        }
    }

    fn count(&self, question: Question, good: bool) {
        if let Some(counts) = self.of(question) {
            counts[usize::from(!good)].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Clock {
        health: Health,
        start: Instant,
    }

    impl Clock {
        fn new() -> Self {
            Self { health: Health::new(30 * SECOND, true), start: Instant::now() }
        }

        fn received(&self, second: u32) {
            self.health.received_at(self.start + second * SECOND);
        }

        fn programmed(&self, second: u32, is_complete: impl Fn(Family) -> bool) {
            self.health.programmed_at(is_complete, self.start + second * SECOND, time(second));
        }

        fn ask(&self, question: Question, second: u32) -> Answer {
            self.health.answer_at(question, self.start + second * SECOND, time(second))
        }

        fn json(&self, question: Question, second: u32) -> String {
            serde_json::to_string(&self.ask(question, second)).unwrap()
        }
    }

    fn time(second: u32) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + i64::from(second) * 1000 + 250).unwrap()
    }

    #[test]
    fn bodies_are_as_kube_proxy_writes_them() {
        let clock = Clock::new();
        assert_eq!(
            clock.json(Question::Healthz, 0),
            r#"{"lastUpdated":"0001-01-01T00:00:00Z","currentTime":"2027-01-15T08:00:00.25Z","nodeEligible":true,"healthy":false}"#
        );
        clock.programmed(1, |family| family == Family::V4);
        clock.programmed(2, |_| true);
        clock.programmed(3, |family| family == Family::V4);
        assert_eq!(
            clock.json(Question::Healthz, 62),
            r#"{"lastUpdated":"2027-01-15T08:01:02.25Z","currentTime":"2027-01-15T08:01:02.25Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2027-01-15T08:00:03.25Z","healthy":true},"IPv6":{"lastUpdated":"2027-01-15T08:00:02.25Z","healthy":true}}}"#
        );
        assert_eq!(
            clock.json(Question::Livez, 63),
            r#"{"lastUpdated":"2027-01-15T08:00:03.25Z","currentTime":"2027-01-15T08:01:03.25Z","healthy":false,"status":{"IPv4":{"lastUpdated":"2027-01-15T08:00:03.25Z","healthy":true},"IPv6":{"lastUpdated":"2027-01-15T08:00:02.25Z","healthy":false}}}"#
        );
    }

    #[test]
    fn before_the_first_sync_it_lives_but_is_not_ready() {
        let clock = Clock::new();
        clock.received(0);
        for (question, good) in
            [(Question::Healthz, false), (Question::Livez, true), (Question::Readyz, false)]
        {
            assert_eq!(clock.ask(question, 500).good, good, "{question:?}");
        }
        // A first sync of which the kernel has refused some is none.
        clock.programmed(500, |family| family == Family::V6);
        assert!(!clock.ask(Question::Readyz, 500).good);
        clock.programmed(501, |_| true);
        assert!(
            [Question::Healthz, Question::Livez, Question::Readyz].iter().all(|q| clock.ask(*q, 501).good)
        );
    }

    #[test]
    fn the_oldest_change_that_waits_counts() {
        let clock = Clock::new();
        clock.programmed(0, |_| true);
        clock.received(10);
        clock.received(60);
        clock.programmed(61, |_| false);
        assert!(clock.ask(Question::Healthz, 69).good);
        assert!(!clock.ask(Question::Healthz, 70).good);
        clock.programmed(71, |_| true);
        assert!(clock.ask(Question::Healthz, 71).good);
        // Nothing to do for hours is no lag.
        assert!(clock.ask(Question::Healthz, 100_000).good);
    }

    #[test]
    fn eligibility_is_for_load_balancers() {
        let clock = Clock::new();
        clock.programmed(0, |_| true);
        clock.health.set_eligible(false);
        let answer = clock.ask(Question::Healthz, 1);
        assert!(!answer.good && answer.healthy && answer.node_eligible == Some(false));
        let answer = clock.ask(Question::Livez, 1);
        assert!(answer.good && answer.node_eligible.is_none());
        assert!(clock.ask(Question::Readyz, 1).good);
    }

    #[test]
    fn answers_are_counted_by_code() {
        let health = Health::new(SECOND, true);
        for _ in 0..3 {
            let _ = health.answer(Question::Healthz);
        }
        health.programmed(|_| true);
        let _ = health.answer(Question::Healthz);
        let _ = health.answer(Question::Livez);
        assert_eq!(health.answered(Question::Healthz), [1, 3]);
        assert_eq!(health.answered(Question::Livez), [1, 0]);
    }
}
