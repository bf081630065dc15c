//! Limits of classes and turns of keys, in the router's hands.

use insta::assert_snapshot;

use super::script::{Script, play};
use crate::routing::{Class, Late, Settings, Slo};

fn class(ttft_ms: f64, late: Late) -> Class {
    Class { ttft_ms: Some(ttft_ms), late, ..Class::default() }
}

/// 2 s for all, deferred within 2 s and 60 s for two classes.
fn promised() -> Settings {
    let classes = [("defer", class(2000.0, Late::Defer)), ("batch", class(60_000.0, Late::Refuse))];
    let slo = Slo {
        default: class(2000.0, Late::Refuse),
        classes: classes.map(|(name, class)| (name.to_owned(), class)).into(),
        itl_ms: None,
    };
    Settings { slo, ..Settings::default() }
}

/// An engine that takes 15 ms and 1 ms per token, 10 ms away.
const ENGINE: &str = "0 add a r1 prefill=1\n0 rtt a 10\n0 up a\n";

/// What became of a script behind that engine.
fn after(settings: Settings, lines: &str) -> String {
    let log = play(settings, &format!("{ENGINE}{lines}"));
    let log = log.split_once("0 up a\n").expect("the head").1.to_owned();
    log.replace(" attempt=1 strategy=predictive", "").replace(" unit=ms", "")
}

