//! A metric family being built.

use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// `(name, value)`; the encoder escapes values.
pub type Label<'a> = (&'static str, &'a str);

#[derive(Debug)]
pub struct Family(MetricFamily);

impl Family {
    pub fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub fn histogram(name: &str, help: &str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    fn new(name: &str, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self(family)
    }

    /// Adds a sample to a family of counters. Exact up to 2^53, because Prometheus stores samples as 64-bit floats.
    pub fn count(&mut self, labels: &[Label<'_>], value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        self.push(labels).set_counter(counter);
    }

    /// Adds a sample to a family of gauges.
    pub fn set(&mut self, labels: &[Label<'_>], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.push(labels).set_gauge(gauge);
    }

    /// Adds a sample to a family of histograms.
    pub fn distribute(&mut self, labels: &[Label<'_>], value: Histogram) {
        self.push(labels).set_histogram(value);
    }

    /// `None`: there is no sample, so there is no family.
    pub fn finish(self) -> Option<MetricFamily> {
        if self.0.get_metric().is_empty() { None } else { Some(self.0) }
    }

    fn push(&mut self, labels: &[Label<'_>]) -> &mut Metric {
        let labels = labels.iter().map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*value).to_owned());
            label
        });
        let metrics = self.0.mut_metric();
        let index = metrics.len();
        metrics.push(Metric::from_label(labels.collect()));
        &mut metrics[index]
    }
}
