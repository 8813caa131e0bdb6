//! Runs drawn from seeds: peers send anything at any time, and any fault may occur. A failing run
//! is shrunk as far as possible and printed step by step.
//!
//! `SEED=17 cargo test --package murre-core --test scenarios simulation` repeats one run, `SEEDS=`
//! sets the number of runs.

mod actor;
mod flaws;
mod pipe;
mod plan;
mod server;
mod shrink;
mod stage;

use std::cell::Cell;
use std::sync::Mutex;
use std::time::Instant;

use murre_core::ring::Ring;
use murre_core::ring::sim::{Keep, SimNet, SimRing};
use murre_core::{CloseReason, ShardConfig};
use murre_testing::{catch_panic, env_number, first_failure, seeds};

use crate::world::{Setup, real};
use plan::Plan;
use stage::{Seen, Subject, play, play_in};

/// The number of seeds of each simulation, unless `SEEDS` sets it.
const SEEDS: u64 = 10_000;
/// The number of seeds whose plans run on each of the kernel's rings.
const KERNEL_SEEDS: u64 = 10;

/// HTTP, deferred responses and WebSockets, with all faults of peers, the network, the machine and
/// time.
#[test]
fn a_server_on_bad_days() {
    let seen = simulate("a server", server::Serving::default);
    // Every possible reason for a close has occurred.
    let ends = seen.iter().fold([0; CloseReason::ALL.len()], |mut sum, seen| {
        sum.iter_mut().zip(seen.closed).for_each(|(sum, closed)| *sum += closed);
        sum
    });
    for (reason, count) in CloseReason::ALL.iter().zip(ends) {
        assert!(count > 0 || seen.len() < 1000, "nobody was closed as {}", reason.name());
    }
}

/// Connections in both directions, pushes and stale ids, on a protocol without timeouts.
#[test]
fn connections_both_ways_on_bad_days() {
    let seen = simulate("connections both ways", || pipe::Echoing);
    for direction in 0..2 {
        let count: u64 = seen.iter().map(|seen| seen.came[direction]).sum();
        assert!(count > 0 || seen.len() < 1000, "nobody came in direction {direction}");
    }
}

/// The same plans on the kernel, without their steps of time, of the network and of the machine.
#[test]
fn the_same_on_the_kernel() {
    // An emulated kernel runs a few seeds too, although nothing is simulated for it.
    let seeds = env_number("SEEDS").map_or(KERNEL_SEEDS, |seeds| seeds.clamp(2, KERNEL_SEEDS));
    for seed in 0..seeds {
        let plan = Plan::draw(env_number("SEED").unwrap_or(seed));
        // Enough slots for every client, because the test cannot see which client waits for one.
        let shard = ShardConfig { max_conns: 64, ..plan.shard.clone() };
        let setup = Setup {
            shard,
            buffers: plan.ring.buffers,
            buffer_bytes: plan.ring.buffer_bytes,
            ..Setup::default()
        };
        let serving = server::Serving { patient: true, ..Default::default() };
        real(
            &setup,
            || serving.protocol(),
            |world| {
                play_in(world, &serving, &plan);
            },
        );
        real(
            &setup,
            || pipe::Echoing.protocol(),
            |world| {
                play_in(world, &pipe::Echoing, &plan);
            },
        );
    }
}

fn simulate<S: Subject>(name: &str, subject: impl Fn() -> S + Sync) -> Vec<Seen> {
    let seeds = seeds(SEEDS);
    let (started, count) = (Instant::now(), seeds.end - seeds.start);
    let all = Mutex::new(Vec::new());
    let failed = first_failure(seeds, |seed| {
        match attempt(&subject(), &Plan::draw(seed), Keep::Nothing, |ring| ring) {
            Ok(seen) => {
                all.lock().expect("nobody panics with it").push(seen);
                false
            }
            Err(_) => true,
        }
    });
    if let Some(seed) = failed {
        panic!("{}", explain(&subject(), seed));
    }
    eprintln!("{name}: {count} seeds in {:.1} s", started.elapsed().as_secs_f64());
    all.into_inner().expect("nobody panics with it")
}

/// A run that failed.
struct Failure {
    why: String,
    faults_injected: Vec<u64>,
    log: Vec<String>,
}

/// Plays a plan, and returns its failure, if any.
fn attempt<S: Subject, R: Ring + 'static>(
    subject: &S,
    plan: &Plan,
    keep: Keep,
    wrap: impl FnOnce(SimRing) -> R,
) -> Result<Seen, Failure> {
    let net: Cell<Option<SimNet>> = Cell::default();
    let run = || play(subject, plan, keep, wrap, |known| net.set(Some(known)));
    catch_panic(run).map_err(|why| {
        let net = net.take().expect("told of first");
        let faults_injected = net.injected_faults().into_iter().map(|(number, _)| number).collect();
        Failure { why, faults_injected, log: net.log() }
    })
}

/// Describes the shortest run that fails like this seed, step by step.
fn explain<S: Subject>(subject: &S, seed: u64) -> String {
    let plan = Plan::draw(seed);
    let fails = |plan: &Plan, keep| attempt(subject, plan, keep, |ring| ring).err();
    let Some(first) = fails(&plan, Keep::Nothing) else {
        return format!(
            "SEED={seed} failed once and not again: the seed does not determine it all"
        );
    };
    let small = shrink::shrink(&plan, |plan| {
        fails(plan, Keep::Nothing).map(|failure| failure.faults_injected)
    });
    let last = fails(&small, Keep::All).expect("it failed before");
    let mut told = format!("SEED={seed} fails: {}\n", first.why);
    told += &format!("The shortest run found that fails:\n{small}\n");
    told += &last.log.join("\n");
    told += &format!("\n{}\n", last.why);
    told + &format!(
        "{} steps of {}. Again: SEED={seed} cargo test --package murre-core --test scenarios simulation",
        small.steps.len(),
        plan.steps.len()
    )
}
