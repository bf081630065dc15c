//! Rules of other systems in the life of a router.

use insta::assert_snapshot;

use super::script::play;
use crate::routing::Settings;

#[test]
fn skywalker_pushes_one_at_a_time_and_to_whoever_is_free_first() {
    let settings =
        Settings { strategy: "skywalker".into(), parameters: vec![("max_pending".into(), 0.0)], ..Settings::default() };
    let log = play(
        settings,
        "
        0    add a r1
        0    add b r2
        0    up a
        0    up b
        10   arrive 1 prompt=ann*4
        10   arrive 2 prompt=bob*4
        11   arrive 3 prompt=ann*5
        12   arrive 4 prompt=cyd*4
        20   first 2
        21   gauges a waiting=1
        22   first 1
        30   gauges a waiting=0
        ",
    );
    assert_snapshot!(log, @r"
    0 add a r1
    0 add b r2
    0 up a
    0 up b
    10 arrive 1 prompt=ann*4
       -> 01 attempt=1 strategy=skywalker verdict=dispatch replica=a score=0.000 unit=requests cached=0 prompt=256 candidates=2 excluded=0 held_ms=0.0
    10 arrive 2 prompt=bob*4
       -> 02 attempt=1 strategy=skywalker verdict=dispatch replica=b score=0.000 unit=requests cached=0 prompt=256 candidates=2 excluded=0 held_ms=0.0
    11 arrive 3 prompt=ann*5
       -> 03 attempt=1 strategy=skywalker verdict=hold prompt=320 candidates=2 excluded=0 held_ms=0.0
    12 arrive 4 prompt=cyd*4
       -> 04 attempt=1 strategy=skywalker verdict=hold prompt=256 candidates=2 excluded=0 held_ms=0.0
    20 first 2
       => 03 attempt=1 strategy=skywalker verdict=dispatch replica=b score=1.000 unit=requests cached=0 prompt=320 candidates=2 excluded=0 held_ms=9.0
    21 gauges a waiting=1
    22 first 1
    30 gauges a waiting=0
       => 04 attempt=1 strategy=skywalker verdict=dispatch replica=a score=1.000 unit=requests cached=0 prompt=256 candidates=2 excluded=0 held_ms=18.0
    ");
}

#[test]
fn what_was_sent_counts_where_it_was_sent() {
    // `a` may have more than `b` by what its cache saves, and nothing else.
    let settings = |strategy: &str| Settings { strategy: strategy.into(), ..Settings::default() };
    let script = "
        0    add a r1
        0    add b r2
        0    up a
        0    up b
        10   arrive 1 prompt=ann*10
        20   arrive 2 prompt=bob*4
        30   first 1
        40   first 2
        50   done 1 prompt=640 cached=0 out=40
        60   done 2 prompt=256 cached=0 out=40
        70   arrive 3 prompt=cyd*5
        80   cancel 3
        90   arrive 4 prompt=ann*10+new*9
        95   failed 4
        99   done 4 prompt=1216 cached=0 out=5
        100  remove a
        110  add a r1
        110  up a
        120  arrive 5 prompt=dan*4
        ";
    assert_snapshot!(play(settings("sglang-cache-aware"), script), @r"
    0 add a r1
    0 add b r2
    0 up a
    0 up b
    10 arrive 1 prompt=ann*10
       -> 01 attempt=1 strategy=sglang-cache-aware verdict=dispatch replica=a score=0.000 unit=rank cached=0 prompt=640 candidates=2 excluded=0 held_ms=0.0
    20 arrive 2 prompt=bob*4
       -> 02 attempt=1 strategy=sglang-cache-aware verdict=dispatch replica=b score=0.000 unit=rank cached=0 prompt=256 candidates=2 excluded=0 held_ms=0.0
    30 first 1
    40 first 2
    50 done 1 prompt=640 cached=0 out=40
    60 done 2 prompt=256 cached=0 out=40
    70 arrive 3 prompt=cyd*5
       -> 03 attempt=1 strategy=sglang-cache-aware verdict=dispatch replica=b score=256.000 unit=rank cached=0 prompt=320 candidates=2 excluded=0 held_ms=0.0
    80 cancel 3
    90 arrive 4 prompt=ann*10+new*9
       -> 04 attempt=1 strategy=sglang-cache-aware verdict=dispatch replica=a score=0.000 unit=rank cached=640 prompt=1216 candidates=2 excluded=0 held_ms=0.0
    95 failed 4
       -> 04 attempt=2 strategy=sglang-cache-aware verdict=dispatch replica=b score=576.000 unit=rank cached=0 prompt=1216 candidates=1 excluded=1 held_ms=0.0
    99 done 4 prompt=1216 cached=0 out=5
    100 remove a
    110 add a r1
    110 up a
    120 arrive 5 prompt=dan*4
       -> 05 attempt=1 strategy=sglang-cache-aware verdict=dispatch replica=a score=0.000 unit=rank cached=0 prompt=256 candidates=2 excluded=0 held_ms=0.0
    ");
    assert_snapshot!(play(settings("preble"), script), @r"
    0 add a r1
    0 add b r2
    0 up a
    0 up b
    10 arrive 1 prompt=ann*10
       -> 01 attempt=1 strategy=preble verdict=dispatch replica=a score=0.000 unit=rank cached=0 prompt=640 candidates=2 excluded=0 held_ms=0.0
    20 arrive 2 prompt=bob*4
       -> 02 attempt=1 strategy=preble verdict=dispatch replica=b score=0.000 unit=rank cached=0 prompt=256 candidates=2 excluded=0 held_ms=0.0
    30 first 1
    40 first 2
    50 done 1 prompt=640 cached=0 out=40
    60 done 2 prompt=256 cached=0 out=40
    70 arrive 3 prompt=cyd*5
       -> 03 attempt=1 strategy=preble verdict=dispatch replica=b score=38.386 unit=rank cached=0 prompt=320 candidates=2 excluded=0 held_ms=0.0
    80 cancel 3
    90 arrive 4 prompt=ann*10+new*9
       -> 04 attempt=1 strategy=preble verdict=dispatch replica=a score=82.136 unit=rank cached=640 prompt=1216 candidates=2 excluded=0 held_ms=0.0
    95 failed 4
       -> 04 attempt=2 strategy=preble verdict=dispatch replica=b score=60.804 unit=rank cached=0 prompt=1216 candidates=1 excluded=1 held_ms=0.0
    99 done 4 prompt=1216 cached=0 out=5
    100 remove a
    110 add a r1
    110 up a
    120 arrive 5 prompt=dan*4
       -> 05 attempt=1 strategy=preble verdict=dispatch replica=a score=0.000 unit=rank cached=0 prompt=256 candidates=2 excluded=0 held_ms=0.0
    ");
}
