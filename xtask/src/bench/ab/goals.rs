//! The goals of the comparison: known flows take no longer than in the other revision, and new flows take at most 0.8 of
//! their time in 0.1.0.

use anyhow::{Result, bail};

use super::figures::Comparison;

/// What a ratio should be.
struct Goal {
    name: &'static str,
    /// The cases whose ratios are averaged, because the mean of four varies less than one.
    cases: &'static [&'static str],
    flows: &'static [u32],
    at_most: f64,
}

/// The commit of 0.1.0; later versions create flows faster.
const V0_1_0: &str = "d2920d1ca5bb69c2325dd4747367aaf57d549259";
/// Maximum time of a new flow, relative to 0.1.0.
const FASTER: f64 = 0.8;
/// As fast, with 5 % for noise.
const AS_FAST: f64 = 1.05;

fn goals(commit: &str) -> [Goal; 3] {
    let new_flow = if commit == V0_1_0 { FASTER } else { AS_FAST };
    [
        Goal {
            name: "request",
            cases: &["tcp4 request", "udp4 request", "tcp6 request", "udp6 request"],
            flows: &[1, 1000, 131_072],
            at_most: AS_FAST,
        },
        Goal {
            name: "reply",
            cases: &["tcp4 reply", "udp4 reply", "tcp6 reply", "udp6 reply"],
            flows: &[1, 1000, 131_072],
            at_most: AS_FAST,
        },
        Goal { name: "tcp4 new flow", cases: &["tcp4 new flow"], flows: &[1000, 131_072], at_most: new_flow },
    ]
}

/// Prints the ratios that have goals, and fails if any goal is missed. `commit`: of the other revision.
pub fn judge(commit: &str, comparisons: [(&str, &Comparison); 2]) -> Result<()> {
    println!("\nB / A with goals (requests and replies: geometric mean over TCP, UDP, IPv4 and IPv6)");
    let mut missed = Vec::new();
    for goal in goals(commit) {
        for flows in goal.flows {
            for (cpus, comparison) in comparisons {
                let name = format!("{}, {flows} flows, {cpus}", goal.name);
                let ratio = goal.measured(comparison, *flows);
                println!("  {name:40}  {}  at most {:.2}", shown(ratio), goal.at_most);
                if !ratio.is_some_and(|ratio| ratio <= goal.at_most) {
                    missed.push(format!("{name}: {}, the goal is at most {:.2}", shown(ratio), goal.at_most));
                }
            }
        }
    }
    if missed.is_empty() {
        return Ok(());
    }
    println!();
    missed.iter().for_each(|line| println!("missed: {line}"));
    bail!("goals missed: {}", missed.len())
}

impl Goal {
    /// The geometric mean of the cases' ratios. `None`: a tree does not have one of them.
    fn measured(&self, comparison: &Comparison, flows: u32) -> Option<f64> {
        let ratios = self.cases.iter().map(|case| Some(comparison.ratio(case, flows)?.ln()));
        Some((ratios.sum::<Option<f64>>()? / self.cases.len() as f64).exp())
    }
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::super::figures::Figures;
    use super::*;

    /// A comparison in which every case of A takes 100 ns.
    fn comparison(known: f64, new_flow: f64) -> Comparison {
        let mut comparison = Comparison::default();
        comparison.add([figures(100.0, 100.0), figures(known, new_flow)]);
        comparison
    }

    fn figures(known: f64, new_flow: f64) -> Figures {
        let mut rows = Vec::new();
        for name in ["tcp4", "udp4", "tcp6", "udp6"] {
            for (what, ns) in [("request", known), ("reply", known), ("new flow", new_flow)] {
                rows.push(serde_json::json!({ "case": format!("{name} {what}"), "1": ns, "1000": ns, "131072": ns }));
            }
        }
        Figures::parse(&serde_json::json!({ "packets": [{ "rows": rows }] }).to_string()).unwrap()
    }

    #[test]
    fn new_flows_must_be_faster_than_in_0_1_0_and_as_fast_as_in_other_revisions() {
        let met = |commit, known, new_flow| {
            let it = comparison(known, new_flow);
            judge(commit, [("one CPU", &it), ("two CPUs", &it)]).is_ok()
        };

        assert!(met(V0_1_0, 105.0, 79.0));
        assert!(!met(V0_1_0, 105.0, 81.0));
        assert!(met("another", 105.0, 105.0));
        assert!(!met("another", 106.0, 105.0));
        assert!(!met("another", 105.0, 106.0));
    }

    #[test]
    fn a_goal_is_missed_if_it_was_not_measured_or_in_one_of_the_comparisons() {
        let (good, slow) = (comparison(100.0, 70.0), comparison(107.0, 70.0));

        assert!(judge(V0_1_0, [("one CPU", &good), ("two CPUs", &good)]).is_ok());
        assert!(judge(V0_1_0, [("one CPU", &good), ("two CPUs", &slow)]).is_err());
        assert!(judge(V0_1_0, [("one CPU", &good), ("two CPUs", &Comparison::default())]).is_err());
    }
}
