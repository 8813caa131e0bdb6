//! A picture as PNG, at twice its size so that it is sharp on a dense screen. Drawn by the
//! processor with a font that comes along: the same bytes on every machine.

use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash,
    Transform,
};
use ttf_parser::{Face, OutlineBuilder};

use crate::pictures::canvas::{Anchor, Canvas, Colour, Shape, Style, advance, face, width_of};

pub(crate) fn png(canvas: &Canvas) -> Vec<u8> {
    let (width, height) = ((canvas.width * SCALE) as u32, (canvas.height * SCALE) as u32);
    let mut page = Page {
        pixels: Pixmap::new(width, height).expect("pictures have a size"),
        plain: face(false),
        bold: face(true),
    };
    for shape in &canvas.shapes {
        page.draw(shape);
    }
    page.pixels.encode_png().expect("memory can be written to")
}

const SCALE: f32 = 2.0;

struct Page {
    pixels: Pixmap,
    plain: Face<'static>,
    bold: Face<'static>,
}

impl Page {
    fn draw(&mut self, shape: &Shape) {
        match shape {
            Shape::Rect { x, y, width, height, fill } => {
                // A bar of no width is no bar.
                if let Some(rect) = Rect::from_xywh(*x, *y, *width, *height) {
                    self.fill(&PathBuilder::from_rect(rect), *fill);
                }
            }
            Shape::Line { points, colour, width, dashed } => {
                let dash = if *dashed { StrokeDash::new(vec![5.0, 4.0], 0.0) } else { None };
                let (line_cap, line_join) = (LineCap::Butt, LineJoin::Round);
                let stroke =
                    Stroke { width: *width, dash, line_cap, line_join, ..Stroke::default() };
                if let Some(path) = path(points, false) {
                    self.pixels.stroke_path(&path, &paint(*colour), &stroke, scale(), None);
                }
            }
            Shape::Area { points, fill } => {
                if let Some(path) = path(points, true) {
                    self.fill(&path, *fill);
                }
            }
            Shape::Dot { x, y, radius, fill } => {
                if let Some(path) = PathBuilder::from_circle(*x, *y, *radius) {
                    self.fill(&path, *fill);
                }
            }
            Shape::Text { x, y, text, style } => self.text(*x, *y, text, *style),
        }
    }

    fn text(&mut self, x: f32, y: f32, text: &str, style: Style) {
        let face = if style.bold { &self.bold } else { &self.plain };
        let scale = style.size / f32::from(face.units_per_em());
        let mut left = match style.anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width_of(text, style) / 2.0,
            Anchor::End => x - width_of(text, style),
        };
        let mut outline = Outline { path: PathBuilder::new(), left, y, scale };
        for letter in text.chars() {
            outline.left = left;
            // A space has no outline; neither has a letter that the font does not know.
            let glyph = face.glyph_index(letter).unwrap_or_default();
            let _ = face.outline_glyph(glyph, &mut outline);
            left += advance(face, letter) * scale;
        }
        if let Some(path) = outline.path.finish() {
            self.fill(&path, style.colour);
        }
    }

    fn fill(&mut self, path: &Path, colour: Colour) {
        self.pixels.fill_path(path, &paint(colour), FillRule::Winding, scale(), None);
    }
}

fn scale() -> Transform {
    Transform::from_scale(SCALE, SCALE)
}

fn paint(colour: Colour) -> Paint<'static> {
    let [_, red, green, blue] = colour.to_be_bytes();
    let mut paint = Paint::default();
    paint.set_color(Color::from_rgba8(red, green, blue, u8::MAX));
    paint
}

/// `None` of points that make no line.
fn path(points: &[(f32, f32)], close: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    let (first, rest) = points.split_first()?;
    path.move_to(first.0, first.1);
    rest.iter().for_each(|point| path.line_to(point.0, point.1));
    if close {
        path.close();
    }
    path.finish()
}

/// Letters, from the font's units to where they stand. The font counts upwards, pictures down.
struct Outline {
    path: PathBuilder,
    left: f32,
    y: f32,
    scale: f32,
}

impl Outline {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.left + x * self.scale, self.y - y * self.scale)
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.path.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.path.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.path.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.path.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::canvas::palette;

    /// Shows the scale, the colours, and that text leaves ink to the left of where it ends.
    #[test]
    fn shapes_are_where_they_were_put() {
        let mut canvas = Canvas::new(60.0, 120.0, "", "");
        canvas.rect(10.0, 80.0, 20.0, 10.0, palette::BLUE);
        canvas.text(50.0, 110.0, "HHH", Style::plain(20.0).anchor(Anchor::End));
        let bytes = png(&canvas);
        let pixels = Pixmap::decode_png(&bytes).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (120, 240));
        let at = |x: f32, y: f32| {
            let pixel = pixels.pixel((x * SCALE) as u32, (y * SCALE) as u32).unwrap();
            u32::from_be_bytes([0, pixel.red(), pixel.green(), pixel.blue()])
        };
        assert_eq!((at(15.0, 85.0), at(35.0, 85.0)), (palette::BLUE, palette::PAPER));
        let ink = (10..60).filter(|&x| at(x as f32, 103.0) != palette::PAPER).collect::<Vec<_>>();
        assert!(!ink.is_empty() && ink.iter().all(|&x| x < 50), "{ink:?}");
        assert_eq!(bytes, png(&canvas));
    }
}
