//! Metrics as Prometheus scrapes them: samples of the text format 0.0.4.

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// The text of `/metrics`.
    pub const fn new(text: String) -> Self {
        Self { text }
    }

    /// The sum of all samples of `name` that have these labels, 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.lines(name)
            .filter(|line| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\""))))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// The lines of `name`, as they are.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter(move |line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_samples_that_have_all_labels() {
        let metrics = Metrics::new(
            "# TYPE flows gauge\nflows{service=\"web\",backend=\"a\"} 3\nflows{service=\"web\",backend=\"b\"} 4\n\
             flows_max 100\n"
                .to_owned(),
        );

        assert!((metrics.sum("flows", &[("service", "web")]) - 7.0).abs() < f64::EPSILON);
        assert!((metrics.sum("flows", &[("service", "web"), ("backend", "b")]) - 4.0).abs() < f64::EPSILON);
        assert!((metrics.sum("flows_max", &[]) - 100.0).abs() < f64::EPSILON);
    }
}
