//! Header fields: which of them end here (RFC 9110, 7.6.1), and those of our own.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderValue};

/// Identity of a request at this router, in every answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-gorgo-request-id");
/// Name of the replica that answered.
pub const REPLICA: HeaderName = HeaderName::from_static("x-gorgo-replica");
/// Region of that replica.
pub const REGION: HeaderName = HeaderName::from_static("x-gorgo-region");
/// The strategy that chose it.
pub const STRATEGY: HeaderName = HeaderName::from_static("x-gorgo-strategy");
/// Asks for [`DECISION`].
pub const EXPLAIN: HeaderName = HeaderName::from_static("x-gorgo-explain");
/// The decision as compact JSON.
pub const DECISION: HeaderName = HeaderName::from_static("x-gorgo-decision");
/// Session key given by the client.
pub const SESSION: HeaderName = HeaderName::from_static("x-gorgo-session");
/// Session key as other routers call it.
pub const SESSION_AFFINITY: HeaderName = HeaderName::from_static("x-session-affinity");
/// Where the client is: degrees north and east, or a place of the router's map.
pub const LOCATION: HeaderName = HeaderName::from_static("x-gorgo-client-location");
/// Urgency: a whole number, larger goes first.
pub const PRIORITY: HeaderName = HeaderName::from_static("x-gorgo-priority");
/// Residency class.
pub const RESIDENCY: HeaderName = HeaderName::from_static("x-gorgo-residency");
/// Class of service.
pub const CLASS: HeaderName = HeaderName::from_static("x-gorgo-class");
/// Set between our own nodes; worth nothing from anybody else.
pub const HOP: HeaderName = HeaderName::from_static("x-gorgo-hop");

/// Which agent speaks, by the name that its peers have for it; worth nothing from anybody else.
pub const PEER: HeaderName = HeaderName::from_static("x-gorgo-peer");
/// Which request of which router this is; set between our own nodes, worth nothing from anybody else.
pub const TRACE: HeaderName = HeaderName::from_static("x-gorgo-trace");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that concern one connection only, whatever `connection` names besides.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Signs what passes through a gateway that nothing can come back to.
pub static VIA_PROXY: HeaderValue = HeaderValue::from_static("1.1 gorgo");

/// Turns a client's fields into those for an engine. The length is left out: it follows from the body. The request's residency classes go
/// along, whoever gave them: what stands there as an engine may be a router that can keep to them.
pub fn for_engine(headers: &mut HeaderMap, authority: &HeaderValue, classes: Option<HeaderValue>) {
    for_upstream(headers, authority, VIA_PROXY.clone());
    restrict(headers, classes);
    // What stands there as an engine may be a router with classes of its own.
    headers.remove(CLASS);
}

/// What a peer is told of the gateway that sends it a request, and of the request.
#[derive(Clone, Debug)]
pub struct Sender<'a> {
    /// Its mark.
    pub via: &'a HeaderValue,
    /// Its name among its peers; a central proxy has none.
    pub name: Option<&'a HeaderValue>,
    /// The request's residency classes, whoever gave them.
    pub classes: Option<HeaderValue>,
    /// Its class of service, whoever gave it.
    pub class: Option<HeaderValue>,
}

/// Turns a client's fields into those for a peer, which learns that this was the one hop, who made it, and where the request may go.
pub fn for_peer(headers: &mut HeaderMap, authority: &HeaderValue, sender: &Sender<'_>) {
    for_upstream(headers, authority, sender.via.clone());
    headers.insert(HOP, HeaderValue::from_static("1"));
    if let Some(name) = sender.name {
        headers.insert(PEER, name.clone());
    }
    restrict(headers, sender.classes.clone());
    headers.remove(CLASS);
    if let Some(class) = &sender.class {
        headers.insert(CLASS, class.clone());
    }
}

fn restrict(headers: &mut HeaderMap, classes: Option<HeaderValue>) {
    headers.remove(RESIDENCY);
    if let Some(classes) = classes {
        headers.insert(RESIDENCY, classes);
    }
}

