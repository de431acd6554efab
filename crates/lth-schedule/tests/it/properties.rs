use std::num::NonZeroU32;

use lth_schedule::{Exponent, Logistic, Moment, Schedule, Sparsity, SparsitySchedule, Step, TrainingLength, Window};
use proptest::prelude::*;

fn fraction() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64]
}

fn sparsity() -> impl Strategy<Value = Sparsity> {
    fraction().prop_map(|fraction| Sparsity::new(fraction).unwrap())
}

fn schedule() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        Just(Schedule::OneShot),
        (1u32..1000).prop_map(|n| Schedule::iterative(n).unwrap()),
        Just(Schedule::Agp),
        (0.01..500.0f64, -500.0..500.0f64)
            .prop_map(|(alpha, beta)| Schedule::OneCycle(Logistic::new(alpha, beta).unwrap())),
        Just(Schedule::one_cycle()),
        Just(Schedule::Cosine),
        Just(Schedule::Linear),
        Just(Schedule::Dsd),
        (1u32..100).prop_map(|n| Schedule::geometric(n).unwrap()),
        (0.001..1000.0f64).prop_map(|p| Schedule::Polynomial(Exponent::new(p).unwrap())),
        proptest::collection::vec((fraction(), fraction()), 1..8).prop_map(|mut points| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Schedule::piecewise(points).unwrap()
        }),
    ]
}

fn rising_points() -> impl Strategy<Value = Schedule> {
    (proptest::collection::vec(fraction(), 1..8), proptest::collection::vec(fraction(), 8)).prop_map(
        |(mut xs, mut ys)| {
            xs.sort_by(f64::total_cmp);
            ys.sort_by(f64::total_cmp);
            Schedule::piecewise(xs.into_iter().zip(ys)).unwrap()
        },
    )
}

proptest! {
    #[test]
    fn sparsity_never_falls_along_a_monotone_schedule(
        schedule in prop_oneof![schedule(), rising_points()],
        (start, end) in (sparsity(), sparsity()),
        mut positions in proptest::collection::vec(fraction(), 2..40),
    ) {
        prop_assume!(schedule.is_monotone());
        let (start, end) = (start.min(end), start.max(end));
        positions.sort_by(f64::total_cmp);
        let schedule = SparsitySchedule { start, ..SparsitySchedule::to(end, schedule) };
        let along: Vec<Sparsity> = positions.iter().map(|pos| schedule.at(*pos)).collect();
        prop_assert!(along.is_sorted(), "{:?}: {along:?} at {positions:?}", schedule);
    }

    #[test]
    fn only_dsd_and_falling_points_are_not_monotone(schedule in schedule()) {
        let may_fall = matches!(schedule, Schedule::Dsd | Schedule::Piecewise(_));
        prop_assert!(schedule.is_monotone() || may_fall);
    }

    #[test]
    fn sparsity_stays_between_start_and_end(
        schedule in schedule(),
        (start, end) in (sparsity(), sparsity()),
        position in prop_oneof![fraction(), proptest::num::f64::ANY],
    ) {
        let at = SparsitySchedule { start, ..SparsitySchedule::to(end, schedule) }.at(position);
        prop_assert!(start.min(end) <= at && at <= start.max(end));
    }

    #[test]
    fn a_plan_stays_between_start_and_end_and_ends_as_its_schedule_does(
        schedule in schedule(),
        (start, end) in (sparsity(), sparsity()),
        (epochs, per_epoch) in (1u32..20, 1u32..50),
        (from, to) in (0.0..0.5f64, 0.5..=1.0f64),
        every in proptest::option::of((1u32..20).prop_map(|n| NonZeroU32::new(n).unwrap())),
        iterations in proptest::collection::vec(any::<u64>(), 0..20),
    ) {
        let length = TrainingLength::new(epochs, per_epoch).unwrap();
        let window = Window::new(Moment::Fraction(from), Moment::Fraction(to)).unwrap();
        let schedule = SparsitySchedule { start, window, every, ..SparsitySchedule::to(end, schedule) };
        let full = [start, end].contains(&Sparsity::EMPTY);
        prop_assume!(!(full && matches!(schedule.schedule, Schedule::Geometric { .. })));
        let plan = schedule.plan(length).unwrap();
        for iteration in (0..length.iterations()).chain(iterations) {
            let at = plan.sparsity(iteration);
            prop_assert!(start.min(end) <= at && at <= start.max(end));
        }
        prop_assert_eq!(plan.sparsity(length.iterations()), schedule.at(1.0));
    }

    #[test]
    fn a_sparsity_is_a_number_in_zero_to_one_or_an_error(value in proptest::num::f64::ANY) {
        match Sparsity::new(value) {
            Ok(sparsity) => prop_assert!(sparsity.fraction() == value && (0.0..=1.0).contains(&value)),
            Err(_) => prop_assert!(value.is_nan() || !(0.0..=1.0).contains(&value)),
        }
    }

    #[test]
    fn a_schedule_reads_back_equal(schedule in schedule()) {
        let text = schedule.to_string();
        prop_assert_eq!(&text.parse::<Schedule>().unwrap(), &schedule, "{}", text);
        let json = serde_json::to_string(&schedule).unwrap();
        prop_assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    }

    #[test]
    fn a_sparsity_and_a_whole_schedule_come_back_from_a_file_to_the_last_bit(
        schedule in schedule(),
        (start, end) in (sparsity(), sparsity()),
    ) {
        let schedule = SparsitySchedule { start, ..SparsitySchedule::to(end, schedule) };
        let text = serde_json::to_string(&schedule).unwrap();
        prop_assert_eq!(serde_json::from_str::<SparsitySchedule>(&text).unwrap(), schedule);
    }

    #[test]
    fn a_step_and_a_window_read_back_equal(epoch: u32, iteration: u32, (from, to) in (0.0..0.5f64, 0.5..=1.0f64)) {
        let step = Step { epoch, iteration };
        prop_assert_eq!(step.to_string().parse::<Step>().unwrap(), step);
        for window in [
            Window::new(Moment::Fraction(from), Moment::Fraction(to)).unwrap(),
            Window::new(step.into(), Moment::Fraction(to)).unwrap(),
        ] {
            prop_assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
        }
    }

    #[test]
    fn steps_and_iterations_are_inverse(epoch in 0u32..100_000, iteration in 0u32..1000, per_epoch in 1u32..1000) {
        let step = Step { epoch, iteration: iteration % per_epoch };
        prop_assert_eq!(Step::from_iterations(step.iterations(per_epoch), per_epoch).unwrap(), step);
    }

    #[test]
    fn text_from_anywhere_is_a_value_or_an_error(text in ".{0,40}", inside in "[0-9:., a-z()%-]{0,20}") {
        // No panic, whatever is read.
        for text in [text, format!("piecewise({inside})"), format!("iterative({inside})"), inside] {
            if let Ok(schedule) = text.parse::<Schedule>() {
                prop_assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
            }
            let _ = (text.parse::<Sparsity>(), text.parse::<Step>(), text.parse::<Window>(), text.parse::<Moment>());
        }
    }
}
