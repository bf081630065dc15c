//! Why a connection to the port for peers was refused, and how often that is told: the first at once, then once a minute with a count.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use rustls::{CertificateError, Error};

use crate::model::Time;

/// Between two lines about the same cause and address, ms.
const TELL_EVERY_MS: f64 = 60_000.0;
/// Most pairs of cause and address that are told apart; what comes beyond goes to one line per cause.
const MOST_PAIRS: usize = 1_024;
/// Stands for the addresses that were too many.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::gateway) enum Cause {
    /// It showed no certificate.
    NoCertificate,
    /// Another CA's certificate.
    UnknownCa,
    /// The certificate is past its time.
    Expired,
    /// The certificate's time has yet to come.
    NotYetValid,
    /// The CA has revoked the certificate, before the connection or while it was open.
    Revoked,
    /// The certificate is of our CA and for no process of this cluster, or cannot be read.
    NoIdentity,
    /// The certificate is for a node that is no peer of this one.
    UnknownPeer,
    /// The certificate does not name the address that it comes from.
    WrongAddress,
    /// No handshake came to its end in time.
    TimedOut,
    /// What was spoken is not TLS 1.3, or broke off.
    Handshake,
    /// As many connections of peers as there may be are there.
    NoRoom,
}

impl Cause {
    /// Value of the metric's label.
    #[must_use]
    pub(in crate::gateway) const fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownCa => "unknown_ca",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::NoIdentity => "no_identity",
            Self::UnknownPeer => "unknown_peer",
            Self::WrongAddress => "wrong_address",
            Self::TimedOut => "timeout",
            Self::Handshake => "handshake",
            Self::NoRoom => "no_room",
        }
    }

    /// Why the handshake ended as it did.
    #[must_use]
    pub(super) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(certificate)) => match certificate {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownCa,
                _ => Self::NoIdentity,
            },
            _ => Self::Handshake,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "it showed no certificate",
            Self::UnknownCa => "its certificate is not from the cluster's CA",
            Self::Expired => "its certificate has expired, or the clocks differ",
            Self::NotYetValid => "its certificate is not valid yet, or the clocks differ",
            Self::Revoked => "its certificate has been revoked",
            Self::NoIdentity => "its certificate is for no process of this cluster",
            Self::UnknownPeer => "its certificate is for a node that is no peer of this one",
            Self::WrongAddress => "its certificate does not name the address that it comes from",
            Self::TimedOut => "it did not finish its handshake",
            Self::Handshake => "it did not speak TLS 1.3, or broke off",
            Self::NoRoom => "peers have as many connections here as they may",
        })
    }
}

/// What is to be told: so many refusals since the line before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Why.
    pub(super) cause: Cause,
    /// From where; `None` = from more addresses than are told apart.
    pub(super) address: Option<IpAddr>,
    /// How many.
    pub(super) count: u64,
}

/// When something was told last, and how often it has happened since.
#[derive(Clone, Copy, Debug)]
struct Tally {
    told: Time,
    since: u64,
}

/// Refusals that are still to be told.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    tallies: BTreeMap<(Cause, IpAddr), Tally>,
}

impl Refusals {
    /// One more. A line if it is the first of its kind for a minute.
    pub(super) fn note(&mut self, now: Time, cause: Cause, address: IpAddr) -> Option<Line> {
        let known = self.tallies.contains_key(&(cause, address));
        let address = if known || self.tallies.len() < MOST_PAIRS { address } else { OTHERS };
        if let Some(tally) = self.tallies.get_mut(&(cause, address)) {
            tally.since += 1;
            return None;
        }
        self.tallies.insert((cause, address), Tally { told: now, since: 0 });
        Some(line(cause, address, 1))
    }

    /// What has gone on for a minute since it was told last. What has not is forgotten.
    pub(super) fn due(&mut self, now: Time) -> Vec<Line> {
        let mut lines = Vec::new();
        self.tallies.retain(|(cause, address), tally| {
            if now.since_ms(tally.told) < TELL_EVERY_MS {
                return true;
            }
            if tally.since > 0 {
                lines.push(line(*cause, *address, tally.since));
            }
            let goes_on = tally.since > 0;
            *tally = Tally { told: now, since: 0 };
            goes_on
        });
        lines
    }
}

fn line(cause: Cause, address: IpAddr, count: u64) -> Line {
    Line { cause, address: (address != OTHERS).then_some(address), count }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{IpAddr, Ipv4Addr};

    use rustls::{AlertDescription, CertificateError, Error};

    use super::{Cause, Line, MOST_PAIRS, Refusals};
    use crate::model::Time;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

    fn told(cause: Cause, address: IpAddr, count: u64) -> Line {
        Line { cause, address: Some(address), count }
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_a_minute_with_their_count() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.note(at(0), Cause::Expired, HERE), Some(told(Cause::Expired, HERE, 1)));
        for second in 1..50 {
            assert_eq!(refusals.note(at(second), Cause::Expired, HERE), None);
        }
        assert_eq!(refusals.note(at(50), Cause::Expired, THERE), Some(told(Cause::Expired, THERE, 1)), "elsewhere");
        assert_eq!(refusals.note(at(50), Cause::UnknownCa, HERE), Some(told(Cause::UnknownCa, HERE, 1)), "another");
        assert_eq!(refusals.due(at(59)), []);
        assert_eq!(refusals.due(at(60)), [told(Cause::Expired, HERE, 49)]);
        assert_eq!(refusals.note(at(61), Cause::Expired, HERE), None, "it goes on: counted for the next line");
        assert_eq!(refusals.due(at(120)), [told(Cause::Expired, HERE, 1)]);
        assert_eq!(refusals.due(at(180)), [], "it is over");
        assert_eq!(refusals.note(at(181), Cause::Expired, HERE), Some(told(Cause::Expired, HERE, 1)), "it begins anew");
    }

    #[test]
    fn many_addresses_take_no_more_than_so_much_memory_and_lines() {
        let mut refusals = Refusals::default();
        let mut lines = 0;
        for number in 0..100_000_u32 {
            let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number));
            lines += usize::from(refusals.note(at(0), Cause::Handshake, address).is_some());
        }
        assert_eq!(lines, MOST_PAIRS + 1);
        let rest = 100_000 - MOST_PAIRS as u64 - 1;
        assert_eq!(refusals.due(at(60)), [Line { cause: Cause::Handshake, address: None, count: rest }]);
        assert_eq!(refusals.tallies.len(), 1);
    }

    #[test]
    fn every_end_of_a_handshake_has_its_cause() {
        let tls = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let certificate = |error| tls(Error::InvalidCertificate(error));
        let cases = [
            (tls(Error::NoCertificatesPresented), Cause::NoCertificate),
            (certificate(CertificateError::Expired), Cause::Expired),
            (certificate(CertificateError::NotValidYet), Cause::NotYetValid),
            (certificate(CertificateError::UnknownIssuer), Cause::UnknownCa),
            (certificate(CertificateError::BadSignature), Cause::UnknownCa),
            (certificate(CertificateError::InvalidPurpose), Cause::NoIdentity),
            (tls(Error::AlertReceived(AlertDescription::UnknownCA)), Cause::Handshake),
            (io::ErrorKind::ConnectionReset.into(), Cause::Handshake),
        ];
        for (error, cause) in cases {
            assert_eq!(Cause::of(&error), cause, "{error}");
        }
    }
}
