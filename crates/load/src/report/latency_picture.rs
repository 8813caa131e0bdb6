//! How long answers take: percentiles of the newest runs of each kind, ours and the peers'.

use super::axis::{Axis, label};
use super::canvas::{Anchor, Canvas, Colour, MARGIN, Style, palette};
use super::memory_picture::legend;
use super::over_time::capital;
use crate::claims::OURS;
use crate::figures::short;
use crate::records::Run;

/// Runs under one heading: they did the same work.
pub(super) struct Heading<'r> {
    pub(super) work: String,
    /// One of each server; of several rounds the one with the middle p99.
    pub(super) runs: Vec<&'r Run>,
}

pub(super) fn picture(headings: &[Heading<'_>]) -> Canvas {
    let lines: usize = headings.iter().map(|heading| heading.runs.len()).sum();
    let height = TOP + HEADING * headings.len() as f32 + PITCH * lines as f32 + 64.0;
    let mut canvas = Canvas::new(
        WIDTH,
        height,
        "How long answers take",
        "milliseconds, on a logarithmic scale, from when a request was due; in echo from when it \
         was sent",
    );
    legend(&mut canvas, &PERCENTILES.map(|(name, colour, _)| (colour, name)));
    let runs = || headings.iter().flat_map(|heading| &heading.runs);
    let values = || runs().flat_map(|run| PERCENTILES.map(|(.., value)| value(run)));
    let least = values().fold(f64::INFINITY, f64::min).max(0.001);
    let most = values().fold(0.0, f64::max).max(least);
    let ends = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
    let time = Axis::logarithmic(ends, (NAMES, COLUMNS[0] - 70.0));
    let bottom = height - 54.0;
    for tick in time.ticks(0) {
        let x = time.at(tick);
        canvas.line(&[(x, TOP), (x, bottom - 6.0)], palette::GRID, 1.0);
        let style = Style::plain(12.0).colour(palette::MUTED).anchor(Anchor::Middle);
        canvas.text(x, bottom + 10.0, &label_ms(tick), style);
    }
    for (column, name) in COLUMNS.iter().zip(["half", "99 %", "longest"]) {
        let style = Style::plain(12.0).colour(palette::MUTED).anchor(Anchor::End);
        canvas.text(*column, TOP - 4.0, name, style);
    }
    let mut y = TOP;
    for heading in headings {
        let style = Style::plain(13.0).bold();
        canvas.label(MARGIN, y + HEADING - 10.0, &capital(&heading.work), style);
        y += HEADING;
        for run in &heading.runs {
            row(&mut canvas, &time, run, y);
            y += PITCH;
        }
    }
    canvas.source("Records of this repository; of several rounds the one with the middle 99 %");
    canvas
}

fn row(canvas: &mut Canvas, time: &Axis, run: &Run, y: f32) {
    let middle = y + PITCH / 2.0 - 2.0;
    let ours = run.label == OURS;
    let weight = |style: Style| if ours { style.bold() } else { style };
    let name = if ours { "Murre" } else { &run.label };
    let style = weight(Style::plain(13.0)).anchor(Anchor::End);
    canvas.text(NAMES - 14.0, middle + 4.5, name, style);
    let places = PERCENTILES.map(|(_, colour, value)| (time.at(value(run)), colour));
    let (first, last) = (places[0].0, places[places.len() - 1].0);
    canvas.line(&[(first, middle), (last, middle)], palette::STONE, 2.0);
    // The better known ones are drawn last and stay visible.
    for (x, colour) in places.into_iter().rev() {
        canvas.dot(x, middle, 6.0, colour);
    }
    for (column, index) in COLUMNS.iter().zip([0, 2, 4]) {
        let text = format!("{} ms", short(PERCENTILES[index].2(run)));
        let style = weight(Style::plain(13.0)).anchor(Anchor::End);
        canvas.text(*column, middle + 4.5, &text, style);
    }
}

fn label_ms(tick: f64) -> String {
    if tick < 0.01 { format!("{tick:.3}") } else { label(tick) }
}

/// One hue from dark to light, and the longest apart from them.
type Percentile = (&'static str, Colour, fn(&Run) -> f64);
const PERCENTILES: [Percentile; 5] = [
    ("half of the answers", 0x00_44_6e, |run| run.latency_us.p50 as f64 / 1000.0),
    ("90 %", palette::BLUE, |run| run.latency_us.p90 as f64 / 1000.0),
    ("99 %", 0x56_b4_e9, |run| run.latency_us.p99 as f64 / 1000.0),
    ("99.9 %", 0xb3_dd_f5, |run| run.latency_us.p99_9 as f64 / 1000.0),
    ("the longest", palette::VERMILLION, |run| run.latency_us.max as f64 / 1000.0),
];

const WIDTH: f32 = 960.0;
const TOP: f32 = 122.0;
const HEADING: f32 = 38.0;
const PITCH: f32 = 26.0;
const NAMES: f32 = 210.0;
/// Where the columns of numbers end.
const COLUMNS: [f32; 3] = [742.0, 834.0, 928.0];
