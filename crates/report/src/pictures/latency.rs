//! How long answers take: percentiles of the newest runs of each kind, ours and the peers'.

use crate::figures::short;
use crate::pictures::axis::{Axis, label};
use crate::pictures::canvas::{Anchor, Canvas, Colour, Style, palette};
use crate::pictures::frame::{self, WIDTH, weight};
use crate::published::peer_name;
use crate::records::{OURS, Run};

/// Runs under one heading: they did the same work.
pub(crate) struct Heading<'r> {
    pub(crate) work: String,
    /// One of each server; of several rounds the one with the middle p99.
    pub(crate) runs: Vec<&'r Run>,
}

pub(crate) fn picture(title: &str, headings: &[Heading<'_>]) -> Canvas {
    let lines: usize = headings.iter().map(|heading| heading.runs.len()).sum();
    let height = TOP + HEADING * headings.len() as f32 + PITCH * lines as f32 + 64.0;
    let subtitle = "milliseconds, on a logarithmic scale, from when a request was due; in echo \
                    without a schedule from when it was sent";
    let mut canvas = Canvas::new(WIDTH, height, title, subtitle);
    frame::legend(&mut canvas, &PERCENTILES.map(|(name, colour, _)| (colour, name)));
    let runs = || headings.iter().flat_map(|heading| &heading.runs);
    let values = || runs().flat_map(|run| PERCENTILES.map(|(.., value)| value(run)));
    let least = values().fold(f64::INFINITY, f64::min).max(0.001);
    let most = values().fold(0.0, f64::max).max(least);
    let ends = (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()));
    let time = Axis::logarithmic(ends, (NAMES, column(0) - 62.0));
    let bottom = height - 60.0;
    frame::scale(&mut canvas, &time, &time.ticks(0), (TOP, bottom), label_ms);
    for (index, (name, ..)) in PERCENTILES.iter().enumerate() {
        let style = Style::plain(12.0).colour(palette::MUTED).anchor(Anchor::End);
        canvas.text(column(index), TOP - 4.0, name, style);
    }
    let mut y = TOP;
    for heading in headings {
        frame::heading(&mut canvas, y + HEADING - 10.0, &heading.work);
        y += HEADING;
        for run in &heading.runs {
            row(&mut canvas, &time, run, y + PITCH / 2.0 - 2.0);
            y += PITCH;
        }
    }
    canvas.source("Records of this repository; of several rounds the one with the middle 99 %");
    canvas
}

fn row(canvas: &mut Canvas, time: &Axis, run: &Run, middle: f32) {
    let ours = run.label == OURS;
    frame::name(canvas, NAMES - 14.0, middle, &peer_name(&run.label), ours);
    let places = PERCENTILES.map(|(_, colour, value)| (time.at(value(run)), colour));
    let (first, last) = (places[0].0, places[places.len() - 1].0);
    canvas.line(&[(first, middle), (last, middle)], palette::STONE, 2.0);
    // The better known ones are drawn last and stay visible.
    for (x, colour) in places.into_iter().rev() {
        canvas.dot(x, middle, 6.0, colour);
    }
    for (index, (.., value)) in PERCENTILES.iter().enumerate() {
        let style = weight(13.0, ours).anchor(Anchor::End);
        canvas.text(column(index), middle + 4.5, &number_ms(value(run)), style);
    }
}

/// Where a column of numbers ends.
fn column(index: usize) -> f32 {
    WIDTH - 32.0 - 62.0 * (PERCENTILES.len() - 1 - index) as f32
}

/// Whole microseconds are three decimals of a millisecond.
fn number_ms(value: f64) -> String {
    if value < 0.995 { format!("{value:.3}") } else { short(value) }
}

fn label_ms(tick: f64) -> String {
    if tick < 0.01 { format!("{tick:.3} ms") } else { format!("{} ms", label(tick)) }
}

/// One hue from dark to light, and the longest apart from them.
type Percentile = (&'static str, Colour, fn(&Run) -> f64);
const PERCENTILES: [Percentile; 5] = [
    ("half", 0x00_44_6e, |run| run.latency_us.p50 as f64 / 1000.0),
    ("90 %", palette::BLUE, |run| run.latency_us.p90 as f64 / 1000.0),
    ("99 %", 0x56_b4_e9, |run| run.latency_us.p99 as f64 / 1000.0),
    ("99.9 %", 0xb3_dd_f5, |run| run.latency_us.p99_9 as f64 / 1000.0),
    ("longest", palette::VERMILLION, |run| run.latency_us.max as f64 / 1000.0),
];

const TOP: f32 = 122.0;
const HEADING: f32 = 38.0;
const PITCH: f32 = 26.0;
/// Where names end.
const NAMES: f32 = 200.0;
