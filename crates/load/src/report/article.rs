//! The comparison of 2012, step by step: ours beside the four that were published, as a table and as a
//! picture.

use super::axis::{Axis, label};
use super::canvas::{Anchor, Canvas, Colour, MARGIN, Style, palette, width_of};
use super::frame::WIDTH;
use super::markdown::{link, table};
use crate::claims::Needs;
use crate::figures::{Unit, grouped, rounded, short, with_unit};
use crate::promises::R3;
use crate::published::{PUBSUB, PubSubServer};
use crate::records::{Place, Records, Run};

/// Of each number of connections the newest run of ours, the fewest first.
pub(super) fn steps(records: &Records) -> Vec<(&Place, &Run)> {
    let needs = Needs { conns: (1, u64::MAX), ..R3 };
    let ours = records.runs().filter(|(_, run)| run.is_ours() && needs.unmet(run).is_none());
    let mut steps: Vec<_> = ours.filter(|(_, run)| run.hold.is_some()).collect();
    steps.sort_by_key(|(place, run)| (run.connections(), &run.started, *place));
    steps.reverse();
    steps.dedup_by_key(|(_, run)| run.connections());
    steps.reverse();
    steps
}

/// The article's columns of all steps, with what the others did with as many connections.
pub(super) fn section(records: &Records) -> String {
    let steps = steps(records);
    if steps.is_empty() {
        return String::new();
    }
    let mut headings = vec![
        "connections>",
        "connected>",
        "average response>",
        "average size>",
        "messages>",
        "messages per second>",
        "wall time>",
        "faults>",
    ];
    let published = PUBSUB.each_ref().map(|server| format!("{}>", server.name));
    headings.extend(published.iter().map(String::as_str));
    headings.push("record");
    let rows: Vec<_> = steps.iter().map(|(place, run)| row(place, run)).collect();
    let ends: Vec<_> =
        PUBSUB.iter().map(|server| format!("{} {}", server.name, server.end)).collect();
    format!(
        "Each step of ours, as its authors tabulated theirs; beside it the messages per second that \
         they have published. {}.\n\n{}\n",
        ends.join("; "),
        table(&headings, &rows)
    )
}

fn row(place: &Place, run: &Run) -> Vec<String> {
    let last = run.article.as_ref().and_then(|article| article.rows.last());
    let of = |value: Option<f64>, unit| value.map_or(String::new(), |value| with_unit(value, unit));
    let hold = run.hold.as_ref();
    let mut cells = vec![
        grouped(run.connections()),
        last.map_or(String::new(), |row| grouped(row.connected)),
        of(last.map(|row| row.average_response_ms), Unit::Millis),
        of(last.map(|row| row.average_bytes), Unit::Bytes),
        of(hold.map(|hold| hold.requests as f64), Unit::Count),
        of(hold.map(|hold| hold.requests_per_second), Unit::Count),
        of(hold.map(|hold| hold.seconds), Unit::Seconds),
        grouped(run.faults()),
    ];
    cells.extend(PUBSUB.iter().map(|server| published(server, run.connections() as f64)));
    cells.push(link(place, ""));
    cells
}

/// What a server did with so many connections, if that was published.
fn published(server: &PubSubServer, connections: f64) -> String {
    let [first, last] = server.points;
    let even = first.1 == last.1 && (first.0..=last.0).contains(&connections);
    match server.points.iter().find(|point| point.0 == connections) {
        Some(point) => rounded(point.1),
        None if even => rounded(first.1),
        None => String::new(),
    }
}

/// Messages per second against connections, both on logarithmic scales.
pub(super) fn picture(steps: &[(&Place, &Run)]) -> Canvas {
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
    let file = steps.last().map(|(place, run)| super::over_time::source(place, run));
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
    use crate::records::{Content, Line};

    fn records(steps: &[(u64, f64)]) -> Records {
        let records = Records::fixture();
        let (_, run) = records.runs().find(|(_, run)| run.is_ours()).expect("one");
        let mut run = run.clone();
        run.scenario = crate::cli::Scenario::Pubsub;
        run.parameters.payload = 1400;
        run.parameters.rate = None;
        let line = |(index, &(conns, rate)): (usize, &(u64, f64))| {
            let mut run = run.clone();
            (run.parameters.conns, run.connect.connections) = (conns, conns);
            run.started = format!("2026-12-01T00:00:{index:02}Z");
            run.hold.as_mut().expect("held").requests_per_second = rate;
            let place = Place { file: "2026-12-01-pubsub.jsonl".to_owned(), line: index + 1 };
            Line { place, content: Content::Run(Box::new(run)) }
        };
        let lines = steps.iter().enumerate().map(line).collect();
        Records { lines, warnings: Vec::new() }
    }

    #[test]
    fn the_newest_run_of_each_step_is_beside_the_published() {
        // Shows the order of steps, that a later run of one replaces an earlier, and which published
        // figure is beside which.
        let records = records(&[(1000, 9e4), (25_000, 8e4), (500, 7e4), (1000, 9.5e4)]);
        let connections: Vec<_> =
            steps(&records).iter().map(|(at, run)| (run.connections(), at.line)).collect();
        assert_eq!(connections, [(500, 3), (1000, 4), (25_000, 2)]);
        let section = section(&records);
        let rows: Vec<_> = section.lines().filter(|line| line.contains("jsonl#L")).collect();
        assert!(
            rows[0].contains("| 70,000 |") && rows[0].contains("|  |  | 950 | 930 |"),
            "{section}"
        );
        assert!(
            rows[1].contains("| 95,000 |") && rows[1].contains("| 5,000 | 4,252 | 950 | 930 |")
        );
        assert!(rows[2].contains("| 80,000 |") && rows[2].contains("| 5,000 |  |  |  |"));
        assert_eq!(super::section(&Records::default()), "");
    }

    #[test]
    fn the_picture_has_every_step_and_every_server() {
        // Shows that nothing is drawn outside and that all names are there.
        let records = records(&[(500, 9e4), (25_000, 8e4), (100_000, 6e4)]);
        let canvas = picture(&steps(&records));
        let svg = super::super::svg::svg(&canvas);
        for name in ["Murre", "Vert.x, 5,000", "Node ws, 240", "Netty 4 beta", "Atmosphere", "100k"]
        {
            assert!(svg.contains(name), "no {name} in {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
