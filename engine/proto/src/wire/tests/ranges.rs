use crate::wire::ranges::RangeSet;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SPACE: u64 = 96;

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    InsertBounded(u64, u64, usize),
    Remove(u64, u64),
    RemoveBelow(u64),
    PopFront,
    PopFrontUpTo(u64),
    PopBack,
    KeepHighest(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let range = || (0..SPACE, 0..12u64).prop_map(|(a, n)| (a, (a + n).min(SPACE)));
    prop_oneof![
        6 => range().prop_map(|(a, b)| Op::Insert(a, b)),
        2 => (range(), 1..6usize).prop_map(|((a, b), n)| Op::InsertBounded(a, b, n)),
        3 => range().prop_map(|(a, b)| Op::Remove(a, b)),
        1 => (0..SPACE).prop_map(Op::RemoveBelow),
        1 => Just(Op::PopFront),
        1 => (0..6u64).prop_map(Op::PopFrontUpTo),
        1 => Just(Op::PopBack),
        1 => (0..5usize).prop_map(Op::KeepHighest),
    ]
}

/// The ranges that hold exactly the numbers of `model`.
fn runs(model: &BTreeSet<u64>) -> Vec<core::ops::Range<u64>> {
    let mut runs: Vec<core::ops::Range<u64>> = Vec::new();
    for &n in model {
        match runs.last_mut() {
            Some(last) if last.end == n => last.end += 1,
            _ => runs.push(n..n + 1),
        }
    }
    runs
}

fn apply(op: &Op, set: &mut RangeSet, model: &mut BTreeSet<u64>) {
    let before = runs(model);
    match *op {
        Op::Insert(a, b) => {
            let new = (a..b).filter(|n| model.insert(*n)).count();
            assert_eq!(set.insert(a..b), new as u64);
        }
        Op::InsertBounded(a, b, max) => {
            let mut wider = model.clone();
            let new = (a..b).filter(|n| wider.insert(*n)).count();
            let refused = runs(&wider).len() > max && runs(&wider).len() > before.len();
            assert_eq!(set.insert_bounded(a..b, max), (!refused).then_some(new as u64));
            if !refused {
                *model = wider;
            }
        }
        Op::Remove(a, b) => {
            let old = (a..b).filter(|n| model.remove(n)).count();
            assert_eq!(set.remove(a..b), old as u64);
        }
        Op::RemoveBelow(bound) => {
            set.remove_below(bound);
            model.retain(|n| *n >= bound);
        }
        Op::PopFront => {
            assert_eq!(set.pop_front(), before.first().cloned());
            before.first().inspect(|r| model.retain(|n| *n >= r.end));
        }
        Op::PopFrontUpTo(max) => {
            let expected = before.first().map(|r| r.start..r.end.min(r.start + max));
            let expected = expected.filter(|r| !r.is_empty());
            assert_eq!(set.pop_front_up_to(max), expected);
            expected.inspect(|r| model.retain(|n| *n >= r.end));
        }
        Op::PopBack => {
            assert_eq!(set.pop_back(), before.last().cloned());
            before.last().inspect(|r| model.retain(|n| *n < r.start));
        }
        Op::KeepHighest(max) => {
            set.keep_highest(max);
            if before.len() > max {
                let bound = before.get(before.len() - max).map_or(SPACE, |r| r.start);
                model.retain(|n| *n >= bound);
            }
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_plain_set(
        ops in prop::collection::vec(op(), 1..60),
        probe in (0..SPACE, 0..SPACE),
    ) {
        let (mut set, mut model) = (RangeSet::new(), BTreeSet::new());
        for op in &ops {
            apply(op, &mut set, &mut model);
            let expected = runs(&model);
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected.clone(), "{:?}", op);
            prop_assert_eq!(set.iter().rev().collect::<Vec<_>>().len(), set.len());
            prop_assert_eq!(set.len(), expected.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert_eq!(set.covered(), model.len() as u64);
            prop_assert_eq!(set.first(), expected.first().cloned());
            prop_assert_eq!(set.last(), expected.last().cloned());
            let (a, b) = probe;
            prop_assert_eq!(set.contains(a), model.contains(&a));
            prop_assert_eq!(set.contains_range(a..b), (a..b).all(|n| model.contains(&n)));
            let missing: BTreeSet<u64> = (a..b).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(set.gaps(a..b).collect::<Vec<_>>(), runs(&missing));
        }
    }
}

#[test]
fn an_empty_set_owns_no_memory_and_costs_one_vector() {
    assert_eq!(size_of::<RangeSet>(), size_of::<Vec<u8>>());
    let mut set = RangeSet::new();
    assert_eq!(set.insert(5..5), 0);
    assert_eq!((set.pop_front(), set.pop_back(), set.pop_front_up_to(1)), (None, None, None));
    assert_eq!(set, RangeSet::default());
}

#[test]
fn works_up_to_the_largest_number() {
    let mut set = RangeSet::new();
    assert_eq!(set.insert(u64::MAX - 1..u64::MAX), 1);
    assert_eq!(set.insert(0..u64::MAX), u64::MAX - 1);
    assert!(set.contains_range(0..u64::MAX));
    assert_eq!(set.gaps(0..u64::MAX).count(), 0);
    assert_eq!(set.remove(0..u64::MAX), u64::MAX);
}
