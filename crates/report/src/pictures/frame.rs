//! Common parts of the pictures: width, legend, scales, names of rows.

use crate::pictures::axis::Axis;
use crate::pictures::canvas::{Anchor, Canvas, Colour, MARGIN, Style, palette, width_of};

pub(crate) const WIDTH: f32 = 960.0;

/// Text in a row: ours stands out.
pub(crate) fn weight(size: f32, ours: bool) -> Style {
    let style = Style::plain(size);
    if ours { style.bold() } else { style }
}

/// The legend, in one line below the subtitle.
pub(crate) fn legend(canvas: &mut Canvas, keys: &[(Colour, &str)]) {
    let style = Style::plain(12.0);
    let mut x = MARGIN;
    for (colour, text) in keys {
        canvas.rect(x, 78.0, 12.0, 12.0, *colour);
        canvas.text(x + 18.0, 88.5, text, style);
        x += 18.0 + width_of(text, style) + 22.0;
    }
}

/// A line for each of these numbers, from `top` to `bottom`, its label below.
pub(crate) fn scale(
    canvas: &mut Canvas,
    axis: &Axis,
    numbers: &[f64],
    (top, bottom): (f32, f32),
    label: impl Fn(f64) -> String,
) {
    let style = Style::plain(12.0).colour(palette::MUTED).anchor(Anchor::Middle);
    for &number in numbers {
        let x = axis.at(number);
        canvas.line(&[(x, top), (x, bottom)], palette::GRID, 1.0);
        canvas.text(x, bottom + 16.0, &label(number), style);
    }
}

/// The name of a row, which ends at `right`, in the middle of its height.
pub(crate) fn name(canvas: &mut Canvas, right: f32, middle: f32, name: &str, ours: bool) {
    canvas.text(right, middle + 4.5, name, weight(13.0, ours).anchor(Anchor::End));
}

/// The heading of several rows, which lines behind it do not cross.
pub(crate) fn heading(canvas: &mut Canvas, y: f32, text: &str) {
    canvas.label(MARGIN, y, &capital(text), Style::plain(13.0).bold());
}

pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
