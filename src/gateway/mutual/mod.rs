//! Links between the processes of a cluster: mutual TLS 1.3 with certificates of the cluster's own CA.
//!
//! A certificate names a process ([`crate::model::Identity`]) and the addresses that it comes from. Whoever connects to the port for
//! peers has to show one ([`accept`]); whoever is connected to has to show the one that is wanted ([`verify`]). The file with
//! certificate, key and CA is looked at again and again, and a new one is taken without a restart ([`keeper`]).
//!
//! A certificate can be worth nothing before its end ([`revocation`]); that holds for the connections that it opened as well.
//!
//! Sessions are never resumed: a resumed one would be believed by what was checked when it began, however long ago that is.

pub(super) mod accept;
mod credentials;
pub(super) mod keeper;
mod refusals;
pub(super) mod revocation;
mod verify;

pub use credentials::{BadCredentials, Credentials};
pub use keeper::{IdentityError, Keeper, PeerConnector};
