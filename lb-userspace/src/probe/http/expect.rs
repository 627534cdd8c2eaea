//! Which answers are good: `expect`.

use std::{ops::RangeInclusive, slice};

use toml::{Spanned, de::DeValue};

use super::super::Fault;
use crate::{
    document::{
        parts::{self, Wrong},
        table::kind,
        value,
    },
    text::quote,
};

const ITEM: &str = "expected a status like 200, a range like \"200-299\", or \"body:TEXT\"";
const MAX_ITEMS: usize = 32;
/// Maximum length of the text that the body must have.
const MAX_TEXT: usize = 256;
const STATUSES: RangeInclusive<u16> = 100..=599;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    pub statuses: Vec<RangeInclusive<u16>>,
    /// The beginning of the body must contain this.
    pub text: Option<String>,
}

impl Default for Expect {
    fn default() -> Self {
        Self { statuses: vec![200..=399], text: None }
    }
}

impl Expect {
    /// `200`, `"200-299"`, `"body:ok"`, or a list of these. Without a status, the default ones are expected.
    pub fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let mut expect = Self { statuses: Vec::new(), text: None };
        let items = match value.get_ref().as_array() {
            None => slice::from_ref(value),
            Some(items) => items,
        };
        if items.is_empty() {
            return Err(vec![parts::at(value, "the list is empty: no answer would be good")]);
        }
        if items.len() > MAX_ITEMS {
            return Err(vec![parts::at(value, format!("{} items are too many: at most {MAX_ITEMS}", items.len()))]);
        }
        parts::all(items.iter().map(|item| parts::read(item, |item| expect.add(item))))?;
        if expect.statuses.is_empty() {
            expect.statuses = Self::default().statuses;
        }
        Ok(expect)
    }

    fn add(&mut self, item: &DeValue<'_>) -> Result<(), String> {
        if item.as_integer().is_some() {
            let status = value::integer(item, (*STATUSES.start()).into()..=(*STATUSES.end()).into())? as u16;
            self.statuses.push(status..=status);
            return Ok(());
        }
        let Some(written) = item.as_str() else { return Err(format!("{ITEM}, found {}", kind(item))) };
        match written.strip_prefix("body:") {
            Some("") => Err("the text after `body:` is empty: every body has it".to_owned()),
            Some(text) if text.len() > MAX_TEXT => {
                Err(format!("a text of {} bytes is too long: at most {MAX_TEXT}", text.len()))
            }
            Some(_) if self.text.is_some() => Err("only one `body:` is possible".to_owned()),
            Some(text) => {
                self.text = Some(text.to_owned());
                Ok(())
            }
            None => {
                self.statuses.push(range(written).ok_or_else(|| format!("{}: {ITEM}", quote(written)))?);
                Ok(())
            }
        }
    }

    /// The answer to show, or why this status is not good.
    pub fn judge_status(&self, status: u16) -> Result<String, Fault> {
        let answer = format!("HTTP {status}");
        let is_good = self.statuses.iter().any(|range| range.contains(&status));
        if is_good { Ok(answer) } else { Err(Fault::Failed(answer)) }
    }
}

fn range(written: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = written.split_once('-').unwrap_or((written, written));
    let status = |text: &str| text.trim().parse().ok().filter(|it| STATUSES.contains(it));
    let range = status(first)?..=status(last)?;
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_ranges_and_a_text_are_read() {
        let ok = Some("ok".to_owned());
        for (written, statuses, text) in [
            ("200", vec![200..=200], None),
            ("'200-299'", vec![200..=299], None),
            ("[200, '300-308', '404']", vec![200..=200, 300..=308, 404..=404], None),
            ("'body:ok'", vec![200..=399], ok.clone()),
            ("['body:ok', 204]", vec![204..=204], ok),
        ] {
            assert_eq!(Expect::read(&value(written)), Ok(Expect { statuses, text }), "{written}");
        }
    }

    #[test]
    fn what_no_answer_can_have_is_refused() {
        for wrong in
            ["[]", "99", "600", "'299-200'", "'2xx'", "true", "'body:'", "['body:a', 'body:b']", "''", "'-'"]
        {
            assert!(Expect::read(&value(wrong)).is_err(), "{wrong}");
        }
        assert!(Expect::read(&value(&format!("'body:{}'", "a".repeat(MAX_TEXT + 1)))).is_err());
    }

    fn value(text: &str) -> Spanned<DeValue<'_>> {
        DeValue::parse(text).unwrap()
    }
}