fn for_upstream(headers: &mut HeaderMap, authority: &HeaderValue, via: HeaderValue) {
    strip_hop_by_hop(headers);
    headers.remove(EXPECT);
    headers.remove(CONTENT_LENGTH);
    headers.remove(HOP);
    headers.remove(PEER);
    headers.remove(TRACE);
    headers.insert(HOST, authority.clone());
    headers.append(VIA, via);
}

/// Turns an engine's fields into those for a client.
pub fn for_client(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What `connection` names. `close` and `keep-alive` are options, not fields, and most requests have nothing else there.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive") {
                names.extend(HeaderName::from_bytes(option).ok());
            }
        }
    }
    names
}

/// Bytes of all names and values, with the four of `: ` and the line's end.
#[must_use]
pub fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;
    use http::{HeaderMap, HeaderValue};

    use super::{Sender, for_client, for_engine, for_peer};

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    fn text(headers: &HeaderMap) -> String {
        let mut lines: Vec<String> = headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines.join("\n")
    }

    #[test]
    fn what_ends_here_is_stripped_and_the_rest_passes() {
        let mut headers = map(&[
            ("host", "router"),
            ("authorization", "Bearer k"),
            ("connection", "keep-alive, x-one-hop"),
            ("x-one-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-length", "12"),
            ("expect", "100-continue"),
            ("x-gorgo-hop", "1"),
            ("x-gorgo-peer", "east"),
            ("x-gorgo-trace", "00000000000000a1-00000000000000a2"),
            ("x-gorgo-session", "s"),
            ("x-gorgo-class", "batch"),
            ("traceparent", "00-1-2-01"),
            ("x-anything", "stays"),
        ]);
        for_engine(&mut headers, &HeaderValue::from_static("engine:30000"), Some(HeaderValue::from_static("eu-only")));
        insta::assert_snapshot!(text(&headers), @r"
        authorization: Bearer k
        host: engine:30000
        traceparent: 00-1-2-01
        via: 1.1 gorgo
        x-anything: stays
        x-gorgo-residency: eu-only
        x-gorgo-session: s
        ");
    }

    #[test]
    fn a_peer_learns_of_the_hop_from_us_alone() {
        let forged = [
            ("x-gorgo-hop", "7"),
            ("via", "1.1 front"),
            ("x-gorgo-priority", "2"),
            ("x-gorgo-peer", "west"),
            ("x-gorgo-residency", "any"),
            ("x-gorgo-class", "gold"),
        ];
        let mut headers = map(&forged);
        let [authority, via, name, classes, class] =
            ["peer:8000", "1.1 gorgo-1f", "east", "any,eu", "batch"].map(HeaderValue::from_static);
        let sender = Sender { via: &via, name: Some(&name), classes: Some(classes), class: Some(class) };
        for_peer(&mut headers, &authority, &sender);
        insta::assert_snapshot!(text(&headers), @r"
        host: peer:8000
        via: 1.1 front
        via: 1.1 gorgo-1f
        x-gorgo-class: batch
        x-gorgo-hop: 1
        x-gorgo-peer: east
        x-gorgo-priority: 2
        x-gorgo-residency: any,eu
        ");
        for_peer(&mut headers, &authority, &Sender { classes: None, class: None, ..sender });
        assert!(!headers.contains_key("x-gorgo-residency") && !headers.contains_key("x-gorgo-class"));
    }

    #[test]
    fn an_answer_keeps_its_length_and_its_own_fields() {
        let mut headers = map(&[
            ("content-type", "text/event-stream"),
            ("content-length", "12"),
            ("connection", "close"),
            ("x-request-id", "7"),
        ]);
        for_client(&mut headers);
        insta::assert_snapshot!(text(&headers), @r"
        content-length: 12
        content-type: text/event-stream
        x-request-id: 7
        ");
    }
}
