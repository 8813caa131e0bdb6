//! A picture as SVG.

use std::fmt::Write;

use crate::pictures::canvas::{Anchor, Canvas, Shape};

pub(crate) fn svg(canvas: &Canvas) -> String {
    let (width, height) = (number(canvas.width), number(canvas.height));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" font-family=\"{FONTS}\">\n\
         <title>{}</title>\n",
        escaped(&canvas.title)
    );
    for shape in &canvas.shapes {
        svg += &element(shape);
        svg.push('\n');
    }
    svg + "</svg>\n"
}

fn element(shape: &Shape) -> String {
    match shape {
        Shape::Rect { x, y, width, height, fill } => format!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#{fill:06x}\"/>",
            number(*x),
            number(*y),
            number(*width),
            number(*height)
        ),
        Shape::Line { points, colour, width, dashed } => format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#{colour:06x}\" stroke-width=\"{}\" \
             stroke-linejoin=\"round\"{}/>",
            list(points),
            number(*width),
            if *dashed { " stroke-dasharray=\"5 4\"" } else { "" }
        ),
        Shape::Area { points, fill } => {
            format!("<polygon points=\"{}\" fill=\"#{fill:06x}\"/>", list(points))
        }
        Shape::Dot { x, y, radius, fill } => format!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"#{fill:06x}\"/>",
            number(*x),
            number(*y),
            number(*radius)
        ),
        Shape::Text { x, y, text, style } => format!(
            "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"#{:06x}\"{}{}>{}</text>",
            number(*x),
            number(*y),
            number(style.size),
            style.colour,
            if style.bold { " font-weight=\"700\"" } else { "" },
            match style.anchor {
                Anchor::Start => "",
                Anchor::Middle => " text-anchor=\"middle\"",
                Anchor::End => " text-anchor=\"end\"",
            },
            escaped(text)
        ),
    }
}

fn list(points: &[(f32, f32)]) -> String {
    let mut list = String::new();
    for (x, y) in points {
        let space = if list.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = write!(list, "{space}{},{}", number(*x), number(*y));
    }
    list
}

/// One decimal: less than a tenth of a pixel is not visible, and more digits make larger files.
fn number(value: f32) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The first that a reader's machine has. Widths were computed with the first; the others are
/// about as wide.
const FONTS: &str = "Noto Sans, Segoe UI, Helvetica Neue, Arial, sans-serif";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::canvas::{Style, palette};

    /// Shows that a label may hold any character, and how coordinates are written.
    #[test]
    fn text_is_escaped_and_numbers_are_short() {
        let mut canvas = Canvas::new(100.0, 50.0, "a < b & c", "");
        canvas.text(1.25, 10.0, "90 % > 3", Style::plain(10.0));
        canvas.line(&[(0.0, 0.5), (10.04, 2.0)], palette::INK, 1.0);
        let svg = svg(&canvas);
        assert!(svg.contains("<title>a &lt; b &amp; c</title>"));
        assert!(svg.contains("x=\"1.2\" y=\"10\"") && svg.contains("90 % &gt; 3"), "{svg}");
        assert!(svg.contains("points=\"0,0.5 10,2\""), "{svg}");
    }
}
