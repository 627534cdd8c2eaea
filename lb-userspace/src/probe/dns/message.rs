//! A query, and the answer to it (RFC 1035, 4). No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::name::Name;
use crate::named::{Named as _, named};

const HEADER: usize = 12;
/// The first flag byte: a response, the kind of query, and truncation.
const RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
/// The response code in the second flag byte.
const CODE: u8 = 0x0f;
/// The Internet.
const CLASS: u16 = 1;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: Name,
    pub kind: RecordType,
}

/// The type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    A = 1,
    Ns = 2,
    Cname = 5,
    Soa = 6,
    Ptr = 12,
    Mx = 15,
    Txt = 16,
    Aaaa = 28,
    Srv = 33,
}

named!(RecordType {
    A = "A",
    Aaaa = "AAAA",
    Cname = "CNAME",
    Mx = "MX",
    Ns = "NS",
    Ptr = "PTR",
    Soa = "SOA",
    Srv = "SRV",
    Txt = "TXT",
});

/// The code of a response (RFC 1035, 4.1.1, and RFC 2136, 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
    NotAuth = 9,
}

named!(Code {
    NoError = "NOERROR",
    FormErr = "FORMERR",
    ServFail = "SERVFAIL",
    NxDomain = "NXDOMAIN",
    NotImp = "NOTIMP",
    Refused = "REFUSED",
    NotAuth = "NOTAUTH",
});

impl Code {
    /// Its name, if it has one here.
    pub fn show(number: u8) -> String {
        match Self::ALL.iter().find(|code| **code as u8 == number) {
            Some(code) => code.name().to_owned(),
            None => format!("response code {number}"),
        }
    }
}

/// An answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u8,
    /// It is cut off.
    pub is_truncated: bool,
    /// The answer section. Empty if the message is cut off.
    pub records: Vec<Record>,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Address(IpAddr),
    /// Another name of this name (CNAME), its name server (NS), or the name of an address (PTR).
    Name(RecordType, Name),
    /// The strings of a TXT record, one after the other.
    Text(Vec<u8>),
    /// Of a type whose contents do not matter.
    Other,
}

/// Why this is no answer to the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It does not answer this query. Over UDP, an answer that was forged (RFC 5452, 9.1).
    Unrelated,
    Malformed,
}

/// A query with this id.
pub fn query(id: u16, question: &Question) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + question.name.bytes().len() + 4);
    message.extend(id.to_be_bytes());
    message.extend([RECURSION_DESIRED, 0]);
    // One question, and nothing in the other sections.
    message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend(question.name.bytes());
    message.extend((question.kind as u16).to_be_bytes());
    message.extend(CLASS.to_be_bytes());
    message
}

