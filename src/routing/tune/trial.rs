//! One comparison of two sets of weights on live requests: a switchback with a share that never takes part.
//!
//! A lead of two blocks on the incumbent, in which the rival only watches and learns; then periods of two blocks, one of the incumbent and
//! one of the rival, in an order that a seeded coin decides. In the rival's blocks a fixed share, drawn anew for each block, stays with the
//! incumbent. A block is judged as a whole, whoever decided on its requests: both use the same replicas, and what the rival does to the
//! others' requests is its doing as well. Only blocks of the same period are compared, so that the incumbent is measured anew each time and
//! a change of traffic falls on both. The first quarter of a block does not count.
//!
//! Limits: what builds up over longer than a block (caches that drain slowly) is hardly seen here; that is what the watch after an
//! acceptance is for. Requests that have no end when a block is closed count with the time they have taken so far.

use std::collections::{BTreeMap, VecDeque};

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::block::Block;
use super::noise::luck;
use super::objective::{Figures, Objective, Sample};
use crate::model::{RequestId, Time};

/// Blocks of the lead.
const LEAD: usize = 2;
/// Requests of the rival by which it can be stopped inside a block.
pub(super) const BRAKE: usize = 16;
/// ln of the factor above the incumbent's cost at which it is: 2.
const BRAKE_FACTOR: f64 = 0.693;
/// Periods after which a rival can be called clearly worse or better: the same way each time, by [`CLEAR`] in the mean.
const CLEAR_PERIODS: usize = 2;
/// ln of a factor: 1.3, four times the usual spread of a block of 64 requests under load.
const CLEAR: f64 = 0.262;
/// A request that failed took at least this long, ms: the time for which a router holds one at the most.
const FAILED_MS: f64 = 60_000.0;

/// How a request ended, as seen by its router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Answered in full.
    Done,
    /// Its client did not wait for the end.
    Left,
    /// Refused, or failed for good.
    Failed,
}

/// What a trial needs to know.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Design {
    pub(super) block: usize,
    pub(super) periods: usize,
    pub(super) share: f64,
    pub(super) objective: Objective,
    pub(super) seed: u64,
}

/// What is known of the rival.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finding {
    /// Nothing yet.
    Open,
    /// Inside a block: far slower than the incumbent was.
    Braked,
    /// Clearly better or worse before the end.
    Clear { better: bool },
    /// Half of the periods without a gain in the mean.
    Futile,
    /// All periods are over: this is how likely luck did it.
    Over { luck: f64 },
}

/// The figures of a trial so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// Periods that were judged.
    pub periods: usize,
    /// Mean of ln(rival's cost ÷ incumbent's) over them; below 0 the rival is better.
    pub difference: Option<f64>,
    /// Probability of a difference so low or lower by luck.
    pub luck: Option<f64>,
    /// Geometric means over the incumbent's blocks.
    pub incumbent: Option<Figures>,
    /// The same of the rival's.
    pub rival: Option<Figures>,
}

#[derive(Clone, Copy, Debug)]
enum Spot {
    Lead,
    /// Period, and is it the rival's block?
    Block(usize, bool),
    Nowhere,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    arrived: Time,
    ttft_ms: Option<f64>,
    spot: Spot,
    counts: bool,
    rival: bool,
}

/// A comparison under way.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    design: Design,
    random: ChaCha8Rng,
    /// By period: the rival goes first.
    rival_first: Vec<bool>,
    /// Of the block under way: who of it stays with the incumbent.
    stays: Vec<bool>,
    lead: Block,
    /// By period: the incumbent's and the rival's.
    periods: Vec<[Block; 2]>,
    /// Arrivals, those outside of blocks included.
    seen: usize,
    open: BTreeMap<RequestId, Open>,
    /// The rival's own last requests, and their ends.
    rivals: VecDeque<(RequestId, Option<Sample>)>,
    differences: Vec<f64>,
}

