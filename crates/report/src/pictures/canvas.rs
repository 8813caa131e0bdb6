//! A picture as a list of shapes, drawn the same as SVG (for the web) and as PNG (for everything
//! else): `svg.rs` and `png.rs`.
//!
//! Text is set in Noto Sans, which comes with the program, so that widths are known here and no
//! machine needs a font.

use ttf_parser::Face;

/// A colour, `0xRRGGBB`.
pub(crate) type Colour = u32;

/// The colours: Okabe and Ito's, which readers who see fewer
/// colours can tell apart, and greys.
pub(crate) mod palette {
    use super::Colour;

    pub(crate) const PAPER: Colour = 0xff_ff_ff;
    pub(crate) const INK: Colour = 0x1f_24_2b;
    /// Labels.
    pub(crate) const MUTED: Colour = 0x5d_66_72;
    pub(crate) const GRID: Colour = 0xe4_e7_eb;
    pub(crate) const BLUE: Colour = 0x00_72_b2;
    pub(crate) const SKY: Colour = 0x8c_cb_f0;
    pub(crate) const VERMILLION: Colour = 0xd5_5e_00;
    pub(crate) const GREEN: Colour = 0x00_9e_73;
    pub(crate) const PURPLE: Colour = 0xcc_79_a7;
    /// Parts that are equal for all systems, and other systems.
    pub(crate) const STONE: Colour = 0xc3_ca_d3;
    pub(crate) const SLATE: Colour = 0x8a_94_a1;
}

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Style {
    pub(crate) size: f32,
    pub(crate) bold: bool,
    pub(crate) colour: Colour,
    pub(crate) anchor: Anchor,
}

/// Which end of a text its position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Style {
    pub(crate) const fn plain(size: f32) -> Style {
        Style { size, bold: false, colour: palette::INK, anchor: Anchor::Start }
    }

    pub(crate) const fn bold(self) -> Style {
        Style { bold: true, ..self }
    }

    pub(crate) const fn colour(self, colour: Colour) -> Style {
        Style { colour, ..self }
    }

    pub(crate) const fn anchor(self, anchor: Anchor) -> Style {
        Style { anchor, ..self }
    }
}

/// One thing that is drawn. Later ones cover earlier ones.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Rect {
        x: f32,
        y: f32,
        width: f32,
        height: f32,
        fill: Colour,
    },
    Line {
        points: Vec<(f32, f32)>,
        colour: Colour,
        width: f32,
        dashed: bool,
    },
    Area {
        points: Vec<(f32, f32)>,
        fill: Colour,
    },
    Dot {
        x: f32,
        y: f32,
        radius: f32,
        fill: Colour,
    },
    /// `y` is the line that letters stand on.
    Text {
        x: f32,
        y: f32,
        text: String,
        style: Style,
    },
}

/// The picture.
#[derive(Clone, Debug)]
pub(crate) struct Canvas {
    pub(crate) width: f32,
    pub(crate) height: f32,
    /// The text for readers who do not see the picture.
    pub(crate) title: String,
    pub(crate) shapes: Vec<Shape>,
}

impl Canvas {
    /// A picture with its title and subtitle, in the common style.
    pub(crate) fn new(width: f32, height: f32, title: &str, subtitle: &str) -> Canvas {
        let mut canvas = Canvas { width, height, title: title.to_owned(), shapes: Vec::new() };
        canvas.rect(0.0, 0.0, width, height, palette::PAPER);
        canvas.text(MARGIN, 38.0, title, Style::plain(20.0).bold());
        canvas.text(MARGIN, 61.0, subtitle, Style::plain(13.0).colour(palette::MUTED));
        canvas
    }

    /// The line at the foot: where the numbers are from.
    pub(crate) fn source(&mut self, text: &str) {
        let style = Style::plain(11.0).colour(palette::MUTED);
        self.text(MARGIN, self.height - 16.0, text, style);
    }

    pub(crate) fn rect(&mut self, x: f32, y: f32, width: f32, height: f32, fill: Colour) {
        self.shapes.push(Shape::Rect { x, y, width, height, fill });
    }

    pub(crate) fn line(&mut self, points: &[(f32, f32)], colour: Colour, width: f32) {
        let points = points.to_vec();
        self.shapes.push(Shape::Line { points, colour, width, dashed: false });
    }

    pub(crate) fn dashed(&mut self, points: &[(f32, f32)], colour: Colour, width: f32) {
        let points = points.to_vec();
        self.shapes.push(Shape::Line { points, colour, width, dashed: true });
    }

    pub(crate) fn area(&mut self, points: Vec<(f32, f32)>, fill: Colour) {
        self.shapes.push(Shape::Area { points, fill });
    }

    pub(crate) fn dot(&mut self, x: f32, y: f32, radius: f32, fill: Colour) {
        self.shapes.push(Shape::Dot { x, y, radius, fill });
    }

    /// Text that lines behind it do not cross.
    pub(crate) fn label(&mut self, x: f32, y: f32, text: &str, style: Style) {
        let width = width_of(text, style);
        let left = match style.anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        let (top, height) = (y - style.size * 0.95, style.size * 1.3);
        self.rect(left - 3.0, top, width + 6.0, height, palette::PAPER);
        self.text(x, y, text, style);
    }

    pub(crate) fn text(&mut self, x: f32, y: f32, text: &str, style: Style) {
        self.shapes.push(Shape::Text { x, y, text: text.to_owned(), style });
    }
}

/// Free space at the left and the right of every picture.
pub(crate) const MARGIN: f32 = 32.0;

/// The font's face.
pub(crate) fn face(bold: bool) -> Face<'static> {
    let bytes = if bold { notosans::BOLD_TTF } else { notosans::REGULAR_TTF };
    Face::parse(bytes, 0).expect("the font that comes along is a font")
}

/// How wide a text is.
pub(crate) fn width_of(text: &str, style: Style) -> f32 {
    let face = face(style.bold);
    let scale = style.size / f32::from(face.units_per_em());
    text.chars().map(|letter| advance(&face, letter) * scale).sum()
}

/// How far a letter moves the next one, in the font's units.
pub(crate) fn advance(face: &Face<'_>, letter: char) -> f32 {
    let glyph = face.glyph_index(letter).unwrap_or_default();
    f32::from(face.glyph_hor_advance(glyph).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that widths grow with letters, size and weight, and that digits are equally wide.
    #[test]
    fn texts_are_as_wide_as_their_letters() {
        let plain = Style::plain(10.0);
        assert_eq!(width_of("111", plain), width_of("888", plain));
        assert!(width_of("mm", plain) > width_of("m", plain));
        assert!((width_of("m", Style::plain(20.0)) - 2.0 * width_of("m", plain)).abs() < 1e-3);
        assert!(width_of("murre", plain.bold()) > width_of("murre", plain));
    }
}