/// The answer to the query with this id. What follows the answer section is not looked at.
pub fn parse(id: u16, question: &Question, message: &[u8]) -> Result<Reply, Wrong> {
    let header = message.first_chunk::<HEADER>().ok_or(Wrong::Unrelated)?;
    let [id_high, id_low, flags, more_flags, questions_high, questions_low, answers_high, answers_low, ..] =
        *header;
    let is_answer = flags & RESPONSE != 0 && flags & OPCODE == 0;
    if [id_high, id_low] != id.to_be_bytes() || !is_answer {
        return Err(Wrong::Unrelated);
    }
    let code = more_flags & CODE;
    let mut reader = Reader { message, at: HEADER };
    match u16::from_be_bytes([questions_high, questions_low]) {
        1 => reader.same_question(question)?,
        // A server that could not read the query, or would not answer it, may omit it.
        0 if ![Code::NoError as u8, Code::NxDomain as u8].contains(&code) => {}
        _ => return Err(Wrong::Unrelated),
    }
    let is_truncated = flags & TRUNCATED != 0;
    let count = if is_truncated { 0 } else { u16::from_be_bytes([answers_high, answers_low]) };
    let records = (0..count).map(|_| reader.record()).collect::<Option<_>>().ok_or(Wrong::Malformed)?;
    Ok(Reply { code, is_truncated, records })
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn same_question(&mut self, question: &Question) -> Result<(), Wrong> {
        let name = self.name().ok_or(Wrong::Malformed)?;
        let kind = self.number().ok_or(Wrong::Malformed)?;
        let class = self.number().ok_or(Wrong::Malformed)?;
        let is_same = name == question.name && kind == question.kind as u16 && class == CLASS;
        if is_same { Ok(()) } else { Err(Wrong::Unrelated) }
    }

    fn record(&mut self) -> Option<Record> {
        let _owner = self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        let _ttl = self.take(4)?;
        let length = self.number()?.into();
        let from = self.at;
        let data = self.take(length)?;
        let kind = RecordType::ALL.iter().find(|it| class == CLASS && **it as u16 == kind);
        Some(match kind {
            Some(RecordType::A) => Record::Address(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
            Some(RecordType::Aaaa) => Record::Address(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
            Some(kind @ (RecordType::Cname | RecordType::Ns | RecordType::Ptr)) => {
                let (name, end) = Name::read(self.message, from)?;
                (end == self.at).then_some(Record::Name(*kind, name))?
            }
            Some(RecordType::Txt) => Record::Text(text(data)?),
            Some(RecordType::Mx | RecordType::Soa | RecordType::Srv) | None => Record::Other,
        })
    }

    fn name(&mut self) -> Option<Name> {
        let (name, end) = Name::read(self.message, self.at)?;
        self.at = end;
        Some(name)
    }

    fn number(&mut self) -> Option<u16> {
        let (bytes, _) = self.take(2)?.split_first_chunk::<2>()?;
        Some(u16::from_be_bytes(*bytes))
    }

    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let bytes = self.message.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }
}

/// Strings, each after its length (RFC 1035, 3.3.14).
fn text(mut data: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while let Some((length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*length))?;
        text.extend_from_slice(string);
        data = rest;
    }
    Some(text)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: u16 = 0x1234;

    pub fn question(name: &str, kind: RecordType) -> Question {
        Question { name: Name::parse(name).unwrap(), kind }
    }

    /// The answer to a query: with this code and these records, whose owner is the name of the query.
    pub fn answer(query: &[u8], code: u8, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= RESPONSE;
        message[3] = code;
        message[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend(b"\0\x01\0\0\0\x3c");
            message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn a_query_asks_one_question_and_for_recursion() {
        let query = query(ID, &question("example.org", RecordType::Txt));

        assert_eq!(query, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x10\0\x01");
    }

    #[test]
    fn the_records_of_the_answer_are_read() {
        let question = question("example.org", RecordType::A);
        let name = |name| Name::parse(name).unwrap();
        let aaaa = "2001:db8::1".parse::<Ipv6Addr>().unwrap();
        let message = answer(
            &query(ID, &question),
            0,
            &[
                (5, b"\x03www\xc0\x0c"),
                (1, &[192, 0, 2, 1]),
                (28, &aaaa.octets()),
                (2, b"\x02ns\xc0\x14"),
                (16, b"\x03one\x04 two\0"),
                (15, b"\0\x0a\xc0\x0c"),
                (65, b"any"),
            ],
        );

        let reply = parse(ID, &question, &message).unwrap();

        let records = vec![
            Record::Name(RecordType::Cname, name("www.example.org")),
            Record::Address("192.0.2.1".parse().unwrap()),
            Record::Address(aaaa.into()),
            Record::Name(RecordType::Ns, name("ns.org")),
            Record::Text(b"one two".to_vec()),
            Record::Other,
            Record::Other,
        ];
        assert_eq!(reply, Reply { code: 0, is_truncated: false, records });
    }

    #[test]
    fn only_an_answer_to_the_query_counts() {
        let question = question("example.org", RecordType::A);
        let good = answer(&query(ID, &question), 0, &[]);
        let with = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            message
        };
        for unrelated in [
            with(0, 0x13),
            with(2, 0x01),
            with(2, 0xa1),
            with(5, 0),
            with(5, 2),
            with(13, b'f'),
            with(26, 28),
            with(28, 3),
            good[..11].to_vec(),
        ] {
            assert_eq!(parse(ID, &question, &unrelated), Err(Wrong::Unrelated), "{unrelated:?}");
        }
        assert!(parse(ID, &question, &with(13, b'E')).is_ok(), "case does not matter");
    }

    #[test]
    fn a_server_that_refuses_may_omit_the_question() {
        let question = question("example.org", RecordType::A);
        for (code, is_good) in [(1, true), (2, true), (4, true), (5, true), (0, false), (3, false)] {
            let mut message = answer(&query(ID, &question), code, &[])[..HEADER].to_vec();
            message[5] = 0;

            assert_eq!(parse(ID, &question, &message).is_ok(), is_good, "{}", Code::show(code));
        }
    }

    #[test]
    fn a_record_of_another_class_holds_no_address() {
        let question = question("example.org", RecordType::A);
        let query = query(ID, &question);
        let mut message = answer(&query, 0, &[(1, &[192, 0, 2, 1])]);
        // The class follows the two bytes of the owner and those of the type. Chaos is 3.
        message[query.len() + 5] = 3;

        assert_eq!(parse(ID, &question, &message).unwrap().records, [Record::Other]);
    }

    #[test]
    fn the_records_of_a_message_that_is_cut_off_are_not_read() {
        let question = question("example.org", RecordType::A);
        let mut message = answer(&query(ID, &question), 0, &[(1, &[192, 0, 2, 1])]);
        message[2] |= TRUNCATED;
        message.truncate(message.len() - 3);

        let expected = Reply { code: 0, is_truncated: true, records: Vec::new() };
        assert_eq!(parse(ID, &question, &message), Ok(expected));
    }

    #[test]
    fn records_that_do_not_fit_their_length_are_malformed() {
        let question = question("example.org", RecordType::A);
        for record in [
            (1, &b"\x01\x02\x03"[..]),
            (1, b"\x01\x02\x03\x04\x05"),
            (28, b"\x01\x02\x03\x04"),
            (5, b"\xc0\x0cx"),
            (5, b"\xc0"),
            (16, b"\x05four"),
        ] {
            let message = answer(&query(ID, &question), 0, &[record]);

            assert_eq!(parse(ID, &question, &message), Err(Wrong::Malformed), "{record:?}");
        }
    }

    #[test]
    fn as_many_long_chains_of_pointers_as_fit_are_read_to_the_end() {
        let question = question(".", RecordType::Ns);
        let mut message = query(ID, &question);
        message[2] |= RESPONSE;
        // A record of an unknown type holds the chain: the first pointer leads to the root, each other one to the last.
        message.extend(b"\0\0\xff\0\x01\0\0\0\0\0\xf2\xc0\x0c");
        for pointer in 0..120_u16 {
            message.extend((0xc000 + 28 + pointer * 2).to_be_bytes());
        }
        let mut count = 1_u16;
        while message.len() < 65_500 {
            message.extend(b"\xc1\x00\0\x02\0\x01\0\0\0\0\0\x02\xc1\x00");
            count += 1;
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());

        let reply = parse(ID, &question, &message).unwrap();

        assert_eq!(reply.records.len(), usize::from(count));
        assert_eq!(reply.records.last(), Some(&Record::Name(RecordType::Ns, Name::root())));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise(
            rest in proptest::collection::vec(prop_oneof![0_u8..4, Just(0xc0), any::<u8>()], 0..400),
            answers in any::<u16>(),
            flags in any::<u8>(),
        ) {
            let question = question("example.org", RecordType::A);
            let mut message = query(ID, &question);
            message[2] = RESPONSE | (flags & TRUNCATED);
            message[6..8].copy_from_slice(&answers.to_be_bytes());
            message.extend(rest);

            if let Ok(reply) = parse(ID, &question, &message) {
                // A record takes at least eleven bytes.
                prop_assert!(reply.records.len() * 11 <= message.len());
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_answer_or_one(message in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(ID, &question("example.org", RecordType::A), &message);
        }

        #[test]
        fn an_answer_that_ends_early_is_refused(text in "[a-z]{0,60}", address in any::<[u8; 4]>()) {
            let question = question("example.org", RecordType::Txt);
            let length = u8::try_from(text.len()).unwrap();
            let data = [&[length], text.as_bytes()].concat();
            let message = answer(&query(ID, &question), 0, &[(16, &data), (1, &address)]);

            prop_assert_eq!(parse(ID, &question, &message).unwrap().records.len(), 2);
            for cut in 0..message.len() {
                let wrong = if cut < HEADER { Wrong::Unrelated } else { Wrong::Malformed };
                prop_assert_eq!(parse(ID, &question, &message[..cut]), Err(wrong), "cut at {}", cut);
            }
        }
    }
}
