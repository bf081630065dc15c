//! The way between two nodes in virtual time: connections, and the weather over them.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Exp1;

use super::fault::{Fault, Trouble};
use super::path::Path;
use crate::model::Time;
use crate::workload::fleet::Jitter;

/// Gaps between spells of bad weather on one link, mean of an exponential, ms.
const SPELL_GAP_MS: f64 = 240_000.0;
/// Length of a spell: at least this, and an exponential of the mean after it, ms.
const SPELL_LEAST_MS: f64 = 5_000.0;
const SPELL_MEAN_MS: f64 = 15_000.0;
/// How many times as long delays are in a spell.
const SPELL_FACTOR: std::ops::RangeInclusive<f64> = 1.3..=3.0;

/// How long data goes on where its acknowledgements are cut off, ms: TCP's window and its first retransmissions, about. After that the
/// sender's kernel holds everything back.
const UNACKNOWLEDGED_MS: f64 = 500.0;

/// A direction on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the end that connects.
    Up,
    /// Back to it.
    Down,
}

/// What the links of one run have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkKind {
    pub(super) jitter: Jitter,
    /// TCP's window opens anew on every idle connection.
    pub(super) slow_start: bool,
    /// Delays rise by spells (see the constants of this file).
    pub(super) spells: bool,
}

/// A connection: its two directions. What one request sends over it arrives in order.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) up: Path,
    pub(super) down: Path,
}

/// The link from one node to another: a pool of connections, the one used last first, as the gateway's. A new connection is taken to
/// stand already, since the gateway opens them ahead of need.
#[derive(Debug)]
pub(super) struct Link {
    rtt_ms: f64,
    kind: LinkKind,
    seed: u64,
    opened: u64,
    #[expect(
        clippy::vec_box,
        reason = "a connection goes to and fro between pool and request: a box moves, not its content"
    )]
    idle: Vec<Box<Connection>>,
    weather: Weather,
}

impl Link {
    /// A link with faults on its way. `seed` is its own: connection n draws from streams 3n + 1 and 3n + 2, as the emulator's relay.
    pub(super) fn new(rtt_ms: f64, kind: LinkKind, seed: u64, weather: Weather) -> Self {
        let weather = if kind.spells { weather.with_spells(seed) } else { weather };
        Self { rtt_ms, kind, seed, opened: 0, idle: Vec::new(), weather }
    }

    /// The round trip without jitter and weather, ms.
    pub(super) fn rtt_ms(&self) -> f64 {
        self.rtt_ms
    }

    /// A connection for one exchange.
    pub(super) fn take(&mut self) -> Box<Connection> {
        self.idle.pop().unwrap_or_else(|| self.open())
    }

    /// Gives it back after use.
    pub(super) fn park(&mut self, connection: Box<Connection>) {
        self.idle.push(connection);
    }

    /// A connection beside the pool.
    pub(super) fn control(&self) -> Box<Connection> {
        // Far beyond the numbers of the pool's.
        self.connection(1 << 32)
    }

    fn open(&mut self) -> Box<Connection> {
        self.opened += 1;
        self.connection(self.opened - 1)
    }

    fn connection(&self, number: u64) -> Box<Connection> {
        let path = |direction: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(3 * number + direction);
            let path = Path::new(self.rtt_ms, self.kind.jitter, rng, Time::ZERO);
            if self.kind.slow_start { path } else { path.without_slow_start() }
        };
        Box::new(Connection { up: path(1), down: path(2) })
    }

    /// When something arrives that would leave the path at `exit` in fair weather; `None` = never.
    pub(super) fn arrival(&mut self, way: Way, sent: Time, exit: Time) -> Option<Time> {
        self.weather.arrival(way, sent, exit)
    }
}

/// Faults of one link, and its spells of longer delays.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Times as long, from, to.
    slow: Vec<(f64, Time, Time)>,
    up: Cuts,
    down: Cuts,
    spell: Option<Box<Spell>>,
}

/// From, to (`None` = for good), in order of their begin.
type Cuts = Vec<(Time, Option<Time>)>;

