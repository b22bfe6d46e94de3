//! Smaller versions of a failure.

use crate::{
    flows::{Change, State, Table},
    kernel::Run,
    parse::{self, ETHERNET, Frame},
    trial::Trial,
};

const TRIES: usize = 8;

/// The smallest state and packet found that still fail, and how.
pub(crate) fn shrink(trial: &mut Trial, run: &Run, problem: &str) -> (State, Run, String) {
    let mut best = (trial.state.clone(), run.clone(), problem.to_owned());
    let first = fails(trial, &best.0, &best.1, problem);
    let Some(problem) = first else {
        best.2 += "\n  (not again with the same maps: does it depend on chance, or on what came before?)";
        return best;
    };
    best.2 = problem;
    // Halves of the state, then single entries.
    let mut size = best.0.everything().count().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        loop {
            // A flow does not stand without its bytes of `FLOW_FILTER`.
            let entries: Vec<_> =
                best.0.everything().filter(|change| !matches!(change, Change::Filter(..))).collect();
            if at >= entries.len() {
                break;
            }
            let mut state = best.0.clone();
            let end = (at + size).min(entries.len());
            entries[at..end].iter().for_each(|change| state.set(change.emptied()));
            match fails(trial, &state, &best.1, &best.2) {
                Some(problem) => (best.0, best.2) = (state, problem),
                None => at = end,
            }
        }
        size /= 2;
    }
    for frame in smaller(&run.frame) {
        let run = Run { frame, ..run.clone() };
        if run.frame.len() < best.1.frame.len()
            && let Some(problem) = fails(trial, &best.0, &run, &best.2)
        {
            (best.1, best.2) = (run, problem);
        }
    }
    trial.load(best.0.clone());
    best
}

fn fails(trial: &mut Trial, state: &State, run: &Run, like: &str) -> Option<String> {
    let mut state = state.clone();
    // What is half of a pair would fail for another reason.
    let halves: Vec<_> = state
        .everything()
        .filter_map(|change| match change {
            Change::Flow(table, tuple, Some(entry)) => {
                let peer = entry.rewritten(tuple.protocol).flip();
                let lonely = table == Table::Confirmed && state.flow(table, &peer).is_none();
                lonely.then_some(change.emptied())
            }
            _ => None,
        })
        .collect();
    halves.into_iter().for_each(|half| state.set(half));
    // More than once, because the programs draw lots.
    (0..TRIES).find_map(|_| {
        trial.load(state.clone());
        trial.packet(run).err().filter(|problem| kind(problem) == kind(like))
    })
}

/// What a failure is about, in a word or two.
fn kind(problem: &str) -> &str {
    problem.get(..12).unwrap_or(problem)
}

/// The frame with less after its headers, and lengths that fit.
fn smaller(frame: &[u8]) -> Vec<Vec<u8>> {
    let Frame::Ip(ip) = parse::frame(frame) else {
        return vec![frame[..frame.len().min(60)].to_vec()];
    };
    let cut = |payload: usize| {
        let mut frame = frame[..ip.end].to_vec();
        frame.truncate(ip.transport + payload);
        let (at, length) = if ip.source.is_ipv4() {
            (ETHERNET + 2, frame.len() - ETHERNET)
        } else {
            (ETHERNET + 4, frame.len() - ETHERNET - 40)
        };
        frame[at..at + 2].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        if ip.protocol == 17 && ip.fragment.is_none() && payload >= 8 {
            let length = u16::try_from(payload).unwrap().to_be_bytes();
            frame[ip.transport + 4..ip.transport + 6].copy_from_slice(&length);
        }
        frame
    };
    let longest = ip.end - ip.transport;
    let payloads = [longest, longest / 2, 64, 36, 28, 24, 20, 16, 12, 8];
    payloads.into_iter().filter(|payload| *payload <= longest).map(cut).collect()
}
