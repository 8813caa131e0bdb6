//! The table of forms of receiving, by a ring that does nothing else.

use crate::figures::{Spread, Unit, grouped, short, with_unit};
use crate::records::Records;
use crate::records::kinds::{Receive, kind};
use crate::tables::lines::{distinct, newest, part, ratios, values};
use crate::tables::markdown;

/// A column for each payload and rate: the echoes of a form in a second of processor time, beside those of
/// the first form does in the same round, for the machine changes its speed between rounds.
pub(crate) fn table(records: &Records) -> String {
    let lines = newest(records, kind!(Receive));
    let idle = newest(records, kind!(IdleReceive));
    let forms = distinct(lines.iter().map(|(_, line)| &line.receive[..]));
    let mut loads = distinct(lines.iter().map(|(_, line)| (line.rate, line.payload)));
    loads.sort_unstable();
    let rounds = |form: &str, load: Load, value: fn(&Receive) -> f64| {
        let is_one = |line: &Receive| line.receive == form && (line.rate, line.payload) == load;
        values(&lines, is_one, |line| Some(value(line)))
    };
    let row = |form: &&str| {
        let mut cells = vec![(*form).to_owned()];
        for &load in &loads {
            let own = rounds(form, load, |line| line.echoes_per_cpu_second);
            let first = rounds(forms[0], load, |line| line.echoes_per_cpu_second);
            cells.push(match *form == forms[0] {
                true => Spread::of(own)
                    .map_or(String::new(), |spread| with_unit(spread.median, Unit::Count)),
                false => Spread::text(ratios(&own, &first), Unit::Ratio),
            });
        }
        let enters = loads.first().map(|&load| rounds(form, load, |line| line.enters_per_echo));
        let enters = enters.and_then(Spread::of).map(|spread| short(spread.median));
        cells.push(enters.unwrap_or_default());
        let bytes = idle.iter().rfind(|(_, idle)| idle.idle_receive == **form);
        cells.push(bytes.map_or(String::new(), |(_, idle)| {
            with_unit(idle.kernel_bytes_per_connection, Unit::Bytes)
        }));
        cells
    };
    let mut headings = vec!["form".to_owned()];
    headings.extend(loads.iter().map(|(rate, payload)| {
        let rate = rate.map_or("full load".to_owned(), |rate| format!("{}/s", grouped(rate)));
        format!("{} B, {rate}>", grouped(*payload))
    }));
    headings.extend(["enters per echo>", "kernel, idle connection>"].map(str::to_owned));
    let headings: Vec<_> = headings.iter().map(String::as_str).collect();
    let rows: Vec<_> = forms.iter().map(row).collect();
    part("Receiving, a ring alone", WHAT, &lines, &markdown::table(&headings, &rows))
}

/// Echoes per second that were asked for, and their bytes.
type Load = (Option<u64>, u64);

const WHAT: &str = "\
Echoes per second of processor time of the first form; of the others divided by it, round by round:
medians, least and greatest. Enters at the first load, and what the kernel keeps for a
connection on which nothing arrives. `cargo run --release --package murre-core
--example receive_forms`.";
