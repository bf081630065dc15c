//! Where the clients of each session stand: drawn by the fleet's shares, which may move round the regions during the run.

use std::collections::BTreeMap;

use rand::RngExt;

use super::arrivals::{Stream, generator};
use super::fleet::Clients;
use super::plan::Plan;

/// A group of clients, as an index into [`super::Fleet::clients`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home(pub usize);

/// The home of every session of `plan`, in order: one draw per session, so that a change of one session moves no other. Sessions of one
/// name have the home of the first of them.
///
/// `drift`: how many places the shares move on between the first start and the last. At 2 the share that the first group has at first
/// belongs to the third one at the end, as the peak of a day moves from region to region; between places they are mixed in proportion.
#[must_use]
pub fn homes(clients: &[Clients], plan: &Plan, seed: u64, drift: f64) -> Vec<Home> {
    let last_ms = plan.sessions.last().map_or(0.0, |session| session.start_ms).max(f64::MIN_POSITIVE);
    let mut rng = generator(seed, Stream::Homes);
    let mut known: BTreeMap<&str, Home> = BTreeMap::new();
    let mut home = |id, start_ms: f64, draw: f64| {
        let shares = shares_at(clients, drift * start_ms / last_ms);
        let mut sum = 0.0;
        let found = shares.iter().position(|share| {
            sum += share;
            draw < sum
        });
        // Rounding may leave the sum a hair below a draw that is nearly 1.
        *known.entry(id).or_insert(Home(found.unwrap_or(clients.len().saturating_sub(1))))
    };
    plan.sessions.iter().map(|session| home(&*session.id, session.start_ms, rng.random())).collect()
}

/// The shares after they have moved on by `places`.
fn shares_at(clients: &[Clients], places: f64) -> Vec<f64> {
    let count = clients.len();
    let (whole, part) = (places.max(0.0).floor(), places.max(0.0).fract());
    let share = |group: usize, moved: usize| clients[(group + count - moved % count) % count].share;
    let whole = whole as usize;
    (0..count).map(|group| (1.0 - part) * share(group, whole) + part * share(group, whole + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Home, homes, shares_at};
    use crate::model::Region;
    use crate::workload::fleet::Clients;
    use crate::workload::{Plan, Session};

    fn clients(shares: &[f64]) -> Vec<Clients> {
        shares.iter().map(|&share| Clients { region: Region::new("r"), share, router: 0 }).collect()
    }

    fn plan(sessions: u32) -> Plan {
        let session = |k: u32| Session { id: format!("s{k}").into(), start_ms: f64::from(k), steps: Vec::new() };
        Plan { block_size: 16, sessions: (0..sessions).map(session).collect(), concurrency: None }
    }

    #[test]
    fn shares_move_from_group_to_group() {
        let clients = clients(&[0.5, 0.3, 0.2]);
        let at = |places| shares_at(&clients, places);
        assert_eq!(at(0.0), [0.5, 0.3, 0.2]);
        assert_eq!(at(1.0), [0.2, 0.5, 0.3]);
        assert_eq!(at(0.5), [0.35, 0.4, 0.25]);
        assert_eq!((at(3.0), at(f64::NAN)), (at(0.0), at(0.0)));
    }

    #[test]
    fn sessions_are_spread_by_the_shares_of_their_time() {
        let clients = clients(&[0.7, 0.2, 0.1]);
        let drawn = homes(&clients, &plan(30_000), 5, 1.0);
        let share =
            |part: &[Home], group| part.iter().filter(|home| home.0 == group).count() as f64 / part.len() as f64;
        // Standard error of a share over 3000 draws: 0.008.
        assert!((share(&drawn[..3000], 0) - 0.67).abs() < 0.03, "{}", share(&drawn[..3000], 0));
        assert!((share(&drawn[27_000..], 1) - 0.675).abs() < 0.03, "{}", share(&drawn[27_000..], 1));
        assert_eq!(drawn, homes(&clients, &plan(30_000), 5, 1.0));
        assert_ne!(drawn, homes(&clients, &plan(30_000), 6, 1.0));
        let mut named = plan(100);
        named.sessions[70].id = "s7".into();
        let homes_of_named = homes(&clients, &named, 5, 1.0);
        assert_eq!(homes_of_named[70], homes_of_named[7], "a conversation stays where it began");
        assert!(homes(&clients[..1], &plan(9), 1, 3.0).iter().all(|home| *home == Home(0)));
    }
}
