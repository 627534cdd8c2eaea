//! A domain name (RFC 1035, 3.1 and 4.1.4). No I/O.

use crate::text::quote;

/// Maximum length of a name in a message, and of one label (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;
const MAX_LABEL: u8 = 63;
/// A name has at most 127 labels, and more pointers than labels have no use.
const MAX_POINTERS: usize = 127;
/// The two bits that distinguish a pointer from a length.
const POINTER: u8 = 0xc0;

/// Its labels as in a message: each after its length, then a zero. In lower case, because case does not matter (RFC 4343).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Vec<u8>);

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self(vec![0])
    }

    /// `www.example.org`, with or without a dot at the end. `.` is the root.
    pub fn parse(written: &str) -> Result<Self, String> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-_*/".contains(c);
        let labels = written.strip_suffix('.').unwrap_or(written);
        if written == "." {
            return Ok(Self::root());
        }
        let mut name = Vec::new();
        for label in labels.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=MAX_LABEL).contains(length));
            let Some(length) = length.filter(|_| label.chars().all(is_good)) else {
                return Err(format!(
                    "{} is not a domain name: expected one like `www.example.org`, with labels of at most {MAX_LABEL} bytes",
                    quote(written)
                ));
            };
            name.push(length);
            name.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        name.push(0);
        if name.len() > MAX_NAME {
            return Err(format!("{} is too long: at most {} bytes", quote(written), MAX_NAME - 2));
        }
        Ok(Self(name))
    }

    /// Reads a name, which may be compressed, and returns it with the place after it. `None`: it is malformed.
    pub fn read(message: &[u8], start: usize) -> Option<(Self, usize)> {
        let (mut name, mut at) = (Vec::new(), start);
        let (mut end, mut pointers) = (None, 0);
        loop {
            let length = *message.get(at)?;
            if length == 0 {
                name.push(0);
                return Some((Self(name), end.unwrap_or(at + 1)));
            }
            if length >= POINTER {
                let target = usize::from(length - POINTER) << 8 | usize::from(*message.get(at + 1)?);
                pointers += 1;
                // A pointer leads to a prior name (RFC 1035, 4.1.4).
                if target >= at || pointers > MAX_POINTERS {
                    return None;
                }
                end = end.or(Some(at + 2));
                at = target;
                continue;
            }
            let next = at + 1 + usize::from(length);
            name.extend(message.get(at..next)?.iter().map(u8::to_ascii_lowercase));
            // The zero at the end needs room, too.
            if length > MAX_LABEL || name.len() >= MAX_NAME {
                return None;
            }
            at = next;
        }
    }

    /// As in a message, not compressed.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_written_with_or_without_the_last_dot_and_in_any_case() {
        let name = Name::parse("www.Example.org").unwrap();

        assert_eq!(name.bytes(), b"\x03www\x07example\x03org\0");
        assert_eq!(Name::parse("WWW.example.ORG.").unwrap(), name);
        assert_eq!(Name::parse("."), Ok(Name::root()));
        assert!(Name::parse("_dns._udp.0/25.2.0.192.in-addr.arpa").is_ok());
    }

    #[test]
    fn what_no_server_can_be_asked_is_refused() {
        let longest = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        assert!(Name::parse(&longest).is_ok());
        for wrong in
            ["", "..", ".org", "a..b", "a b", "müller.example", &"a".repeat(64), &format!("{longest}b")]
        {
            assert!(Name::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pointers_are_followed() {
        let message = b"??\x07Example\x03org\0\x03www\xc0\x02after";

        let (name, end) = Name::read(message, 15).unwrap();

        assert_eq!((name, end), (Name::parse("www.example.org").unwrap(), 21));
    }

    #[test]
    fn pointers_that_lead_nowhere_are_refused() {
        for (message, start) in [
            // To itself, ahead, to each other, and round and round.
            (&b"\xc0\x00"[..], 0),
            (b"\xc0\x02\0", 0),
            (b"\xc0\x02\xc0\x00", 2),
            (b"\x01a\xc0\x00", 2),
            (b"\x01a\x01b\xc0\x00", 0),
            // Bits that no type of label uses.
            (b"\x40a\0", 0),
            (b"\x80a\0", 0),
        ] {
            assert_eq!(Name::read(message, start), None, "{message:?}");
        }
    }

    #[test]
    fn a_chain_of_pointers_is_followed_only_so_far() {
        let chain = |count: usize| {
            let mut message = vec![0];
            for target in 0..count {
                let previous = if target == 0 { 0 } else { target * 2 - 1 };
                message.extend((0xc000 | u16::try_from(previous).unwrap()).to_be_bytes());
            }
            let last = message.len() - 2;
            Name::read(&message, last)
        };

        assert!(chain(MAX_POINTERS).is_some());
        assert_eq!(chain(MAX_POINTERS + 1), None);
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_is_sent(labels in proptest::collection::vec("[a-z0-9_-]{1,20}", 1..10)) {
            let name = Name::parse(&labels.join(".")).unwrap();

            prop_assert_eq!(Name::read(name.bytes(), 0), Some((name.clone(), name.bytes().len())));
            for cut in 0..name.bytes().len() {
                prop_assert_eq!(Name::read(&name.bytes()[..cut], 0), None);
            }
        }

        #[test]
        fn no_bytes_make_a_name_that_is_too_long(
            message in proptest::collection::vec(prop_oneof![0_u8..4, Just(0xc0), any::<u8>()], 0..600),
            start in 0_usize..700,
        ) {
            if let Some((name, end)) = Name::read(&message, start) {
                prop_assert!(name.bytes().len() <= MAX_NAME && start < end && end <= message.len());
            }
        }
    }
}
