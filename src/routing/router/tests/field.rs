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
