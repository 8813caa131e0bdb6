//! The section of the README about forms that were measured against each other.

use crate::figures::{Spread, Unit, grouped, rounded, short, with_unit};
use crate::records::{
    Accept, Burst, Check, Content, Form, Interface, Line, Mask, Pages, Records, Subscribers, kind,
    short_commit,
};
use crate::tables::lines::{newest, part};
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
    let mut names: Vec<&str> = Vec::new();
    for (_, form) in &lines {
        if !names.contains(&&form.form[..]) {
            names.push(&form.form);
        }
    }
    let values = |name: &str, value: fn(&Form) -> f64| -> Vec<f64> {
        let own = lines.iter().filter(|(_, form)| form.form == name);
        own.map(|(_, form)| value(form)).collect()
    };
    let row = |name: &&str| {
        let cpu = values(name, |form| form.echoes_per_cpu_second);
        let first = values(names[0], |form| form.echoes_per_cpu_second);
        let ratios = cpu.iter().zip(&first).map(|(own, first)| own / first).collect();
        let spread = |values, unit| {
            Spread::of(values).map_or(String::new(), |spread| spread.with_unit(unit))
        };
        let rate = values(name, |form| form.echoes_per_second);
        vec![
            (*name).to_owned(),
            spread(rate, Unit::PerSecond),
            spread(cpu, Unit::Count),
            spread(ratios, Unit::Ratio),
        ]
    };
    let headings = ["form", "echoes per second>", "per server-CPU-second>", "beside the first>"];
    let rows: Vec<_> = names.iter().map(row).collect();
    part("Receiving", RECEIVING, &lines, &table(&headings, &rows))
}

fn interfaces(records: &Records) -> String {
    let lines = newest(records, kind!(Interface));
    type Value = fn(&Interface) -> Option<f64>;
    let values = |io: &str, value: Value| -> Vec<f64> {
        let own = lines.iter().filter(|(_, interface)| interface.io == io);
        own.filter_map(|(_, interface)| value(interface)).collect()
    };
    let row = |io: &str| {
        let spread = |value, unit| {
            Spread::of(values(io, value)).map_or(String::new(), |spread| spread.with_unit(unit))
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
    let lines = newest(records, kind!(Accept));
    let row = |(_, accept): &(&Line, &Accept)| {
        let [one, two] = accept.shares.map(rounded);
        vec![accept.accept.clone(), one, two, with_unit(accept.cpu_us, Unit::Micros)]
    };
    let headings = ["form", "one>", "other>", "server CPU per connection>"];
    let rows: Vec<_> = lines.iter().map(row).collect();
    part("Accepting", ACCEPTING, &lines, &table(&headings, &rows))
}

fn masks(records: &Records) -> String {
    let lines = newest(records, kind!(Mask));
    let sizes = lines.iter().flat_map(|(_, mask): &(&Line, &Mask)| &mask.sizes);
    let rows: Vec<_> = sizes
        .map(|size| {
            let [ours, naive, decode, theirs] = [
                size.mask_gb_per_s,
                size.naive_gb_per_s,
                size.decode_gb_per_s,
                size.tungstenite_decode_gb_per_s,
            ]
            .map(short);
            vec![grouped(size.payload_bytes), ours, naive, decode, theirs]
        })
        .collect();
    let headings = ["payload, B>", "ours>", "byte by byte>", "our decoder>", "tungstenite's>"];
    part("Masks", MASKS, &lines, &table(&headings, &rows))
}

fn pages(records: &Records) -> String {
    let lines = newest(records, kind!(Pages));
    let values = |size: &str, value: fn(&Pages) -> f64| -> Vec<f64> {
        let own = lines.iter().filter(|(_, pages)| pages.pages == size);
        own.map(|(_, pages)| value(pages)).collect()
    };
    let row = |size: &str| {
        let spread = |value, unit| {
            Spread::of(values(size, value)).map_or(String::new(), |spread| spread.with_unit(unit))
        };
        let cpu = spread(|pages| pages.messages_per_cpu_second, Unit::Count);
        vec![size.to_owned(), spread(|pages| pages.user_bytes, Unit::Bytes), cpu]
    };
    let headings = ["pages", "user space per connection>", "messages per server-CPU-second>"];
    let rows = ["4 KiB", "2 MiB"].map(row);
    part("Huge pages", PAGES, &lines, &table(&headings, &rows))
}

fn subscribers(records: &Records) -> String {
    let lines = newest(records, kind!(Subscribers));
    let row = |(_, told): &(&Line, &Subscribers)| {
        let user = with_unit(told.user_bytes, Unit::Bytes);
        vec![told.subscribers.clone(), grouped(told.connections), user]
    };
    let headings = ["told by", "connections>", "user space per connection>"];
    let rows: Vec<_> = lines.iter().map(row).collect();
    part("Idle subscribers", SUBSCRIBERS, &lines, &table(&headings, &rows))
}

fn bursts(records: &Records) -> String {
    let lines = newest(records, kind!(Burst));
    let row = |(_, burst): &(&Line, &Burst)| {
        let kib = |bytes: u64| format!("{} KiB", grouped(bytes / 1024));
        let [before, most, after] = [burst.pss_before, burst.rss_most, burst.pss_after].map(kib);
        vec![burst.burst.clone(), before, most, after]
    };
    let headings = ["burst", "before>", "at most>", "8 s after>"];
    let rows: Vec<_> = lines.iter().map(row).collect();
    part("Memory after a burst", BURSTS, &lines, &table(&headings, &rows))
}

/// The newest of each check.
fn checks(records: &Records) -> String {
    let mut newest: Vec<(&Line, &Check)> = Vec::new();
    for line in &records.lines {
        let Content::Check(check) = &line.content else { continue };
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
    format!("### Checks of the hub\n\n{CHECKS}\n\n{}\n", table(&headings, &rows))
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
`scripts/bench hub`; ratios to an earlier commit: `scripts/compare-commit`. Of each check its newest
record.";

const MASKS: &str = "\
10^9 bytes of payload a second, unmasked and decoded. `cargo run --release --package murre-codec
--example mask_throughput`.";
