//! Figures of `bench packets`, and how those of two trees compare.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Net nanoseconds per packet by case and number of flows, in the order of the bench.
#[derive(Debug, PartialEq)]
pub struct Figures(Vec<(String, f64)>);

/// The figures of A and B in each pass.
#[derive(Default)]
pub struct Comparison(Vec<[Figures; 2]>);

impl Figures {
    /// Reads what `bench packets --json` wrote. Its first table has a row for each case and a column for each number of
    /// flows.
    pub fn parse(text: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(text).context("not JSON")?;
        let rows = all["packets"][0]["rows"].as_array().context("no table of packets")?;
        let mut figures = Vec::new();
        for row in rows {
            let case = row["case"].as_str().context("a row without a case")?;
            // Indented rows are the reference, which belongs to neither tree.
            if case.starts_with("  ") {
                continue;
            }
            let cells = row.as_object().into_iter().flatten();
            let mut cells: Vec<(u32, f64)> =
                cells.filter_map(|(flows, ns)| Some((flows.parse().ok()?, ns.as_f64()?))).collect();
            cells.sort_by_key(|&(flows, _)| flows);
            figures.extend(cells.into_iter().map(|(flows, ns)| (name(case, flows), ns)));
        }
        ensure!(!figures.is_empty(), "no figures");
        Ok(Self(figures))
    }

    /// Combines CPUs that ran at the same time: the mean time between two packets, counting all CPUs.
    pub fn together(all: Vec<Self>) -> Result<Self> {
        let first = all.first().context("no figures")?;
        let add = |(case, _): &(String, f64)| {
            let rates = all.iter().map(|figures| Some(1.0 / figures.get(case)?)).sum::<Option<f64>>();
            Some((case.clone(), 1.0 / rates?))
        };
        Ok(Self(first.0.iter().filter_map(add).collect()))
    }

    fn get(&self, case: &str) -> Option<f64> {
        self.0.iter().find(|(name, _)| name == case).map(|&(_, ns)| ns)
    }
}

impl Comparison {
    /// Adds a pass.
    pub fn add(&mut self, pass: [Figures; 2]) {
        self.0.push(pass);
    }

    /// Prints the cases that both trees have.
    pub fn print(&self, title: &str) {
        let cases = self.0.first().map(|[a, _]| a.0.as_slice()).unwrap_or_default();
        let width = cases.iter().map(|(case, _)| case.len()).max().unwrap_or(0);
        println!("\n{title}\n  {:width$}  {:>7}  {:>7}  {:>5}", "", "A", "B", "B / A");
        for (case, _) in cases {
            let Some(passes) = self.passes(case) else { continue };
            let [a, _, _] = spread(passes.iter().map(|pass| pass.0));
            let [b, _, _] = spread(passes.iter().map(|pass| pass.1));
            let [ratio, least, most] = spread(passes.iter().map(|(a, b)| b / a));
            println!("  {case:width$}  {a:7.1}  {b:7.1}  {ratio:5.2} ({least:.2}, {most:.2})");
        }
    }

    /// B / A, the median of all passes. `None`: a tree does not have the case.
    pub fn ratio(&self, case: &str, flows: u32) -> Option<f64> {
        let passes = self.passes(&name(case, flows)).filter(|passes| !passes.is_empty())?;
        let [ratio, _, _] = spread(passes.iter().map(|(a, b)| b / a));
        Some(ratio)
    }

    /// The figures of A and B in each pass.
    fn passes(&self, case: &str) -> Option<Vec<(f64, f64)>> {
        self.0.iter().map(|[a, b]| Some((a.get(case)?, b.get(case)?))).collect()
    }
}

fn name(case: &str, flows: u32) -> String {
    format!("{case}, {flows} flows")
}

/// The median, the least and the most.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<_> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
    let last = sorted.len().saturating_sub(1);
    [(at(last / 2) + at(last.div_ceil(2))) / 2.0, at(0), at(last)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_first_table_without_the_reference() {
        let text = r#"{"packets": [
            {"rows": [{"case": "tcp4 request", "1000": 45.0, "1": 43.5, "131072": null},
                      {"case": "  LRU hit of tcp4 request", "1": 28.0}]},
            {"rows": [{"case": "tcp4 request", "1": 1.5}]}]}"#;

        let figures = Figures::parse(text).unwrap();

        let expected =
            [("tcp4 request, 1 flows".to_owned(), 43.5), ("tcp4 request, 1000 flows".to_owned(), 45.0)];
        assert_eq!(figures.0, expected);
        assert!(Figures::parse(r#"{"frames": []}"#).is_err());
    }

    #[test]
    fn two_cpus_together_send_as_many_packets_as_each() {
        let of = |ns| Figures(vec![("case".to_owned(), ns)]);

        assert_eq!(Figures::together(vec![of(40.0)]).unwrap(), of(40.0));
        assert_eq!(Figures::together(vec![of(100.0), of(300.0)]).unwrap(), of(75.0));
    }

    #[test]
    fn the_spread_of_an_even_number_has_its_median_between_the_two_in_the_middle() {
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0].into_iter()), [2.5, 1.0, 4.0]);
        assert_eq!(spread([5.0].into_iter()), [5.0; 3]);
    }
}
