//! Small curves of block characters.

use std::collections::VecDeque;

/// Heights of a curve from 0 to its largest value.
pub fn sparkline(values: &VecDeque<f64>) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let step = |v: &f64| STEPS[((v / most * 7.0).round() as usize).min(7)];
    values.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_reach_from_nothing_to_the_top() {
        assert_eq!(sparkline(&VecDeque::from([0.0, 3.5, 7.0])), "▁▅█");
        assert_eq!(sparkline(&VecDeque::from([0.0, 0.0])), "▁▁");
    }
}
