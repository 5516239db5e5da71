//! What was found, as names and numbers, and the table that people read.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// Figures by name, in the order in which they were added; the name says the unit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(Vec<(String, f64)>);

/// Figures with what they are of.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub contender: String,
    /// The shape, and what sets it apart from others of its kind.
    pub shape: String,
    pub figures: Figures,
}

impl Figures {
    /// What cannot be divided is no figure.
    pub fn add(&mut self, name: impl Into<String>, value: f64) {
        if value.is_finite() {
            self.0.push((name.into(), value));
        }
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    pub fn as_json(&self) -> Value {
        let rounded = |value: f64| (value * 1e4).round() / 1e4;
        Value::Object(
            self.iter()
                .map(|(name, v)| (name.to_owned(), json!(rounded(v))))
                .collect::<Map<_, _>>(),
        )
    }

    /// Of each figure the middle one; of an even number of them the mean of the two in the middle.
    pub fn median(rounds: &[Figures]) -> Figures {
        let mut medians = Figures::default();
        for (name, _) in rounds.iter().flat_map(Figures::iter) {
            if medians.get(name).is_some() {
                continue;
            }
            let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.get(name)).collect();
            values.sort_by(f64::total_cmp);
            let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
            medians.add(name, f64::midpoint(low, high));
        }
        medians
    }
}

impl Measured {
    pub fn as_json(&self) -> Value {
        json!({ "contender": self.contender, "shape": self.shape, "figures": self.figures.as_json() })
    }

    /// For people: one line a figure.
    pub fn as_table(all: &[Measured]) -> String {
        let mut table = String::new();
        for one in all {
            let _ = writeln!(table, "{} · {}", one.shape, one.contender);
            for (name, value) in one.figures.iter() {
                let _ = writeln!(table, "  {name:<28} {:>14}", shown(value));
            }
        }
        table
    }
}

/// Three digits that say something.
pub(crate) fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(values: &[(&str, f64)]) -> Figures {
        let mut figures = Figures::default();
        values.iter().for_each(|(name, value)| figures.add(*name, *value));
        figures
    }

    #[test]
    fn a_median_is_taken_of_each_figure_by_itself() {
        let rounds = [
            figures(&[("a", 9.0), ("b", 1.0)]),
            figures(&[("a", 1.0), ("b", 2.0)]),
            figures(&[("a", 2.0)]),
        ];
        assert_eq!(Figures::median(&rounds), figures(&[("a", 2.0), ("b", 1.5)]));
        assert_eq!(Figures::median(&[]), Figures::default());
    }

    #[test]
    fn what_was_divided_by_nothing_is_left_out() {
        assert_eq!(
            figures(&[("a", 1.0 / 0.0), ("b", f64::NAN), ("c", 1.0)]),
            figures(&[("c", 1.0)])
        );
    }

    #[test]
    fn numbers_are_shown_with_what_they_tell() {
        let all = [12_345.6, 12.34, 1.234, 0.1234, 0.0].map(shown);
        assert_eq!(all, ["12346", "12.3", "1.23", "0.123", "0"]);
    }
}
