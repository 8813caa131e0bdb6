//! The section of the README about forms that were measured against each other.

use super::markdown::{link, table};
use crate::figures::{Spread, Unit, grouped, short, with_unit};
use crate::records::{Content, Form, Records};

/// Decisions that were made by measuring one form against another.
pub(super) fn section(records: &Records) -> String {
    let newest = |holds: fn(&Content) -> bool| {
        let lines = records.lines.iter().filter(|line| holds(&line.content));
        let file = lines.clone().map(|line| &line.place.file).max();
        lines.filter(|line| Some(&line.place.file) == file).collect::<Vec<_>>()
    };
    let mut text = String::new();
    let forms = newest(|content| matches!(content, Content::Form(_)));
    let mut names: Vec<&str> = Vec::new();
    for line in &forms {
        if let Content::Form(form) = &line.content
            && !names.contains(&&form.form[..])
        {
            names.push(&form.form);
        }
    }
    let values = |name: &str, value: fn(&Form) -> f64| -> Vec<f64> {
        let forms = forms.iter().filter_map(|line| match &line.content {
            Content::Form(form) if form.form == name => Some(value(form)),
            _ => None,
        });
        forms.collect()
    };
    let rows: Vec<_> = names
        .iter()
        .map(|name| {
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
        })
        .collect();
    if let Some(line) = forms.first() {
        let file = link(&line.place, "");
        text += &format!("## Forms\n\n### Receiving\n\n{RECEIVING} {file} and what follows.\n\n");
        let headings =
            ["form", "echoes per second>", "per server-CPU-second>", "beside the first>"];
        text += &table(&headings, &rows);
        text += "\n";
    }
    let accepts = newest(|content| matches!(content, Content::Accept(_)));
    let rows: Vec<_> = accepts
        .iter()
        .filter_map(|line| match &line.content {
            Content::Accept(accept) => {
                let [one, two] = accept.shares.map(short);
                let cost = with_unit(accept.cpu_us, Unit::Micros);
                Some(vec![accept.accept.clone(), one, two, cost, link(&line.place, "")])
            }
            _ => None,
        })
        .collect();
    if !rows.is_empty() {
        text += &format!("### Accepting\n\n{ACCEPTING}\n\n");
        let headings = ["form", "one>", "other>", "server CPU per connection>", "record"];
        text += &format!("{}\n", table(&headings, &rows));
    }
    let masks = newest(|content| matches!(content, Content::Mask(_)));
    let rows: Vec<_> = masks
        .iter()
        .filter_map(|line| match &line.content {
            Content::Mask(mask) => {
                let [ours, naive, decode, theirs] = [
                    mask.mask_gb_per_s,
                    mask.naive_gb_per_s,
                    mask.decode_gb_per_s,
                    mask.tungstenite_decode_gb_per_s,
                ]
                .map(short);
                let bytes = grouped(mask.payload_bytes);
                Some(vec![bytes, ours, naive, decode, theirs, link(&line.place, "")])
            }
            _ => None,
        })
        .collect();
    if !rows.is_empty() {
        text += &format!("### Masks\n\n{MASKS}\n\n");
        let headings =
            ["payload, B>", "ours>", "byte by byte>", "our decoder>", "tungstenite's>", "record"];
        text += &format!("{}\n", table(&headings, &rows));
    }
    text
}

const RECEIVING: &str = "\
Echo on 64 connections of 32 B, one core for each end, the forms in turns; medians, least and
greatest. `cargo run --release --example forms`.";

const ACCEPTING: &str = "\
Which part of the connections each of two shards took, and what one cost. `cargo test --release
--package murre-core --lib accept_forms -- --ignored --nocapture`.";

const MASKS: &str = "\
10^9 bytes of payload a second, unmasked and decoded. `cargo run --release --package murre-codec
--example mask_throughput`.";
