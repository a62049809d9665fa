//! Metrics for Prometheus and probes for kubelet, over plain HTTP: `/metrics`, `/healthz` and
//! `/readyz`. Nothing is counted here: what is served is read when it is asked for.

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use tokio::net::TcpListener;

pub use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

/// What OpenMetrics calls itself.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of one value.
pub type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes a gauge with these values.
///
/// # Errors
/// What is written to fails.
pub fn gauges<'a>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let metric = ConstGauge::new(value);
        metric.encode(family.encode_family(&escaped(&labels))?)?;
    }
    Ok(())
}

/// Writes a counter with these values; `_total` is put behind its name.
///
/// # Errors
/// What is written to fails.
pub fn counters<'a>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (Labels<'a>, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        let metric = ConstCounter::new(value);
        metric.encode(family.encode_family(&escaped(&labels))?)?;
    }
    Ok(())
}

/// Label values as the exposition format wants them; names of interfaces may be anything.
fn escaped(labels: &Labels<'_>) -> Vec<(&'static str, String)> {
    let escape = |value: &str| {
        let value = value.replace('\\', r"\\").replace('"', r#"\""#);
        value.replace('\n', r"\n")
    };
    let labels = labels.iter();
    labels.map(|(name, value)| (*name, escape(value))).collect()
}

/// Whether a process does its work.
pub trait Probes: Send + Sync + 'static {
    /// Why it should be started anew, where it should.
    fn stuck(&self) -> Option<String>;
    /// Why it cannot do its work at present, where it cannot.
    fn unready(&self) -> Option<String>;
}

/// Why nothing is served. Outcome: the process goes on without, or ends, as its owner decides.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The address cannot be listened on.
    #[error(
        "listening on {address} for metrics and probes: {source}; name another by --metrics-address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The listener failed.
    #[error("serving metrics and probes: {0}")]
    Serve(std::io::Error),
}

/// Serves for ever.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    metrics: impl Collector,
    probes: Arc<dyn Probes>,
) -> Result<Infallible, TelemetryError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| TelemetryError::Listen { address, source })?;
    serve_on(listener, metrics, probes).await
}

async fn serve_on(
    listener: TcpListener,
    metrics: impl Collector,
    probes: Arc<dyn Probes>,
) -> Result<Infallible, TelemetryError> {
    let mut registry = Registry::with_prefix("headgate");
    registry.register_collector(Box::new(metrics));
    let served = Arc::new(Served { registry, probes });
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .with_state(served);
    let ended = axum::serve(listener, router).await;
    Err(TelemetryError::Serve(
        ended
            .err()
            .unwrap_or_else(|| std::io::Error::other("it ended")),
    ))
}

struct Served {
    registry: Registry,
    probes: Arc<dyn Probes>,
}

async fn metrics_text(State(served): State<Arc<Served>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &served.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn health(State(served): State<Arc<Served>>) -> Response {
    answer(served.probes.stuck())
}

async fn readiness(State(served): State<Arc<Served>>) -> Response {
    answer(served.probes.unready())
}

fn answer(trouble: Option<String>) -> Response {
    match trouble {
        None => "ok\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    #[derive(Debug)]
    struct Five;

    impl Collector for Five {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            let fives = [(vec![("of", "\"us\"")], 5)];
            gauges(&mut encoder, "fives", "How many.", fives)
        }
    }

    struct Starting;

    impl Probes for Starting {
        fn stuck(&self) -> Option<String> {
            None
        }
        fn unready(&self) -> Option<String> {
            Some("it has only begun".to_owned())
        }
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it answers");
        answer
    }

    #[tokio::test]
    async fn metrics_and_probes_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("it is bound");
        let served = tokio::spawn(serve_on(listener, Five, Arc::new(Starting)));
        let metrics = ask(address, "/metrics").await;
        assert!(
            metrics.contains(r#"headgate_fives{of="\"us\""} 5"#),
            "{metrics}"
        );
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let ready = ask(address, "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        assert!(ready.ends_with("it has only begun\n"), "{ready}");
        served.abort();
    }
}
