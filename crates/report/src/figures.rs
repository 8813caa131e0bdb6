//! Numbers as people read them: three figures that matter, groups of three digits, units.

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Seconds,
    /// Given in milliseconds.
    Millis,
    /// Given in microseconds.
    Micros,
    PerSecond,
    MebibytesPerSecond,
    Count,
    /// Ours divided by theirs.
    Ratio,
    /// Given as a fraction of 1.
    Percent,
}

/// A number with its unit.
pub(crate) fn with_unit(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes if value.abs() >= 999.5 => format!("{} B", rounded(value)),
        Unit::Bytes => format!("{} B", short(value)),
        Unit::Seconds => format!("{} s", short(value)),
        Unit::Millis => format!("{} ms", short(value)),
        Unit::Micros => format!("{} µs", short(value)),
        Unit::PerSecond => format!("{}/s", rounded(value)),
        Unit::MebibytesPerSecond => format!("{} MiB/s", short(value)),
        Unit::Count => rounded(value),
        Unit::Ratio if value < 0.0995 => format!("{} ×", short(value)),
        Unit::Ratio => format!("{value:.2} ×"),
        Unit::Percent => format!("{} %", short(value * 100.0)),
    }
}

/// A number that was chosen, not measured: no figure more than it has.
pub(crate) fn chosen(value: f64, unit: Unit) -> String {
    let text = with_unit(value, unit);
    let Some((number, unit)) = text.split_once(' ') else { return text };
    let short = number.trim_end_matches('0').trim_end_matches('.');
    format!("{} {unit}", if number.contains('.') { short } else { number })
}

/// A number with three figures, at least: `0.0415`, `41.5`, `4,150`.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        small if small < 0.0995 => 4,
        small if small < 0.995 => 3,
        small if small < 9.995 => 2,
        small if small < 99.95 => 1,
        _ => return rounded(value),
    };
    format!("{value:.decimals$}")
}

/// A whole number in groups of three digits.
pub(crate) fn rounded(value: f64) -> String {
    let digits = grouped(value.abs().round() as u64);
    if value <= -0.5 { format!("-{digits}") } else { digits }
}

/// `600000` is `600,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Least, middle and greatest of several measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let upper = values.len() / 2;
        // Of an even number the mean of the two in the middle.
        let median = (values[upper] + values[(values.len() - 1) / 2]) / 2.0;
        Some(Spread { min, median, max })
    }

    /// The same in words; empty of nothing.
    pub(crate) fn text(values: Vec<f64>, unit: Unit) -> String {
        Spread::of(values).map_or(String::new(), |spread| spread.with_unit(unit))
    }

    /// `1.32 × (1.28..1.40)`; the range is left out where there is none.
    pub(crate) fn with_unit(&self, unit: Unit) -> String {
        let median = with_unit(self.median, unit);
        let [min, max] = [self.min, self.max].map(|value| {
            let text = with_unit(value, unit);
            text.split([' ', '/']).next().unwrap_or_default().to_owned()
        });
        if min == max { median } else { format!("{median} ({min}..{max})") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows rounding at the borders between the forms.
    #[test]
    fn numbers_have_the_figures_that_matter() {
        let cases = [
            (0.0, "0"),
            (0.04151, "0.0415"),
            (0.5, "0.500"),
            (0.9951, "1.00"),
            (9.996, "10.0"),
            (41.52, "41.5"),
            (99.96, "100"),
            (4150.4, "4,150"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
        assert_eq!((rounded(-1234.4), rounded(-0.2)), ("-1,234".to_owned(), "0".to_owned()));
        assert_eq!((grouped(7), grouped(123_456_789)), ("7".into(), "123,456,789".into()));
        assert_eq!(with_unit(0.27, Unit::Percent), "27.0 %");
        assert_eq!(with_unit(0.00047, Unit::Ratio), "0.0005 ×");
        let chosen = [96.0, 4220.0, 100.0].map(|bytes| chosen(bytes, Unit::Bytes));
        assert_eq!(chosen, ["96 B", "4,220 B", "100 B"]);
    }

    /// Shows both parities, and that one value has no range.
    #[test]
    fn spreads_are_least_middle_and_greatest() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0, 10.0]).unwrap();
        assert_eq!(spread, Spread { min: 1.0, median: 2.5, max: 10.0 });
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(vec![2.0]).unwrap().with_unit(Unit::Ratio), "2.00 ×");
        let spread = Spread::of(vec![1.0, 4.0, 2.0]).unwrap();
        assert_eq!(spread.with_unit(Unit::Ratio), "2.00 × (1.00..4.00)");
        assert_eq!(spread.with_unit(Unit::PerSecond), "2/s (1..4)");
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
