//! Does the host drop packets that come by another way than it would answer?
//!
//! The XDP program forwards the packets of flows before this filter. It concerns what is left to the host: answers to health
//! checks, BGP, sessions of the group, and packets that the host routes itself.

use super::{Facts, Finding, Judgement, sysctl};

const STRICT: u8 = 1;
const LOOSE: u8 = 2;

pub fn lenient(facts: &Facts) -> Judgement {
    let strict = facts.settings.iter().filter(|it| it.rp_filter == STRICT);
    let finding = |name: &str| {
        let message = format!(
            "it is strict (1) on {name}: the host drops packets, such as answers to health checks, that come in there while \
             the route to their source leads to another interface"
        );
        Finding::warning(message, sysctl(name, &[("rp_filter", LOOSE)]))
    };
    let findings = strict.map(|it| finding(&it.interface)).collect();
    Judgement::of(findings, "not strict on any interface of xlb")
}
