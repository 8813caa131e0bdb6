//! The cost of a connection beside other systems: all in, stacked, and user space alone, where the
//! systems differ by more than bars could show.

use crate::figures::{Unit, rounded, with_unit};
use crate::pictures::axis::Axis;
use crate::pictures::canvas::{Anchor, Canvas, Colour, Style, palette, width_of};
use crate::pictures::frame::{self, WIDTH, weight};
use crate::tables::memory_rows::Row;
use murre_record::SOCKET_BYTES;

/// The kernel's part and ours in one bar.
pub(crate) fn stacked(rows: &[Row]) -> Canvas {
    let height = TOP + PITCH * rows.len() as f32 + 64.0;
    let mut canvas = Canvas::new(
        WIDTH,
        height,
        "Memory per idle connection, on the server, all in",
        "bytes; the kernel's part first, because a socket costs the same in every server",
    );
    let keys = [
        (palette::STONE, "kernel: socket, or all of it"),
        (palette::SKY, "kernel: wait, descriptor"),
        (palette::VERMILLION, "user space"),
        (palette::SLATE, "not split"),
        (palette::GRID, "kernel not published, drawn as a bare socket"),
    ];
    frame::legend(&mut canvas, &keys);
    let bytes = Axis::linear((0.0, CUT_BYTES), (NAMES, WIDTH - 190.0));
    let bottom = TOP + PITCH * rows.len() as f32;
    frame::scale(&mut canvas, &bytes, &bytes.ticks(5), (TOP - 6.0, bottom), bytes_label);
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + PITCH * index as f32;
        frame::name(&mut canvas, NAMES - 12.0, y + BAR / 2.0, &row.name, row.ours);
        let end = bar(&mut canvas, &bytes, row, y);
        let text = match (row.total(), row.user) {
            (Some(total), _) => with_unit(total, Unit::Bytes),
            (None, user) => format!("{} B + kernel", rounded(user.unwrap_or_default())),
        };
        let style = weight(13.0, row.ours);
        canvas.label(end + 8.0, y + BAR - 5.5, &text, style);
        if let (Some(_), Some(user)) = (row.total(), row.user) {
            let x = end + 14.0 + width_of(&text, style);
            let muted = Style::plain(12.0).colour(palette::MUTED);
            canvas.label(x, y + BAR - 5.5, &format!("{} B user", rounded(user)), muted);
        }
    }
    // The socket costs the same in all systems: no bar can end before it.
    let socket = bytes.at(SOCKET_BYTES);
    canvas.dashed(&[(socket, TOP - 6.0), (socket, bottom)], palette::INK, 1.0);
    let style = Style::plain(12.0).anchor(Anchor::Middle);
    let floor = format!("a bare socket: {}", with_unit(SOCKET_BYTES, Unit::Bytes));
    canvas.text(socket, TOP - 11.0, &floor, style);
    canvas.source(SOURCE);
    canvas
}

/// Draws a row's parts one behind the other and gives where they end.
fn bar(canvas: &mut Canvas, bytes: &Axis, row: &Row, y: f32) -> f32 {
    let parts: [(f64, Colour); 3] = match (row.kernel, row.user) {
        (Some(kernel), Some(user)) => [
            (kernel.socket, palette::STONE),
            (kernel.wait, palette::SKY),
            (user, palette::VERMILLION),
        ],
        (Some(all), None) => {
            [(all.socket, palette::SLATE), (0.0, palette::SLATE), (0.0, palette::SLATE)]
        }
        (None, user) => [
            (SOCKET_BYTES, palette::GRID),
            (user.unwrap_or_default(), palette::VERMILLION),
            (0.0, palette::VERMILLION),
        ],
    };
    let mut from = 0.0;
    for (part, colour) in parts {
        let (left, right) = (bytes.at(from), bytes.at(from + part));
        canvas.rect(left, y, right - left, BAR, colour);
        from += part;
    }
    let end = bytes.at(from);
    if from > CUT_BYTES {
        // The bar goes on beyond the picture.
        for x in [end - 16.0, end - 10.0] {
            let cut = [(x, y + BAR + 2.0), (x + 6.0, y - 2.0)];
            canvas.line(&cut, palette::PAPER, 2.5);
        }
    }
    end
}

/// User space alone, each ten times as far as the one before.
pub(crate) fn user_space(rows: &[Row]) -> Canvas {
    let mut rows: Vec<&Row> = rows.iter().filter(|row| row.user.is_some()).collect();
    rows.sort_by(|one, other| {
        one.user.unwrap_or_default().total_cmp(&other.user.unwrap_or_default())
    });
    let bottom = TOP - 8.0 + PITCH * rows.len() as f32;
    let mut canvas = Canvas::new(
        WIDTH,
        bottom + 64.0,
        "User space per idle connection",
        "bytes, on a logarithmic scale; the kernel's part left out",
    );
    let most = rows.last().and_then(|row| row.user).unwrap_or_default();
    let bytes = Axis::logarithmic((40.0, most.max(20_000.0) * 1.2), (NAMES, WIDTH - 120.0));
    frame::scale(&mut canvas, &bytes, &bytes.ticks(4), (TOP - 14.0, bottom), bytes_label);
    let promised = bytes.at(PROMISED_BYTES);
    canvas.dashed(&[(promised, TOP - 14.0), (promised, bottom)], palette::INK, 1.0);
    let style = Style::plain(12.0).anchor(Anchor::Middle);
    canvas.text(promised, TOP - 20.0, "promised: at most 96 B", style);
    for (index, row) in rows.iter().enumerate() {
        let y = TOP - 8.0 + PITCH * index as f32;
        let middle = y + BAR / 2.0;
        frame::name(&mut canvas, NAMES - 12.0, middle, &row.name, row.ours);
        let user = row.user.unwrap_or_default();
        let x = bytes.at(user);
        canvas.line(&[(NAMES, middle), (x, middle)], palette::STONE, 1.0);
        let colour = if row.ours { palette::VERMILLION } else { palette::SLATE };
        canvas.dot(x, middle, 6.0, colour);
        let text = with_unit(user, Unit::Bytes);
        canvas.label(x + 13.0, middle + 4.5, &text, weight(13.0, row.ours));
    }
    canvas.source(SOURCE);
    canvas
}

fn bytes_label(bytes: f64) -> String {
    format!("{} B", rounded(bytes))
}

const SOURCE: &str = "From records of this repository, or published by the authors: bench-results/README.md \
                      names each source";

/// The promise of SPECIFICATION.md, at 600,000 and at 1,000,000.
const PROMISED_BYTES: f64 = 96.0;

const TOP: f32 = 120.0;
const PITCH: f32 = 28.0;
const BAR: f32 = 18.0;
/// Where names end.
const NAMES: f32 = 268.0;
/// Longer bars are cut.
const CUT_BYTES: f64 = 16_000.0;
