//! A set of `u64` kept as sorted, disjoint, never adjacent half-open ranges.
//!
//! Used for received packet numbers and for acknowledged, lost and received stream bytes. Both
//! grow at the end nearly always, which costs no search.

use crate::lean::reserve_first;
use core::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    start: u64,
    end: u64,
}

impl Span {
    #[inline]
    const fn range(self) -> Range<u64> {
        self.start..self.end
    }
}

/// A set of numbers, stored as ranges. Owns no heap memory until the first insertion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    spans: Vec<Span>,
}

impl RangeSet {
    /// An empty set.
    #[inline]
    pub const fn new() -> Self {
        Self { spans: Vec::new() }
    }

    /// Number of ranges.
    #[inline]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the set holds no number.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// How many numbers the set holds.
    pub fn covered(&self) -> u64 {
        self.spans.iter().map(|s| s.end - s.start).sum()
    }

    /// Adds a range; gives how many of its numbers were not in the set before.
    #[inline]
    pub fn insert(&mut self, range: Range<u64>) -> u64 {
        let Range { start, end } = range;
        if start >= end {
            return 0;
        }
        match self.spans.last_mut() {
            Some(last) if start < last.start => self.insert_inside(start, end),
            Some(last) if start <= last.end => {
                let added = end.saturating_sub(last.end);
                last.end += added;
                added
            }
            _ => {
                reserve_first(&mut self.spans);
                self.spans.push(Span { start, end });
                end - start
            }
        }
    }

    /// Adds a range unless the set would then consist of more than `max` ranges; gives how many of
    /// its numbers were not in the set before, or `None` when refused.
    #[inline]
    pub fn insert_bounded(&mut self, range: Range<u64>, max: usize) -> Option<u64> {
        if self.spans.len() >= max && !range.is_empty() && !self.touches(&range) {
            return None;
        }
        Some(self.insert(range))
    }

    /// Takes a range out; gives how many of its numbers were in the set. A range in the middle of
    /// another one splits that in two.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let Range { start, end } = range;
        if start >= end {
            return 0;
        }
        let from = self.spans.partition_point(|s| s.end <= start);
        let to = self.spans.partition_point(|s| s.start < end);
        if from >= to {
            return 0;
        }
        let (first, last) = (self.spans[from], self.spans[to - 1]);
        let removed: u64 =
            self.spans[from..to].iter().map(|s| s.end.min(end) - s.start.max(start)).sum();
        let left = (first.start < start).then_some(Span { start: first.start, end: start });
        let right = (last.end > end).then_some(Span { start: end, end: last.end });
        self.spans.splice(from..to, left.into_iter().chain(right));
        removed
    }

    /// Takes out every number below `bound`.
    #[inline]
    pub fn remove_below(&mut self, bound: u64) {
        match self.spans.first() {
            Some(first) if first.start < bound => {
                self.remove(0..bound);
            }
            _ => {}
        }
    }

    /// Whether `value` is in the set.
    #[inline]
    pub fn contains(&self, value: u64) -> bool {
        match self.spans.last() {
            Some(last) if value >= last.start => value < last.end,
            Some(_) => {
                let at = self.spans.partition_point(|s| s.end <= value);
                self.spans.get(at).is_some_and(|s| s.start <= value)
            }
            None => false,
        }
    }

    /// Whether every number of `range` is in the set; so for an empty range.
    #[inline]
    pub fn contains_range(&self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let at = self.spans.partition_point(|s| s.end <= range.start);
        self.spans.get(at).is_some_and(|s| s.start <= range.start && range.end <= s.end)
    }

    /// The lowest range.
    #[inline]
    pub fn first(&self) -> Option<Range<u64>> {
        self.spans.first().map(|s| s.range())
    }

    /// The highest range.
    #[inline]
    pub fn last(&self) -> Option<Range<u64>> {
        self.spans.last().map(|s| s.range())
    }

    /// Takes the lowest range out.
    #[inline]
    pub fn pop_front(&mut self) -> Option<Range<u64>> {
        if self.spans.is_empty() { None } else { Some(self.spans.remove(0).range()) }
    }

    /// Takes the first `max` numbers of the lowest range out, or all of it if it has fewer.
    #[inline]
    pub fn pop_front_up_to(&mut self, max: u64) -> Option<Range<u64>> {
        let first = self.spans.first_mut().filter(|_| max > 0)?;
        if first.end - first.start <= max {
            return self.pop_front();
        }
        let start = first.start;
        first.start += max;
        Some(start..first.start)
    }

    /// Takes the highest range out.
    #[inline]
    pub fn pop_back(&mut self) -> Option<Range<u64>> {
        self.spans.pop().map(Span::range)
    }

    /// Drops the lowest ranges until at most `max` are left.
    #[inline]
    pub fn keep_highest(&mut self, max: usize) {
        if self.spans.len() > max {
            self.spans.drain(..self.spans.len() - max);
        }
    }

    /// The ranges in rising order; reversible.
    #[inline]
    pub fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + Clone + '_ {
        self.spans.iter().map(|s| s.range())
    }

    /// The parts of `within` that are not in the set, in rising order.
    pub fn gaps(&self, within: Range<u64>) -> impl Iterator<Item = Range<u64>> + Clone + '_ {
        let from = self.spans.partition_point(|s| s.end <= within.start);
        let to = self.spans.partition_point(|s| s.start < within.end).max(from);
        let bound = Span { start: within.end, end: within.end };
        let mut at = within.start;
        self.spans[from..to].iter().copied().chain([bound]).filter_map(move |s| {
            let gap = at..s.start;
            at = s.end;
            (gap.start < gap.end).then_some(gap)
        })
    }

    /// Empties the set and keeps its memory.
    #[inline]
    pub fn clear(&mut self) {
        self.spans.clear();
    }

    /// Gives memory back that the ranges do not need.
    pub fn shrink(&mut self) {
        self.spans.shrink_to_fit();
    }

    /// Whether `range` overlaps or adjoins a range of the set.
    fn touches(&self, range: &Range<u64>) -> bool {
        let at = self.spans.partition_point(|s| s.end < range.start);
        self.spans.get(at).is_some_and(|s| s.start <= range.end)
    }

    /// Insertion of a non-empty range that starts before the last one.
    fn insert_inside(&mut self, start: u64, end: u64) -> u64 {
        // Spans from..to overlap or adjoin the new range and melt into one.
        let from = self.spans.partition_point(|s| s.end < start);
        let to = self.spans.partition_point(|s| s.start <= end);
        if from == to {
            self.spans.insert(from, Span { start, end });
            return end - start;
        }
        let before: u64 = self.spans[from..to].iter().map(|s| s.end - s.start).sum();
        let merged =
            Span { start: start.min(self.spans[from].start), end: end.max(self.spans[to - 1].end) };
        self.spans[from] = merged;
        self.spans.drain(from + 1..to);
        merged.end - merged.start - before
    }
}
