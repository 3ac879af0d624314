use super::*;
use proptest::prelude::*;

const RANGE_2_32: u64 = u32::MAX as u64;
/// The ranges of counters in the field: RAPL in 2^-14 and 2^-16 J, and full registers.
const RANGES: [u64; 4] = [262_143_328_850, 65_712_999_613, RANGE_2_32, u64::MAX];

const SECOND: u64 = 1_000_000_000;

fn limits(range: Option<u64>) -> Limits {
    Limits {
        range: range.map(Microjoules::new),
        max_power: Microwatts::new(100_000_000),
        refresh: Nanos::new(1_000_000),
        frozen_after: Some(Nanos::new(10 * SECOND)),
    }
}

fn at(seconds: u64) -> Moment {
    Moment {
        at: Nanos::new(seconds * SECOND),
        resumed: false,
    }
}

fn see(counter: &mut Counter, value: u64, seconds: u64) -> Outcome {
    counter.observe(Some(Microjoules::new(value)), at(seconds))
}

fn moved(energy: u64, seconds: u64, wrapped: bool) -> Outcome {
    Outcome::Moved {
        energy: Microjoules::new(energy),
        elapsed: Nanos::new(seconds * SECOND),
        wrapped,
    }
}

#[test]
fn the_first_value_is_a_baseline_and_the_next_a_difference() {
    let mut counter = Counter::new(limits(None));
    assert_eq!(see(&mut counter, 1_000, 0), Outcome::Baseline);
    assert_eq!(see(&mut counter, 1_500, 1), moved(500, 1, false));
    assert_eq!(see(&mut counter, 1_501, 3), moved(1, 2, false));
}

#[test]
fn a_wrap_is_bridged_exactly_at_every_range_of_the_field() {
    for range in RANGES {
        let mut counter = Counter::new(limits(Some(range)));
        see(&mut counter, range - 10, 0);
        assert_eq!(see(&mut counter, 20, 1), moved(31, 1, true), "{range}");
        // From the very last value to the very first.
        let mut counter = Counter::new(limits(Some(range)));
        see(&mut counter, range, 0);
        assert_eq!(see(&mut counter, 0, 1), moved(1, 1, true), "{range}");
        assert_eq!(counter.tally().wrapped, 1);
    }
}

#[test]
fn a_fall_without_a_known_range_is_not_guessed() {
    let mut counter = Counter::new(limits(None));
    see(&mut counter, 1_000_000, 0);
    assert_eq!(
        see(&mut counter, 10, 1),
        Outcome::Dropped(Cause::RangeUnknown)
    );
    assert_eq!(see(&mut counter, 15, 2), moved(5, 1, false));
}

#[test]
fn a_small_step_back_is_no_wrap() {
    for range in RANGES {
        let mut counter = Counter::new(limits(Some(range)));
        see(&mut counter, 4_000_000_000, 0);
        let by = Microjoules::new(7);
        let back = Outcome::Dropped(Cause::Backwards { by });
        assert_eq!(see(&mut counter, 3_999_999_993, 1), back, "{range}");
        assert_eq!(counter.tally().backwards, 1);
    }
}

#[test]
fn a_restart_from_zero_is_a_reset() {
    let mut counter = Counter::new(limits(Some(262_143_328_850)));
    see(&mut counter, 100_000_000_000, 0);
    let reset = Outcome::Dropped(Cause::Reset);
    assert_eq!(see(&mut counter, 5_000, 1), reset);
    assert_eq!(see(&mut counter, 6_000, 2), moved(1_000, 1, false));
}

#[test]
fn a_glitch_to_zero_and_back_is_not_paid_out_as_energy() {
    let mut counter = Counter::new(limits(Some(262_143_328_850)));
    see(&mut counter, 50_000_000, 0);
    assert_eq!(see(&mut counter, 0, 1), Outcome::Dropped(Cause::Reset));
    let unsettled = Outcome::Dropped(Cause::Unsettled);
    assert_eq!(see(&mut counter, 51_000_000, 2), unsettled);
    assert_eq!(see(&mut counter, 51_000_100, 3), moved(100, 1, false));
}

#[test]
fn a_jump_beyond_any_power_is_dropped() {
    let mut counter = Counter::new(limits(Some(u64::MAX)));
    see(&mut counter, 0, 0);
    // 100 W for 1 s and one refresh of 1 ms.
    assert_eq!(
        see(&mut counter, 100_100_000, 1),
        moved(100_100_000, 1, false)
    );
    let claimed = Microjoules::new(100_100_001);
    let jump = Outcome::Dropped(Cause::Jump { claimed });
    assert_eq!(see(&mut counter, 200_200_001, 2), jump);
    assert_eq!(see(&mut counter, 200_200_002, 3), moved(1, 1, false));
    assert_eq!(counter.tally().jump, 1);
}

