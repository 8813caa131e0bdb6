//! Connections and requests per second over the time of one run: two panels over one time axis,
//! for one unit each.

use crate::figures::{grouped, rounded, short};
use crate::pictures::axis::{Axis, label, room_above};
use crate::pictures::canvas::{Anchor, Canvas, Colour, MARGIN, Style, palette, width_of};
use crate::pictures::frame::{WIDTH, capital};
use crate::records::{RecordPlace, Run, short_commit, work};
use murre_record::Scenario;

pub(crate) fn picture(place: &RecordPlace, run: &Run) -> Canvas {
    let cores = run.machine.cores;
    let title = capital(&work(run));
    let subtitle = format!("every answer checked; both ends on one machine with {cores} cores");
    let mut canvas = Canvas::new(WIDTH, HEIGHT, &title, &subtitle);
    let seconds = run.series.connections.len().max(1) as f64;
    let time = Axis::linear((0.0, seconds), (LEFT, WIDTH - RIGHT));

    let mut connections = points(&run.series.connections);
    // When all were up is known better than to the second.
    let full = (run.connect.seconds, run.connections() as f64);
    let behind = connections.partition_point(|point| point.0 < full.0);
    connections.insert(behind, full);
    let panel = Panel {
        top: 112.0,
        bottom: 270.0,
        title: "connections",
        colour: palette::BLUE,
        time,
        reference: None,
    };
    let values = panel.draw(&mut canvas, &connections);
    reached(&mut canvas, &time, &values, run);

    let requests = points(&run.series.requests);
    let (what, published) = asked(run.scenario);
    // A small run is not beside the published one.
    let published = published.filter(|_| run.connections() >= COMPARABLE);
    let panel = Panel {
        top: 322.0,
        bottom: 480.0,
        title: what,
        colour: palette::VERMILLION,
        time,
        reference: published,
    };
    panel.draw(&mut canvas, &requests);
    sustained(&mut canvas, &time, run);

    for second in time.ticks(8) {
        let style = Style::plain(12.0).colour(palette::MUTED).anchor(Anchor::Middle);
        canvas.text(time.at(second), 500.0, &format!("{} s", label(second)), style);
    }
    canvas.source(&source(place, run));
    canvas
}

/// Where the numbers of a picture are from.
pub(crate) fn source(place: &RecordPlace, run: &Run) -> String {
    let commit = short_commit(run.commit.as_deref());
    format!(
        "records/{}, line {} · commit {commit} · kernel {} · {}",
        place.file, place.line, run.machine.kernel, run.started
    )
}

/// The requests of a scenario, and the rate that others have published.
fn asked(scenario: Scenario) -> (&'static str, Option<(f64, &'static str)>) {
    match scenario {
        Scenario::HttpKeepalive => {
            ("requests per second", Some((18_760.0, "http-kit, 2013: 18,760/s")))
        }
        Scenario::WsUpper => ("texts per second", Some((20_000.0, "Gretty, 2010: 20,000/s"))),
        Scenario::WsIdle | Scenario::Storm | Scenario::Backend => {
            ("pings answered per second", None)
        }
        Scenario::Phoenix => {
            ("heartbeats per second", Some((26_700.0, "800,000 clients, 2020: 26,700/s")))
        }
        Scenario::Interest => ("changes of subscriptions per second", None),
        Scenario::Presence => ("joins and leaves per second", None),
        Scenario::Abuse | Scenario::Soak => ("answers per second", None),
        Scenario::WsEcho | Scenario::Pubsub => ("messages per second", None),
        Scenario::Quotes => ("quotes per second", None),
        Scenario::RequestReply => ("requests per second", None),
        Scenario::Fanout | Scenario::Churn | Scenario::Recover => ("deliveries per second", None),
    }
}

/// A sample is taken at the end of each second.
fn points(values: &[u64]) -> Vec<(f64, f64)> {
    let ends = (1..).map(f64::from);
    let samples = ends.zip(values).map(|(second, &value)| (second, value as f64));
    std::iter::once((0.0, 0.0)).chain(samples).collect()
}

