//! Durations and sizes as people write and read them.

use std::time::Duration;

const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// "500ms", "10s", "5m", "1h"; zero is not a time to wait.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor_ms = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor_ms)| *factor_ms);
    let wrong = || format!("`{text}` is not a duration such as 500ms, 10s, 5m or 1h");

    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = number.checked_mul(factor_ms.ok_or_else(wrong)?).filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or_else(wrong)
}

/// The two largest units: "2d 3h", "5m 1s", "12s".
pub fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// "512 B", "78.2 MiB".
pub fn size(bytes: u64) -> String {
    const NAMES: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut name = 0;
    // What would be printed as 1024.0 belongs to the next unit.
    while value >= 1023.95 && name + 1 < NAMES.len() {
        value /= 1024.0;
        name += 1;
    }
    format!("{value:.1} {}", NAMES[name])
}

/// "1.5ms", "2.0s": of a measured time.
pub fn measured(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1}ms", seconds * 1000.0) } else { format!("{seconds:.1}s") }
}

/// "1 flow", "2 flows".
pub fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in
            ["", "5", "s", "0s", "-1s", "1.5s", "1 s", "1d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_have_two_units_at_most() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (61, "1m 1s"), (3_600, "1h 0m"), (90_061, "1d 1h"), (86_400, "1d 0h")]
        {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (82_000_000, "78.2 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!((counted(1, "flow"), counted(0, "flow")), ("1 flow".to_owned(), "0 flows".to_owned()));
    }
}
