//! Who is late is called back, if its engine has certainly not begun it and somebody else has time for it; in every other case it waits.

use super::script::Script;
use crate::routing::Settings;

/// A router that has learned its two engines (10 ms and 0.1 ms per token, 10 ms away) and then sent four prompts of 20,000 tokens to `a`, one
/// second apart, while `b` was away. `a` shows nothing more.
struct Lab {
    script: Script,
}

/// What differs from the case in which the last of the four is called back.
#[derive(Clone, Copy, Default)]
struct Twist<'a> {
    parameters: &'a [(&'a str, f64)],
    /// Arguments of `a` when it is added.
    a: &'a str,
    /// Said at 9500 ms, after all four have come.
    told: &'a str,
    /// Arguments of every request.
    request: &'a str,
    /// At 9600 ms.
    event: &'a str,
    /// Prompt tokens of the three before the last one; 20,000 if 0.
    before: u32,
}

const GAUGES: &str = "gauges a running=1 waiting=3";

impl Lab {
    fn new(twist: Twist<'_>) -> Self {
        let unheld = [("hold_ms", 60_000.0)];
        let parameters =
            unheld.iter().chain(twist.parameters).map(|(key, value)| ((*key).to_owned(), *value)).collect();
        let settings = Settings { strategy: "predictive".into(), parameters, ..Settings::default() };
        let mut lab = Self { script: Script::new(settings) };
        for name in ["a", "b"] {
            let more = if name == "a" { twist.a } else { "" };
            lab.say(0.0, &format!("add {name} r {more}"));
            lab.say(0.0, &format!("rtt {name} 10"));
            lab.say(0.0, &format!("up {name}"));
        }
        lab.learn();
        lab.say(4000.0, "drain b on");
        let before = if twist.before == 0 { 20_000 } else { twist.before };
        for (number, tokens) in (100..).zip([before, before, before, 20_000]) {
            let at = 5000.0 + 1000.0 * f64::from(number - 100);
            lab.say(at, &format!("arrive {number} prompt=p{number}*4 tokens={tokens} {}", twist.request));
        }
        lab.say(9000.0, "drain b off");
        lab.say(9500.0, if twist.told.is_empty() { GAUGES } else { twist.told });
        if !twist.event.is_empty() {
            lab.say(9600.0, twist.event);
        }
        lab
    }

    /// Thirty prompts at each engine.
    fn learn(&mut self) {
        for number in 0..60 {
            let (at, tokens) = (60.0 * f64::from(number), 200 + 100 * (number % 3));
            let other = if number % 2 == 0 { "b" } else { "a" };
            self.say(at, &format!("drain {other} on"));
            self.say(at, &format!("arrive {number} prompt=w{number}*1 tokens={tokens}"));
            let token = at + 20.0 + 0.1 * f64::from(tokens);
            self.say(token, &format!("first {number}"));
            self.say(token, &format!("done {number} prompt={tokens} cached=0 out=1"));
            self.say(token, &format!("drain {other} off"));
        }
    }

    fn say(&mut self, at: f64, what: &str) -> String {
        self.script.play(&format!("{at} {what}"))
    }

    /// Whom it calls back within a minute, and when.
    fn recalls(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for look in 1..=60 {
            let log = self.say(9600.0 + 1000.0 * f64::from(look), "tick");
            found.extend(log.lines().filter_map(|line| line.trim().strip_prefix("=> ").map(str::to_owned)));
        }
        // Who cannot be had back is asked for again.
        found.sort();
        found.dedup();
        found
    }
}

#[test]
fn the_last_of_four_is_called_back() {
    let mut lab = Lab::new(Twist::default());
    let found = lab.recalls();
    assert_eq!(found, ["recall 103"], "of the first all may be done but a token, and the second is next");
    let log = lab.say(70_000.0, "recalled 103");
    assert!(log.contains("attempt=2") && log.contains("replica=b") && log.contains("excluded=1"), "{log}");
    assert!(lab.recalls().iter().all(|line| !line.contains("103")), "at the other it is not late, or not worth it");
    assert_eq!(lab.script.router.snapshot(crate::model::Time::from_ms(70_000.0)).replicas[1].in_flight, 1);
}

#[test]
fn in_every_other_case_it_waits() {
    let whole = "body=whole";
    let cases: [(&str, Twist<'_>); 12] = [
        ("switched off", Twist { parameters: &[("guard", 0.0)], ..Twist::default() }),
        ("a peer", Twist { a: "kind=peer", ..Twist::default() }),
        ("nothing of it streams", Twist { request: whole, ..Twist::default() }),
        ("little before it", Twist { before: 8000, ..Twist::default() }),
        ("nobody waits there", Twist { told: "gauges a running=4 waiting=0", ..Twist::default() }),
        ("only the last waits", Twist { told: "gauges a running=3 waiting=1", ..Twist::default() }),
        ("no gauges, nothing decodes", Twist { told: "up a", ..Twist::default() }),
        ("another order", Twist { event: "told a order=lpm", ..Twist::default() }),
        ("large steps", Twist { event: "told a batch=40000", ..Twist::default() }),
        (
            "the first has come",
            Twist { event: "first 100", before: 16_000, told: "gauges a running=2 waiting=2", ..Twist::default() },
        ),
        ("it has come itself", Twist { event: "first 103", before: 16_500, ..Twist::default() }),
        ("nobody else is well", Twist { event: "drain b on", ..Twist::default() }),
    ];
    for (name, twist) in cases {
        assert_eq!(Lab::new(twist).recalls(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn small_steps_make_it_certain_earlier() {
    let told = |event| Twist { event, before: 8000, ..Twist::default() };
    assert!(Lab::new(told("up a")).recalls().is_empty());
    assert_eq!(Lab::new(told("told a batch=2048 order=fcfs")).recalls(), ["recall 102", "recall 103"]);
}

#[test]
fn two_full_steps_are_enough_without_what_the_engine_says() {
    let decodes = |before| Twist { told: "first 100", before, ..Twist::default() };
    assert!(Lab::new(decodes(16_000)).recalls().is_empty());
    assert_eq!(Lab::new(decodes(36_000)).recalls(), ["recall 103"]);
}

#[test]
fn who_cannot_go_elsewhere_any_more_goes_back() {
    let mut lab = Lab::new(Twist::default());
    assert!(lab.recalls().contains(&"recall 103".to_owned()));
    lab.say(69_000.0, "drain b on");
    let log = lab.say(70_000.0, "recalled 103");
    assert!(log.contains("verdict=dispatch replica=a"), "{log}");
    let log = lab.say(70_000.0, "recalled 7");
    assert!(log.contains("verdict=reject reason=all_tried"), "unknown: {log}");
}
