//! Addresses that strangers may reach.

// The types only; sockets are opened elsewhere.
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::problem::Problem;

/// The problem with listening there in plain text, if strangers may reach it.
///
/// Fine are loopback, link-local and private networks (RFC 1918, RFC 4193) and the shared space of carriers and VPNs (RFC 6598).
/// The unspecified address means all of a machine's addresses, public ones among them.
#[must_use]
pub fn exposed(listen: SocketAddr) -> Option<Problem> {
    let ip = listen.ip().to_canonical();
    let what = if ip.is_unspecified() {
        "stands for all addresses of this machine, public ones too"
    } else if private(ip) {
        return None;
    } else {
        "is a public address"
    };
    let message = format!(
        "{listen} {what}, and requests are not encrypted; wanted a private or loopback address, or `--allow-public-plaintext`"
    );
    Some(Problem::new("--listen", message))
}

/// Does this address belong to this machine or to a private network?
#[must_use]
pub fn private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared(ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// 100.64.0.0/10.
fn shared(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 100 && second & 0b1100_0000 == 64
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, SocketAddr};

    use super::exposed;

    #[test]
    fn public_addresses_and_all_addresses_are_exposed() {
        let cases = [
            ("127.0.0.1", false),
            ("127.8.9.10", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.4.4", false),
            ("169.254.1.1", false),
            ("100.64.0.1", false),
            ("100.127.255.254", false),
            ("100.128.0.1", true),
            ("8.8.8.8", true),
            ("0.0.0.0", true),
            ("::1", false),
            ("fd12::1", false),
            ("fe80::1", false),
            ("2001:db8::1", true),
            ("::", true),
            ("::ffff:10.0.0.1", false),
            ("::ffff:8.8.8.8", true),
        ];
        for (text, wanted) in cases {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(exposed(SocketAddr::new(ip, 8000)).is_some(), wanted, "{text}");
        }
    }
}