/// The present or next spell.
#[derive(Debug)]
struct Spell {
    rng: ChaCha8Rng,
    from: Time,
    to: Time,
    factor: f64,
}

impl Weather {
    /// What of the faults concerns a link from `a` to `b`.
    pub(super) fn between(a: &str, b: &str, faults: &[Fault]) -> Self {
        let mut weather = Self::default();
        for fault in faults {
            let (from, to) = (Time::from_ms(fault.from_ms), Time::from_ms(fault.to_ms));
            match &fault.trouble {
                Trouble::Rtt(ends, factor) if ends.meet(a, b) => weather.slow.push((*factor, from, to)),
                Trouble::Cut(ends) if ends.meet(a, b) => {
                    let to = fault.to_ms.is_finite().then_some(to);
                    weather.up.extend(cut(from, to, ends.lead(a, b)));
                    weather.down.extend(cut(from, to, ends.lead(b, a)));
                }
                _ => {}
            }
        }
        weather.up.sort_by_key(|(from, _)| *from);
        weather.down.sort_by_key(|(from, _)| *from);
        weather
    }

    fn with_spells(mut self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Connections use small streams.
        rng.set_stream(u64::MAX);
        let mut spell = Spell { rng, from: Time::ZERO, to: Time::ZERO, factor: 1.0 };
        spell.renew();
        self.spell = Some(Box::new(spell));
        self
    }

    fn arrival(&mut self, way: Way, sent: Time, exit: Time) -> Option<Time> {
        let ms = exit.since_ms(sent) * self.factor(sent);
        let mut arrival = sent.plus_ms(ms);
        let mut begun = sent;
        let cuts = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        for &(from, to) in cuts {
            if from <= arrival && to.is_none_or(|to| begun < to) {
                begun = to?;
                arrival = begun.plus_ms(ms);
            }
        }
        Some(arrival)
    }

    fn factor(&mut self, now: Time) -> f64 {
        let spell = self.spell.as_mut().map_or(1.0, |spell| spell.factor(now));
        let slow = self.slow.iter().filter(|(_, from, to)| (*from..*to).contains(&now)).map(|(factor, ..)| factor);
        spell * slow.product::<f64>()
    }
}

/// One direction of a cut: nothing comes through, or `itself` being whole, only what needs no acknowledgement.
fn cut(from: Time, to: Option<Time>, itself: bool) -> Option<(Time, Option<Time>)> {
    let from = if itself { from } else { from.plus_ms(UNACKNOWLEDGED_MS) };
    to.is_none_or(|to| from < to).then_some((from, to))
}

impl Spell {
    fn factor(&mut self, now: Time) -> f64 {
        while now >= self.to {
            self.renew();
        }
        if now >= self.from { self.factor } else { 1.0 }
    }

    fn renew(&mut self) {
        let from = self.to.plus_ms(SPELL_GAP_MS * exponential(&mut self.rng));
        let to = from.plus_ms(SPELL_LEAST_MS + SPELL_MEAN_MS * exponential(&mut self.rng));
        (self.from, self.to, self.factor) = (from, to, self.rng.random_range(SPELL_FACTOR));
    }
}

fn exponential(rng: &mut impl Rng) -> f64 {
    rng.sample(Exp1)
}

#[cfg(test)]
mod tests {
    use super::{Link, LinkKind, Way, Weather};
    use crate::model::Time;
    use crate::workload::fleet::Jitter;

    fn weather(faults: &[&str]) -> Weather {
        let faults: Vec<_> = faults.iter().map(|text| text.parse().unwrap()).collect();
        Weather::between("a", "b", &faults)
    }

    fn arrival(faults: &[&str], sent_ms: f64) -> Option<f64> {
        let exit = Time::from_ms(sent_ms + 50.0);
        let mut weather = weather(faults);
        let both = [Way::Up, Way::Down].map(|way| weather.arrival(way, Time::from_ms(sent_ms), exit).map(Time::ms));
        assert_eq!(both[0], both[1], "{faults:?} at {sent_ms}: neither has a direction");
        both[0]
    }

