//! What a router tells the next one of a request's way, in a header between our own nodes.

use http::HeaderValue;

use crate::model::RequestId;

/// `x-gorgo-trace: TRACE-PARENT`, both as in `x-gorgo-request-id`.
///
/// Not W3C's `traceparent`: that one is the client's and the engine's, and passes through untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct Context {
    /// The request at the first router.
    pub(in crate::gateway) trace: RequestId,
    /// The request at the router before this one.
    pub(in crate::gateway) parent: RequestId,
}

impl Context {
    /// Reads the header of a peer; `None` if it is not what a router of ours writes.
    #[must_use]
    pub(in crate::gateway) fn parse(value: &HeaderValue) -> Option<Self> {
        let (trace, parent) = value.to_str().ok()?.split_once('-')?;
        let id = |text: &str| (text.len() == 16).then(|| text.parse().ok()).flatten();
        Some(Self { trace: id(trace)?, parent: id(parent)? })
    }

    /// As the header has it.
    #[must_use]
    pub(in crate::gateway) fn header(self) -> HeaderValue {
        HeaderValue::from_str(&format!("{}-{}", self.trace, self.parent)).expect("hexadecimal digits")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::Context;
    use crate::model::RequestId;

    #[test]
    fn only_what_a_router_writes_is_read() {
        let context = Context { trace: RequestId(0xa1), parent: RequestId(u64::MAX) };
        assert_eq!(context.header(), "00000000000000a1-ffffffffffffffff");
        assert_eq!(Context::parse(&context.header()), Some(context));
        for bad in [
            "",
            "-",
            "a1-a2",
            "00000000000000a1",
            "00000000000000a1-00000000000000g1",
            "+0000000000000a1-00000000000000a1x",
        ] {
            assert_eq!(Context::parse(&HeaderValue::from_str(bad).unwrap()), None, "{bad}");
        }
    }
}
