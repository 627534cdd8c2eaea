//! The rows that answer a query, as text. No I/O.
//!
//! ```text
//!   number of columns │ a packet for each │ end │ a packet for each row │ end
//!   OK: there are no rows
//!   error: also instead of a row
//! ```

use super::{
    refusal::{self, Refusal},
    wire::{Malformed, Values},
};

/// The status of a replica has 62 columns in MariaDB 10.11, more in later versions.
const COLUMNS_MAX: usize = 128;
/// A replica has a row for each of its primaries.
const ROWS_MAX: usize = 16;

/// What a query was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Row<'r> {
    columns: &'r [String],
    values: &'r [Option<String>],
}

impl Rows {
    /// Is it the answer to a statement that has rows?
    pub fn has_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row { columns: &self.columns, values })
    }
}

impl<'r> Row<'r> {
    /// The value in the first of these columns that exists. `None`: there is none, or it is NULL.
    pub fn get(self, names: &[&str]) -> Option<&'r str> {
        let column = |name: &&str| self.columns.iter().position(|it| it.eq_ignore_ascii_case(name));
        self.at(names.iter().find_map(column)?)
    }

    /// The value in this column.
    pub fn at(self, column: usize) -> Option<&'r str> {
        self.values.get(column)?.as_deref()
    }
}

/// Takes the packets of an answer.
#[derive(Debug, Default)]
pub struct Reading {
    next: Next,
    rows: Rows,
}

/// What the next packet is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Beginning,
    Columns { left: usize },
    EndOfColumns,
    Row,
}

/// An answer of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Rows(Rows),
    Refused(Refusal),
}

impl Reading {
    /// The answer, if it ends with this packet.
    pub fn push(&mut self, payload: &[u8]) -> Result<Option<Answer>, Malformed> {
        if payload.first() == Some(&refusal::MARK) {
            return Ok(Some(Answer::Refused(Refusal::parse(payload)?)));
        }
        match self.next {
            Next::Beginning if payload.first() == Some(&0) => return Ok(Some(self.end())),
            Next::Beginning => {
                let left = Values(payload).integer()?;
                let left = usize::try_from(left).ok().filter(|it| *it <= COLUMNS_MAX);
                self.next = Next::Columns { left: left.ok_or(Malformed::TooManyColumns)? };
            }
            Next::Columns { left } => {
                self.rows.columns.push(column(payload)?);
                self.next = if left > 1 { Next::Columns { left: left - 1 } } else { Next::EndOfColumns };
            }
            Next::EndOfColumns if is_end(payload) => self.next = Next::Row,
            Next::EndOfColumns => return Err(Malformed::Broken),
            Next::Row if is_end(payload) => return Ok(Some(self.end())),
            Next::Row if self.rows.rows.len() == ROWS_MAX => return Err(Malformed::TooManyRows),
            Next::Row => {
                let row = row(payload, self.rows.columns.len())?;
                self.rows.rows.push(row);
            }
        }
        Ok(None)
    }

    fn end(&mut self) -> Answer {
        Answer::Rows(std::mem::take(&mut self.rows))
    }
}

/// The name of a column. It follows those of the catalog, the schema and the table, and its table's own name.
fn column(payload: &[u8]) -> Result<String, Malformed> {
    let mut values = Values(payload);
    for _ in 0..4 {
        values.counted()?;
    }
    values.counted().map(text)
}

fn row(payload: &[u8], columns: usize) -> Result<Vec<Option<String>>, Malformed> {
    let mut values = Values(payload);
    let row = (0..columns).map(|_| Ok(values.nullable()?.map(text))).collect::<Result<_, _>>()?;
    if values.0.is_empty() { Ok(row) } else { Err(Malformed::Broken) }
}