/// One unit over time.
struct Panel {
    top: f32,
    bottom: f32,
    title: &'static str,
    colour: Colour,
    time: Axis,
    /// The published rate.
    reference: Option<(f64, &'static str)>,
}

impl Panel {
    /// Draws it and gives its scale.
    fn draw(&self, canvas: &mut Canvas, points: &[(f64, f64)]) -> Axis {
        let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let most = self.reference.map_or(most, |(value, _)| most.max(value));
        let values = Axis::linear((0.0, room_above(most)), (self.bottom, self.top));
        let muted = Style::plain(12.0).colour(palette::MUTED);
        for tick in values.ticks(4) {
            let y = values.at(tick);
            canvas.line(&[(LEFT, y), (WIDTH - RIGHT, y)], palette::GRID, 1.0);
            canvas.text(LEFT - 10.0, y + 4.0, &label(tick), muted.anchor(Anchor::End));
        }
        let title = Style::plain(13.0).bold().colour(self.colour);
        canvas.text(MARGIN, self.top - 14.0, self.title, title);
        let line: Vec<_> = points.iter().map(|&(x, y)| (self.time.at(x), values.at(y))).collect();
        let mut area = line.clone();
        let ends = [line.last(), line.first()].map(|point| point.map_or(LEFT, |point| point.0));
        area.extend(ends.map(|x| (x, self.bottom)));
        canvas.area(area, pale(self.colour));
        if let Some((value, _)) = self.reference {
            let y = values.at(value);
            canvas.dashed(&[(LEFT, y), (WIDTH - RIGHT, y)], palette::INK, 1.0);
        }
        canvas.line(&line, self.colour, 2.0);
        if let Some((value, name)) = self.reference {
            let style = Style::plain(12.0).anchor(Anchor::End);
            canvas.text(WIDTH - RIGHT - 6.0, values.at(value) + 15.0, name, style);
        }
        values
    }
}

/// A point where all connections were up.
fn reached(canvas: &mut Canvas, time: &Axis, values: &Axis, run: &Run) {
    let connections = run.connections();
    let (x, y) = (time.at(run.connect.seconds), values.at(connections as f64));
    canvas.dot(x, y, 4.5, palette::BLUE);
    let mut text = format!(
        "{} after {} s, {}/s",
        grouped(connections),
        short(run.connect.seconds),
        rounded(run.connect.connections_per_second)
    );
    if run.scenario == Scenario::HttpKeepalive && connections >= COMPARABLE {
        text += " (http-kit, 2013: 183 s)";
    }
    let style = Style::plain(12.0).bold();
    // Beside the point, on the side that has room.
    let fits = x + 12.0 + width_of(&text, style) < WIDTH - RIGHT;
    let (x, anchor) = if fits { (x + 10.0, Anchor::Start) } else { (x - 10.0, Anchor::End) };
    canvas.text(x, y - 9.0, &text, style.anchor(anchor));
}

/// The mean while all were held, above the panel's right end.
fn sustained(canvas: &mut Canvas, time: &Axis, run: &Run) {
    let Some(hold) = &run.hold else { return };
    let text = format!(
        "{}/s over {} s, {} wrong or lost",
        rounded(hold.requests_per_second),
        short(hold.seconds),
        grouped(run.faults())
    );
    let style = Style::plain(12.0).bold().anchor(Anchor::End);
    canvas.text(time.at(f64::INFINITY), 308.0, &text, style);
}

/// A colour mixed with much of the paper.
fn pale(colour: Colour) -> Colour {
    let mixed = |shift: u32| ((((colour >> shift) & 0xff) * 12 + 0xff * 88) / 100) << shift;
    mixed(16) | mixed(8) | mixed(0)
}

/// As many connections as the published runs had, or nearly.
const COMPARABLE: u64 = 500_000;

const HEIGHT: f32 = 540.0;
/// The start of the time axis, behind the labels, and the space behind its end.
const LEFT: f32 = 84.0;
const RIGHT: f32 = 40.0;
