//! Strategy `geo`: requests go where their clients are.

use std::net::IpAddr;
use std::sync::Arc;

use gorgo::gateway::GatewayConfig;
use gorgo::model::Region;
use gorgo::model::geo::Atlas;
use http::Response;
use hyper::body::Incoming;

use super::client::{Client, PLAIN, chat, code, config, start};
use super::keys::{Chat, KeyRing, with_key};
use super::mock::{Answer, Mock, REPLY};

const MAP: &str = r#"
[places]
lab = "40.7,-74.0"
[clients]
"127.0.0.2" = "europe-central-1"
"key:acme" = "lab"
"#;

/// An engine in Frankfurt, then one in Virginia.
fn two(frankfurt: &Mock, virginia: &Mock) -> GatewayConfig {
    let mut config = config("geo", &[frankfurt, virginia]);
    for (replica, region) in config.replicas.iter_mut().zip(["europe-central-1", "us-east-1"]) {
        replica.region = Region::new(region);
    }
    config.routing.places = Arc::new(Atlas::parse(MAP).unwrap());
    config
}

fn from(place: &str) -> Chat {
    let mut request = chat(PLAIN);
    request.headers_mut().insert("x-gorgo-client-location", place.parse().unwrap());
    request
}

fn region(response: &Response<Incoming>) -> &str {
    response.headers()["x-gorgo-region"].to_str().unwrap()
}

#[tokio::test]
async fn a_request_goes_to_the_region_nearest_to_its_client() {
    let engines = [Mock::start(|_| Answer::json(200, REPLY)).await, Mock::start(|_| Answer::json(200, REPLY)).await];
    let gateway = start(two(&engines[0], &engines[1])).await;
    let mut client = Client::connect(&gateway).await;
    let cases = [("48.9,2.4", "europe-central-1"), ("lab", "us-east-1"), ("-33.9, 18.4", "europe-central-1")];
    for (place, nearest) in cases {
        assert_eq!(region(&client.send(from(place)).await.unwrap()), nearest, "{place}");
    }
    let mut explained = from("lab");
    explained.headers_mut().insert("x-gorgo-explain", "1".parse().unwrap());
    let response = client.send(explained).await.unwrap();
    let decision = response.headers()["x-gorgo-decision"].to_str().unwrap();
    assert!(decision.contains(r#""unit":"km""#) && decision.contains(r#"{"name":"distance","value":"#), "{decision}");
    for wrong in ["91,0", "atlantis"] {
        let response = Client::connect(&gateway).await.send(from(wrong)).await.unwrap();
        assert_eq!(code(response).await, (400, "bad_header".to_owned()), "{wrong}");
    }
}

#[tokio::test]
async fn the_map_places_clients_by_key_and_by_address() {
    let engines = [Mock::start(|_| Answer::json(200, REPLY)).await, Mock::start(|_| Answer::json(200, REPLY)).await];
    let gateway = start(two(&engines[0], &engines[1])).await;
    let address: IpAddr = "127.0.0.2".parse().unwrap();
    let mut client = Client::at(gateway.listen(), Some(address)).await;
    assert_eq!(region(&client.send(chat(PLAIN)).await.unwrap()), "europe-central-1");
    assert_eq!(region(&client.send(from("lab")).await.unwrap()), "us-east-1", "the header goes before the map");

    let ring = KeyRing::new();
    let (acme, other) = (ring.add("acme", &[]), ring.add("other", &[]));
    let gateway = start(ring.guard(two(&engines[0], &engines[1]))).await;
    let mut client = Client::at(gateway.listen(), Some(address)).await;
    for (key, nearest) in [(&acme, "us-east-1"), (&other, "europe-central-1")] {
        assert_eq!(region(&client.send(with_key(chat(PLAIN), key)).await.unwrap()), nearest);
    }
}

#[tokio::test]
async fn where_the_nearest_fails_the_next_one_serves() {
    let engines = [Mock::start(|_| Answer::json(503, "{}")).await, Mock::start(|_| Answer::json(200, REPLY)).await];
    let gateway = start(two(&engines[0], &engines[1])).await;
    let response = Client::connect(&gateway).await.send(from("europe-central-1")).await.unwrap();
    assert_eq!((response.status().as_u16(), region(&response)), (200, "us-east-1"));
    assert_eq!(engines[0].requests().len(), 1, "the nearest was asked first");
}
