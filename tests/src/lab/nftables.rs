//! The same service with nftables: DNAT and masquerade. Validates the lab, and is compared with xlb.

use anyhow::Result;

use super::{Backend, Lab, address, command, web};

/// Balances `SERVICE:80` over the lab's backends, in turn, with full-nat's effect.
pub fn balance(lab: &Lab) -> Result<()> {
    let count = lab.backends.len();
    let list = |address: &dyn Fn(&Backend) -> String| {
        let turns: Vec<_> = lab
            .backends
            .iter()
            .enumerate()
            .map(|(n, backend)| format!("{n} : {}", address(backend)))
            .collect();
        turns.join(", ")
    };
    let (v4, v6) =
        (list(&|backend| backend.address.v4.to_string()), list(&|backend| backend.address.v6.to_string()));
    let (service, port) = (address::SERVICE, web::PORT);

    let rules = format!(
        "table ip balance {{
    chain requests {{ type nat hook prerouting priority -100;
        ip daddr {} tcp dport 80 dnat to numgen inc mod {count} map {{ {v4} }} : {port}; }}
    chain replies {{ type nat hook postrouting priority 100; ct status dnat masquerade; }}
}}
table ip6 balance {{
    chain requests {{ type nat hook prerouting priority -100;
        ip6 daddr {} tcp dport 80 dnat to numgen inc mod {count} map {{ {v6} }} : {port}; }}
    chain replies {{ type nat hook postrouting priority 100; ct status dnat masquerade; }}
}}
",
        service.v4, service.v6
    );
    let words = ["ip", "netns", "exec", lab.xlb.name(), "nft", "-f", "-"];
    command::run_with_input(&words, &rules).map(drop)
}
