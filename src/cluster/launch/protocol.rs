//! What to do next about one machine. Pure: results go in, the next step comes out.
//!
//! | known | next |
//! |---|---|
//! | nothing, or a certain refusal of an earlier run | ask for the first candidate |
//! | asked in an earlier run, answer never seen | look for the tag |
//! | a machine | done |
//! | no capacity | ask for the next candidate, else give up |
//! | the answer was lost | look for the tag, several times: lists can lag behind |
//! | the tag was seen | adopt |
//! | the tag was not seen by the last look | ask once more, then give up with the outcome unknown |
//! | the last look failed itself | give up with the outcome unknown: asking now would be blind |
//! | any other refusal | give up |

use std::time::Duration;

use crate::cloud::CloudErrorKind;

/// How often one machine is asked for when answers are lost; refusals for lack of capacity do not count.
const MOST_ASKS: u32 = 2;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for the candidate with this index.
    Ask(usize),
    /// Look for the tag after this long.
    Look(Duration),
    /// There is a machine.
    Done,
    /// No candidate has capacity.
    NoCapacity,
    /// Refused for another reason; there is certainly no machine.
    Failed,
    /// There may be a machine.
    Unknown,
}

/// The state of one machine's launch.
#[derive(Clone, Debug)]
pub(super) struct Protocol<'a> {
    candidates: usize,
    current: usize,
    lost: u32,
    looks: usize,
    look_after: &'a [Duration],
    uncertain: bool,
}

impl<'a> Protocol<'a> {
    /// A launch with this many candidates that looks for a lost machine after each of these pauses.
    pub(super) fn new(candidates: usize, look_after: &'a [Duration]) -> Self {
        Self { candidates, current: 0, lost: 0, looks: 0, look_after, uncertain: false }
    }

    /// The first step; `asked` = an earlier run asked and never saw the answer.
    pub(super) fn begin(&mut self, asked: bool) -> Step {
        match (asked, self.candidates) {
            (true, _) => self.search(),
            (false, 0) => Step::NoCapacity,
            (false, _) => Step::Ask(0),
        }
    }

    /// After asking.
    pub(super) fn asked(&mut self, result: Result<(), CloudErrorKind>) -> Step {
        match result {
            Ok(()) => Step::Done,
            Err(CloudErrorKind::Capacity) if self.current + 1 < self.candidates => {
                self.current += 1;
                Step::Ask(self.current)
            }
            Err(CloudErrorKind::Capacity) => Step::NoCapacity,
            Err(CloudErrorKind::UnknownOutcome) => {
                self.lost += 1;
                self.search()
            }
            Err(_) => Step::Failed,
        }
    }

    /// After looking: whether the tag was seen, or `Err` if the look itself failed.
    pub(super) fn looked(&mut self, seen: Result<bool, ()>) -> Step {
        self.looks += 1;
        match (seen, self.look_after.get(self.looks)) {
            (Ok(true), _) => Step::Done,
            (_, Some(pause)) => Step::Look(*pause),
            (Ok(false), None) if self.lost < MOST_ASKS && self.candidates > 0 => Step::Ask(self.current),
            _ => Step::Unknown,
        }
    }

    /// An answer was lost on the way: more than one machine may carry the tag.
    pub(super) fn uncertain(&self) -> bool {
        self.uncertain
    }

    fn search(&mut self) -> Step {
        self.uncertain = true;
        self.looks = 0;
        self.look_after.first().map_or(Step::Unknown, |pause| Step::Look(*pause))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prop_assert, proptest};

    use super::{Protocol, Step};
    use crate::cloud::CloudErrorKind;

    const PAUSES: [Duration; 2] = [Duration::ZERO, Duration::from_secs(2)];

    /// Words of a script: results of asking and looking.
    fn play(candidates: usize, asked: bool, script: &str) -> String {
        let mut protocol = Protocol::new(candidates, &PAUSES);
        let mut steps = vec![protocol.begin(asked)];
        for word in script.split_whitespace() {
            steps.push(match word {
                "ok" => protocol.asked(Ok(())),
                "full" => protocol.asked(Err(CloudErrorKind::Capacity)),
                "lost" => protocol.asked(Err(CloudErrorKind::UnknownOutcome)),
                "quota" => protocol.asked(Err(CloudErrorKind::Quota)),
                "turned-away" => protocol.asked(Err(CloudErrorKind::Transient)),
                "seen" => protocol.looked(Ok(true)),
                "unseen" => protocol.looked(Ok(false)),
                "blind" => protocol.looked(Err(())),
                other => panic!("no word `{other}`"),
            });
        }
        steps.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    fn name(step: &Step) -> String {
        match step {
            Step::Ask(index) => format!("ask{index}"),
            Step::Look(_) => "look".into(),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    #[test]
    fn the_table_of_the_head_holds() {
        let cases = [
            (1, false, "ok", "ask0 done"),
            (0, false, "", "nocapacity"),
            (1, false, "full", "ask0 nocapacity"),
            (3, false, "full full ok", "ask0 ask1 ask2 done"),
            (2, false, "full full", "ask0 ask1 nocapacity"),
            (2, false, "quota", "ask0 failed"),
            (2, false, "turned-away", "ask0 failed"),
            (1, false, "lost seen", "ask0 look done"),
            (1, false, "lost unseen seen", "ask0 look look done"),
            (1, false, "lost blind seen", "ask0 look look done"),
            (1, false, "lost unseen unseen ok", "ask0 look look ask0 done"),
            (1, false, "lost unseen unseen lost unseen unseen", "ask0 look look ask0 look look unknown"),
            (1, false, "lost unseen blind", "ask0 look look unknown"),
            (2, false, "full lost unseen unseen full", "ask0 ask1 look look ask1 nocapacity"),
            (1, true, "seen", "look done"),
            (1, true, "unseen unseen ok", "look look ask0 done"),
            (1, true, "unseen blind", "look look unknown"),
            (0, true, "unseen unseen", "look look unknown"),
            (
                1,
                true,
                "unseen unseen lost unseen unseen lost unseen seen",
                "look look ask0 look look ask0 look look done",
            ),
        ];
        for (candidates, asked, script, expected) in cases {
            assert_eq!(play(candidates, asked, script), expected, "{candidates} {asked} {script}");
        }
    }

    proptest! {
        /// Whatever the service does, after a lost answer nothing is asked before a look that saw nothing.
        #[test]
        fn never_blind_and_never_for_ever(candidates in 0usize..4, asked: bool, results in vec(0u8..6, 0..60)) {
            let mut protocol = Protocol::new(candidates, &PAUSES);
            let mut step = protocol.begin(asked);
            let mut certain = !asked;
            let mut asks = 0;
            for result in results {
                match step {
                    Step::Ask(_) => {
                        prop_assert!(certain);
                        asks += 1;
                        let kinds = [CloudErrorKind::Capacity, CloudErrorKind::UnknownOutcome, CloudErrorKind::Invalid];
                        let failed = kinds.get(usize::from(result)).copied();
                        certain = failed != Some(CloudErrorKind::UnknownOutcome);
                        step = protocol.asked(failed.map_or(Ok(()), Err));
                    }
                    Step::Look(_) => {
                        let seen = [Ok(true), Ok(false), Err(())][usize::from(result) % 3];
                        certain = seen == Ok(false);
                        step = protocol.looked(seen);
                    }
                    _ => break,
                }
            }
            prop_assert!(asks <= candidates + 2);
        }
    }
}
