//! How well the mean of a few values is known, and whether two sets of them differ by more than
//! chance.

/// Of the intervals.
pub const LEVEL: f64 = 0.95;
/// Values from which on an interval is taken for what it says.
pub const FEWEST: u32 = 3;

/// Student's t for 95 % (two-sided) with 1, 2, … degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// Half of the width of the confidence interval of the mean, in percent of it. `None` for fewer than
/// two values.
pub fn half_width_percent(values: &[f64]) -> Option<f64> {
    let freedom = values.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
    let (mean, n) = (mean(values), values.len() as f64);
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / freedom as f64;
    // Beyond the table: an approximation that is right to three digits.
    let t = STUDENT.get(freedom - 1).copied().unwrap_or(1.96 + 2.4 / freedom as f64);
    let percent = t * (variance / n).sqrt() / mean.abs() * 100.0;
    percent.is_finite().then_some(percent)
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Ways to divide the values up to which all are tried.
const ALL_WAYS: f64 = 20_000.0;

/// How often chance alone makes the means of two sets differ as much as these do or more, were all
/// values of one kind: a permutation test, which supposes nothing about how they are distributed.
/// All divisions are tried, or as many random ones where there are too many. `None` when a set is
/// empty.
pub fn probability_by_chance(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let seen = (mean(a) - mean(b)).abs();
    // Values that are equal but for rounding count as such.
    let as_far = |first: f64| {
        let rest = all.iter().sum::<f64>() - first;
        let apart = (first / a.len() as f64 - rest / b.len() as f64).abs();
        apart >= seen * (1.0 - 1e-9)
    };
    let (mut tried, mut far) = (0_u64, 0_u64);
    if ways(all.len(), a.len()) <= ALL_WAYS {
        each_choice(&all, a.len(), 0.0, &mut |sum| {
            tried += 1;
            far += u64::from(as_far(sum));
        });
    } else {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut shuffled = all.clone();
        while tried < ALL_WAYS as u64 {
            for at in (1..shuffled.len()).rev() {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                shuffled.swap(at, (random % (at as u64 + 1)) as usize);
            }
            tried += 1;
            far += u64::from(as_far(shuffled[..a.len()].iter().sum()));
        }
    }
    Some(far as f64 / tried as f64)
}

/// Least that [`probability_by_chance`] can give for sets of these sizes.
pub fn least_probability(a: usize, b: usize) -> f64 {
    // The division itself and, where the sets are of one size, its mirror.
    (if a == b { 2.0 } else { 1.0 } / ways(a + b, a)).min(1.0)
}

/// Ways to choose `k` of `n`.
fn ways(n: usize, k: usize) -> f64 {
    (1..=k).map(|i| (n - k + i) as f64 / i as f64).product()
}

/// Calls `f` with the sum of each choice of `k` of `values`, `sum` added.
fn each_choice(values: &[f64], k: usize, sum: f64, f: &mut impl FnMut(f64)) {
    match values.split_first() {
        _ if k == 0 => f(sum),
        Some((first, rest)) => {
            each_choice(rest, k - 1, sum + first, f);
            if rest.len() >= k {
                each_choice(rest, k, sum, f);
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-3 * b.abs().max(1.0)
    }

    #[test]
    fn a_known_interval() {
        // Mean 10, standard deviation 1, five values: 2.776 / sqrt(5) = 1.2415.
        let values = [9.0, 9.0, 10.0, 11.0, 11.0];
        assert!(close(half_width_percent(&values).unwrap(), 12.415));
        assert_eq!(half_width_percent(&[7.0]), None);
        assert_eq!(half_width_percent(&[0.0, 0.0]), None);
        let many: Vec<f64> = (0..101).map(|i| f64::from(i % 2)).collect();
        // t with 100 degrees of freedom is 1.984.
        let by_hand = 1.984 * (0.2525_f64 / 101.0).sqrt() / mean(&many) * 100.0;
        assert!(close(half_width_percent(&many).unwrap(), by_hand));
    }

    #[test]
    fn the_permutation_test_counts_divisions() {
        // 3 + 3 values that do not overlap: 2 of 20 divisions are as far apart.
        let chance = probability_by_chance(&[1.0, 2.0, 3.0], &[10.0, 11.0, 12.0]).unwrap();
        assert!(close(chance, 0.1));
        assert!(close(least_probability(3, 3), 0.1));
        assert!(close(least_probability(5, 5), 2.0 / 252.0));
        assert!(close(least_probability(1, 4), 0.2));
        // The same values: nothing is nearer.
        assert_eq!(probability_by_chance(&[1.0, 2.0], &[1.0, 2.0]), Some(1.0));
        assert_eq!(probability_by_chance(&[], &[1.0]), None);
    }

    #[test]
    fn many_values_are_tried_at_random() {
        let a: Vec<f64> = (0..20).map(f64::from).collect();
        let b: Vec<f64> = (0..20).map(|i| f64::from(i) + 0.1).collect();
        assert!(probability_by_chance(&a, &b).unwrap() > 0.5);
        let c: Vec<f64> = (0..20).map(|i| f64::from(i) + 20.0).collect();
        assert!(probability_by_chance(&a, &c).unwrap() < 0.001);
    }
}
