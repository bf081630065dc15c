//! Who is at the other end of a connection, as far as that has been shown.

use std::net::IpAddr;

use crate::model::Identity;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    address: IpAddr,
    here: bool,
    identity: Option<Identity>,
}

impl Origin {
    /// A client: whoever comes to the port for requests. `own`: the address that it came to.
    #[must_use]
    pub(super) fn client(address: IpAddr, own: Option<IpAddr>) -> Self {
        let address = address.to_canonical();
        Self { address, here: own.is_some_and(|own| own.to_canonical() == address), identity: None }
    }

    /// A process that has shown a certificate of the cluster's CA which names it and this address.
    #[must_use]
    pub(super) fn member(address: IpAddr, identity: Identity) -> Self {
        Self { address: address.to_canonical(), here: false, identity: Some(identity) }
    }

    /// Where it comes from; an IPv4 address is one, however the socket shows it.
    #[must_use]
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// A client that came to the address that it came from: it is on this machine.
    #[must_use]
    pub(super) fn is_here(&self) -> bool {
        self.here
    }

    /// Which process of the cluster it is; `None` = it came to the port for requests, and is nobody in particular.
    #[must_use]
    pub(super) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn a_mapped_address_is_the_address_itself() {
        let origin = |from: &str, to: &str| Origin::client(from.parse().unwrap(), Some(to.parse().unwrap()));
        let mapped = origin("::ffff:10.0.0.5", "10.0.0.5");
        assert_eq!((mapped.address().to_string(), mapped.is_here()), ("10.0.0.5".to_owned(), true));
        assert!(!origin("10.0.0.6", "10.0.0.5").is_here());
        assert_eq!(mapped.identity(), None);
    }
}
