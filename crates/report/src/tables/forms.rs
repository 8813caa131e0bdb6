//! The section of the README about forms that were measured against each other.

use crate::figures::{Spread, Unit, grouped, rounded, short, with_unit};
use crate::records::kinds::{Check, Form, Interface, MaskSize, Pages, kind};
use crate::records::{Line, Records, short_commit};
use crate::tables::lines::{distinct, each, newest, part, ratios, values};
use crate::tables::markdown::{link, table};
use crate::tables::receive_forms;

/// Decisions that were made by measuring one form against another.
pub(crate) fn section(records: &Records) -> String {
    let receiving = receiving(records) + &receive_forms::table(records);
    let text = receiving
        + &interfaces(records)
        + &accepting(records)
        + &masks(records)
        + &pages(records)
        + &bursts(records)
        + &checks(records)
        + &subscribers(records);
    if text.is_empty() { text } else { format!("## Forms\n\n{text}") }
}

fn receiving(records: &Records) -> String {
    let lines = newest(records, kind!(Form));
    let names = distinct(lines.iter().map(|(_, form)| &form.form[..]));
    let of = |name: &str, value: fn(&Form) -> f64| {
        values(&lines, |form| form.form == name, |form| Some(value(form)))
    };
    let row = |name: &&str| {
        let cpu = of(name, |form| form.echoes_per_cpu_second);
        let first = of(names[0], |form| form.echoes_per_cpu_second);
        vec![
            (*name).to_owned(),
            Spread::text(of(name, |form| form.echoes_per_second), Unit::PerSecond),
            Spread::text(cpu.clone(), Unit::Count),
            Spread::text(ratios(&cpu, &first), Unit::Ratio),
        ]
    };
    let headings = ["form", "echoes per second>", "per server-CPU-second>", "beside the first>"];
    let rows: Vec<_> = names.iter().map(row).collect();
    part("Receiving", RECEIVING, &lines, &table(&headings, &rows))
}

fn interfaces(records: &Records) -> String {
    let lines = newest(records, kind!(Interface));
    let row = |io: &str| {
        let spread = |value: fn(&Interface) -> Option<f64>, unit| {
            Spread::text(values(&lines, |interface| interface.io == io, value), unit)
        };
        vec![
            io.to_owned(),
            spread(|of| Some(of.user_bytes), Unit::Bytes),
            spread(|of| Some(of.wait_bytes), Unit::Bytes),
            spread(|of| of.total_bytes, Unit::Bytes),
            spread(|of| Some(of.messages_per_second), Unit::PerSecond),
            spread(|of| Some(of.messages_per_cpu_second), Unit::Count),
            spread(|of| Some(of.p99_us), Unit::Micros),
        ]
    };
    let headings = [
        "interface",
        "user space>",
        "kernel, waiting>",
        "all in>",
        "messages per second>",
        "per server-CPU-second>",
        "99 % within>",
    ];
    let rows = ["uring", "epoll"].map(row);
    part("With io_uring and without", INTERFACES, &lines, &table(&headings, &rows))
}

fn accepting(records: &Records) -> String {
    let headings = ["form", "one>", "other>", "server CPU per connection>"];
    each(records, kind!(Accept), ("Accepting", ACCEPTING), &headings, |accept| {
        let [one, two] = accept.shares.map(rounded);
        vec![accept.accept.clone(), one, two, with_unit(accept.cpu_us, Unit::Micros)]
    })
}

fn masks(records: &Records) -> String {
    let lines = newest(records, kind!(Mask));
    let row = |size: &MaskSize| {
        let speeds = [
            size.mask_gb_per_s,
            size.naive_gb_per_s,
            size.decode_gb_per_s,
            size.tungstenite_decode_gb_per_s,
        ];
        [grouped(size.payload_bytes)].into_iter().chain(speeds.map(short)).collect()
    };
    let rows: Vec<_> = lines.iter().flat_map(|(_, mask)| &mask.sizes).map(row).collect();
    let headings = ["payload, B>", "ours>", "byte by byte>", "our decoder>", "tungstenite's>"];
    part("Masks", MASKS, &lines, &table(&headings, &rows))
}

