//! Who is at the other end of a connection, as far as that has been shown.

use std::net::IpAddr;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    address: IpAddr,
}

impl Origin {
    /// A client: whoever comes to the port for requests.
    #[must_use]
    pub(super) fn client(address: IpAddr) -> Self {
        Self { address: address.to_canonical() }
    }

    /// Where it comes from; an IPv4 address is one, however the socket shows it.
    #[must_use]
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn a_mapped_address_is_the_address_itself() {
        assert_eq!(Origin::client("::ffff:10.0.0.5".parse().unwrap()).address().to_string(), "10.0.0.5");
    }
}
