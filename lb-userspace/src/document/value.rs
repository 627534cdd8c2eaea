//! Values in the file: one function per kind, which returns the value or a message about what is wrong.

use std::{fs, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use toml::de::DeValue;

use super::table::kind;
use crate::{
    duration,
    limited_file::Readers,
    named::{self, Named},
    text::{either, quote, suggest},
};

/// Maximum length of a unix socket's path: `sun_path` has 108 bytes, with a terminating zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// Maximum length of an interface name: IFNAMSIZ is 16, with a terminating zero (netdevice(7)).
const MAX_INTERFACE_NAME: usize = 15;

/// A string.
pub fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("expected a string in quotes, found {}", kind(value)))
}

pub fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("expected true or false, found {}", kind(value)))
}

/// An integer within limits.
pub fn integer(value: &DeValue<'_>, bounds: RangeInclusive<u32>) -> Result<u32, String> {
    let (written, number) = digits(value)?;
    let within = number.filter(|number| bounds.contains(number));
    within
        .ok_or_else(|| format!("{} is out of range: {} to {}", quote(written), bounds.start(), bounds.end()))
}

pub fn port(value: &DeValue<'_>) -> Result<u16, String> {
    let (written, number) = digits(value)?;
    let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0);
    port.ok_or_else(|| not_a_port(written))
}

/// `1s`, `500ms`, `2m`, `1h`.
pub fn duration(value: &DeValue<'_>, bounds: RangeInclusive<Duration>) -> Result<Duration, String> {
    // A number without a unit is the usual mistake. The parser of durations has a message for it.
    match value.as_integer() {
        Some(number) => duration::parse(number.as_str(), bounds),
        None => duration::parse(text(value)?, bounds),
    }
}

/// One of several words. `later`: known words that this version does not support.
pub fn choice<T: Named>(value: &DeValue<'_>, what: &str, later: &[&str]) -> Result<T, String> {
    let written = text(value)?;
    if let Some(chosen) = named::find(written) {
        return Ok(chosen);
    }
    let built: Vec<_> = T::ALL.iter().map(|it| it.name()).collect();
    if later.contains(&written) {
        return Err(format!(
            "{what} {} is not supported in this version: use {}",
            quote(written),
            either(&built)
        ));
    }
    Err(format!("unknown {what} {}{}", quote(written), suggest(written, &[&built, later].concat())))
}

/// `192.0.2.10:80`, `[2001:db8::10]:80`.
pub fn endpoint(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    text(value).and_then(parse_endpoint)
}

/// The same, from text.
pub fn parse_endpoint(written: &str) -> Result<SocketAddr, String> {
    match written.parse::<SocketAddr>() {
        Ok(endpoint) if endpoint.port() == 0 => Err(not_a_port("0")),
        Ok(endpoint) => Ok(endpoint),
        Err(_) => Err(not_an_endpoint(written)),
    }
}

/// `10.0.0.1`, `fd00::1`.
pub fn address(value: &DeValue<'_>) -> Result<std::net::IpAddr, String> {
    let written = text(value)?;
    written.parse().map_err(|_| match written.parse::<SocketAddr>() {
        Ok(endpoint) => format!("{} has a port: write `{}` alone", quote(written), endpoint.ip()),
        Err(_) => not_an_address(written),
    })
}

/// A name that the kernel accepts for an interface (`dev_valid_name`).
pub fn interface_name(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value)?;
    let is_bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(is_bad) {
        return Err(format!("{} is not a valid interface name", quote(name)));
    }
    if name.len() > MAX_INTERFACE_NAME {
        return Err(format!(
            "interface name {} is too long: {} bytes, at most {MAX_INTERFACE_NAME}",
            quote(name),
            name.len()
        ));
    }
    Ok(name.to_owned())
}

pub fn socket_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = text(value)?;
    if !path.starts_with('/') || path.contains('\0') || path.ends_with('/') {
        return Err(format!(
            "{} is not an absolute path to a socket: expected one like `/run/xlb/xlb.sock`",
            quote(path)
        ));
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!("a socket path of {} bytes is too long: at most {MAX_SOCKET_PATH}", path.len()));
    }
    Ok(PathBuf::from(path))
}

/// The absolute path of a file.
pub fn file_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = text(value)?;
    if path.starts_with('/') && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(format!("{} is not an absolute path", quote(path)))
    }
}

