//! Our server beside its peers, two measures of each: medians of the rounds with their range. The
//! order is that of the second measure.

use crate::compare::{Group, Server};
use crate::figures::rounded;
use crate::pictures::axis::Axis;
use crate::pictures::canvas::{Anchor, Canvas, MARGIN, Style, palette};
use crate::pictures::frame::{self, WIDTH, weight};
use crate::published::peer_name;
use crate::records::{OURS, Run};

/// A panel: its title and its value.
pub(crate) type Measure = (&'static str, fn(&Run) -> Option<f64>);

pub(crate) fn picture(title: &str, groups: &[&Group<'_>], panels: [Measure; 2]) -> Canvas {
    let lines: usize = groups.iter().map(|group| group.servers.len()).sum();
    let height = TOP + HEADING * groups.len() as f32 + PITCH * lines as f32 + 40.0;
    let subtitle = "one core for the server, one for the client, in turns; median, and least to \
                    greatest of the rounds";
    let mut canvas = Canvas::new(WIDTH, height, title, subtitle);
    let axes = [0, 1].map(|panel| axis(groups, panels[panel].1, panel));
    for (panel, (title, _)) in panels.iter().enumerate() {
        let style = Style::plain(13.0).bold().colour(palette::MUTED);
        canvas.text(panel_at(panel).0, TOP - 8.0, title, style);
    }
    let mut y = TOP;
    for group in groups {
        frame::heading(&mut canvas, y + HEADING - 12.0, &group.work);
        y += HEADING;
        for server in ordered(group, panels[1].1) {
            let middle = y + 4.0 + BAR / 2.0;
            let ours = server.label == OURS;
            frame::name(&mut canvas, NAMES - 14.0, middle, &peer_name(server.label), ours);
            for (axis, (_, value)) in axes.iter().zip(panels) {
                bar(&mut canvas, axis, server, value, middle);
            }
            y += PITCH;
        }
    }
    canvas.source("Records of this repository; numbers in bench-results/README.md");
    canvas
}

/// The most first.
fn ordered<'g, 'r>(group: &'g Group<'r>, value: fn(&Run) -> Option<f64>) -> Vec<&'g Server<'r>> {
    let mut servers: Vec<_> = group.servers.iter().collect();
    let median = |server: &Server<'_>| server.spread(value).map_or(0.0, |spread| spread.median);
    servers.sort_by(|one, other| median(other).total_cmp(&median(one)));
    servers
}

/// The scale of a measure, the same for all groups.
fn axis(groups: &[&Group<'_>], value: fn(&Run) -> Option<f64>, panel: usize) -> Axis {
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
    middle: f32,
) {
    let zero = axis.at(0.0);
    let Some(spread) = server.spread(value) else {
        let style = Style::plain(12.0).colour(palette::MUTED);
        canvas.text(zero, middle + 4.5, "not measured", style);
        return;
    };
    let ours = server.label == OURS;
    let colour = if ours { palette::BLUE } else { palette::STONE };
    canvas.rect(zero, middle - BAR / 2.0, axis.at(spread.median) - zero, BAR, colour);
    let (min, max) = (axis.at(spread.min), axis.at(spread.max));
    canvas.line(&[(min, middle), (max, middle)], palette::INK, 1.2);
    for x in [min, max] {
        canvas.line(&[(x, middle - 3.5), (x, middle + 3.5)], palette::INK, 1.2);
    }
    let style = weight(12.0, ours).anchor(Anchor::Start);
    canvas.text(max + 8.0, middle + 4.5, &rounded(spread.median), style);
}

fn panel_at(panel: usize) -> (f32, f32) {
    let width = (WIDTH - NAMES - MARGIN) / 2.0;
    let left = NAMES + width * panel as f32;
    (left, left + width - 10.0)
}

const TOP: f32 = 108.0;
const HEADING: f32 = 36.0;
const PITCH: f32 = 26.0;
const BAR: f32 = 18.0;
/// Where names end.
const NAMES: f32 = 210.0;
