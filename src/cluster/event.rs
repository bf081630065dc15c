//! Progress of work on nodes. The terminal draws these; `Display` is the plain line.

use std::fmt;
use std::time::Duration;

/// Something happened on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The node.
    pub node: String,
    /// The step, for people.
    pub step: String,
    /// Its number, from 1, and how many there are; `None` before the plan is made.
    pub place: Option<(usize, usize)>,
    /// What.
    pub kind: EventKind,
    /// Since the step began.
    pub elapsed: Duration,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The step begins.
    Started,
    /// It goes on.
    Progress(String),
    /// It is done, and the journal has it.
    Done,
    /// It failed; nothing more is done on this node.
    Failed(String),
}

/// Where events go.
pub type Events<'a> = &'a (dyn Fn(Event) + Sync);

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.node)?;
        if let Some((number, of)) = self.place {
            write!(f, "{number}/{of} ")?;
        }
        f.write_str(&self.step)?;
        let seconds = self.elapsed.as_secs_f64();
        match &self.kind {
            EventKind::Started => f.write_str(" …"),
            EventKind::Progress(what) => write!(f, ": {what} ({seconds:.0} s)"),
            EventKind::Done => write!(f, ": done ({seconds:.1} s)"),
            EventKind::Failed(why) => write!(f, ": failed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Event, EventKind};

    #[test]
    fn lines_for_people() {
        let line = |place, kind| {
            let elapsed = Duration::from_millis(2340);
            Event { node: "east".into(), step: "upload gorgo".into(), place, kind, elapsed }.to_string()
        };
        let cases = [
            (Some((1, 9)), EventKind::Started, "east: 1/9 upload gorgo …"),
            (Some((1, 9)), EventKind::Progress("1.0 GB so far".into()), "east: 1/9 upload gorgo: 1.0 GB so far (2 s)"),
            (None, EventKind::Done, "east: upload gorgo: done (2.3 s)"),
            (None, EventKind::Failed("no space".into()), "east: upload gorgo: failed: no space"),
        ];
        for (place, kind, expected) in cases {
            assert_eq!(line(place, kind), expected);
        }
    }
}
