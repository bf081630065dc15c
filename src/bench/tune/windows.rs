//! Which part of a trace chooses, and which part checks.

use crate::workload::Trace;
use crate::workload::arrivals::Window;

/// The first third of a trace's time, and the other two: to choose in the one and to check in the others. `None` for a trace without a
/// clock, or one whose requests all come at once.
#[must_use]
pub fn thirds(trace: &Trace) -> Option<(Window, [Window; 2])> {
    let times = || trace.rows().filter_map(|row| row.at_ms);
    let (first, last) = (times().fold(f64::INFINITY, f64::min), times().fold(f64::NEG_INFINITY, f64::max));
    let third = (last - first) / 3.0;
    // Whole seconds read better, where there are any.
    let third = if third >= 10_000.0 { (third / 1000.0).floor() * 1000.0 } else { third };
    let window = |from_ms, to_ms| Window { from_ms, to_ms };
    (third > 0.0 && third.is_finite())
        .then(|| (window(0.0, third), [window(third, 2.0 * third), window(2.0 * third, f64::INFINITY)]))
}

/// The first pair of windows, one to choose in and one to check in, that have something in common.
#[must_use]
pub fn overlap(choose: &[Window], check: &[Window]) -> Option<(Window, Window)> {
    let pairs = choose.iter().flat_map(|one| check.iter().map(|other| (*one, *other)));
    pairs.into_iter().find(|(one, other)| one.from_ms < other.to_ms && other.from_ms < one.to_ms)
}

#[cfg(test)]
mod tests {
    use super::{overlap, thirds};
    use crate::workload::arrivals::Window;
    use crate::workload::{ReadOptions, Trace};

    fn trace(times_ms: &[u64]) -> Trace {
        let row =
            |ms: &u64| format!("{{\"timestamp\":{ms},\"input_length\":10,\"output_length\":1,\"hash_ids\":[1]}}\n");
        let text: String = times_ms.iter().map(row).collect();
        Trace::read("t.jsonl", text.as_bytes(), &ReadOptions::default()).unwrap()
    }

    fn text(window: Window) -> String {
        window.to_string()
    }

    #[test]
    fn the_first_third_chooses_and_the_others_check() {
        let (choose, check) = thirds(&trace(&[5_000, 9_000, 64_500])).unwrap();
        assert_eq!((text(choose), check.map(text)), ("0..19".into(), ["19..38".into(), "38..".into()]));
        let (choose, _) = thirds(&trace(&[0, 300])).unwrap();
        assert_eq!(text(choose), "0..0.1");
        assert!(thirds(&trace(&[7, 7])).is_none());
        assert!(thirds(&Trace::bundled().unwrap()).is_none());
    }

    #[test]
    fn windows_that_touch_do_not_overlap() {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Window>>();
        assert_eq!(overlap(&read(&["0..10", "30..40"]), &read(&["10..30", "40.."])), None);
        let (one, other) = overlap(&read(&["0..10", "30.."]), &read(&["10..30", "50..60"])).unwrap();
        assert_eq!((text(one), text(other)), ("30..".into(), "50..60".into()));
    }
}
