//! Which requests the router wants back from replicas that are late ([`Effect::Recall`]): rare, so one notice wakes all that wait for an
//! answer, and each looks for itself.
//!
//! [`Effect::Recall`]: crate::routing::Effect::Recall

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::RequestId;

/// The requests that are wanted back.
#[derive(Debug, Default)]
pub(super) struct Recalls {
    wanted: Mutex<BTreeSet<RequestId>>,
    news: Notify,
}

impl Recalls {
    /// The router wants it back.
    pub(super) fn want(&self, request: RequestId) {
        self.wanted().insert(request);
        self.news.notify_waiters();
    }

    /// Its attempt is over, or has begun to answer: it cannot be had back any more.
    pub(super) fn forget(&self, request: RequestId) {
        self.wanted().remove(&request);
    }

    /// Returns once it is wanted back, at once if it is.
    pub(super) async fn until_wanted(&self, request: RequestId) {
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            if self.wanted().contains(&request) {
                return;
            }
            news.await;
        }
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeSet<RequestId>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::Recalls;
    use crate::model::RequestId;

    #[test]
    fn who_is_wanted_is_told_and_nobody_else() {
        let recalls = Recalls::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut one = pin!(recalls.until_wanted(RequestId(1)));
        let mut two = pin!(recalls.until_wanted(RequestId(2)));
        assert_eq!((one.as_mut().poll(&mut cx), two.as_mut().poll(&mut cx)), (Poll::Pending, Poll::Pending));
        recalls.want(RequestId(1));
        assert_eq!((one.poll(&mut cx), two.as_mut().poll(&mut cx)), (Poll::Ready(()), Poll::Pending));
        let mut late = pin!(recalls.until_wanted(RequestId(1)));
        assert_eq!(late.as_mut().poll(&mut cx), Poll::Ready(()), "wanted before it waited");
        recalls.forget(RequestId(1));
        let mut again = pin!(recalls.until_wanted(RequestId(1)));
        assert_eq!(again.as_mut().poll(&mut cx), Poll::Pending, "another attempt");
        recalls.want(RequestId(2));
        assert_eq!((two.poll(&mut cx), again.poll(&mut cx)), (Poll::Ready(()), Poll::Pending));
    }
}
