//! Seeded variation: equal seeds give every thread the same offset and the same loads, on any machine.
//!
//! The generator is PCG-32 (Lcg64Xsh32), whose output its crate fixes; the seed
//! is its state and the thread's number its stream, so that no thread's draws
//! depend on another's pace. Ranges are reduced here, by multiplication.

use crate::work::WorkUnits;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;

/// The draws of one thread.
#[derive(Debug, Clone)]
pub struct Draws(Pcg32);

impl Draws {
    /// Those of the thread with this number.
    pub fn new(seed: u64, thread: u64) -> Self {
        let mut generator = Pcg32::new(seed, thread);
        // The first output of neighbouring seeds is still alike.
        generator.next_u32();
        Self(generator)
    }

    /// A start offset within a period: a whole number of µs, in ns.
    pub fn offset_ns(&mut self, period_ns: u64) -> u64 {
        scaled(period_ns / 1_000, self.0.next_u32()) * 1_000
    }

    /// The jitter of one pass through a phase.
    pub fn jitter(&mut self, percent: u32) -> Jitter {
        if percent == 0 {
            Jitter::NONE
        } else {
            Jitter {
                percent,
                draw: self.0.next_u32(),
            }
        }
    }
}

/// By how much the work of one pass differs from what the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter {
    percent: u32,
    draw: u32,
}

impl Jitter {
    /// Not at all.
    pub const NONE: Self = Self {
        percent: 0,
        draw: 0,
    };

    /// The work of this pass, uniform in ± percent around what the file says.
    pub fn apply(self, work: WorkUnits) -> WorkUnits {
        let width = percent_of(work.0, self.percent);
        WorkUnits((work.0 - width).saturating_add(scaled(width.saturating_mul(2), self.draw)))
    }
}

/// `whole` × percent / 100 for percent up to 100.
fn percent_of(whole: u64, percent: u32) -> u64 {
    let part = u128::from(whole) * u128::from(percent.min(100)) / 100;
    u64::try_from(part).unwrap_or(whole)
}

/// `range` × draw / 2^32: uniform below `range`.
fn scaled(range: u64, draw: u32) -> u64 {
    u64::try_from((u128::from(range) * u128::from(draw)) >> 32).unwrap_or(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut draws = Draws::new(0, 0);
        let offsets: Vec<u64> = (0..4).map(|_| draws.offset_ns(16_000_000)).collect();
        assert_eq!(offsets, [3_475_000, 5_768_000, 6_007_000, 1_763_000]);
    }

    #[test]
    fn threads_of_one_seed_and_seeds_of_one_thread_draw_differently() {
        let first = |seed, thread| Draws::new(seed, thread).offset_ns(1_000_000_000);
        let mut all: Vec<u64> = (0..8)
            .flat_map(|seed| (0..8).map(move |thread| first(seed, thread)))
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 64);
    }

    #[test]
    fn offsets_cover_the_period_evenly() {
        let mut draws = Draws::new(1, 0);
        let mut quarters = [0_u32; 4];
        for _ in 0..4_000 {
            quarters[usize::try_from(draws.offset_ns(16_000_000) / 4_000_000).unwrap()] += 1;
        }
        assert!(
            quarters.iter().all(|count| (900..1100).contains(count)),
            "{quarters:?}"
        );
    }

    #[test]
    fn without_jitter_nothing_is_drawn() {
        let mut draws = Draws::new(5, 5);
        let mut same = draws.clone();
        assert_eq!(draws.jitter(0).apply(WorkUnits(77)), WorkUnits(77));
        assert_eq!(draws.offset_ns(1 << 40), same.offset_ns(1 << 40));
    }

    proptest! {
        #[test]
        fn an_offset_is_a_whole_microsecond_within_the_period(seed: u64, thread: u64, period_us in 1_u64..100_000_000) {
            let offset = Draws::new(seed, thread).offset_ns(period_us * 1_000);
            prop_assert!(offset < period_us * 1_000);
            prop_assert_eq!(offset % 1_000, 0);
        }

        #[test]
        fn jittered_work_stays_within_its_percentage(seed: u64, percent in 0_u32..=100, work in 0_u64..1 << 60) {
            let jittered = Draws::new(seed, 0).jitter(percent).apply(WorkUnits(work)).0;
            prop_assert!(u128::from(jittered.abs_diff(work)) * 100 <= u128::from(work) * u128::from(percent));
        }
    }
}
