//! `GET /metrics`: the counters of every shard in the Prometheus text format. Each request reads
//! them.

use std::fmt;
use std::sync::Arc;

use murre_core::CloseReason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::Others;
use super::series::{
    Kind, NATS_SERIES, NODES_SERIES, SERIES, SESSION_LOG_SERIES, Series, ShardCounters,
    WEBHOOK_SERIES,
};
use crate::backend::{CallKind, Counts, Outcome};
use crate::control::memory::{Headroom, Watch};
use crate::webhooks::Webhooks;

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The registry of all metrics. It stores no numbers.
pub(crate) struct Metrics(Registry);

impl Metrics {
    /// Metrics of these shards, of the memory watch, and of what else there is.
    pub(crate) fn new(shards: Vec<ShardCounters>, watch: Arc<Watch>, others: &Others) -> Self {
        let Others { calls, webhooks, session_log, nats, nodes } = others.clone();
        let mut registry = Registry::with_prefix("murre");
        registry.register_collector(Box::new(Shards(shards)));
        registry.register_collector(Box::new(Admission(watch)));
        if let Some(calls) = calls {
            registry.register_collector(Box::new(Calls(calls)));
        }
        if let Some(webhooks) = webhooks {
            registry.register_collector(Box::new(OfWebhooks(webhooks)));
        }
        if let Some(log) = session_log {
            let encode = move |encoder: DescriptorEncoder<'_>| {
                encode_plain(&SESSION_LOG_SERIES, &log.counts(), encoder)
            };
            registry.register_collector(Box::new(Plain(encode)));
        }
        if let Some(nats) = nats {
            let encode = move |encoder: DescriptorEncoder<'_>| {
                encode_plain(&NATS_SERIES, nats.counts(), encoder)
            };
            registry.register_collector(Box::new(Plain(encode)));
        }
        if let Some(nodes) = nodes {
            let encode = move |encoder: DescriptorEncoder<'_>| {
                encode_plain(&NODES_SERIES, nodes.counts(), encoder)
            };
            registry.register_collector(Box::new(Plain(encode)));
        }
        Metrics(registry)
    }

    /// The current values in the text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.0).expect("a string takes all that is written to it");
        text
    }
}

#[derive(Debug)]
struct Shards(Vec<ShardCounters>);

impl Kind {
    fn metric(self) -> MetricType {
        match self {
            Kind::Total => MetricType::Counter,
            Kind::Now => MetricType::Gauge,
        }
    }

    fn encode(self, value: u64, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Kind::Total => ConstCounter::new(value).encode(encoder),
            Kind::Now => ConstGauge::new(value).encode(encoder),
        }
    }
}

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for Series { name, help, kind, value } in SERIES {
            let mut family = encoder.encode_descriptor(name, help, None, kind.metric())?;
            for (shard, counters) in self.0.iter().enumerate() {
                let labels = [("shard", shard)];
                kind.encode(value(counters), family.encode_family(&labels)?)?;
            }
        }
        let help = "Closed connections";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("connections_closed", help, None, kind)?;
        for (shard, counters) in self.0.iter().enumerate() {
            for reason in CloseReason::ALL {
                let labels = [("shard", shard.to_string()), ("reason", reason.name().to_string())];
                let metric = family.encode_family(&labels)?;
                ConstCounter::new(counters.closed(reason)).encode(metric)?;
            }
        }
        Ok(())
    }
}

struct Calls(Arc<Counts>);

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let help = "Calls of the backend that have ended";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("backend_calls_ended", help, None, kind)?;
        for call in CallKind::ALL {
            for outcome in Outcome::ALL {
                let labels = [("call", call.name()), ("outcome", outcome.name())];
                let value = self.0.get(call, outcome);
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Answers of the backend with members that have no effect";
        let name = "backend_answers_without_effect";
        let mut family = encoder.encode_descriptor(name, help, None, kind)?;
        for call in CallKind::ALL {
            let value = ConstCounter::new(self.0.without_effect(call));
            value.encode(family.encode_family(&[("call", call.name())])?)?;
        }
        let help = "Answers of the backend that came too late, or for connections that have ended";
        let late = ConstCounter::new(self.0.late());
        late.encode(encoder.encode_descriptor("backend_answers_late", help, None, kind)?)
    }
}

struct Admission(Arc<Watch>);

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl Collector for Admission {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let seen = self.0.seen();
        let help = "Whether new connections are admitted: 1 or 0";
        let open = ConstGauge::new(i64::from(seen.admission == "open"));
        open.encode(encoder.encode_descriptor("admission_open", help, None, MetricType::Gauge)?)?;
        let help = "Times that admission was closed because memory was short";
        let closings = ConstCounter::new(seen.closings);
        let kind = MetricType::Counter;
        closings.encode(encoder.encode_descriptor("admission_closings", help, None, kind)?)?;
        let mut of_each = |name, help, value: fn(&Headroom) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            seen.memory.iter().try_for_each(|left| {
                let labels = [("of", left.of())];
                ConstGauge::new(value(left) as i64).encode(family.encode_family(&labels)?)
            })
        };
        of_each("memory_available_bytes", "Available memory", |left| left.available_bytes())?;
        of_each(
            "memory_floor_bytes",
            "Available memory below which connections are refused",
            |left| left.floor_bytes,
        )?;
        if let Some(pressure) = seen.pressure {
            let help = "Percent of the last ten seconds in which all tasks waited for memory";
            let gauge =
                encoder.encode_descriptor("memory_pressure", help, None, MetricType::Gauge)?;
            ConstGauge::new(pressure).encode(gauge)?;
        }
        Ok(())
    }
}

/// Numbers without labels, which a function encodes.
struct Plain<F>(F);

impl<F> fmt::Debug for Plain<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain")
    }
}

impl<F> Collector for Plain<F>
where
    F: Fn(DescriptorEncoder) -> Result<(), fmt::Error> + Send + Sync + 'static,
{
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        (self.0)(encoder)
    }
}

fn encode_plain<V>(
    all: &[Series<V>],
    of: &V,
    mut encoder: DescriptorEncoder,
) -> Result<(), fmt::Error> {
    all.iter().try_for_each(|Series { name, help, kind, value }| {
        kind.encode(value(of), encoder.encode_descriptor(name, help, None, kind.metric())?)
    })
}

struct OfWebhooks(Arc<Webhooks>);

impl fmt::Debug for OfWebhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OfWebhooks")
    }
}

impl Collector for OfWebhooks {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for Series { name, help, kind, value } in &WEBHOOK_SERIES {
            let mut family = encoder.encode_descriptor(name, help, None, kind.metric())?;
            for (endpoint, numbers) in self.0.numbers() {
                let labels = [("endpoint", endpoint)];
                kind.encode(value(&numbers), family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
