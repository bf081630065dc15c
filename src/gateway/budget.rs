//! One bound on the memory of all request bodies together: a limit per body alone would multiply with the number of clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that bodies may hold at once.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// Room for `limit` bytes.
    #[must_use]
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// A share of nothing yet.
    #[must_use]
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

/// What one body holds of the budget; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Takes more. False if there is not so much left; nothing is taken then.
    #[must_use]
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let limit = self.budget.limit;
        let fits = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        let taken = self.budget.used.fetch_update(Relaxed, Relaxed, fits).is_ok();
        self.bytes += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::Budget;

    #[test]
    fn what_is_taken_comes_back_and_never_exceeds_the_limit() {
        let budget = Budget::new(100);
        let (mut a, mut b) = (budget.share(), budget.share());
        assert!(a.take(60) && !b.take(41) && b.take(40) && b.take(0));
        assert!(!a.take(1) && !a.take(usize::MAX));
        drop(a);
        assert_eq!(budget.used.load(Relaxed), 40);
        assert!(b.take(60));
        drop(b);
        assert_eq!(budget.used.load(Relaxed), 0);
    }
}