#[test]
fn sampled_too_late_nobody_knows_the_number_of_wraps() {
    let mut counter = Counter::new(limits(Some(RANGE_2_32)));
    let safe = counter.limits().longest_safe_period().unwrap();
    assert_eq!(safe.get() / SECOND, 42); // 4295 J at 100 W
    see(&mut counter, 0, 0);
    assert_eq!(see(&mut counter, 5, 42), moved(5, 42, false));
    let elapsed = Nanos::new(43 * SECOND);
    let late = Outcome::Dropped(Cause::TooLate { elapsed });
    assert_eq!(see(&mut counter, 10, 85), late);
}

#[test]
fn the_longest_safe_period_is_the_longest() {
    for range in &RANGES[..3] {
        let limits = limits(Some(*range));
        let safe_ns = limits.longest_safe_period().unwrap().get();
        // From the range's end to 0: 1 µJ, or a whole turn more, which takes 10 ns a microjoule.
        let one_more = |elapsed_ns| {
            let mut counter = Counter::new(limits);
            see(&mut counter, *range, 0);
            let moment = Moment {
                at: Nanos::new(elapsed_ns),
                resumed: false,
            };
            counter.observe(Some(Microjoules::new(0)), moment)
        };
        let outcome = one_more(safe_ns);
        assert!(matches!(outcome, Outcome::Moved { energy, .. } if energy.get() == 1));
        let outcome = one_more(safe_ns + 30);
        assert!(matches!(outcome, Outcome::Dropped(Cause::TooLate { .. })));
    }
}

#[test]
fn suspend_drops_the_difference_whatever_it_is() {
    let mut counter = Counter::new(limits(Some(RANGE_2_32)));
    for (start, end) in [(10, 20), (20, 10), (10, 10)] {
        counter = Counter::new(*counter.limits());
        see(&mut counter, start, 0);
        let resumed = Moment {
            resumed: true,
            ..at(1)
        };
        assert_eq!(
            counter.observe(Some(Microjoules::new(end)), resumed),
            Outcome::Dropped(Cause::Suspended)
        );
        assert_eq!(see(&mut counter, end + 3, 2), moved(3, 1, false));
    }
}

#[test]
fn a_counter_that_returns_starts_afresh() {
    let mut counter = Counter::new(limits(None));
    see(&mut counter, 10, 0);
    let gone = Outcome::Dropped(Cause::Vanished);
    assert_eq!(counter.observe(None, at(1)), gone);
    assert_eq!(counter.observe(None, at(2)), gone);
    assert_eq!(see(&mut counter, 900, 3), Outcome::Baseline);
    assert_eq!(see(&mut counter, 901, 4), moved(1, 1, false));
    assert_eq!(counter.tally().vanished, 2);
}

#[test]
fn standing_still_is_no_zero_but_waits_for_the_next_value() {
    let mut counter = Counter::new(limits(None));
    see(&mut counter, 10, 0);
    let elapsed = Nanos::new(SECOND);
    assert_eq!(see(&mut counter, 10, 1), Outcome::Still { elapsed });
    assert_eq!(see(&mut counter, 14, 3), moved(4, 3, false));
}

#[test]
fn standing_still_for_too_long_is_frozen_and_the_thaw_is_not_believed() {
    let mut counter = Counter::new(limits(None));
    see(&mut counter, 10, 0);
    for seconds in [10, 11] {
        let elapsed = Nanos::new(seconds * SECOND);
        let frozen = Outcome::Dropped(Cause::Frozen { elapsed });
        assert_eq!(see(&mut counter, 10, seconds), frozen);
    }
    let unsettled = Outcome::Dropped(Cause::Unsettled);
    assert_eq!(see(&mut counter, 14, 12), unsettled);
    assert_eq!(see(&mut counter, 16, 13), moved(2, 1, false));
    assert_eq!(counter.tally().frozen, 2);
}

#[test]
fn where_power_can_be_off_standing_still_is_a_true_zero() {
    let mut counter = Counter::new(Limits {
        frozen_after: None,
        ..limits(Some(RANGE_2_32))
    });
    see(&mut counter, 10, 0);
    assert_eq!(see(&mut counter, 10, 20), moved(0, 20, false));
    let elapsed = Nanos::new(60 * SECOND);
    let late = Outcome::Dropped(Cause::TooLate { elapsed });
    assert_eq!(see(&mut counter, 10, 80), late);
}

