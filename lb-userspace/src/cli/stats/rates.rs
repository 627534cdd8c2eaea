//! Rates per second between two reads of the counters.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::table::{Table, Tone},
    name_of,
};
use crate::{cli::units, view::Stats};

pub fn table(before: &[Stats], after: &[Stats], elapsed: Duration) -> Table {
    let mut table =
        Table::new(&["NAME", "FLOWS", "NEW/S", "FORWARDED/S", "BYTES/S", "RETURNED/S", "BYTES/S"]);
    let before: BTreeMap<_, _> = before.iter().map(|row| ((&row.service, &row.backend), row)).collect();
    for row in after {
        let earlier = before.get(&(&row.service, &row.backend));
        let rate = |total: fn(&Stats) -> u64| match earlier {
            Some(earlier) => per_second(total(earlier), total(row), elapsed),
            None => 0,
        };
        let cells = [
            name_of(row),
            row.flows.to_string(),
            rate(|it| it.new_flows_total).to_string(),
            rate(|it| it.forwarded_packets_total).to_string(),
            units::size(rate(|it| it.forwarded_bytes_total)),
            rate(|it| it.returned_packets_total).to_string(),
            units::size(rate(|it| it.returned_bytes_total)),
        ];
        table.row(Tone::Plain, cells);
    }
    table
}

/// A counter that decreased was reset.
fn per_second(before: u64, after: u64, elapsed: Duration) -> u64 {
    let micros = elapsed.as_micros().max(1);
    let rate = u128::from(after.saturating_sub(before)) * 1_000_000 / micros;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_whatever_the_pause() {
        assert_eq!(per_second(100, 600, Duration::from_millis(500)), 1000);
        assert_eq!(per_second(100, 600, Duration::from_secs(5)), 100);
        assert_eq!(per_second(600, 100, Duration::from_secs(1)), 0, "the counter was reset");
        assert_eq!(per_second(0, u64::MAX, Duration::ZERO), u64::MAX);
    }
}
