//! Scales: from numbers to places in a picture, and where to put ticks.

use crate::figures::grouped;

/// A stretch of a picture that numbers are laid along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// The numbers at its ends.
    from: f64,
    to: f64,
    /// Where the ends are.
    start: f32,
    end: f32,
    logarithmic: bool,
}

impl Axis {
    pub(crate) fn linear((from, to): (f64, f64), (start, end): (f32, f32)) -> Axis {
        Axis { from, to, start, end, logarithmic: false }
    }

    pub(crate) fn logarithmic((from, to): (f64, f64), (start, end): (f32, f32)) -> Axis {
        Axis { from, to, start, end, logarithmic: true }
    }

    /// The place of a number; a number beyond an end is at the end.
    pub(crate) fn at(&self, value: f64) -> f32 {
        let scaled = |value: f64| if self.logarithmic { value.max(1e-9).ln() } else { value };
        let length = scaled(self.to) - scaled(self.from);
        let part = if length > 0.0 { (scaled(value) - scaled(self.from)) / length } else { 0.0 };
        self.start + (self.end - self.start) * part.clamp(0.0, 1.0) as f32
    }

    /// Round numbers along it, about so many; powers of ten on a logarithmic one.
    pub(crate) fn ticks(&self, about: usize) -> Vec<f64> {
        if self.logarithmic {
            let (from, to) = (self.from.log10().ceil() as i32, self.to.log10().floor() as i32);
            return (from..=to).map(|power| 10_f64.powi(power)).collect();
        }
        let step = step((self.to - self.from) / about.max(1) as f64);
        let first = (self.from / step).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        (first..=last).map(|index| index as f64 * step).collect()
    }
}

/// The least of 1, 2 and 5 times a power of ten that is at least as large.
fn step(rough: f64) -> f64 {
    if rough <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|digit| digit * power);
    steps.into_iter().find(|&step| step >= rough * 0.999).unwrap_or(10.0 * power)
}

/// The end of an axis that has room above a number.
pub(crate) fn room_above(value: f64) -> f64 {
    let step = step(value / 4.0);
    (value * 1.08 / step).ceil().max(1.0) * step
}

/// A tick's label: `250`, `20k`, `1.5M`.
pub(crate) fn label(value: f64) -> String {
    let trimmed = |value: f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value.abs() {
        large if large >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        large if large >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        large if large >= 1e3 => grouped(value.round() as u64),
        _ => trimmed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows both kinds of axis, labels, and that a number beyond the end stays inside.
    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis::linear((0.0, 600_000.0), (100.0, 0.0));
        assert_eq!(axis.ticks(3), [0.0, 200_000.0, 400_000.0, 600_000.0]);
        assert_eq!((axis.at(0.0), axis.at(300_000.0), axis.at(1e9)), (100.0, 50.0, 0.0));
        let axis = Axis::logarithmic((0.5, 2000.0), (0.0, 300.0));
        assert_eq!(axis.ticks(9), [1.0, 10.0, 100.0, 1000.0]);
        assert!((axis.at(31.6) - 150.0).abs() < 1.0);
        let labels = [0.5, 250.0, 2000.0, 20_000.0, 1_500_000.0].map(label);
        assert_eq!(labels, ["0.5", "250", "2,000", "20k", "1.5M"]);
        assert_eq!((room_above(600_000.0), room_above(0.0)), (800_000.0, 1.0));
    }
}