#[test]
fn a_value_above_the_range_is_refused() {
    let mut counter = Counter::new(limits(Some(100)));
    see(&mut counter, 99, 0);
    let outside = Outcome::Dropped(Cause::OutOfRange);
    assert_eq!(see(&mut counter, 101, 1), outside);
    assert_eq!(see(&mut counter, 5, 2), Outcome::Baseline);
}

#[test]
fn time_that_stands_still_or_runs_backwards_gives_no_difference() {
    let mut counter = Counter::new(limits(None));
    see(&mut counter, 10, 5);
    let elapsed = Nanos::new(0);
    assert_eq!(see(&mut counter, 20, 5), Outcome::Still { elapsed });
    assert_eq!(see(&mut counter, 20, 6), moved(10, 1, false));
    let backwards = Outcome::Dropped(Cause::ClockBackwards);
    assert_eq!(see(&mut counter, 30, 4), backwards);
    assert_eq!(see(&mut counter, 31, 5), moved(1, 1, false));
}

/// What may befall a counter between two samples, besides counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Befalling {
    Nothing,
    /// The machine is suspended; the counter goes on.
    Sleep,
    /// The driver starts it again at 0.
    Reset,
    /// It is not there.
    Absence,
    /// The CPU that read it went offline; on another it is opened anew and counts from 0.
    OtherCpu,
}

fn befalling() -> impl Strategy<Value = Befalling> {
    prop_oneof![
        6 => Just(Befalling::Nothing),
        1 => Just(Befalling::Sleep),
        1 => Just(Befalling::Reset),
        1 => Just(Befalling::Absence),
        1 => Just(Befalling::OtherCpu),
    ]
}

