//! Where a client is: as its request says, or as the map of the router has it.
//!
//! What a client says of itself is believed: it decides where the request may wait, not where it is allowed. Whatever stands between
//! clients and this router (a load balancer, a CDN) knows their addresses and this router does not; it is to set the header.

use std::net::IpAddr;

use http::HeaderMap;

use super::extract::BadHeader;
use super::headers::LOCATION;
use crate::model::geo::{Atlas, Coordinates};

/// The place of a request's client: that of its header, else that of its API key, else that of the network it comes from. `client`: name of
/// its key, and its address; `None` = a request that another router of ours has forwarded. That one has decided already, with a map that may
/// know other places; what it passes on is no reason to refuse anything.
///
/// # Errors
/// The header holds neither coordinates nor a known place. An empty one is none.
pub(super) fn of(
    places: &Atlas,
    headers: &HeaderMap,
    client: Option<(Option<&str>, IpAddr)>,
) -> Result<Option<Coordinates>, BadHeader> {
    let wanted = "wanted degrees north and east, e.g. 48.9,2.4, or a place that this router knows, e.g. us-east-1";
    let bad = || BadHeader { header: "x-gorgo-client-location", wanted };
    let said = headers.get(&LOCATION).map(|value| value.to_str().map_err(|_| bad())).transpose();
    let said = said.map(|text| text.map(str::trim).filter(|text| !text.is_empty()));
    let said = said.and_then(|text| text.map(|text| places.place(text).map_err(|_| bad())).transpose());
    let Some((key, address)) = client else { return Ok(said.unwrap_or(None)) };
    Ok(said?.or_else(|| places.client(key, address)))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::of;
    use crate::model::geo::Atlas;

    const MAP: &str = r#"
        [places]
        home = "1,1"
        [clients]
        "10.1.0.0/16" = "home"
        "key:acme" = "2,2"
    "#;

    #[test]
    fn the_header_goes_before_the_key_and_the_key_before_the_address() {
        let atlas = Atlas::parse(MAP).unwrap();
        let cases = [
            (None, None, "10.1.2.3", false, Ok(Some("1,1"))),
            (None, None, "10.2.2.3", false, Ok(None)),
            (None, Some("acme"), "10.1.2.3", false, Ok(Some("2,2"))),
            (None, Some("other"), "10.1.2.3", false, Ok(Some("1,1"))),
            (Some("48.9, 2.4"), Some("acme"), "10.1.2.3", false, Ok(Some("48.9,2.4"))),
            (Some("home"), None, "10.2.2.3", false, Ok(Some("1,1"))),
            (Some("us-east-1"), None, "10.2.2.3", false, Ok(Some("39,-77.5"))),
            (Some(" "), None, "10.1.2.3", false, Ok(Some("1,1"))),
            (Some("91,0"), None, "10.1.2.3", false, Err(())),
            (Some("atlantis"), None, "10.1.2.3", false, Err(())),
            (Some("atlantis"), None, "10.1.2.3", true, Ok(None)),
            (Some("home"), None, "10.1.2.3", true, Ok(Some("1,1"))),
            (None, None, "10.1.2.3", true, Ok(None)),
        ];
        for (header, key, address, forwarded, expected) in cases {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("x-gorgo-client-location", header.parse().unwrap());
            }
            let client = (!forwarded).then(|| (key, address.parse().unwrap()));
            let found = of(&atlas, &headers, client).map_err(|_| ()).map(|place| place.map(|it| it.to_string()));
            assert_eq!(found, expected.map(|place| place.map(str::to_owned)), "{header:?} {address} {forwarded}");
        }
    }
}