impl Trial {
    pub(super) fn new(design: Design) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(design.seed);
        Self {
            rival_first: (0..design.periods).map(|_| random.random()).collect(),
            random,
            stays: Vec::new(),
            lead: Block::default(),
            periods: vec![<[Block; 2]>::default(); design.periods],
            seen: 0,
            open: BTreeMap::new(),
            rivals: VecDeque::with_capacity(BRAKE),
            differences: Vec::new(),
            design,
        }
    }

    /// A request arrives. Is it the rival's?
    pub(super) fn arrive(&mut self, now: Time, request: RequestId) -> bool {
        self.seen += 1;
        let spot = self.spot();
        let (counts, rival) = self.book(spot);
        if rival {
            if self.rivals.len() == BRAKE {
                self.rivals.pop_front();
            }
            self.rivals.push_back((request, None));
        }
        self.open.insert(request, Open { arrived: now, ttft_ms: None, spot, counts, rival });
        self.judge(now);
        rival
    }

    /// One more request of the block there: does it count, and is it the rival's?
    fn book(&mut self, spot: Spot) -> (bool, bool) {
        let size = if matches!(spot, Spot::Lead) { LEAD * self.design.block } else { self.design.block };
        let Some(place) = self.block_mut(spot).map(|block| block.arrived) else { return (false, false) };
        let of_rival = matches!(spot, Spot::Block(_, true));
        if of_rival && place == 0 {
            self.draw_stays();
        }
        let rival = of_rival && !self.stays[place];
        let seen = self.seen;
        let Some(block) = self.block_mut(spot) else { return (false, false) };
        let counts = block.counts_next(size);
        block.arrived += 1;
        block.with_rival += usize::from(rival);
        block.open += usize::from(counts);
        if block.arrived >= size {
            block.full_at = Some(seen);
        }
        (counts, rival)
    }

    /// Its first token came.
    pub(super) fn first_token(&mut self, now: Time, request: RequestId) {
        if let Some(open) = self.open.get_mut(&request) {
            open.ttft_ms = Some(now.since_ms(open.arrived));
        }
    }

    /// It is over.
    pub(super) fn end(&mut self, now: Time, request: RequestId, end: End) {
        let Some(open) = self.open.remove(&request) else { return };
        let sample = open.sample(now, end);
        if let Some((_, ended)) = self.rivals.iter_mut().find(|(rival, _)| *rival == request) {
            *ended = Some(sample);
        }
        if let Some(block) = self.block_mut(open.spot).filter(|block| open.counts && block.figures().is_none()) {
            block.ended(sample);
        }
        self.judge(now);
    }

    /// Is this request the rival's?
    pub(super) fn is_rivals(&self, request: RequestId) -> bool {
        self.open.get(&request).is_some_and(|open| open.rival)
    }

    /// What is known by now.
    pub(super) fn finding(&self, now: Time) -> Finding {
        let differences = &self.differences;
        let n = differences.len();
        let mean = differences.iter().sum::<f64>() / n as f64;
        let one_way = differences.iter().all(|it| *it > 0.0) || differences.iter().all(|it| *it < 0.0);
        if n >= self.design.periods {
            return Finding::Over { luck: luck(differences) };
        }
        if self.brakes(now) {
            return Finding::Braked;
        }
        if n >= CLEAR_PERIODS && one_way && mean.abs() > CLEAR {
            return Finding::Clear { better: mean < 0.0 };
        }
        if n >= self.design.periods / 2 && mean >= 0.0 { Finding::Futile } else { Finding::Open }
    }

    /// The figures so far.
    pub(super) fn result(&self) -> Measured {
        let side = |of: usize| -> Vec<Figures> {
            let judged = self.periods.iter().filter(|period| period.iter().all(|block| block.figures().is_some()));
            judged.filter_map(|period| period[of].figures()).collect()
        };
        let n = self.differences.len();
        Measured {
            periods: n,
            difference: (n > 0).then(|| self.differences.iter().sum::<f64>() / n as f64),
            luck: (n > 0).then(|| luck(&self.differences)),
            incumbent: Figures::mean(&side(0)).or(self.lead.figures()),
            rival: Figures::mean(&side(1)),
        }
    }

    /// Mean cost of the incumbent so far, its lead included.
    pub(super) fn incumbent_cost(&self) -> Option<f64> {
        let blocks = std::iter::once(&self.lead).chain(self.periods.iter().map(|period| &period[0]));
        let costs: Vec<f64> =
            blocks.filter_map(Block::figures).map(|figures| figures.cost(self.design.objective)).collect();
        (!costs.is_empty()).then(|| costs.iter().sum::<f64>() / costs.len() as f64)
    }

    /// Of all blocks so far: requests, and of these with the rival's weights.
    #[cfg(test)]
    pub(super) fn shares(&self) -> Vec<(usize, usize)> {
        let blocks = self.periods.iter().flatten().filter(|block| block.arrived > 0);
        std::iter::once(&self.lead).chain(blocks).map(|block| (block.arrived, block.with_rival)).collect()
    }

    /// Where the next arrival belongs.
    fn spot(&self) -> Spot {
        if self.lead.full_at.is_none() {
            return Spot::Lead;
        }
        // Without figures of the incumbent nobody could tell that a rival is far slower.
        if self.lead.figures().is_none() {
            return Spot::Nowhere;
        }
        for (number, period) in self.periods.iter().enumerate() {
            let order = if self.rival_first[number] { [1, 0] } else { [0, 1] };
            if let Some(side) = order.into_iter().find(|side| period[*side].full_at.is_none()) {
                return Spot::Block(number, side == 1);
            }
        }
        Spot::Nowhere
    }

    fn block_mut(&mut self, spot: Spot) -> Option<&mut Block> {
        match spot {
            Spot::Lead => Some(&mut self.lead),
            Spot::Block(period, rival) => Some(&mut self.periods[period][usize::from(rival)]),
            Spot::Nowhere => None,
        }
    }

    /// Exactly the share, at random places.
    fn draw_stays(&mut self) {
        let size = self.design.block;
        let staying = (self.design.share * size as f64).ceil() as usize;
        self.stays = (0..size).map(|place| place < staying).collect();
        self.stays.shuffle(&mut self.random);
    }

    /// Closes the blocks that are ripe, and compares those of periods that are.
    fn judge(&mut self, now: Time) {
        let patience = 2 * self.design.block;
        if self.lead.figures().is_none() && self.lead.is_ripe(self.seen, patience) {
            self.give_up(now, |spot| matches!(spot, Spot::Lead));
            self.lead.close();
        }
        let number = self.differences.len();
        let Some(period) = self.periods.get(number) else { return };
        if !period.iter().all(|block| block.is_ripe(self.seen, patience)) {
            return;
        }
        self.give_up(now, |spot| matches!(spot, Spot::Block(at, _) if at == number));
        let [incumbent, rival] = &mut self.periods[number];
        if let (Some(incumbent), Some(rival)) = (incumbent.close(), rival.close()) {
            let objective = self.design.objective;
            self.differences.push(rival.cost(objective) - incumbent.cost(objective));
        }
    }

    /// What has no end there counts with what it took so far.
    fn give_up(&mut self, now: Time, at: impl Fn(Spot) -> bool) {
        let late: Vec<(Spot, Sample)> = self
            .open
            .values_mut()
            .filter(|open| open.counts && at(open.spot))
            .map(|open| {
                open.counts = false;
                (open.spot, open.sample(now, End::Left))
            })
            .collect();
        for (spot, sample) in late {
            if let Some(block) = self.block_mut(spot) {
                block.ended(sample);
            }
        }
    }

    /// Do the rival's last requests, ended or not, cost far more than the incumbent's newest block?
    fn brakes(&self, now: Time) -> bool {
        let newest = self.periods.iter().rev().find_map(|period| period[0].figures());
        let Some(known) = newest.or(self.lead.figures()).filter(|_| self.rivals.len() == BRAKE) else { return false };
        let so_far = |request: &RequestId| self.open.get(request).map(|open| open.sample(now, End::Left));
        let samples: Vec<Sample> =
            self.rivals.iter().filter_map(|(request, ended)| ended.or_else(|| so_far(request))).collect();
        let bound = known.cost(self.design.objective) + BRAKE_FACTOR;
        Figures::of(&samples).is_some_and(|figures| figures.cost(self.design.objective) > bound)
    }
}