proptest! {
    /// A true energy seen through a counter of any range, sampled within the safe period, comes
    /// out to the microjoule.
    #[test]
    fn sampled_in_time_no_energy_is_lost_or_invented(
        range in prop_oneof![
            proptest::sample::select(RANGES.to_vec()),
            1_000_000_000..u64::MAX,
        ],
        start in any::<u64>(),
        steps in prop::collection::vec((1u64..=1_000_000, 0u64..=1_000_000), 1..50),
    ) {
        let mut counter = Counter::new(Limits {
            frozen_after: None,
            refresh: Nanos::new(0),
            ..limits(Some(range))
        });
        let safe_ns = counter.limits().longest_safe_period().unwrap().get();
        let modulus = u128::from(range) + 1;
        let mut now_ns = 0u64;
        let mut truth = u128::from(start) % modulus;
        let observe = |counter: &mut Counter, truth: u128, now_ns| {
            let value = u64::try_from(truth % modulus).unwrap();
            let moment = Moment { at: Nanos::new(now_ns), resumed: false };
            counter.observe(Some(Microjoules::new(value)), moment)
        };
        observe(&mut counter, truth, now_ns);
        for (time_ppm, power_ppm) in steps {
            // Up to 10 s, so that fifty steps fit 64 bits at any range.
            let longest_ns = u128::from(safe_ns.min(10 * SECOND));
            let step_ns = u64::try_from((longest_ns * u128::from(time_ppm) / 1_000_000).max(1)).unwrap();
            let most = u128::from(step_ns) * 100_000_000 / u128::from(SECOND);
            let energy = most * u128::from(power_ppm) / 1_000_000;
            truth += energy;
            now_ns += step_ns;
            let outcome = observe(&mut counter, truth, now_ns);
            let Outcome::Moved { energy: seen, .. } = outcome else {
                return Err(TestCaseError::fail(format!("{outcome:?}")));
            };
            prop_assert_eq!(u128::from(seen.get()), energy);
        }
    }

    /// Whatever a counter shows, no difference exceeds what can flow, and none is a silent zero.
    #[test]
    fn no_sequence_of_values_gives_absurd_energy(
        range in prop::option::of(any::<u64>()),
        values in prop::collection::vec((prop::option::of(any::<u64>()), any::<u64>(), any::<bool>()), 0..40),
    ) {
        let mut counter = Counter::new(limits(range));
        for (value, at, resumed) in values {
            let moment = Moment { at: Nanos::new(at), resumed };
            let outcome = counter.observe(value.map(Microjoules::new), moment);
            if let Outcome::Moved { energy, elapsed, .. } = outcome {
                let most = (u128::from(elapsed.get()) + 1_000_000) * 100_000_000 / u128::from(SECOND) + 1;
                prop_assert!(energy.get() > 0 && u128::from(energy.get()) <= most);
            }
        }
    }

    /// Small steps in both directions and time: the nearest thing to a flaky driver.
    #[test]
    fn a_flaky_counter_never_pays_out_more_than_it_climbed(
        steps in prop::collection::vec((-1_000i64..1_000, 1u64..1_000), 1..60),
    ) {
        let mut counter = Counter::new(limits(Some(262_143_328_850)));
        let (mut value, mut now_ms) = (1_000_000_000i64, 0u64);
        let (mut climbed, mut paid) = (0i64, 0u64);
        for (step, ms) in steps {
            value += step;
            now_ms += ms;
            climbed += step.max(0);
            let moment = Moment { at: Nanos::new(now_ms * 1_000_000), resumed: false };
            let value = Microjoules::new(u64::try_from(value).unwrap());
            if let Outcome::Moved { energy, .. } = counter.observe(Some(value), moment) {
                paid += energy.get();
            }
        }
        prop_assert!(paid <= u64::try_from(climbed).unwrap());
    }

    /// A counter's whole life: it wraps, is reset by its driver, vanishes and returns, sleeps with the machine, and
    /// is opened anew when the CPU that read it goes. Energy is told exactly wherever nothing happened, and never
    /// as more than can have flowed; two quiet steps after whatever happened it is told again.
    #[test]
    fn whatever_befalls_a_counter_energy_is_exact_or_not_told(
        range in proptest::sample::select(RANGES.to_vec()),
        start in any::<u64>(),
        steps in prop::collection::vec((1u64..20, 1u64..=1_000_000, befalling()), 1..60),
    ) {
        let modulus = u128::from(range) + 1;
        let mut counter = Counter::new(limits(Some(range)));
        let mut shown = u128::from(start) % modulus;
        let (mut now_ns, mut unpaid, mut disturbed, mut quiet) = (0, 0, true, 0);
        for (tenths, power_ppm, what) in steps {
            let step_ns = tenths * SECOND / 10;
            let flowed = (u128::from(step_ns) * u128::from(power_ppm) / 10_000_000_000).max(1);
            now_ns += step_ns;
            unpaid += flowed;
            match what {
                Befalling::Nothing | Befalling::Sleep => shown = (shown + flowed) % modulus,
                Befalling::Reset => shown = flowed,
                Befalling::Absence => {}
                Befalling::OtherCpu => {
                    counter = Counter::new(*counter.limits());
                    shown = 0;
                }
            }
            let value = (what != Befalling::Absence).then(|| Microjoules::new(u64::try_from(shown).unwrap()));
            let resumed = what == Befalling::Sleep;
            let outcome = counter.observe(value, Moment { at: Nanos::new(now_ns), resumed });
            disturbed |= what != Befalling::Nothing;
            quiet = if what == Befalling::Nothing { quiet + 1 } else { 0 };
            match outcome {
                Outcome::Moved { energy, elapsed, .. } => {
                    let paid = u128::from(energy.get());
                    let most = (u128::from(elapsed.get()) + 1_000_000) / 10;
                    prop_assert!(paid <= most, "{paid} of at most {most}");
                    prop_assert!(disturbed || paid == unpaid, "{paid} for {unpaid}");
                    prop_assert_eq!(elapsed.get(), step_ns);
                }
                other => prop_assert!(quiet < 3, "{other:?} after {quiet} quiet steps"),
            }
            (unpaid, disturbed) = (0, false);
        }
    }

    /// Each sample comes at the end of the safe period: no later one is needed to see every wrap.
    #[test]
    fn at_the_safe_period_and_full_power_every_wrap_is_seen(
        range in proptest::sample::select(RANGES[..3].to_vec()),
        start in any::<u64>(),
        periods in 1u64..20,
    ) {
        let mut counter = Counter::new(limits(Some(range)));
        let safe_ns = counter.limits().longest_safe_period().unwrap().get();
        let modulus = u128::from(range) + 1;
        let each = u128::from(safe_ns) / 10;
        let mut truth = u128::from(start) % modulus;
        let mut seen = 0;
        for period in 0..=periods {
            let value = Microjoules::new(u64::try_from(truth % modulus).unwrap());
            let at = Nanos::new(period * safe_ns);
            if let Outcome::Moved { energy, .. } = counter.observe(Some(value), Moment { at, resumed: false }) {
                seen += u128::from(energy.get());
            }
            truth += each;
        }
        prop_assert_eq!(seen, each * u128::from(periods));
    }

    #[test]
    fn the_longest_safe_period_has_no_extreme_that_panics(
        range in prop::option::of(any::<u64>()), power in any::<u64>(), refresh in any::<u64>(),
    ) {
        let limits = Limits {
            range: range.map(Microjoules::new),
            max_power: Microwatts::new(power),
            refresh: Nanos::new(refresh),
            frozen_after: None,
        };
        prop_assert_eq!(limits.longest_safe_period().is_some(), range.is_some() && power > 0);
    }
}
