//! How good predictions were, replica by replica, over the last requests: figures that are read, so set when the page is asked for.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Figure, Figures, ReplicaLabels};
use crate::routing::prediction::Accuracy;
use crate::wire::HitRatio;

/// The families.
#[derive(Clone, Default)]
pub(super) struct Families {
    error: Figures,
    bias: Figures,
    samples: Figures,
    hits_foreseen: Figures,
    hits: Figures,
}

/// The handles of one replica.
pub(in crate::gateway) struct Foreseen {
    error: Figure,
    bias: Figure,
    samples: Figure,
    hits_foreseen: Figure,
    hits: Figure,
}

impl Families {
    pub(super) fn register(r: &mut Registry) -> Self {
        let f = Self::default();
        let error = "Median of |predicted - actual| / actual time to first token, last streams";
        r.register("prediction_ttft_error_ratio", error, f.error.clone());
        let bias = "Median of (predicted - actual) / actual time to first token, last streams";
        r.register("prediction_ttft_bias_ratio", bias, f.bias.clone());
        r.register("prediction_ttft_samples", "Streams that these medians are over", f.samples.clone());
        let foreseen = "Share of prompt tokens believed cached when they were sent, last replies with usage";
        r.register("prediction_hit_ratio", foreseen, f.hits_foreseen.clone());
        let hits = "Share of prompt tokens that the engine found cached, the same replies";
        r.register("replica_hit_ratio", hits, f.hits.clone());
        f
    }

    pub(super) fn handles(&self, labels: &ReplicaLabels) -> Foreseen {
        let handle = |figures: &Figures| Gauge::clone(&figures.get_or_create(labels));
        Foreseen {
            error: handle(&self.error),
            bias: handle(&self.bias),
            samples: handle(&self.samples),
            hits_foreseen: handle(&self.hits_foreseen),
            hits: handle(&self.hits),
        }
    }

    pub(super) fn retire(&self, labels: &ReplicaLabels) {
        for figures in [&self.error, &self.bias, &self.samples, &self.hits_foreseen, &self.hits] {
            figures.remove(labels);
        }
    }
}

impl Foreseen {
    /// Brings the page up to date; what is not known is not a number.
    pub(in crate::gateway) fn show(&self, ttft: Option<Accuracy>, hits: Option<HitRatio>) {
        self.error.set(ttft.map_or(f64::NAN, |ttft| ttft.relative_error_median));
        self.bias.set(ttft.map_or(f64::NAN, |ttft| ttft.relative_bias_median));
        self.samples.set(ttft.map_or(0.0, |ttft| ttft.count as f64));
        self.hits_foreseen.set(hits.map_or(f64::NAN, |hits| hits.predicted));
        self.hits.set(hits.map_or(f64::NAN, |hits| hits.actual));
    }
}
