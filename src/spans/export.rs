//! How spans get to the collector: OTLP over HTTP, by the variables that OpenTelemetry has for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

use super::TRACER;

/// How long the last spans may take at the end of the process.
const FLUSH: Duration = Duration::from_secs(3);

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported; look at the variables OTEL_EXPORTER_OTLP_…: {0}")]
pub struct SpansError(String);

/// Must be finished at the end of the process.
pub struct Export(SdkTracerProvider);

/// Begins to record, once for the process; `None` where no collector is named. Where one would listen
/// by default nobody has said that it does, and whoever sets nothing gets nothing.
pub fn start(replica: &str) -> Result<Option<Export>, SpansError> {
    let off = said("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if off || !ENDPOINTS.into_iter().any(|name| said(name).is_some()) {
        return Ok(None);
    }
    let mut exporter = Otlp::builder().with_http();
    if !PROTOCOLS.into_iter().any(|name| said(name).is_some()) {
        // What every collector takes.
        exporter = exporter.with_protocol(Protocol::HttpBinary);
    }
    let exporter = exporter.build().map_err(|error| SpansError(error.to_string()))?;
    let exporter = Telling { exporter, fails: AtomicBool::new(false) };
    let mut resource = Resource::builder();
    let named = said("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|text| text.contains("service.name="));
    if said("OTEL_SERVICE_NAME").is_none() && !named {
        resource = resource.with_service_name("tidings");
    }
    let resource = resource.with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", replica.to_owned()),
    ]);
    // Its bounds are those of OTEL_BSP_…, by default 2,048 spans that wait and 512 that are sent at once.
    let provider = SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build();
    let _ = TRACER.set(provider.tracer("tidings"));
    Ok(Some(Export(provider)))
}

impl Export {
    /// Sends what is left, as long as there is time.
    pub async fn finish(self) {
        // It waits for its thread, and the runtime must not wait with it.
        let done = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// A variable that says something.
fn said(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.trim().is_empty())
}

/// Says when the collector cannot be reached, and when it can again, once each: the SDK is silent.
#[derive(Debug)]
struct Telling {
    exporter: Otlp,
    fails: AtomicBool,
}

impl SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let failed = self.fails.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed => {
                tracing::warn!(%error, spans, "spans cannot be sent to the collector and are dropped");
            }
            Ok(()) if failed => tracing::info!("spans are sent to the collector again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
