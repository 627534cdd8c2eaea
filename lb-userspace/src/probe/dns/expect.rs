//! Which answers are good: `expect_code` and `expect_answer`. No I/O.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    slice,
};

use toml::{Spanned, de::DeValue};

use super::{
    super::{Answer, Fault},
    message::{Code, Record, RecordType, Reply},
    name::Name,
};
use crate::{
    document::{
        Key, Keys,
        parts::{self, Wrong},
        value,
    },
    named::Named as _,
    text::{counted, quote},
};

/// Maximum length of the expected text.
const MAX_TEXT: usize = 1024;

pub const EXPECT_CODE: Key<Vec<Code>> = Key::of_parts("expect_code", codes);
pub const EXPECT_ANSWER: Key<String> = Key::new("expect_answer", text);

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    codes: Vec<Code>,
    /// One of the records must be this one, which is written so.
    record: Option<(Record, String)>,
}

impl Expect {
    /// `kind`: what is asked for. `None`: that is wrong, and reported.
    pub fn read(keys: &Keys<'_>, kind: Option<RecordType>) -> Self {
        let codes = keys.or(&EXPECT_CODE, vec![Code::NoError]);
        let Some((written, kind)) = keys.value(&EXPECT_ANSWER).zip(kind) else {
            return Self { codes, record: None };
        };
        if codes != [Code::NoError] {
            keys.refuse(&EXPECT_ANSWER, "`expect_answer` needs expect_code = \"NOERROR\": others come without records");
        }
        let record = record(kind, &written).map_err(|message| keys.refuse(&EXPECT_ANSWER, message));
        Self { codes, record: record.ok().map(|record| (record, written)) }
    }

    /// The answer to show, or why it is not good.
    pub fn judge(&self, reply: &Reply) -> Result<Answer, Fault> {
        let code = Code::show(reply.code);
        if !self.codes.iter().any(|good| *good as u8 == reply.code) {
            return Err(Fault::Failed(code));
        }
        let count = counted(reply.records.len() as u64, "record");
        match &self.record {
            Some(_) if reply.is_truncated => {
                Err(Fault::Failed(format!("{code}, but the answer is cut off: use over = \"tcp\"")))
            }
            Some((expected, written)) if !reply.records.contains(expected) => {
                Err(Fault::Failed(format!("{code}, {count}, none is {}", quote(written))))
            }
            Some(_) | None if reply.is_truncated => Ok(format!("{code}, cut off").into()),
            Some(_) | None => Ok(format!("{code}, {count}").into()),
        }
    }
}

/// A code, or a list of codes.
fn codes(value: &Spanned<DeValue<'_>>) -> Result<Vec<Code>, Wrong> {
    let items = match value.get_ref().as_array() {
        None => slice::from_ref(value),
        Some(items) => items,
    };
    let most = Code::ALL.len();
    match items.len() {
        0 => Err(vec![parts::at(value, "the list is empty: no answer would be good")]),
        length if length > most => {
            Err(vec![parts::at(value, format!("{length} codes are too many: at most {most}"))])
        }
        _ => {
            let code = |value: &DeValue<'_>| value::choice(value, "response code", &[]);
            parts::all(items.iter().map(|item| parts::read(item, code)))
        }
    }
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    let text = value::text(value)?;
    match text.len() {
        0 => Err("it is empty: leave it out if any answer is good".to_owned()),
        1..=MAX_TEXT => Ok(text.to_owned()),
        length => Err(format!("{length} bytes are too many: at most {MAX_TEXT}")),
    }
}

/// A record of this type.
fn record(kind: RecordType, written: &str) -> Result<Record, String> {
    let not_an_address =
        |family| format!("{} is not an {family} address: query_type = \"{}\" has these", quote(written), kind.name());
    match kind {
        RecordType::A => {
            let address: Ipv4Addr = written.parse().map_err(|_| not_an_address("IPv4"))?;
            Ok(Record::Address(address.into()))
        }
        RecordType::Aaaa => {
            let address: Ipv6Addr = written.parse().map_err(|_| not_an_address("IPv6"))?;
            Ok(Record::Address(address.into()))
        }
        RecordType::Cname | RecordType::Ns | RecordType::Ptr => Ok(Record::Name(kind, Name::parse(written)?)),
        RecordType::Txt => Ok(Record::Text(written.as_bytes().to_vec())),
        RecordType::Mx | RecordType::Soa | RecordType::Srv => Err(format!(
            "`expect_answer` is not possible with query_type = \"{}\": \
             only with A, AAAA, CNAME, NS, PTR and TXT",
            kind.name()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_one_or_a_list() {
        assert_eq!(codes(&spanned("'REFUSED'")), Ok(vec![Code::Refused]));
        assert_eq!(codes(&spanned("['NOERROR', 'NXDOMAIN']")), Ok(vec![Code::NoError, Code::NxDomain]));
        for wrong in ["[]", "'noerror'", "0", "['NOERROR', 3]", "['A']"] {
            assert!(codes(&spanned(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_expected_record_is_one_of_its_type() {
        let name = Name::parse("ns.example.org").unwrap();
        for (kind, written, expected) in [
            (RecordType::A, "192.0.2.1", Record::Address("192.0.2.1".parse().unwrap())),
            (RecordType::Aaaa, "2001:DB8::0:1", Record::Address("2001:db8::1".parse().unwrap())),
            (RecordType::Ns, "NS.example.org.", Record::Name(RecordType::Ns, name)),
            (RecordType::Txt, "v=spf1 -all", Record::Text(b"v=spf1 -all".to_vec())),
        ] {
            assert_eq!(record(kind, written), Ok(expected), "{written}");
        }
        for (kind, wrong) in [
            (RecordType::A, "2001:db8::1"),
            (RecordType::Aaaa, "192.0.2.1"),
            (RecordType::Cname, "a b"),
            (RecordType::Mx, "mail.example.org"),
        ] {
            assert!(record(kind, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_of_another_type_is_not_the_expected_one() {
        let name = Name::parse("www.example.org").unwrap();
        let written = "www.example.org".to_owned();
        let expected = Record::Name(RecordType::Ns, name.clone());
        let expect = Expect { codes: vec![Code::NoError], record: Some((expected, written)) };
        let reply = |records| Reply { code: 0, is_truncated: false, records };

        let other = expect.judge(&reply(vec![Record::Name(RecordType::Cname, name.clone())]));
        let same = expect.judge(&reply(vec![Record::Other, Record::Name(RecordType::Ns, name)]));

        assert_eq!(other, Err(Fault::Failed("NOERROR, 1 record, none is `www.example.org`".to_owned())));
        assert_eq!(same, Ok("NOERROR, 2 records".to_owned().into()));
    }

    fn spanned(text: &str) -> Spanned<DeValue<'_>> {
        DeValue::parse(text).unwrap()
    }
}
