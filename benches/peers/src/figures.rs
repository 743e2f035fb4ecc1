//! Figures of rounds, and what is made of them: medians, spread, ratios.

use crate::workload::{Better, Workload};
use serde::Serialize;
use std::collections::BTreeMap;

/// The reference of all ratios.
pub const REFERENCE: &str = "trunkline";

/// The result of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// In the unit of the workload.
    pub main: f64,
    /// Others, by name with unit.
    pub extra: BTreeMap<String, f64>,
}

impl Figure {
    /// With nothing else yet.
    pub fn new(main: f64) -> Self {
        Self { main, extra: BTreeMap::new() }
    }
}

/// One peer in one workload.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Its name.
    pub peer: String,
    /// What it is.
    pub about: String,
    /// Why there is no figure.
    pub refused: Option<String>,
    /// By round; `None` where it failed.
    pub rounds: Vec<Option<Figure>>,
    /// What went wrong, one line for each failed round.
    pub failures: Vec<String>,
    /// Median of the rounds.
    pub median: Option<f64>,
    /// Smallest of the rounds.
    pub min: Option<f64>,
    /// Largest of the rounds.
    pub max: Option<f64>,
    /// Median of Trunkline's figure over this one, round by round.
    pub ratio: Option<f64>,
    /// Medians of the other figures.
    pub extra: BTreeMap<String, f64>,
}

/// All peers in one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Its name.
    pub workload: Workload,
    /// One line.
    pub title: &'static str,
    /// Unit of main figures.
    pub unit: &'static str,
    /// Whether a larger figure is better.
    pub higher_is_better: bool,
    /// One for each peer.
    pub rows: Vec<Row>,
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

impl Row {
    fn mains(&self) -> Vec<f64> {
        self.rounds.iter().flatten().map(|figure| figure.main).collect()
    }

    fn summarize(&mut self, reference: &[Option<f64>]) {
        let mains = self.mains();
        self.median = median(&mains);
        self.min = mains.iter().copied().min_by(f64::total_cmp);
        self.max = mains.iter().copied().max_by(f64::total_cmp);
        let ratios: Vec<f64> = reference
            .iter()
            .zip(&self.rounds)
            .filter_map(|(reference, own)| Some((*reference)? / own.as_ref()?.main))
            .collect();
        self.ratio = median(&ratios);
        let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (name, value) in self.rounds.iter().flatten().flat_map(|figure| &figure.extra) {
            all.entry(name).or_default().push(*value);
        }
        self.extra =
            all.iter().filter_map(|(name, v)| Some(((*name).to_owned(), median(v)?))).collect();
    }
}

impl Table {
    /// Without rounds yet.
    pub fn new(workload: Workload) -> Self {
        Self {
            workload,
            title: workload.title(),
            unit: workload.unit(),
            higher_is_better: workload.better() == Better::Higher,
            rows: Vec::new(),
        }
    }

    /// Computes what follows from the rounds.
    pub fn summarize(&mut self) {
        let reference: Vec<Option<f64>> = self
            .rows
            .iter()
            .find(|row| row.peer == REFERENCE)
            .map(|row| row.rounds.iter().map(|round| Some(round.as_ref()?.main)).collect())
            .unwrap_or_default();
        for row in &mut self.rows {
            row.summarize(&reference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn row(peer: &str, mains: &[f64]) -> Row {
        let rounds = mains
            .iter()
            .map(|main| {
                let mut figure = Figure::new(*main);
                figure.extra.insert("server_cores".into(), main / 10.0);
                (*main >= 0.0).then_some(figure)
            })
            .collect();
        Row { peer: peer.into(), rounds, ..Row::default() }
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
        assert_eq!(median(&[f64::NAN, 5.0]), Some(5.0));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut table = Table::new(Workload::Bulk);
        // The machine was twice as fast in the second round, and a round failed.
        table.rows = vec![row(REFERENCE, &[10.0, 20.0, 12.0]), row("other", &[5.0, 10.0, -1.0])];
        table.summarize();
        let other = &table.rows[1];
        assert_eq!((other.median, other.ratio), (Some(7.5), Some(2.0)));
        assert_eq!((other.min, other.max), (Some(5.0), Some(10.0)));
        assert_eq!(table.rows[0].ratio, Some(1.0));
        assert!((other.extra["server_cores"] - 0.75).abs() < 1e-9);
    }

    #[test]
    fn without_a_reference_there_are_no_ratios() {
        let mut table = Table::new(Workload::Small);
        table.rows = vec![row("other", &[5.0])];
        table.summarize();
        assert_eq!((table.rows[0].median, table.rows[0].ratio), (Some(5.0), None));
    }
}
