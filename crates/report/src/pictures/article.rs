//! The comparison of 2012 as a picture: ours beside the four that were published.

use crate::figures::short;
use crate::pictures::axis::{Axis, label};
use crate::pictures::canvas::{Anchor, Canvas, Colour, MARGIN, Style, palette, width_of};
use crate::pictures::frame::WIDTH;
use crate::published::PUBSUB;
use crate::records::{RecordPlace, Run};

/// Messages per second against connections, both on logarithmic scales.
pub(crate) fn picture(steps: &[(&RecordPlace, &Run)]) -> Canvas {
    let title = "Publish and subscribe: messages delivered per second";
    let subtitle = "about 1.4 KB each, to the subscribers of 10,000 identifiers; both scales are \
                    logarithmic; the four of 2012 as far as they were published";
    let mut canvas = Canvas::new(WIDTH, HEIGHT, title, subtitle);
    let ours: Vec<_> = steps
        .iter()
        .filter_map(|(_, run)| Some((run.connections() as f64, run.hold?.requests_per_second)))
        .collect();
    let theirs = || PUBSUB.iter().flat_map(|server| server.points);
    let all = || ours.iter().copied().chain(theirs());
    let (least, most) =
        all().fold((f64::MAX, 0.0_f64), |(least, most), (x, _)| (least.min(x), most.max(x)));
    let (lowest, highest) =
        all().fold((f64::MAX, 0.0_f64), |(least, most), (_, y)| (least.min(y), most.max(y)));
    let across = Axis::logarithmic((least / 1.15, most * 1.15), (LEFT, WIDTH - RIGHT));
    let lowest = 10_f64.powf(lowest.max(1.0).log10().floor());
    let up = Axis::logarithmic((lowest, highest * 2.0), (BOTTOM, TOP));
    grid(&mut canvas, &across, &up, &ours);
    for (server, colour) in PUBSUB.iter().zip(COLOURS) {
        let points = server.points.map(|(x, y)| (across.at(x), up.at(y)));
        canvas.dashed(&points, colour, 2.0);
        for (x, y) in points {
            canvas.dot(x, y, 4.0, colour);
        }
    }
    names(&mut canvas, &across, &up);
    let line: Vec<_> = ours.iter().map(|&(x, y)| (across.at(x), up.at(y))).collect();
    canvas.line(&line, palette::BLUE, 3.0);
    for &(x, y) in &line {
        canvas.dot(x, y, 5.0, palette::BLUE);
    }
    let mut behind = f32::MIN;
    for (&(x, y), &(_, rate)) in line.iter().zip(&ours) {
        let style = Style::plain(12.0).bold().colour(palette::BLUE).anchor(Anchor::Middle);
        let (text, half) = (thousands(rate), width_of(&thousands(rate), style) / 2.0);
        // Above its point, or below where its neighbour leaves no room.
        let above = x - half > behind + 6.0;
        canvas.text(x, if above { y - 12.0 } else { y + 24.0 }, &text, style);
        behind = if above { x + half } else { f32::MIN };
    }
    if let Some(&(x, y)) = line.last() {
        let style = Style::plain(14.0).bold().colour(palette::BLUE);
        canvas.text(x + 14.0, y + 5.0, "Murre", style);
    }
    let file = steps.last().map(|(place, run)| crate::pictures::over_time::source(place, run));
    canvas.source(&file.unwrap_or_default());
    canvas
}

fn grid(canvas: &mut Canvas, across: &Axis, up: &Axis, ours: &[(f64, f64)]) {
    let muted = Style::plain(12.0).colour(palette::MUTED);
    for tick in up.ticks(0) {
        let y = up.at(tick);
        canvas.line(&[(LEFT, y), (WIDTH - RIGHT, y)], palette::GRID, 1.0);
        canvas.text(LEFT - 10.0, y + 4.0, &label(tick), muted.anchor(Anchor::End));
    }
    // The steps themselves say more than powers of ten.
    let mut behind = f32::MIN;
    for &(connections, _) in ours {
        let (x, text) = (across.at(connections), label(connections));
        canvas.line(&[(x, TOP), (x, BOTTOM)], palette::GRID, 1.0);
        let half = width_of(&text, muted) / 2.0;
        if x - half > behind + 4.0 {
            canvas.text(x, BOTTOM + 18.0, &text, muted.anchor(Anchor::Middle));
            behind = x + half;
        }
    }
    let title = Style::plain(13.0).bold().colour(palette::MUTED);
    canvas.text(MARGIN, TOP - 14.0, "messages per second", title);
    canvas.text(WIDTH - RIGHT, BOTTOM + 40.0, "connections", title.anchor(Anchor::End));
}

/// Names where there is room: two servers did nearly the same.
fn names(canvas: &mut Canvas, across: &Axis, up: &Axis) {
    for (index, (server, colour)) in PUBSUB.iter().zip(COLOURS).enumerate() {
        let [first, last] = server.points.map(|(x, y)| (across.at(x), up.at(y)));
        let style = Style::plain(13.0).bold().colour(colour);
        let name = format!("{}, {}", server.name, short(server.points[1].1));
        // The last of them ends on the line of the one before.
        match index + 1 == PUBSUB.len() {
            true => canvas.text(first.0, first.1 + 22.0, &name, style),
            false => canvas.text(last.0 + 10.0, last.1 + 4.5, &name, style),
        }
    }
}

/// `123k`, `88k`, `4.1k`, `950`.
fn thousands(value: f64) -> String {
    match value {
        large if large >= 9_950.0 => format!("{:.0}k", large / 1000.0),
        middle if middle >= 1000.0 => format!("{:.1}k", middle / 1000.0),
        small => format!("{small:.0}"),
    }
}

const COLOURS: [Colour; 4] = [palette::VERMILLION, palette::GREEN, palette::SLATE, palette::PURPLE];

const HEIGHT: f32 = 520.0;
const TOP: f32 = 112.0;
const BOTTOM: f32 = 430.0;
const LEFT: f32 = 84.0;
/// For the names at the right end.
const RIGHT: f32 = 104.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::article::steps;
    use crate::tables::article::tests::records;

    /// Shows that nothing is drawn outside and that all names are there.
    #[test]
    fn the_picture_has_every_step_and_every_server() {
        let records = records(&[(500, 9e4), (25_000, 8e4), (100_000, 6e4)]);
        let canvas = picture(&steps(&records));
        let svg = crate::pictures::svg::svg(&canvas);
        for name in ["Murre", "Vert.x, 5,000", "Node ws, 240", "Netty 4 beta", "Atmosphere", "100k"]
        {
            assert!(svg.contains(name), "no {name} in {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
