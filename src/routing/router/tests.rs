//! Scripted days in the life of a router: events in, decisions out, as text.

mod script;

use insta::assert_snapshot;

use self::script::{Script, play};
use crate::routing::Settings;

fn settings(strategy: &str) -> Settings {
    Settings { strategy: strategy.into(), ..Settings::default() }
}

#[test]
fn a_conversation_stays_where_its_prefix_is_until_that_costs_more_than_the_way() {
    let log = play(
        settings("gorgo"),
        "
        0    add east us-east-1
        0    add west us-west-2
        0    rtt east 2
        0    rtt west 70
        0    up east
        0    up west
        10   arrive 1 prompt=sys*20+ann*5
        11   headers 1
        130  first 1
        400  done 1 prompt=1600 cached=0 out=40
        500  arrive 2 prompt=sys*20+ann*12
        510  arrive 3 prompt=sys*20+bob*100
        520  arrive 4 prompt=other*100
        530  first 2
        540  failed 3
        550  done 2 prompt=2048 cached=1600 out=60
        560  done 3
        570  cancel 4
        580  done 4
        590  show
        ",
    );
    assert_snapshot!(log, @r"
    0 add east us-east-1
    0 add west us-west-2
    0 rtt east 2
    0 rtt west 70
    0 up east
    0 up west
    10 arrive 1 prompt=sys*20+ann*5
       -> 01 attempt=1 strategy=gorgo verdict=dispatch replica=east score=152.400 unit=ms cached=0 prompt=1600 candidates=2 excluded=0 held_ms=0.0
    11 headers 1
    130 first 1
    400 done 1 prompt=1600 cached=0 out=40
    500 arrive 2 prompt=sys*20+ann*12
       -> 02 attempt=1 strategy=gorgo verdict=dispatch replica=east score=44.112 unit=ms cached=1600 prompt=2048 candidates=2 excluded=0 held_ms=0.0
    510 arrive 3 prompt=sys*20+bob*100
       -> 03 attempt=1 strategy=gorgo verdict=dispatch replica=east score=622.851 unit=ms cached=1280 prompt=7680 candidates=2 excluded=0 held_ms=0.0
    520 arrive 4 prompt=other*100
       -> 04 attempt=1 strategy=gorgo verdict=dispatch replica=west score=671.600 unit=ms cached=0 prompt=6400 candidates=2 excluded=0 held_ms=0.0
    530 first 2
    540 failed 3
       -> 03 attempt=2 strategy=gorgo verdict=dispatch replica=west score=852.080 unit=ms cached=0 prompt=7680 candidates=1 excluded=1 held_ms=0.0
    550 done 2 prompt=2048 cached=1600 out=60
    560 done 3
    570 cancel 4
    580 done 4
    590 show
       east: healthy, 0 in flight, 0 queued, 0 uncached, 3 sent, 1 failed
       west: healthy, 0 in flight, 0 queued, 0 uncached, 2 sent, 0 failed
       queue: 0 held, deadline None
    ");
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    for strategy in ["random", "power-of-two", "gorgo", "session-affinity"] {
        let run = |seed| {
            let mut script = Script::new(Settings { seed, ..settings(strategy) });
            for line in ["0 add a r1", "0 add b r2", "0 add c r3", "0 up a", "0 up b", "0 up c"] {
                script.play(line);
            }
            (0..200).map(|i| script.play(&format!("{i} arrive {i} prompt=s*3+u{}*9", i % 7))).collect::<String>()
        };
        assert_eq!(run(7), run(7), "{strategy}");
        if ["random", "power-of-two"].contains(&strategy) {
            assert_ne!(run(7), run(8), "{strategy}");
        }
    }
}
