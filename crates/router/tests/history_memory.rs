//! The formula of `Stats::history_bytes` beside what the kernel gave this process. Alone in its
//! program: anything else would take memory, too.

use std::fs;
use std::sync::Arc;

use murre_router::channels::{
    ChannelLimits, Channels, Form, Origin, Payload, Publisher, Retention,
};

const CHANNELS: usize = 1000;
const PUBLICATIONS: usize = 100;

/// Bytes of memory that this process has to itself.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kilobytes * 1024
}

/// 100 publications in each of 1,000 channels take what the formula says, within 5 %.
#[test]
fn the_formula_holds() {
    let size = PUBLICATIONS as u32;
    let rules = move |_: &str| Some(Retention { size, ttl_ms: 1000 });
    let mut channels = Channels::<()>::new(0, 1, 1, rules, ChannelLimits::default());
    let names: Vec<String> = (0..CHANNELS).map(|channel| format!("ticker:{channel}")).collect();
    let mut rng = fastrand::Rng::with_seed(1);
    let before = resident();
    // Twice as many as are kept: what is dropped gives its memory back.
    for now in 0..2 * PUBLICATIONS {
        for name in &names {
            let bytes = Arc::from(&[b'x'; 1000][..rng.usize(20..=1000)]);
            let payload = Payload { form: Form::Json, side_len: 0, bytes };
            let publisher = Publisher { origin: Origin(0), ticket: None, except: false };
            channels.publish(name, payload, publisher, now as u64).expect("nobody is behind");
        }
    }
    let (taken, stats) = (resident() - before, channels.stats());
    assert_eq!(stats.kept as usize, CHANNELS * PUBLICATIONS);
    let off = taken as f64 / stats.history_bytes as f64 - 1.0;
    println!("{taken} bytes taken, {} by the formula: {:+.1} %", stats.history_bytes, off * 100.0);
    assert!(off.abs() < 0.05, "{taken} bytes taken, {} by the formula", stats.history_bytes);
}
