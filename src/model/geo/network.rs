//! A network: addresses that begin with the same bits.

use std::fmt;
use std::str::FromStr;
// The type only; sockets are opened elsewhere.
use core::net::{IpAddr, Ipv6Addr};

/// Bits before an IPv4 address in its mapped form.
const MAPPED_BITS: u32 = 96;

/// Addresses that begin with the same bits; the longest prefixes come first in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network {
    /// 128 minus the bits that count, 0..=128.
    free_bits: u32,
    /// Its first address as 128 bits; IPv4 in its mapped form.
    start: u128,
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    /// Is the address one of it?
    pub(super) fn contains(self, address: IpAddr) -> bool {
        self.first_of(bits(address)) == self.start
    }

    /// The first address of a network of this size that has `address`.
    fn first_of(self, address: u128) -> u128 {
        // A shift by all 128 bits is none to `>>`, and leaves nothing.
        let kept = address.checked_shr(self.free_bits).unwrap_or(0);
        kept.checked_shl(self.free_bits).unwrap_or(0)
    }
}

/// `10.1.0.0/16`, `2001:db8::/32`, or one address.
impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32");
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let before = if address.is_ipv4() { MAPPED_BITS } else { 0 };
        let length = length.map_or(Ok(128 - before), |length| length.parse::<u32>().map_err(|_| wrong()))?;
        let free_bits = (128 - before).checked_sub(length).ok_or_else(wrong)?;
        let network = Self { free_bits, start: bits(address) };
        let first = Self { start: network.first_of(network.start), ..network };
        if network == first {
            Ok(network)
        } else {
            Err(format!("`{text}` has bits set beyond its length; wanted {first}"))
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = 128 - self.free_bits;
        match Ipv6Addr::from_bits(self.start).to_canonical() {
            IpAddr::V4(start) if length >= MAPPED_BITS => write!(f, "{start}/{}", length - MAPPED_BITS),
            _ => write!(f, "{}/{length}", Ipv6Addr::from_bits(self.start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        let cases = [
            ("10.1.0.0/16", "10.1.9.9", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.0.0/16", "::ffff:10.1.9.9", true),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "10.1.1.1", true),
            ("2001:db8::/32", "2001:db8:1::5", true),
            ("2001:db8::/32", "2001:db9::5", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("2001:db8::5", "2001:db8::5", true),
        ];
        for (network, address, inside) in cases {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_told() {
        let texts = ["10.0.0.0/33", "x", "::/129", "10.0.0.0/-1", "10.0.0.0/", "/8", "10.1.2.3/16", "2001:db8::1/32"];
        let told: Vec<String> = texts.iter().map(|text| text.parse::<Network>().unwrap_err()).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        `10.0.0.0/33` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        `x` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        `::/129` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        `10.0.0.0/-1` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        `10.0.0.0/` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        `/8` is no network; wanted e.g. 10.1.0.0/16 or 2001:db8::/32
        `10.1.2.3/16` has bits set beyond its length; wanted 10.1.0.0/16
        `2001:db8::1/32` has bits set beyond its length; wanted 2001:db8::/32
        ");
    }

    #[test]
    fn the_longest_comes_first_in_order() {
        let mut networks: Vec<Network> =
            ["::/0", "10.0.0.0/8", "2001:db8::/32", "10.1.2.3", "0.0.0.0/0"].map(|text| text.parse().unwrap()).into();
        networks.sort();
        let shown: Vec<String> = networks.iter().map(Network::to_string).collect();
        assert_eq!(shown, ["10.1.2.3/32", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0"]);
    }
}
