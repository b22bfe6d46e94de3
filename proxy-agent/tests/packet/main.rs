//! The packet programs against a model of them: random and mutated packets, in sequences that open, use and
//! close flows, run through the real programs (`BPF_PROG_TEST_RUN`) and through [`model`]. Verdict, packet,
//! counters and maps must be the same after each one.
//!
//! Needs root, and an agent with the eBPF object inside (`cargo xtask build` first). Links, maps and mounts
//! are the test's own. `FERROUTE_PACKETS` sets how many packets are tried, `FERROUTE_SEED` which.

mod build;
mod codec;
mod compare;
mod flows;
mod generate;
mod kernel;
mod model;
mod parse;
mod place;
mod services;
mod shrink;
mod sums;
mod tables;
mod trial;
mod world;

use std::{env, time::Instant};

use generate::Generator;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use trial::Trial;
use world::World;

/// Packets that are tried unless told otherwise.
const PACKETS: u64 = 1_000_000;
/// Packets after which everything has come about.
const ENOUGH: u64 = 100_000;
/// Packets between two fresh starts.
const EPISODE: u64 = 1_000;

#[test]
fn the_programs_do_what_the_model_does() {
    differential("FERROUTE_PACKETS", PACKETS, (1_024, 28_976));
}

#[test]
fn the_programs_do_what_the_model_does_when_source_ports_are_few() {
    differential("FERROUTE_PACKETS_FEW_PORTS", PACKETS / 10, (60_000, 4));
}

fn differential(variable: &str, packets: u64, ports: (u16, u16)) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let packets = number(variable).unwrap_or(packets);
    let seed = number("FERROUTE_SEED").unwrap_or_else(|| rand::rng().random());
    println!("FERROUTE_SEED={seed} {variable}={packets}");
    let mut random = StdRng::seed_from_u64(seed);
    let Some(world) = World::new(ports, &mut random) else { return };
    let mut trial = Trial::new(world, ports);
    let (start, mut done) = (Instant::now(), 0);
    for episode in 0.. {
        let seed = random.random();
        let mut generator = Generator::new(StdRng::seed_from_u64(seed));
        for step in 0..EPISODE.min(packets - done) {
            let event = generator.next(&trial.world.place, &trial.world.services, &trial.state);
            if let Err(report) = trial.happen(event, generator.random()) {
                panic!("seed {seed}, episode {episode}, step {step}: {report}");
            }
            done += 1;
        }
        trial.compare_all().unwrap_or_else(|report| panic!("seed {seed}, episode {episode}: {report}"));
        if episode % 100 == 0 {
            trial.compare_filter().unwrap_or_else(|report| panic!("episode {episode}: {report}"));
        }
        trial.clear();
        if done == packets {
            break;
        }
    }
    let each = start.elapsed().as_nanos() / u128::from(packets);
    println!("{packets} packets in {:?}, {each} ns each\n{}", start.elapsed(), trial.seen.summary());
    if packets >= ENOUGH {
        trial.seen.check(ports.1 < 100);
    }
}
