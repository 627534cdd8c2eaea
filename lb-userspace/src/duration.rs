//! Durations in readable form, for the file and the command line.

use std::{ops::RangeInclusive, time::Duration};

use crate::text::quote;

/// Milliseconds of each unit, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses "500ms", "10s", "5m" or "1h", within limits.
pub fn parse(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, unit_ms)| *unit_ms);
    let unit_ms = match unit_ms {
        Some(unit_ms) if !number.is_empty() => unit_ms,
        None if unit.is_empty() && !number.is_empty() => {
            return Err(format!("{} has no unit: write \"1s\" or \"500ms\"", quote(text)));
        }
        Some(_) | None => {
            return Err(format!(
                "{} is not a duration: expected one like \"500ms\", \"10s\", \"5m\" or \"1h\"",
                quote(text)
            ));
        }
    };

    // A number that overflows is out of range anyway.
    let number = number.parse::<u64>().unwrap_or(u64::MAX);
    let duration = Duration::from_millis(number.saturating_mul(unit_ms));
    if bounds.contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (show(*bounds.start()), show(*bounds.end()));
    Err(format!("{} is out of range: {least} to {most}", quote(text)))
}

/// Formats a duration in the largest unit that divides it: "1h", "90s".
pub fn show(duration: Duration) -> String {
    let ms = duration.as_millis();
    let fits = |unit_ms: u64| ms >= unit_ms.into() && ms.is_multiple_of(unit_ms.into());
    match UNITS.iter().find(|(_, unit_ms)| fits(*unit_ms)) {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / u128::from(*unit_ms)),
        None if duration.is_zero() => "0s".to_owned(),
        None => format!("{duration:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(2 * 3600);

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text, BOUNDS), Ok(Duration::from_millis(ms)));
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        for text in ["", "s", "ms", "-1", "-1s", "1.5s", "1 s", "1s ", "1d", "1H"] {
            assert!(parse(text, BOUNDS).unwrap_err().contains("is not a duration"), "{text}");
        }
        assert!(parse("5", BOUNDS).unwrap_err().contains("`5` has no unit"));
        for text in ["0s", "9ms", "121m", "99999999999999999999s", "18446744073709551615h"] {
            let message = parse(text, BOUNDS).unwrap_err();
            assert!(message.ends_with("is out of range: 10ms to 2h"), "{message}");
        }
    }

    #[test]
    fn a_duration_is_shown_in_its_largest_whole_unit() {
        for (ms, text) in
            [(10, "10ms"), (1_500, "1500ms"), (90_000, "90s"), (60_000, "1m"), (3_600_000, "1h")]
        {
            assert_eq!(show(Duration::from_millis(ms)), text);
        }
        assert_eq!(show(Duration::ZERO), "0s");
    }
}