/// The absolute path of a file with a secret. A file that others can use is a mistake in the configuration; one that is missing is
/// not: it may come later.
pub fn secret_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = file_path(value)?;
    if let Ok(file) = fs::metadata(&path) {
        let named = |why| format!("{}: {why}", quote(&path.display().to_string()));
        Readers::OwnerAndGroup.allow(&path, &file).map_err(named)?;
    }
    Ok(path)
}

/// An integer as written, and its value if it fits.
fn digits<'v>(value: &'v DeValue<'_>) -> Result<(&'v str, Option<u32>), String> {
    let integer = value.as_integer().ok_or_else(|| format!("expected an integer, found {}", kind(value)))?;
    Ok((integer.as_str(), u32::from_str_radix(integer.as_str(), integer.radix()).ok()))
}

fn not_a_port(written: &str) -> String {
    format!("{} is not a port: expected 1 to 65535", quote(written))
}

fn not_an_address(written: &str) -> String {
    format!("{} is not an address: expected one like `192.0.2.10` or `2001:db8::10`", quote(written))
}

/// What is most likely missing or wrong in `ADDRESS:PORT`.
fn not_an_endpoint(written: &str) -> String {
    if let Ok(address) = written.trim_matches(['[', ']']).parse() {
        let example = SocketAddr::new(address, 80);
        return match without_brackets(written) {
            Some(meant) => format!("{} has no port: write `{meant}` or `{example}`", quote(written)),
            None => format!("{} has no port: write `{example}`", quote(written)),
        };
    }
    match written.rsplit_once(':') {
        Some((address, port)) if format!("{address}:1").parse::<SocketAddr>().is_ok() => not_a_port(port),
        Some(("", _)) => format!("{} has no address: expected one like `192.0.2.10:80`", quote(written)),
        Some((address, _)) if !address.contains(':') => not_an_address(address),
        Some(_) | None => {
            format!(
                "{} is not an address with a port: expected one like `192.0.2.10:80` or `[2001:db8::10]:80`",
                quote(written)
            )
        }
    }
}

/// `fd00::1:80` parses as an address, but the user probably forgot the brackets.
fn without_brackets(written: &str) -> Option<SocketAddr> {
    let (address, port) = written.rsplit_once(':')?;
    let address: std::net::Ipv6Addr = address.parse().ok()?;
    Some(SocketAddr::from((address, port.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_strings() {
        let second = Duration::from_secs(1);
        let read = |text: &str| duration(&value(text), Duration::ZERO..=second * 3600);

        assert_eq!(read("'1h'"), Ok(second * 3600));
        for (wrong, message) in
            [("1", "has no unit"), ("-1", "is not a duration"), ("1.5", "a string"), ("true", "a string")]
        {
            assert!(read(wrong).unwrap_err().contains(message), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_endpoint_is_said() {
        let cases = [
            ("10.0.0.1", "`10.0.0.1` has no port: write `10.0.0.1:80`"),
            ("fd00::1", "`fd00::1` has no port: write `[fd00::1]:80`"),
            ("fd00::1:80", "`fd00::1:80` has no port: write `[fd00::1]:80` or `[fd00::1:80]:80`"),
            ("[fd00::1]", "`[fd00::1]` has no port: write `[fd00::1]:80`"),
            (":80", "`:80` has no address: expected one like `192.0.2.10:80`"),
            ("10.0.0.1:0", "`0` is not a port: expected 1 to 65535"),
            ("10.0.0.1:65536", "`65536` is not a port: expected 1 to 65535"),
            ("10.0.0.1:http", "`http` is not a port: expected 1 to 65535"),
            ("[fd00::1]:", "`` is not a port: expected 1 to 65535"),
            (
                "10.0.0.300:80",
                "`10.0.0.300` is not an address: expected one like `192.0.2.10` or `2001:db8::10`",
            ),
            (
                "web.example:80",
                "`web.example` is not an address: expected one like `192.0.2.10` or `2001:db8::10`",
            ),
        ];

        for (written, message) in cases {
            assert_eq!(endpoint(&value(&format!("'{written}'"))).unwrap_err(), message);
        }
    }

    #[test]
    fn integers_are_read_as_toml_writes_them() {
        for (written, number) in
            [("1_000", Some(1000)), ("0x1f", Some(31)), ("+7", Some(7)), ("-1", None), ("1001", None)]
        {
            assert_eq!(integer(&value(written), 0..=1000).ok(), number, "{written}");
        }
        assert!(integer(&value("99999999999999999999999999"), 0..=1000).is_err());
    }

    fn value(text: &str) -> DeValue<'_> {
        DeValue::parse(text).unwrap().into_inner()
    }
}
