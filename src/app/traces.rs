//! Export of traces, if the settings name a collector and the build has the feature `otlp`.

use crate::clock::Clock;
use crate::config::settings::OtlpSettings;
use crate::runtime::supervise::Group;
use crate::telemetry::metrics::Metrics;
use crate::trace::Recorder;

/// The recorder of spans, and their exporter.
#[derive(Default)]
pub(super) struct Tracing {
    recorder: Option<Recorder>,
    #[cfg(feature = "otlp")]
    exporter: Option<crate::telemetry::otlp::Exporter>,
}

impl Tracing {
    pub(super) fn recorder(&self) -> Option<Recorder> {
        self.recorder.clone()
    }

    #[cfg(feature = "otlp")]
    pub(super) fn run(self, group: &Group) {
        let (Some(exporter), stop) = (self.exporter, group.token().clone()) else { return };
        group.spawn(crate::runtime::supervise::TaskKind::Exporter, "exporter", async move {
            exporter.run(stop).await;
            Ok(())
        });
    }

    #[cfg(not(feature = "otlp"))]
    pub(super) fn run(self, _: &Group) {}
}

#[cfg(feature = "otlp")]
pub(super) fn start(settings: &OtlpSettings, clock: Clock, metrics: &Metrics) -> anyhow::Result<Tracing> {
    use crate::config::secret::Secret;

    let Some(endpoint) = &settings.endpoint else { return Ok(Tracing::default()) };
    let options = crate::telemetry::otlp::Options {
        endpoint: endpoint.as_str().to_owned(),
        headers: (settings.headers.iter())
            .map(|(name, value)| (name.clone(), Secret::new(value.expose().to_owned())))
            .collect(),
        sample: settings.sample.get(),
        service_name: settings.service_name.to_string(),
        attributes: settings.attributes.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
        timeout: settings.timeout,
    };
    let (recorder, exporter) = crate::telemetry::otlp::start(&options, clock, metrics.spans())?;
    Ok(Tracing { recorder: Some(recorder), exporter: Some(exporter) })
}

/// Starts nothing: settings with an endpoint do not parse in this build.
#[cfg(not(feature = "otlp"))]
pub(super) fn start(_: &OtlpSettings, _: Clock, _: &Metrics) -> anyhow::Result<Tracing> {
    Ok(Tracing::default())
}
