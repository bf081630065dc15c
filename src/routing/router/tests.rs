//! Scripted days in the life of a router: events in, decisions out, as text.

mod fair;
mod field;
mod guard;
mod peers;
mod properties;
mod script;
mod slo;
mod tuning;

use insta::assert_snapshot;

use self::script::{Script, play};
use crate::model::Time;
use crate::routing::Settings;
use crate::routing::residency::Residency;

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
       east: healthy, 0 in flight, 0 queued, 0 uncached
       west: healthy, 0 in flight, 0 queued, 0 uncached
       queue: 0 held, deadline None
    ");
}

#[test]
fn the_paper_s_proxy_holds_requests_at_its_gate_without_blocking_others() {
    let settings = Settings { parameters: vec![("gate_running".into(), 2.0)], ..settings("gorgo-proxy") };
    let log = play(
        settings,
        "
        0    add a r1 models=small
        0    add b r2 models=large
        0    rtt a 2
        0    rtt b 50
        0    up a
        0    up b
        10   arrive 1 model=small prompt=x*4
        10   arrive 2 model=small prompt=x*4
        11   arrive 3 model=small prompt=y*4
        12   arrive 4 model=small prompt=z*4 priority=5
        13   arrive 5 model=large prompt=w*4
        20   first 1
        30   done 2
        35   show
        40   withdraw 4
        50   withdraw 3
        60   done 1
        61   gauges b kv_usage=0.97
        62   arrive 6 model=large prompt=w*4
        63   show
        70   gauges b kv_usage=0.5
        ",
    );
    assert_snapshot!(log, @r"
    0 add a r1 models=small
    0 add b r2 models=large
    0 rtt a 2
    0 rtt b 50
    0 up a
    0 up b
    10 arrive 1 model=small prompt=x*4
       -> 01 attempt=1 strategy=gorgo-proxy verdict=dispatch replica=a score=26.064 unit=ms cached=0 prompt=256 candidates=1 excluded=1 held_ms=0.0
    10 arrive 2 model=small prompt=x*4
       -> 02 attempt=1 strategy=gorgo-proxy verdict=dispatch replica=a score=14.126 unit=ms cached=255 prompt=256 candidates=1 excluded=1 held_ms=0.0
    11 arrive 3 model=small prompt=y*4
       -> 03 attempt=1 strategy=gorgo-proxy verdict=hold prompt=256 candidates=0 excluded=2 held_ms=0.0
    12 arrive 4 model=small prompt=z*4 priority=5
       -> 04 attempt=1 strategy=gorgo-proxy verdict=hold prompt=256 candidates=0 excluded=2 held_ms=0.0
    13 arrive 5 model=large prompt=w*4
       -> 05 attempt=1 strategy=gorgo-proxy verdict=dispatch replica=b score=74.064 unit=ms cached=0 prompt=256 candidates=1 excluded=1 held_ms=0.0
    20 first 1
    30 done 2
       => 04 attempt=1 strategy=gorgo-proxy verdict=dispatch replica=a score=26.064 unit=ms cached=0 prompt=256 candidates=1 excluded=1 held_ms=18.0
    35 show
       a: healthy, 2 in flight, 512 queued, 256 uncached
       b: healthy, 1 in flight, 256 queued, 256 uncached
       queue: 1 held, deadline Some(60011.0)
    40 withdraw 4
       => 03 attempt=1 strategy=gorgo-proxy verdict=dispatch replica=a score=26.064 unit=ms cached=0 prompt=256 candidates=1 excluded=1 held_ms=29.0
    50 withdraw 3
    60 done 1
    61 gauges b kv_usage=0.97
    62 arrive 6 model=large prompt=w*4
       -> 06 attempt=1 strategy=gorgo-proxy verdict=hold prompt=256 candidates=0 excluded=2 held_ms=0.0
    63 show
       a: healthy, 0 in flight, 0 queued, 0 uncached
       b: healthy, 1 in flight, 256 queued, 256 uncached
       queue: 1 held, deadline Some(5061.001)
    70 gauges b kv_usage=0.5
       => 06 attempt=1 strategy=gorgo-proxy verdict=dispatch replica=b score=62.126 unit=ms cached=255 prompt=256 candidates=1 excluded=1 held_ms=8.0
    ");
}

#[test]
fn the_queue_is_bounded_in_length_and_age() {
    let settings =
        Settings { max_concurrent: Some(1), queue_limit: 2, queue_timeout_ms: 1000.0, ..settings("least-load") };
    let log = play(
        settings,
        "
        0    add a r1
        0    up a
        10   arrive 1 prompt=x*4
        20   arrive 2 prompt=x*4
        30   arrive 3 prompt=x*4
        40   arrive 4 prompt=x*4
        50   done 1
        60   arrive 5 prompt=x*4
        70   arrive 6 prompt=x*4
        80   show
        1029 tick
        1030 tick
        1031 show
        1032 limit none
        ",
    );
    assert_snapshot!(log, @r"
    0 add a r1
    0 up a
    10 arrive 1 prompt=x*4
       -> 01 attempt=1 strategy=least-load verdict=dispatch replica=a score=0.000 unit=tokens cached=0 prompt=256 candidates=1 excluded=0 held_ms=0.0
    20 arrive 2 prompt=x*4
       -> 02 attempt=1 strategy=least-load verdict=hold prompt=256 candidates=0 excluded=1 held_ms=0.0
    30 arrive 3 prompt=x*4
       -> 03 attempt=1 strategy=least-load verdict=hold prompt=256 candidates=0 excluded=1 held_ms=0.0
    40 arrive 4 prompt=x*4
       -> 04 attempt=1 strategy=least-load verdict=reject reason=queue_full prompt=256 candidates=0 excluded=1 held_ms=0.0
    50 done 1
       => 02 attempt=1 strategy=least-load verdict=dispatch replica=a score=0.000 unit=tokens cached=255 prompt=256 candidates=1 excluded=0 held_ms=30.0
    60 arrive 5 prompt=x*4
       -> 05 attempt=1 strategy=least-load verdict=hold prompt=256 candidates=0 excluded=1 held_ms=0.0
    70 arrive 6 prompt=x*4
       -> 06 attempt=1 strategy=least-load verdict=reject reason=queue_full retry_after_ms=1000 prompt=256 candidates=0 excluded=1 held_ms=0.0
    80 show
       a: healthy, 1 in flight, 256 queued, 1 uncached
       queue: 2 held, deadline Some(1030.0)
    1029 tick
    1030 tick
       => 03 attempt=1 strategy=least-load verdict=reject reason=queue_timeout retry_after_ms=1000 prompt=256 candidates=0 excluded=1 held_ms=1000.0
    1031 show
       a: healthy, 1 in flight, 256 queued, 1 uncached
       queue: 1 held, deadline Some(1060.0)
    1032 limit none
       => 05 attempt=1 strategy=least-load verdict=dispatch replica=a score=256.000 unit=tokens cached=255 prompt=256 candidates=1 excluded=0 held_ms=972.0
    ");
}

#[test]
fn failures_go_elsewhere_and_take_a_replica_out() {
    let log = play(
        settings("round-robin"),
        "
        0    arrive 1 prompt=x*1
        1    add a r1
        1    add b r2
        2    arrive 2 prompt=x*1
        3    failed 2
        4    failed 2
        5    failed 2
        6    up b
        7    arrive 3 prompt=x*1
        8    down b
        9    broken 3
        10   arrive 4 prompt=x*1
        11   failed 4
        12   up a
        13   arrive 5 prompt=x*1
        14   up b
        15   up b
        16   headers 5
        17   arrive 6 prompt=x*1
        18   failed 6
        19   show
        ",
    );
    assert_snapshot!(log, @r"
    0 arrive 1 prompt=x*1
       -> 01 attempt=1 strategy=round-robin verdict=reject reason=no_replica prompt=64 candidates=0 excluded=0 held_ms=0.0
    1 add a r1
    1 add b r2
    2 arrive 2 prompt=x*1
       -> 02 attempt=1 strategy=round-robin verdict=dispatch replica=a score=0.000 unit=rank cached=0 prompt=64 candidates=2 excluded=0 held_ms=0.0
    3 failed 2
       -> 02 attempt=2 strategy=round-robin verdict=dispatch replica=b score=0.000 unit=rank cached=0 prompt=64 candidates=1 excluded=1 held_ms=0.0
    4 failed 2
       -> 02 attempt=3 strategy=round-robin verdict=reject reason=all_tried prompt=64 candidates=0 excluded=2 held_ms=0.0
    5 failed 2
       -> 02 attempt=0 strategy=round-robin verdict=reject reason=all_tried prompt=0 candidates=0 excluded=0 held_ms=0.0
    6 up b
    7 arrive 3 prompt=x*1
       -> 03 attempt=1 strategy=round-robin verdict=dispatch replica=b score=0.000 unit=rank cached=63 prompt=64 candidates=1 excluded=1 held_ms=0.0
    8 down b
    9 broken 3
    10 arrive 4 prompt=x*1
       -> 04 attempt=1 strategy=round-robin verdict=dispatch replica=b score=0.000 unit=rank cached=63 prompt=64 candidates=1 excluded=1 held_ms=0.0
    11 failed 4
       -> 04 attempt=2 strategy=round-robin verdict=dispatch replica=a score=0.000 unit=rank cached=63 prompt=64 candidates=1 excluded=1 held_ms=0.0
    12 up a
    13 arrive 5 prompt=x*1
       -> 05 attempt=1 strategy=round-robin verdict=dispatch replica=a score=0.000 unit=rank cached=63 prompt=64 candidates=1 excluded=1 held_ms=0.0
    14 up b
    15 up b
    16 headers 5
    17 arrive 6 prompt=x*1
       -> 06 attempt=1 strategy=round-robin verdict=dispatch replica=b score=0.000 unit=rank cached=63 prompt=64 candidates=2 excluded=0 held_ms=0.0
    18 failed 6
       -> 06 attempt=2 strategy=round-robin verdict=dispatch replica=a score=0.000 unit=rank cached=63 prompt=64 candidates=1 excluded=1 held_ms=0.0
    19 show
       a: healthy, 3 in flight, 192 queued, 3 uncached
       b: healthy, 0 in flight, 0 queued, 0 uncached
       queue: 0 held, deadline None
    ");
}

#[test]
fn replicas_strategy_and_limits_change_without_losing_a_request() {
    let log = play(
        Settings { max_concurrent: Some(1), ..settings("gorgo") },
        "
        0    add a r1
        0    up a
        1    arrive 1 prompt=x*4
        2    arrive 2 prompt=x*4
        3    arrive 3 prompt=x*4
        4    arrive 4 prompt=x*4 model=large
        5    strategy least-load
        6    drain a on
        7    arrive 5 prompt=x*4
        8    done 1
        9    add b r2 models=small
        10   up b
        11   show
        12   drain a off
        13   remove b
        14   headers 2
        15   failed 2
        16   add a r1 models=large
        17   limit 7
        18   show
        19   remove a
        20   done 4
        ",
    );
    assert_snapshot!(log, @r"
    0 add a r1
    0 up a
    1 arrive 1 prompt=x*4
       -> 01 attempt=1 strategy=gorgo verdict=dispatch replica=a score=24.064 unit=ms cached=0 prompt=256 candidates=1 excluded=0 held_ms=0.0
    2 arrive 2 prompt=x*4
       -> 02 attempt=1 strategy=gorgo verdict=hold prompt=256 candidates=0 excluded=1 held_ms=0.0
    3 arrive 3 prompt=x*4
       -> 03 attempt=1 strategy=gorgo verdict=hold prompt=256 candidates=0 excluded=1 held_ms=0.0
    4 arrive 4 prompt=x*4 model=large
       -> 04 attempt=1 strategy=gorgo verdict=hold prompt=256 candidates=0 excluded=1 held_ms=0.0
    5 strategy least-load
    6 drain a on
    7 arrive 5 prompt=x*4
       -> 05 attempt=1 strategy=least-load verdict=reject reason=none_healthy prompt=256 candidates=0 excluded=1 held_ms=0.0
    8 done 1
    9 add b r2 models=small
       => 02 attempt=1 strategy=least-load verdict=dispatch replica=b score=0.000 unit=tokens cached=0 prompt=256 candidates=1 excluded=1 held_ms=7.0
    10 up b
    11 show
       a: healthy, draining, 0 in flight, 0 queued, 0 uncached
       b: healthy, 1 in flight, 256 queued, 256 uncached
       queue: 2 held, deadline Some(60003.0)
    12 drain a off
       => 03 attempt=1 strategy=least-load verdict=dispatch replica=a score=0.000 unit=tokens cached=255 prompt=256 candidates=1 excluded=1 held_ms=9.0
    13 remove b
    14 headers 2
    15 failed 2
       -> 02 attempt=2 strategy=least-load verdict=hold prompt=256 candidates=0 excluded=1 held_ms=7.0
    16 add a r1 models=large
    17 limit 7
       => 02 attempt=2 strategy=least-load verdict=dispatch replica=a score=256.000 unit=tokens cached=255 prompt=256 candidates=1 excluded=0 held_ms=9.0
       => 04 attempt=1 strategy=least-load verdict=dispatch replica=a score=512.000 unit=tokens cached=255 prompt=256 candidates=1 excluded=0 held_ms=13.0
    18 show
       a: healthy, 3 in flight, 768 queued, 3 uncached
       queue: 0 held, deadline None
    19 remove a
    20 done 4
    ");
}

#[test]
fn residency_fails_closed() {
    let classes = [("eu".to_owned(), vec!["eu-*".to_owned()])];
    let residency = Residency { classes: classes.into(), ..Residency::default() };
    let log = play(
        Settings { residency, ..settings("gorgo") },
        "
        0    add us us-east-1
        0    add eu eu-west-3
        0    rtt us 2
        0    rtt eu 97
        0    up us
        0    up eu
        1    arrive 1 prompt=x*1
        2    arrive 2 prompt=x*1 residency=eu
        3    arrive 3 prompt=x*1 residency=moon
        4    failed 2
        ",
    );
    assert_snapshot!(log, @r"
    0 add us us-east-1
    0 add eu eu-west-3
    0 rtt us 2
    0 rtt eu 97
    0 up us
    0 up eu
    1 arrive 1 prompt=x*1
       -> 01 attempt=1 strategy=gorgo verdict=dispatch replica=us score=8.016 unit=ms cached=0 prompt=64 candidates=2 excluded=0 held_ms=0.0
    2 arrive 2 prompt=x*1 residency=eu
       -> 02 attempt=1 strategy=gorgo verdict=dispatch replica=eu score=103.016 unit=ms cached=0 prompt=64 candidates=1 excluded=1 held_ms=0.0
    3 arrive 3 prompt=x*1 residency=moon
       -> 03 attempt=1 strategy=gorgo verdict=reject reason=residency prompt=64 candidates=0 excluded=2 held_ms=0.0
    4 failed 2
       -> 02 attempt=2 strategy=gorgo verdict=reject reason=all_tried prompt=64 candidates=0 excluded=2 held_ms=0.0
    ");
}

#[test]
fn usage_teaches_tokens_predictions_and_the_index() {
    let mut script = Script::new(settings("gorgo"));
    for line in ["0 add a r1 kv=6400", "0 up a", "0 rtt a 10"] {
        script.play(line);
    }
    let mut log = String::new();
    for i in 0..3u32 {
        let at = f64::from(i) * 1000.0;
        log += &script.play(&format!("{at} arrive {i} prompt=sys*8+turn*{}", 2 * i));
        script.play(&format!("{} first {i}", at + 80.0));
        script.play(&format!("{} done {i} prompt={} cached={} out=50", at + 500.0, (8 + 2 * i) * 128, i * 64));
    }
    let snapshot = script.router.snapshot(Time::from_ms(3000.0));
    for line in [
        format!("{:?}", snapshot.bytes_per_token),
        format!("{:?}", script.router.replicas().next().expect("replica a").ttft_ms.accuracy()),
        format!(
            "{} of {} blocks",
            script.router.index_stats().total.blocks,
            script.router.index_stats().total.capacity
        ),
    ] {
        log += &format!("{line}\n");
    }
    assert_snapshot!(log, @r"
    0 arrive 0 prompt=sys*8+turn*0
       -> 00 attempt=1 strategy=gorgo verdict=dispatch replica=a score=58.128 unit=ms cached=0 prompt=512 candidates=1 excluded=0 held_ms=0.0
    1000 arrive 1 prompt=sys*8+turn*2
       -> 01 attempt=1 strategy=gorgo verdict=dispatch replica=a score=26.074 unit=ms cached=683 prompt=854 candidates=1 excluded=0 held_ms=0.0
    2000 arrive 2 prompt=sys*8+turn*4
       -> 02 attempt=1 strategy=gorgo verdict=dispatch replica=a score=28.048 unit=ms cached=960 prompt=1152 candidates=1 excluded=0 held_ms=0.0
    [BytesPerToken { model: None, ratio: 2.5, samples: 3 }]
    Some(Accuracy { count: 3, predicted_median: 28.048000000000002, actual_median: 80.0, error_median: 51.952, relative_error_median: 0.6494, relative_bias_median: -0.6494, bias: -42.583333333333336 })
    12 of 84 blocks
    ");
}

#[test]
fn the_index_is_sized_by_the_model_that_is_served() {
    let capacity = |script: &Script| script.router.index_stats().total.capacity;
    let mut script = Script::new(settings("gorgo"));
    script.play("0 add a r1 kv=64000");
    script.play("0 up a");
    assert_eq!(capacity(&script), 900, "4 bytes per token are assumed, 64 tokens per block");
    for i in 0..200u32 {
        script.play(&format!("{i} arrive {i} prompt=x*4 model=m"));
        script.play(&format!("{i} done {i} prompt=512"));
    }
    script.play("300 gauges a running=0");
    assert_eq!(capacity(&script), 450, "2 bytes per token are learned, 128 tokens per block");
}

#[test]
fn a_request_that_replicas_die_of_is_given_up() {
    let log = play(
        Settings { max_attempts: 2, ..settings("round-robin") },
        "
        0 add a r1
        0 add b r2
        0 add c r3
        1 arrive 1 prompt=x*1
        2 failed 1
        3 failed 1
        4 arrive 2 prompt=x*1
        ",
    );
    assert_snapshot!(log, @r"
    0 add a r1
    0 add b r2
    0 add c r3
    1 arrive 1 prompt=x*1
       -> 01 attempt=1 strategy=round-robin verdict=dispatch replica=a score=0.000 unit=rank cached=0 prompt=64 candidates=3 excluded=0 held_ms=0.0
    2 failed 1
       -> 01 attempt=2 strategy=round-robin verdict=dispatch replica=b score=0.000 unit=rank cached=0 prompt=64 candidates=2 excluded=1 held_ms=0.0
    3 failed 1
       -> 01 attempt=2 strategy=round-robin verdict=reject reason=all_tried prompt=64 candidates=0 excluded=2 held_ms=0.0
    4 arrive 2 prompt=x*1
       -> 02 attempt=1 strategy=round-robin verdict=dispatch replica=c score=0.000 unit=rank cached=0 prompt=64 candidates=3 excluded=0 held_ms=0.0
    ");
}

#[test]
fn an_unknown_request_or_replica_changes_nothing() {
    let mut script = Script::new(settings("gorgo"));
    script.play("0 add a r1");
    let before = script.play("1 show");
    for line in ["headers 9", "first 9", "done 9", "cancel 9", "broken 9", "withdraw 9", "failed 9"] {
        script.play(&format!("1 {line}"));
    }
    for line in ["rtt x 5", "up x", "down x", "drain x on", "gauges x running=1", "remove x"] {
        assert_eq!(script.play(&format!("1 {line}")), format!("1 {line}\n"));
    }
    assert_eq!(script.play("1 show"), before);
}

#[test]
fn can_serve_says_why_not() {
    let mut script = Script::new(settings("gorgo"));
    let mut log = String::new();
    for line in ["", "add a r1", "up a", "down a", "down a", "down a", "up a", "up a", "drain a on", "add b r2"] {
        if !line.is_empty() {
            script.play(&format!("0 {line}"));
        }
        log += &format!("{line}: {}\n", script.router.can_serve().map_or_else(|refusal| refusal.as_str(), |()| "ok"));
    }
    assert_snapshot!(log, @r"
    : no_replica
    add a r1: none_healthy
    up a: ok
    down a: ok
    down a: ok
    down a: none_healthy
    up a: none_healthy
    up a: ok
    drain a on: none_healthy
    add b r2: none_healthy
    ");
}

/// Where 40 conversations with a common opening go, as shares of two equal replicas; all stay in flight.
fn shares(strategy: &str) -> (usize, usize) {
    let mut script = Script::new(settings(strategy));
    for line in ["0 add a r1", "0 add b r2", "0 rtt a 2", "0 rtt b 2", "0 up a", "0 up b"] {
        script.play(line);
    }
    for i in 0..40 {
        script.play(&format!("{i} arrive {i} prompt=sys*8+user{i}*8"));
    }
    let in_flight: Vec<usize> =
        script.router.snapshot(Time::ZERO).replicas.iter().map(|replica| replica.in_flight).collect();
    (in_flight[0], in_flight[1])
}

#[test]
fn a_common_opening_collapses_prefix_tree_only() {
    assert_eq!(shares("prefix-tree"), (40, 0));
    for strategy in ["gorgo", "gorgo-v3", "least-load", "round-robin"] {
        let (a, b) = shares(strategy);
        assert!(a.abs_diff(b) <= 4, "{strategy}: {a} and {b}");
    }
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

#[test]
fn a_body_that_cannot_be_read_goes_where_the_load_is_least() {
    let log = play(
        settings("session-affinity"),
        "
        0    add east us-east-1
        0    add west us-west-2
        0    up east
        0    up west
        10   arrive 1 session=1 prompt=sys*20
        20   arrive 2 session=1 prompt=sys*20
        30   arrive 3 session=1 body=opaque
        ",
    );
    assert_snapshot!(log, @r"
    0 add east us-east-1
    0 add west us-west-2
    0 up east
    0 up west
    10 arrive 1 session=1 prompt=sys*20
       -> 01 attempt=1 strategy=session-affinity verdict=dispatch replica=east score=0.009 unit=rank cached=0 prompt=1280 candidates=2 excluded=0 held_ms=0.0
    20 arrive 2 session=1 prompt=sys*20
       -> 02 attempt=1 strategy=session-affinity verdict=dispatch replica=east score=0.009 unit=rank cached=1279 prompt=1280 candidates=2 excluded=0 held_ms=0.0
    30 arrive 3 session=1 body=opaque
       -> 03 attempt=1 strategy=least-load verdict=dispatch replica=west score=0.000 unit=tokens cached=0 prompt=0 candidates=2 excluded=0 held_ms=0.0
    ");
}

#[test]
fn a_burst_of_equal_prompts_is_no_sign_of_a_restart() {
    let believed = |wait_for_first_token: bool| {
        let mut events = String::from("0 add east us-east-1\n0 rtt east 2\n0 up east\n");
        for request in 1..=4 {
            events += &format!("{request} arrive {request} prompt=sys*40\n");
            if wait_for_first_token {
                events += &format!("{request} first {request}\n");
            }
        }
        for request in 1..=4 {
            events += &format!("100 done {request} prompt=2560 cached=0 out=1\n");
        }
        let log = play(settings("gorgo"), &(events + "200 arrive 9 prompt=sys*40+ann*1"));
        let last = log.lines().last().and_then(|line| line.split_once("cached=")).unwrap().1.to_owned();
        last.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(believed(false), "2560", "nobody could have found the prefix of a prompt that was not computed yet");
    assert_eq!(
        believed(true),
        "0",
        "three prompts did not find what was computed before them: the engine lost its cache"
    );
}

/// The own engine is full at two requests; `east` and `west` are other agents.
fn agent(lines: &str) -> String {
    let parameters = vec![("running_threshold".into(), 0.0), ("max_running".into(), 2.0)];
    let head = "
        0    add own here
        0    add east there kind=peer
        0    add west far kind=peer
        0    rtt own 0
        0    rtt east 20
        0    rtt west 70
        0    up own
        0    up east
        0    up west
        ";
    let log = play(Settings { parameters, queue_limit: 2, ..settings("gorgo-v1") }, &format!("{head}{lines}"));
    log.split_once("0 up west\n").expect("the head").1.to_owned()
}

#[test]
fn an_agent_keeps_its_engine_busy_and_forwards_what_is_cheaper_elsewhere() {
    let log = agent(
        "
        10   arrive 1 prompt=ann*30
        10   arrive 2 prompt=bob*30
        11   arrive 3 prompt=cyd*30
        12   arrive 4 prompt=ann*30
        13   arrive 5 prompt=ann*30 from=peer
        14   down east
        14   down east
        14   down east
        15   failed 3
        20   done 4
        30   done 1
        40   show
        ",
    );
    assert_snapshot!(log, @r"
    10 arrive 1 prompt=ann*30
       -> 01 attempt=1 strategy=gorgo-v1 verdict=dispatch kept_local=true replica=own score=180.480 unit=ms cached=0 prompt=1920 candidates=3 excluded=0 held_ms=0.0
    10 arrive 2 prompt=bob*30
       -> 02 attempt=1 strategy=gorgo-v1 verdict=dispatch kept_local=true replica=own score=270.720 unit=ms cached=0 prompt=1920 candidates=3 excluded=0 held_ms=0.0
    11 arrive 3 prompt=cyd*30
       -> 03 attempt=1 strategy=gorgo-v1 verdict=dispatch replica=east score=200.480 unit=ms cached=0 prompt=1920 candidates=3 excluded=0 held_ms=0.0
    12 arrive 4 prompt=ann*30
       -> 04 attempt=1 strategy=gorgo-v1 verdict=hold prompt=1920 candidates=3 excluded=0 held_ms=0.0
    13 arrive 5 prompt=ann*30 from=peer
       -> 05 attempt=1 strategy=gorgo-v1 verdict=hold prompt=1920 candidates=1 excluded=2 held_ms=0.0
    14 down east
    14 down east
    14 down east
       => 04 attempt=1 strategy=gorgo-v1 verdict=dispatch replica=west score=250.480 unit=ms cached=0 prompt=1920 candidates=2 excluded=1 held_ms=2.0
    15 failed 3
       -> 03 attempt=2 strategy=gorgo-v1 verdict=dispatch replica=west score=250.480 unit=ms cached=0 prompt=1920 candidates=2 excluded=1 held_ms=0.0
    20 done 4
    30 done 1
       => 05 attempt=1 strategy=gorgo-v1 verdict=dispatch kept_local=true replica=own score=90.334 unit=ms cached=1919 prompt=1920 candidates=1 excluded=2 held_ms=17.0
    40 show
       own: healthy, 2 in flight, 3840 queued, 1921 uncached
       east: unhealthy, 0 in flight, 0 queued, 0 uncached
       west: healthy, 1 in flight, 1920 queued, 1920 uncached
       queue: 0 held, deadline None
    ");
}

#[test]
fn what_waits_at_an_agent_goes_as_soon_as_a_peer_is_cheaper() {
    let log = agent(
        "
        10   gauges east running=2
        10   gauges west running=1 waiting=1
        11   arrive 1 prompt=ann*4
        11   arrive 2 prompt=ann*4
        12   arrive 3 prompt=bob*300
        13   arrive 4 prompt=cyd*4 from=peer
        14   arrive 5 prompt=dan*4
        20   gauges east running=1
        21   limit 3
        22   arrive 6 prompt=eve*4
        ",
    );
    assert_snapshot!(log, @r"
    10 gauges east running=2
    10 gauges west running=1 waiting=1
    11 arrive 1 prompt=ann*4
       -> 01 attempt=1 strategy=gorgo-v1 verdict=dispatch kept_local=true replica=own score=24.064 unit=ms cached=0 prompt=256 candidates=3 excluded=0 held_ms=0.0
    11 arrive 2 prompt=ann*4
       -> 02 attempt=1 strategy=gorgo-v1 verdict=dispatch kept_local=true replica=own score=12.126 unit=ms cached=255 prompt=256 candidates=3 excluded=0 held_ms=0.0
    12 arrive 3 prompt=bob*300
       -> 03 attempt=1 strategy=gorgo-v1 verdict=hold prompt=19200 candidates=3 excluded=0 held_ms=0.0
    13 arrive 4 prompt=cyd*4 from=peer
       -> 04 attempt=1 strategy=gorgo-v1 verdict=hold prompt=256 candidates=1 excluded=2 held_ms=0.0
    14 arrive 5 prompt=dan*4
       -> 05 attempt=1 strategy=gorgo-v1 verdict=reject reason=queue_full prompt=256 candidates=3 excluded=0 held_ms=0.0
    20 gauges east running=1
       => 03 attempt=1 strategy=gorgo-v1 verdict=dispatch replica=east score=1824.800 unit=ms cached=0 prompt=19200 candidates=3 excluded=0 held_ms=8.0
    21 limit 3
       => 04 attempt=1 strategy=gorgo-v1 verdict=dispatch kept_local=true replica=own score=48.128 unit=ms cached=0 prompt=256 candidates=1 excluded=2 held_ms=8.0
    22 arrive 6 prompt=eve*4
       -> 06 attempt=1 strategy=gorgo-v1 verdict=dispatch replica=east score=44.064 unit=ms cached=0 prompt=256 candidates=3 excluded=0 held_ms=0.0
    ");
}

#[test]
fn a_prompt_that_the_engine_cannot_hold_pushes_nothing_out() {
    let mut script = Script::new(settings("gorgo"));
    for line in ["0 add a r1 kv=6400", "0 up a", "0 rtt a 10", "1 arrive 1 prompt=sys*10", "2 first 1", "3 done 1"] {
        script.play(line);
    }
    script.play("4 arrive 2 prompt=huge*200");
    let held = script.router.index_stats().total.blocks;
    assert_eq!(held, 10, "200 blocks of 64 tokens are more than 6,400: the engine refuses them");
}