#[test]
fn who_cannot_be_in_time_is_refused_at_once_and_who_waits_when_that_turns_out() {
    let log = after(
        promised(),
        "
        1    arrive 1 prompt=ann*24 tokens=1500
        2    arrive 2 prompt=bob*24 tokens=1500
        3    arrive 3 prompt=cyd*2 tokens=100
        4    arrive 4 prompt=dan*24 tokens=1500 class=batch
        5    arrive 5 prompt=eve*24 tokens=1500 from=peer
        10   show
        1530 first 1
        1540 arrive 6 prompt=ann*24+ann2*16 tokens=2500
        4000 tick
        ",
    );
    assert_snapshot!(log, @r"
    1 arrive 1 prompt=ann*24 tokens=1500
       -> 01 verdict=dispatch replica=a score=2120.000 cached=0 prompt=1500 candidates=1 excluded=0 held_ms=0.0 limit_ms=2000 late_by_ms=-475
    2 arrive 2 prompt=bob*24 tokens=1500
       -> 02 verdict=reject reason=deadline retry_after_ms=1039 prompt=1500 candidates=1 excluded=0 held_ms=0.0 limit_ms=2000 late_by_ms=1039
    3 arrive 3 prompt=cyd*2 tokens=100
       -> 03 verdict=hold prompt=100 candidates=1 excluded=0 held_ms=0.0 limit_ms=2000 late_by_ms=-362
    4 arrive 4 prompt=dan*24 tokens=1500 class=batch
       -> 04 verdict=hold prompt=1500 candidates=1 excluded=0 held_ms=0.0 class=batch limit_ms=60000 late_by_ms=-56963
    5 arrive 5 prompt=eve*24 tokens=1500 from=peer
       -> 05 verdict=hold prompt=1500 candidates=1 excluded=0 held_ms=0.0
    10 show
       a: healthy, 1 in flight, 1500 queued, 1500 uncached
       queue: 3 held, deadline Some(1016.0)
    1530 first 1
       => 04 verdict=dispatch replica=a score=2192.650 cached=0 prompt=1500 candidates=1 excluded=0 held_ms=1526.0 class=batch limit_ms=60000 late_by_ms=-56949
       => 03 verdict=reject reason=deadline retry_after_ms=1167 prompt=100 candidates=1 excluded=0 held_ms=1527.0 limit_ms=2000 late_by_ms=1167
    1540 arrive 6 prompt=ann*24+ann2*16 tokens=2500
       -> 06 verdict=hold prompt=2500 candidates=1 excluded=0 held_ms=0.0 limit_ms=4000 late_by_ms=-1470
    4000 tick
       => 05 verdict=dispatch replica=a score=2992.048 cached=0 prompt=1500 candidates=1 excluded=0 held_ms=3995.0
       => 06 verdict=reject reason=deadline retry_after_ms=1462 prompt=2500 candidates=1 excluded=0 held_ms=2460.0 limit_ms=4000 late_by_ms=1462
    ");
}

#[test]
fn where_nothing_is_predicted_only_a_wait_that_is_too_long_is_one() {
    let settings = Settings { max_concurrent: Some(1), ..promised() };
    let log = after(
        settings,
        "
        1    arrive 1 prompt=ann*2 tokens=100
        10   arrive 2 prompt=bob*2 tokens=100
        20   arrive 3 prompt=cyd*2 tokens=100 class=batch
        21   show
        4009 tick
        4010 tick
        4020 done 1
        ",
    );
    assert_snapshot!(log, @r"
    1 arrive 1 prompt=ann*2 tokens=100
       -> 01 verdict=dispatch replica=a score=352.500 cached=0 prompt=100 candidates=1 excluded=0 held_ms=0.0 limit_ms=2000 late_by_ms=-1875
    10 arrive 2 prompt=bob*2 tokens=100
       -> 02 verdict=hold prompt=100 candidates=0 excluded=1 held_ms=0.0 limit_ms=4000 late_by_ms=-4000
    20 arrive 3 prompt=cyd*2 tokens=100 class=batch
       -> 03 verdict=hold prompt=100 candidates=0 excluded=1 held_ms=0.0 class=batch limit_ms=120000 late_by_ms=-120000
    21 show
       a: healthy, 1 in flight, 100 queued, 100 uncached
       queue: 2 held, deadline Some(2001.0)
    4009 tick
    4010 tick
       => 02 verdict=reject reason=deadline retry_after_ms=1000 prompt=100 candidates=0 excluded=1 held_ms=4000.0 limit_ms=4000 late_by_ms=0
    4020 done 1
       => 03 verdict=dispatch replica=a score=238.733 cached=0 prompt=100 candidates=1 excluded=0 held_ms=4000.0 class=batch limit_ms=60000 late_by_ms=-55875
    ");
}

#[test]
fn who_is_deferred_waits_for_those_who_can_be_in_time_and_for_nobody_else() {
    let log = after(
        promised(),
        "
        1    arrive 1 prompt=ann*24 tokens=1500
        2    arrive 2 prompt=bob*24 tokens=1500 class=defer
        3    arrive 3 prompt=cyd*4 tokens=200
        4    arrive 4 prompt=dan*24 tokens=2500 class=defer priority=9
        5    show
        1020 tick
        1520 first 1
        1521 done 1
        1522 show
        1740 first 3
        3200 tick
        ",
    );
    assert_snapshot!(log, @r"
    1 arrive 1 prompt=ann*24 tokens=1500
       -> 01 verdict=dispatch replica=a score=2120.000 cached=0 prompt=1500 candidates=1 excluded=0 held_ms=0.0 limit_ms=2000 late_by_ms=-475
    2 arrive 2 prompt=bob*24 tokens=1500 class=defer
       -> 02 verdict=hold prompt=1500 candidates=1 excluded=0 held_ms=0.0 class=defer limit_ms=2000 late_by_ms=1039
    3 arrive 3 prompt=cyd*4 tokens=200
       -> 03 verdict=hold prompt=200 candidates=1 excluded=0 held_ms=0.0 limit_ms=2000 late_by_ms=-262
    4 arrive 4 prompt=dan*24 tokens=2500 class=defer priority=9
       -> 04 verdict=hold prompt=2500 candidates=1 excluded=0 held_ms=0.0 class=defer limit_ms=2000 late_by_ms=2037
    5 show
       a: healthy, 1 in flight, 1500 queued, 1500 uncached
       queue: 3 held, deadline Some(1016.0)
    1020 tick
       => 03 verdict=dispatch replica=a score=836.834 cached=0 prompt=200 candidates=1 excluded=0 held_ms=1017.0 limit_ms=2000 late_by_ms=-262
    1520 first 1
       => 04 verdict=dispatch replica=a score=4443.347 cached=0 prompt=2500 candidates=1 excluded=0 held_ms=1516.0 class=defer limit_ms=2000 late_by_ms=2246
    1521 done 1
    1522 show
       a: healthy, 2 in flight, 2700 queued, 2700 uncached
       queue: 1 held, deadline Some(3740.0)
    1740 first 3
    3200 tick
    ");
}

#[test]
fn the_key_that_has_had_least_goes_first_and_one_that_floods_waits_for_itself() {
    let settings = Settings { max_concurrent: Some(1), strategy: "gorgo".into(), ..Settings::default() };
    let log = after(
        settings,
        "
        1    arrive 1 prompt=a*9 key=ann max_tokens=1
        2    arrive 2 prompt=b*9 key=ann max_tokens=1
        3    arrive 3 prompt=c*9 key=ann max_tokens=1
        4    arrive 4 prompt=d*9 key=ann max_tokens=1 priority=7
        5    arrive 5 prompt=e*9 key=bob max_tokens=1
        6    arrive 6 prompt=f*9 key=bob max_tokens=1
        7    done 1
        8    done 5
        9    done 4
        10   done 6
        11   done 2
        ",
    );
    let went: Vec<&str> = log.lines().filter(|line| line.contains("=>")).map(|line| line.trim()).collect();
    let went: Vec<&str> = went.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    // Bob came back from idle with as much as Ann had had; then they take turns, each with the more urgent first.
    assert_eq!(went, ["05", "04", "06", "02", "03"], "{log}");
}

#[test]
fn nobody_waits_for_those_who_wait_for_other_replicas() {
    for strategy in ["gorgo", "predictive"] {
        let settings = Settings { max_concurrent: Some(1), strategy: strategy.into(), ..Settings::default() };
        let mut script = Script::new(settings);
        let before = [
            "0 add a r1",
            "0 add b r2 models=m",
            "0 up a",
            "0 up b",
            "1 arrive 1 prompt=a*9 key=ann model=x",
            "2 arrive 2 prompt=b*9 key=bob model=x",
            "3 arrive 3 prompt=c*9 key=ann model=m",
            "4 done 3",
        ];
        let log: String = before.map(|line| script.play(line)).concat();
        assert!(log.contains(&format!("02 attempt=1 strategy={strategy} verdict=hold")), "{log}");
        // Bob's waits for `a`, which is full. Ann has had more, and asks for what only `b` serves.
        let log = script.play("5 arrive 4 prompt=d*9 key=ann model=m");
        assert!(log.contains("verdict=dispatch replica=b"), "{log}");
        // One more of hers waits behind Bob's in the queue, but for another replica: it goes as soon as that is free.
        let log = ["6 arrive 5 prompt=e*9 key=ann model=m", "7 done 4"].map(|line| script.play(line));
        assert!(log[0].contains("verdict=hold") && log[1].contains("05 attempt=1"), "{log:?}");
        assert!(log[1].contains("verdict=dispatch replica=b"), "{log:?}");
    }
}
