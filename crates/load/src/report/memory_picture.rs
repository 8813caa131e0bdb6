//! What a connection costs beside other systems: all in, stacked, and user space alone, where the
//! systems differ by more than bars could show.

use super::axis::{Axis, label};
use super::canvas::{Anchor, Canvas, Colour, MARGIN, Style, palette, width_of};
use super::memory_rows::Row;
use crate::figures::{Unit, rounded, with_unit};
use crate::memory::SOCKET_BYTES;

/// The kernel's part and ours in one bar.
pub(super) fn stacked(rows: &[Row]) -> Canvas {
    let height = TOP + PITCH * rows.len() as f32 + 64.0;
    let mut canvas = Canvas::new(
        WIDTH,
        height,
        "Memory per idle connection, on the server, all in",
        "bytes; the kernel's part first, for a socket costs the same whoever holds it",
    );
    let keys = [
        (palette::STONE, "kernel: socket, or all of it"),
        (palette::SKY, "kernel: wait, descriptor"),
        (palette::VERMILLION, "user space"),
        (palette::SLATE, "not split"),
        (palette::GRID, "kernel not published, drawn as a bare socket"),
    ];
    legend(&mut canvas, &keys);
    let bytes = Axis::linear((0.0, CUT_BYTES), (NAMES, WIDTH - 190.0));
    let bottom = TOP + PITCH * rows.len() as f32;
    for tick in bytes.ticks(5) {
        let x = bytes.at(tick);
        canvas.line(&[(x, TOP - 6.0), (x, bottom)], palette::GRID, 1.0);
        let style = Style::plain(12.0).colour(palette::MUTED).anchor(Anchor::Middle);
        canvas.text(x, bottom + 16.0, &label(tick), style);
    }
    for (index, row) in rows.iter().enumerate() {
        let y = TOP + PITCH * index as f32;
        name(&mut canvas, row, y);
        let end = bar(&mut canvas, &bytes, row, y);
        let text = match (row.total(), row.user) {
            (Some(total), _) => with_unit(total, Unit::Bytes),
            (None, user) => format!("{} B + kernel", rounded(user.unwrap_or_default())),
        };
        let style = if row.ours { Style::plain(13.0).bold() } else { Style::plain(13.0) };
        canvas.label(end + 8.0, y + BAR - 5.5, &text, style);
        if let (Some(_), Some(user)) = (row.total(), row.user) {
            let x = end + 14.0 + width_of(&text, style);
            let muted = Style::plain(12.0).colour(palette::MUTED);
            canvas.label(x, y + BAR - 5.5, &format!("{} B user", rounded(user)), muted);
        }
    }
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
pub(super) fn user_space(rows: &[Row]) -> Canvas {
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
    let bytes = Axis::logarithmic((40.0, 40_000.0), (NAMES, WIDTH - 120.0));
    for tick in bytes.ticks(4) {
        let x = bytes.at(tick);
        canvas.line(&[(x, TOP - 14.0), (x, bottom)], palette::GRID, 1.0);
        let style = Style::plain(12.0).colour(palette::MUTED).anchor(Anchor::Middle);
        canvas.text(x, bottom + 16.0, &label(tick), style);
    }
    let promised = bytes.at(PROMISED_BYTES);
    canvas.dashed(&[(promised, TOP - 14.0), (promised, bottom)], palette::INK, 1.0);
    let style = Style::plain(12.0).anchor(Anchor::Middle);
    canvas.text(promised, TOP - 20.0, "promised: at most 96 B", style);
    for (index, row) in rows.iter().enumerate() {
        let y = TOP - 8.0 + PITCH * index as f32;
        name(&mut canvas, row, y);
        let user = row.user.unwrap_or_default();
        let (x, middle) = (bytes.at(user), y + BAR / 2.0);
        canvas.line(&[(NAMES, middle), (x, middle)], palette::STONE, 1.0);
        let colour = if row.ours { palette::VERMILLION } else { palette::SLATE };
        canvas.dot(x, middle, 6.0, colour);
        let style = if row.ours { Style::plain(13.0).bold() } else { Style::plain(13.0) };
        canvas.label(x + 13.0, middle + 4.5, &with_unit(user, Unit::Bytes), style);
    }
    canvas.source(SOURCE);
    canvas
}

fn name(canvas: &mut Canvas, row: &Row, y: f32) {
    let style = Style::plain(13.0).anchor(Anchor::End);
    let style = if row.ours { style.bold() } else { style };
    canvas.text(NAMES - 12.0, y + BAR - 5.5, &row.name, style);
}

/// What colours mean, in one line below the subtitle.
pub(super) fn legend(canvas: &mut Canvas, keys: &[(Colour, &str)]) {
    let style = Style::plain(12.0);
    let mut x = MARGIN;
    for (colour, text) in keys {
        canvas.rect(x, 78.0, 12.0, 12.0, *colour);
        canvas.text(x + 18.0, 88.5, text, style);
        x += 18.0 + width_of(text, style) + 22.0;
    }
}

const SOURCE: &str = "Murre: records of this repository. Others: their authors' figures, or \
                      measured by us beside; sources in bench-results/README.md";

/// The promise of SPECIFICATION.md, at 600,000 and at 1,000,000.
const PROMISED_BYTES: f64 = 96.0;

const WIDTH: f32 = 960.0;
const TOP: f32 = 116.0;
const PITCH: f32 = 28.0;
const BAR: f32 = 18.0;
/// Where names end.
const NAMES: f32 = 268.0;
/// Longer bars are cut.
const CUT_BYTES: f64 = 16_000.0;
