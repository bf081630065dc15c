//! Whether a replica can be heard: once it cannot, nobody waits for its answers any longer.
//!
//! Agents hear their peers' streams ([`super::peers`]); engines, and peers of a central proxy, are asked ([`super::probe`]).

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// One replica's voice, as far as we hear it.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    lost: AtomicBool,
    news: Notify,
}

impl Hearing {
    /// It has fallen silent.
    pub(super) fn lost(&self) {
        self.lost.store(true, Ordering::SeqCst);
        self.news.notify_waiters();
    }

    /// It speaks.
    pub(super) fn found(&self) {
        self.lost.store(false, Ordering::SeqCst);
    }

    /// Returns once it is silent, at once if it is: a request that was sent at the very moment must not miss it.
    pub(super) async fn until_lost(&self) {
        let mut news = pin!(self.news.notified());
        news.as_mut().enable();
        if !self.lost.load(Ordering::SeqCst) {
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::Hearing;

    #[test]
    fn who_waits_is_told_and_who_comes_too_late_as_well() {
        let hearing = Hearing::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut early = pin!(hearing.until_lost());
        assert_eq!(early.as_mut().poll(&mut cx), Poll::Pending);
        hearing.lost();
        let mut late = pin!(hearing.until_lost());
        assert_eq!((early.poll(&mut cx), late.as_mut().poll(&mut cx)), (Poll::Ready(()), Poll::Ready(())));
        hearing.found();
        let mut again = pin!(hearing.until_lost());
        assert_eq!(again.as_mut().poll(&mut cx), Poll::Pending, "it speaks again");
    }
}