/// A row can begin with the same byte only if it is longer than an answer may be.
fn is_end(payload: &[u8]) -> bool {
    payload.first() == Some(&0xfe) && payload.len() < 9
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::probe::mysql::{refusal::tests::refusal, wire::tests::counted};

    pub const END: &[u8] = &[0xfe, 0, 0, 2, 0];

    /// The payloads of an answer with these columns and rows.
    pub fn payloads(columns: &[&str], rows: &[&[Option<&str>]]) -> Vec<Vec<u8>> {
        let column = |name: &&str| {
            [counted("def"), counted(""), counted(""), counted(""), counted(name), counted(""), vec![0; 13]].concat()
        };
        let value = |value: &Option<&str>| value.map_or_else(|| vec![0xfb], counted);
        let mut payloads = vec![vec![columns.len() as u8]];
        payloads.extend(columns.iter().map(column));
        payloads.push(END.to_vec());
        payloads.extend(rows.iter().map(|row| row.iter().flat_map(value).collect()));
        payloads.push(END.to_vec());
        payloads
    }

    /// The answer with these columns and rows.
    pub fn rows(columns: &[&str], rows: &[&[Option<&str>]]) -> Rows {
        match read(&payloads(columns, rows)).unwrap() {
            Some(Answer::Rows(rows)) => rows,
            other => panic!("{other:?}"),
        }
    }

    fn read(payloads: &[Vec<u8>]) -> Result<Option<Answer>, Malformed> {
        let mut reading = Reading::default();
        for payload in payloads {
            if let Some(answer) = reading.push(payload)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    #[test]
    fn rows_are_read_as_they_were_written() {
        let long = "x".repeat(1000);
        let rows = rows(&["Slave_IO_Running", "b"], &[&[Some("Yes"), None], &[Some(""), Some(&long)]]);

        let read: Vec<_> = rows.iter().map(|row| (row.get(&["Replica_IO_Running", "Slave_IO_Running"]), row.at(1))).collect();
        assert_eq!(read, [(Some("Yes"), None), (Some(""), Some(long.as_str()))]);
        assert_eq!(rows.iter().next().unwrap().get(&["c"]), None);
    }

    #[test]
    fn an_answer_without_rows_is_empty() {
        assert_eq!(read(&[vec![0, 0, 0, 2, 0, 0, 0]]), Ok(Some(Answer::Rows(Rows::default()))));
        assert_eq!(rows(&["a"], &[]).iter().count(), 0);
    }

    #[test]
    fn an_error_may_come_instead_of_anything() {
        let all = payloads(&["a", "b"], &[&[Some("1"), Some("2")]]);
        for cut in 0..all.len() {
            let payloads = [&all[..cut], &[refusal(1317, "#70100Query execution was interrupted")]].concat();

            assert!(matches!(read(&payloads), Ok(Some(Answer::Refused(Refusal { code: 1317, .. })))), "{cut}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        let row = |payload: &[u8]| [&payloads(&["a"], &[])[..3], &[payload.to_vec()]].concat();
        for (payloads, malformed) in [
            // The request for a file of the client (LOCAL INFILE).
            (vec![b"\xfb/etc/passwd".to_vec()], Malformed::Broken),
            (vec![vec![]], Malformed::Broken),
            (vec![vec![0xfc, 0xff, 0xff]], Malformed::TooManyColumns),
            (vec![vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]], Malformed::TooManyColumns),
            (vec![vec![1], vec![9, b'x']], Malformed::Broken),
            ([&payloads(&["a"], &[])[..2], &[b"\x01a".to_vec()]].concat(), Malformed::Broken),
            (row(b""), Malformed::Broken),
            (row(b"\x01a\x01b"), Malformed::Broken),
            (row(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Malformed::Broken),
            (payloads(&["a"], &[&[Some("1")][..]; ROWS_MAX + 1]), Malformed::TooManyRows),
        ] {
            assert_eq!(read(&payloads), Err(malformed), "{payloads:?}");
        }
    }

    proptest! {
        #[test]
        fn no_packets_make_it_panic_or_keep_more_than_the_limits(
            mut packets in proptest::collection::vec(any::<Vec<u8>>(), 0..40),
            columns in 0_u8..4,
        ) {
            let mut reading = Reading::default();
            packets.insert(0, vec![columns]);
            for payload in &packets {
                if !matches!(reading.push(payload), Ok(None)) {
                    break;
                }
            }
            prop_assert!(reading.rows.columns.len() <= COLUMNS_MAX && reading.rows.rows.len() <= ROWS_MAX);
        }
    }
}