fn pages(records: &Records) -> String {
    let lines = newest(records, kind!(Pages));
    let row = |size: &str| {
        let spread = |value: fn(&Pages) -> f64, unit| {
            Spread::text(values(&lines, |of| of.pages == size, |of| Some(value(of))), unit)
        };
        vec![
            size.to_owned(),
            spread(|pages| pages.user_bytes, Unit::Bytes),
            spread(|pages| pages.messages_per_cpu_second, Unit::Count),
        ]
    };
    let headings = ["pages", "user space per connection>", "messages per server-CPU-second>"];
    let rows = ["4 KiB", "2 MiB"].map(row);
    part("Huge pages", PAGES, &lines, &table(&headings, &rows))
}

fn subscribers(records: &Records) -> String {
    let headings = ["told by", "connections>", "user space per connection>"];
    each(records, kind!(Subscribers), ("Idle subscribers", SUBSCRIBERS), &headings, |told| {
        let user = with_unit(told.user_bytes, Unit::Bytes);
        vec![told.subscribers.clone(), grouped(told.connections), user]
    })
}

fn bursts(records: &Records) -> String {
    let headings = ["burst", "before>", "at most>", "8 s after>"];
    each(records, kind!(Burst), ("Memory after a burst", BURSTS), &headings, |burst| {
        let kib = |bytes: u64| format!("{} KiB", grouped(bytes / 1024));
        let [before, most, after] = [burst.pss_before, burst.rss_most, burst.pss_after].map(kib);
        vec![burst.burst.clone(), before, most, after]
    })
}

/// The newest of each check.
fn checks(records: &Records) -> String {
    let mut newest: Vec<(&Line, &Check)> = Vec::new();
    for (line, check) in records.of(kind!(Check)) {
        match newest.iter_mut().find(|(_, other)| other.check == check.check) {
            Some(earlier) => *earlier = (line, check),
            None => newest.push((line, check)),
        }
    }
    if newest.is_empty() {
        return String::new();
    }
    let row = |(line, check): &(&Line, &Check)| {
        let commit = short_commit(line.stamp.commit.as_deref());
        let place = link(&line.place, "");
        vec![check.check.clone(), short(check.measured), check.target.clone(), commit, place]
    };
    let rows: Vec<_> = newest.iter().map(row).collect();
    let headings = ["what", "measured>", "target", "commit", "record"];
    format!("### Checks\n\n{CHECKS}\n\n{}\n", table(&headings, &rows))
}

const RECEIVING: &str = "\
Echo on 64 connections of 32 B, one core for each end, the forms in turns; medians, least and
greatest. `cargo run --release --example forms`.";

const ACCEPTING: &str = "\
How many of the connections each of two shards took, and what one cost. `cargo run --release
--package murre-core --example accept_forms`.";

const INTERFACES: &str = "\
Echo of 32 B on 64 of 18,000 WebSockets on normal descriptors, one core for each end, by io_uring and
by epoll in turns; bytes per connection; medians, least and greatest. `scripts/bench io`.";

const PAGES: &str = "\
Echo of 32 B on 64 of 18,000 WebSockets, in turns with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` and
without; medians, least and greatest. `scripts/bench pages`.";

const SUBSCRIBERS: &str = "\
All of one channel with history, on normal descriptors. `scripts/bench streams`.";

const BURSTS: &str = "\
What the whole server takes. `scripts/bench burst`.";

const CHECKS: &str = "\
`scripts/bench hub`; several nodes: `scripts/bench-cluster`; ratios to an earlier commit:
`scripts/compare-commit`. Of each check its newest record.";

const MASKS: &str = "\
10^9 bytes of payload a second, unmasked and decoded. `cargo run --release --package murre-codec
--example mask_throughput`.";