    #[test]
    fn a_line_that_is_cut_one_way_soon_carries_nothing_the_other_way_either() {
        // Sent at this time, after 50 ms there: from `a` to `b`, and back.
        let cases: [(&str, f64, Option<f64>, Option<f64>); 7] = [
            ("cut:a>b@1..3", 940.0, Some(990.0), Some(990.0)),
            ("cut:a>b@1..3", 1100.0, Some(3050.0), Some(1150.0)),
            ("cut:a>b@1..3", 1500.0, Some(3050.0), Some(3050.0)),
            ("cut:b>a@1..3", 1100.0, Some(1150.0), Some(3050.0)),
            ("cut:a>b@1..1.4", 1100.0, Some(1450.0), Some(1150.0)),
            ("cut:a>b@1..", 2000.0, None, None),
            ("cut:a>c@1..", 2000.0, Some(2050.0), Some(2050.0)),
        ];
        for (fault, sent, up, down) in cases {
            let arrives = |way| {
                let (sent, exit) = (Time::from_ms(sent), Time::from_ms(sent + 50.0));
                weather(&[fault]).arrival(way, sent, exit).map(Time::ms)
            };
            assert_eq!((arrives(Way::Up), arrives(Way::Down)), (up, down), "{fault} at {sent}");
        }
    }

    #[test]
    fn faults_lengthen_and_hold_back_what_is_sent_or_under_way() {
        let cases: [(&[&str], f64, Option<f64>); 9] = [
            (&[], 1000.0, Some(1050.0)),
            (&["rtt:a/b@1..2x3"], 999.0, Some(1049.0)),
            (&["rtt:a/b@1..2x3", "rtt:a@1..2x2"], 1000.0, Some(1300.0)),
            (&["rtt:c@1..2x3", "cut:a/c@1..2"], 1500.0, Some(1550.0)),
            (&["cut:a/b@1..2"], 940.0, Some(990.0)),
            (&["cut:a/b@1..2"], 960.0, Some(2050.0)),
            (&["cut:a/b@1..2"], 2000.0, Some(2050.0)),
            (&["cut:a@2.02..3", "cut:b@1..2"], 1500.0, Some(3050.0)),
            (&["cut:b@1.."], 1500.0, None),
        ];
        for (faults, sent, wanted) in cases {
            assert_eq!(arrival(faults, sent), wanted, "{faults:?} at {sent}");
        }
    }

    #[test]
    fn the_connection_used_last_is_used_next() {
        let kind = LinkKind { jitter: Jitter::None, slow_start: true, spells: false };
        let mut link = Link::new(100.0, kind, 1, Weather::default());
        let upload = |link: &mut Link, at: f64| {
            let mut connection = link.take();
            let exit = connection.up.exit(Time::from_ms(at), 40_000);
            link.park(connection);
            exit.since_ms(Time::from_ms(at))
        };
        assert_eq!(upload(&mut link, 0.0), 150.0, "a cold window: one round trip more");
        assert_eq!(upload(&mut link, 200.0), 150.0, "not used up before");
        assert_eq!(upload(&mut link, 400.0), 50.0, "warm");
    }

    #[test]
    fn spells_come_and_go_and_a_seed_repeats_them() {
        let kind = LinkKind { jitter: Jitter::None, slow_start: false, spells: true };
        let factors = |seed| {
            let mut link = Link::new(100.0, kind, seed, Weather::default());
            let delay = |second: u32| {
                let sent = Time::from_ms(f64::from(second) * 1000.0);
                link.arrival(Way::Up, sent, sent.plus_ms(50.0)).unwrap().since_ms(sent) / 50.0
            };
            (0..20_000).map(delay).collect::<Vec<f64>>()
        };
        let seen = factors(3);
        let bad = seen.iter().filter(|factor| **factor > 1.0).count();
        // A spell of 20 s on average in every 260 s: 7.7 % of the time.
        assert!((800..2400).contains(&bad), "{bad} of 20000 seconds");
        assert!(seen.iter().all(|factor| (1.0..=3.0).contains(factor)));
        assert_eq!(seen, factors(3));
        assert_ne!(seen, factors(4));
    }
}
