//! `gorgo proxy latency`.

use super::super::Context;
use super::super::client::Read;
use super::super::exit::Outcome;
use super::super::human;
use super::super::table::{Column, Table};
use crate::wire::{Latency, LatencyReplica, paths};

/// Prints round trips and predictions.
pub(super) async fn run(args: &Read, context: &Context) -> Outcome {
    super::read(args, paths::LATENCY, context, show).await
}

/// A line per replica.
fn show(latency: &Latency) -> String {
    let mut table = Table::new(&[
        Column::Text("replica"),
        Column::Text("region"),
        Column::Number("rtt"),
        Column::Text("probed"),
        Column::Number("ttft p50"),
        Column::Number("p95"),
        Column::Number("p99"),
        Column::Number("predicted p50"),
        Column::Number("actual p50"),
        Column::Number("off by"),
        Column::Number("bias"),
        Column::Number("predicted hits"),
        Column::Number("actual hits"),
        Column::Number("requests"),
    ]);
    for replica in &latency.replicas {
        table.row(row(replica));
    }
    format!(
        "{table}\n\nover the last {} requests of each replica; off by: median of |predicted - actual| / actual; bias: median of (predicted - actual) / actual; hits: share of prompt tokens in the engine's cache",
        human::count(u64::from(latency.window))
    )
}

fn row(replica: &LatencyReplica) -> [String; 14] {
    let (rtt, ttft, foreseen, hits) = (replica.rtt, replica.ttft_ms, replica.prediction, replica.hit_ratio);
    [
        replica.name.clone(),
        replica.region.to_string(),
        human::or_unknown(rtt, |rtt| human::ms(rtt.ms)),
        human::or_unknown(rtt, |rtt| human::age_ms(rtt.age_ms)),
        human::or_unknown(ttft, |ttft| human::ms(ttft.p50)),
        human::or_unknown(ttft, |ttft| human::ms(ttft.p95)),
        human::or_unknown(ttft, |ttft| human::ms(ttft.p99)),
        human::or_unknown(foreseen, |it| human::ms(it.predicted_p50_ms)),
        human::or_unknown(foreseen, |it| human::ms(it.actual_p50_ms)),
        human::or_unknown(foreseen, |it| format!("{:.1}%", 100.0 * it.error_p50_ratio)),
        human::or_unknown(foreseen, |it| format!("{:+.1}%", 100.0 * it.bias_p50_ratio)),
        human::or_unknown(hits, |it| format!("{:.1}%", 100.0 * it.predicted)),
        human::or_unknown(hits, |it| format!("{:.1}%", 100.0 * it.actual)),
        human::count(ttft.map_or(0, |ttft| ttft.count)),
    ]
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::show;
    use crate::model::Region;
    use crate::wire::{HitRatio, Latency, LatencyReplica, Percentiles, Prediction, Rtt};

    #[test]
    fn latency_shows_what_was_predicted_beside_what_came() {
        let east = LatencyReplica {
            name: "east".into(),
            region: Region::new("us-east-1"),
            rtt: Some(Rtt { ms: 0.42, last_ms: 0.4, age_ms: 310.0 }),
            ttft_ms: Some(Percentiles {
                count: 512,
                mean: 140.0,
                p50: 120.0,
                p90: 240.0,
                p95: 300.0,
                p99: 900.0,
                max: 1_200.0,
            }),
            prediction: Some(Prediction {
                count: 512,
                predicted_p50_ms: 110.0,
                actual_p50_ms: 120.0,
                error_p50_ms: 14.0,
                bias_ms: -9.5,
                error_p50_ratio: 0.117,
                bias_p50_ratio: -0.079,
            }),
            hit_ratio: Some(HitRatio { count: 500, predicted: 0.752, actual: 0.7481 }),
        };
        let fresh = LatencyReplica {
            name: "europe".into(),
            region: Region::new("europe-central-1"),
            rtt: None,
            ttft_ms: None,
            prediction: None,
            hit_ratio: None,
        };
        assert_snapshot!(show(&Latency { window: 512, replicas: vec![east, fresh] }), @"
        REPLICA  REGION                RTT  PROBED      TTFT P50     P95     P99  PREDICTED P50  ACTUAL P50  OFF BY   BIAS  PREDICTED HITS  ACTUAL HITS  REQUESTS
        east     us-east-1         0.42 ms  310 ms ago    120 ms  300 ms  900 ms         110 ms      120 ms   11.7%  -7.9%           75.2%        74.8%       512
        europe   europe-central-1        -  -                  -       -       -              -           -       -      -               -            -         0

        over the last 512 requests of each replica; off by: median of |predicted - actual| / actual; bias: median of (predicted - actual) / actual; hits: share of prompt tokens in the engine's cache
        ");
    }
}
