//! The last lines of a trace, within so many bytes.

use std::collections::VecDeque;
use std::sync::Arc;

/// What a line costs besides its text: its place in the queue, its counts and its length.
const LINE_BYTES: usize = 48;

/// The newest lines; older ones go when there is no room, and are counted. Copies share the text.
#[derive(Clone, Debug)]
pub(super) struct Ring {
    capacity: usize,
    bytes: usize,
    lines: VecDeque<Arc<str>>,
    dropped: u64,
}

impl Ring {
    /// Room for so many bytes.
    #[must_use]
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, bytes: 0, lines: VecDeque::new(), dropped: 0 }
    }

    /// Takes a line.
    pub(super) fn push(&mut self, line: Arc<str>) {
        let cost = line.len() + LINE_BYTES;
        if cost > self.capacity {
            self.dropped += 1;
            return;
        }
        self.bytes += cost;
        self.lines.push_back(line);
        while self.bytes > self.capacity
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len() + LINE_BYTES;
            self.dropped += 1;
        }
    }

    /// Most bytes that it holds.
    #[must_use]
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Lines that are there.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Lines that had to go.
    #[must_use]
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// All lines, each with a line feed.
    #[must_use]
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.bytes);
        for line in &self.lines {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES, Ring};

    #[test]
    fn the_oldest_go_first_and_are_counted() {
        let line = |n: usize| format!("{n:010}");
        let cost = 10 + LINE_BYTES;
        let cases = [(0, 0), (1, 0), (3, 0), (4, 1), (10, 7)];
        for (pushed, dropped) in cases {
            let mut ring = Ring::new(3 * cost + 5);
            for n in 0..pushed {
                ring.push(line(n).into());
                assert!(ring.bytes <= ring.capacity());
            }
            let wanted: String = (pushed.saturating_sub(3)..pushed).map(|n| line(n) + "\n").collect();
            assert_eq!((String::from_utf8(ring.text()).unwrap(), ring.dropped()), (wanted, dropped), "{pushed}");
        }
    }

    #[test]
    fn what_is_larger_than_the_ring_does_not_empty_it() {
        let mut ring = Ring::new(100);
        ring.push("small".into());
        ring.push("x".repeat(101).into());
        assert_eq!((ring.text(), ring.dropped()), (b"small\n".to_vec(), 1));
    }
}