impl Open {
    fn sample(&self, now: Time, end: End) -> Sample {
        let took = now.since_ms(self.arrived);
        let e2e_ms = if end == End::Failed { took.max(FAILED_MS) } else { took };
        Sample { ttft_ms: self.ttft_ms.unwrap_or(e2e_ms), e2e_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::{Design, End, FAILED_MS, Finding, LEAD, Trial};
    use crate::model::{RequestId, Time};
    use crate::routing::tune::Objective;

    const DESIGN: Design = Design { block: 8, periods: 7, share: 0.25, objective: Objective::Whole, seed: 1 };

    /// `count` requests, one per 10 ms from `from` on; those of the rival take `rival_ms`, `None` = they never end.
    fn play(trial: &mut Trial, from: u64, count: u64, rival_ms: Option<f64>) -> Vec<bool> {
        let one = |number: u64| {
            let (request, now) = (RequestId(number), Time::from_ms(number as f64 * 10.0));
            let rival = trial.arrive(now, request);
            assert_eq!(trial.is_rivals(request), rival);
            if let Some(ms) = if rival { rival_ms } else { Some(5.0) } {
                trial.first_token(now.plus_ms(ms / 2.0), request);
                trial.end(now.plus_ms(ms), request, End::Done);
            }
            rival
        };
        (from..from + count).map(one).collect()
    }

    #[test]
    fn blocks_come_in_drawn_order_and_a_drawn_quarter_of_a_rivals_block_stays() {
        let mut trial = Trial::new(DESIGN);
        assert!(!play(&mut trial, 0, LEAD as u64 * 8, Some(5.0)).contains(&true), "the lead is the incumbent's");
        let mut orders = Vec::new();
        for period in 0..7 {
            let blocks = play(&mut trial, 16 + period * 16, 16, Some(5.0));
            let counts: Vec<usize> =
                blocks.chunks(8).map(|block| block.iter().filter(|rival| **rival).count()).collect();
            assert!(counts == [0, 6] || counts == [6, 0], "{counts:?}");
            orders.push(counts[0] == 0);
        }
        assert!(orders.contains(&true) && orders.contains(&false), "{orders:?}");
        assert_eq!(trial.finding(Time::from_ms(9999.0)), Finding::Over { luck: 1.0 });
        assert!(!play(&mut trial, 500, 20, Some(5.0)).contains(&true), "afterwards it is the incumbent's again");
    }

    #[test]
    fn what_failed_took_a_minute_and_what_has_no_end_as_long_as_it_is_old() {
        let mut trial = Trial::new(Design { share: 0.05, ..DESIGN });
        play(&mut trial, 0, 16, Some(5.0));
        // Its own requests never end: the period waits for them until two more blocks have come, then counts their age.
        play(&mut trial, 16, 16, None);
        assert_eq!(trial.result().periods, 0);
        play(&mut trial, 32, 16, None);
        let result = trial.result();
        assert_eq!(result.periods, 1);
        assert!(result.rival.unwrap().e2e_p50 > 100.0, "{result:?}");
        let mut trial = Trial::new(DESIGN);
        let failed = RequestId(0);
        trial.arrive(Time::ZERO, failed);
        let open = trial.open[&failed];
        assert_eq!(open.sample(Time::from_ms(3.0), End::Failed).ttft_ms, FAILED_MS);
        assert_eq!(open.sample(Time::from_ms(3.0), End::Left).e2e_ms, 3.0);
        trial.end(Time::from_ms(3.0), failed, End::Failed);
        trial.end(Time::from_ms(4.0), failed, End::Done);
        assert!(trial.open.is_empty(), "an end that is told twice changes nothing");
    }
}
