//! Our server beside its peers: what each did in a second and in a second of processor time,
//! medians of the rounds with their range.

use super::axis::Axis;
use super::canvas::{Anchor, Canvas, MARGIN, Style, palette};
use super::over_time::capital;
use crate::claims::{self, OURS};
use crate::compare::{Group, Server};
use crate::figures::rounded;
use crate::records::Run;

pub(super) fn picture(groups: &[&Group<'_>]) -> Canvas {
    let lines: usize = groups.iter().map(|group| group.servers.len()).sum();
    let height = TOP + HEADING * groups.len() as f32 + PITCH * lines as f32 + 40.0;
    let mut canvas = Canvas::new(
        WIDTH,
        height,
        "Echo beside other servers",
        "one core for the server, one for the client, in turns; median, and least to greatest of \
         the rounds",
    );
    let axes = [0, 1].map(|panel| axis(groups, panel));
    let mut y = TOP;
    for (panel, (title, _)) in PANELS.iter().enumerate() {
        let left = panel_at(panel).0;
        canvas.text(left, TOP - 8.0, title, Style::plain(13.0).bold().colour(palette::MUTED));
    }
    for group in groups {
        canvas.text(MARGIN, y + HEADING - 12.0, &capital(&group.work), Style::plain(13.0).bold());
        y += HEADING;
        for server in &group.servers {
            let ours = server.label == OURS;
            let style = Style::plain(13.0).anchor(Anchor::End);
            let style = if ours { style.bold() } else { style };
            let name = if ours { "Murre" } else { server.label };
            canvas.text(NAMES - 14.0, y + 17.0, name, style);
            for (axis, (_, value)) in axes.iter().zip(PANELS) {
                bar(&mut canvas, axis, server, value, y + 4.0);
            }
            y += PITCH;
        }
    }
    canvas.source("Records of this repository; numbers in bench-results/README.md");
    canvas
}

/// The scale of a measure, the same for all groups.
fn axis(groups: &[&Group<'_>], panel: usize) -> Axis {
    let value = PANELS[panel].1;
    let servers = groups.iter().flat_map(|group| &group.servers);
    let most = servers.filter_map(|server| server.spread(value)).map(|spread| spread.max);
    let (left, right) = panel_at(panel);
    Axis::linear((0.0, most.fold(1.0, f64::max)), (left, right - 64.0))
}

fn bar(
    canvas: &mut Canvas,
    axis: &Axis,
    server: &Server<'_>,
    value: fn(&Run) -> Option<f64>,
    y: f32,
) {
    let Some(spread) = server.spread(value) else { return };
    let ours = server.label == OURS;
    let colour = if ours { palette::BLUE } else { palette::STONE };
    let zero = axis.at(0.0);
    canvas.rect(zero, y, axis.at(spread.median) - zero, BAR, colour);
    let middle = y + BAR / 2.0;
    let (min, max) = (axis.at(spread.min), axis.at(spread.max));
    canvas.line(&[(min, middle), (max, middle)], palette::INK, 1.2);
    for x in [min, max] {
        canvas.line(&[(x, middle - 3.5), (x, middle + 3.5)], palette::INK, 1.2);
    }
    let style = if ours { Style::plain(12.0).bold() } else { Style::plain(12.0) };
    canvas.text(max + 8.0, middle + 4.5, &rounded(spread.median), style);
}

fn panel_at(panel: usize) -> (f32, f32) {
    let width = (WIDTH - NAMES - MARGIN) / 2.0;
    let left = NAMES + width * panel as f32;
    (left, left + width - 10.0)
}

type Measure = (&'static str, fn(&Run) -> Option<f64>);
const PANELS: [Measure; 2] = [
    ("messages per second", claims::per_second),
    ("messages per second of server CPU time", claims::per_cpu_second),
];

const WIDTH: f32 = 960.0;
const TOP: f32 = 108.0;
const HEADING: f32 = 36.0;
const PITCH: f32 = 26.0;
const BAR: f32 = 18.0;
const NAMES: f32 = 210.0;
