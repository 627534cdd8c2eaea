//! Reads the tables of a TOML document key by key, and continues after a mistake.
//!
//! A key that was not read is reported when its table is closed. A mistake is reported here, once, and is
//! [`Given::Wrong`] from then on, so that it causes no further reports.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    AnyKey,
    mistakes::{At, Report, Span},
};
use crate::text::{quote, suggest};

/// A table that is being read.
pub struct Table<'d> {
    /// Its name in messages: `[[service.backend]]`.
    name: &'static str,
    span: Span,
    entries: &'d DeTable<'d>,
    known: Vec<&'static str>,
    report: &'d Report<'d>,
}

/// The value of a key.
#[derive(Clone, Debug)]
pub enum Given<T> {
    Absent,
    /// Already reported.
    Wrong,
    Good(At<T>),
}

impl<T> Given<T> {
    /// The value, or this default if there is no valid one: after a mistake the result is not used.
    pub fn or(self, default: T) -> T {
        self.value().unwrap_or(default)
    }

    pub fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Wrong => None,
            Self::Good(it) => Some(it.value),
        }
    }

    pub const fn good(&self) -> Option<&At<T>> {
        match self {
            Self::Absent | Self::Wrong => None,
            Self::Good(it) => Some(it),
        }
    }
}

impl<T: Copy> Given<T> {
    /// The value, or this default if there is none. `None` if it is wrong: rules about it are skipped.
    pub const fn or_if_absent(&self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Wrong => None,
            Self::Good(it) => Some(it.value),
        }
    }
}

/// The valid items of a list.
#[derive(Clone, Debug)]
pub struct List<T> {
    pub items: Vec<At<T>>,
    /// No item was wrong, so rules about the whole list make sense.
    pub is_complete: bool,
    /// The position of the list, if there is one.
    pub span: Option<Span>,
}

impl<'d> Table<'d> {
    pub fn root(document: &'d Spanned<DeTable<'d>>, report: &'d Report<'d>) -> Self {
        Self::new("the file", Span::START, document.get_ref(), report)
    }

    fn new(name: &'static str, span: Span, entries: &'d DeTable<'d>, report: &'d Report<'d>) -> Self {
        Self { name, span, entries, known: Vec::new(), report }
    }

    /// The position of the table.
    pub const fn span(&self) -> Span {
        self.span
    }

    /// Its keys and values.
    pub const fn entries(&self) -> &'d DeTable<'d> {
        self.entries
    }

    /// Reads an optional key.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'d>) -> Result<T, String>,
    ) -> Given<T> {
        let Some(value) = self.get(key) else { return Given::Absent };
        let span = value.span().into();
        match self.report.take(span, read(value.get_ref())) {
            Some(value) => Given::Good(At { value, span }),
            None => Given::Wrong,
        }
    }

    /// Checks the value of an optional key.
    pub fn judge(&mut self, key: &dyn AnyKey) {
        let mistakes = self.get(key.name()).and_then(|value| key.judge(value).err());
        for At { value, span } in mistakes.into_iter().flatten() {
            self.report.add(span, value);
        }
    }

    /// Reads a required key.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'d>) -> Result<T, String>,
    ) -> Option<At<T>> {
        match self.optional(key, read) {
            Given::Absent => {
                self.report.add(self.span, format!("{} needs the key `{key}`", self.name));
                None
            }
            Given::Wrong => None,
            Given::Good(it) => Some(it),
        }
    }

    /// Reads a list. Each wrong item is reported.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'d>) -> Result<T, String>,
    ) -> List<T> {
        let Some(value) = self.get(key) else {
            return List { items: Vec::new(), is_complete: true, span: None };
        };
        let span = Some(Span::from(value.span()));
        let Some(array) = value.get_ref().as_array() else {
            let found = kind(value.get_ref());
            let message = format!("`{key}` must be an array in brackets, not {found}");
            self.report.add(value.span().into(), message);
            return List { items: Vec::new(), is_complete: false, span };
        };
        let item = |value: &Spanned<DeValue<'d>>| {
            let span = value.span().into();
            self.report.take(span, read(value.get_ref())).map(|value| At { value, span })
        };
        let items: Vec<_> = array.iter().filter_map(item).collect();
        List { is_complete: items.len() == array.len(), items, span }
    }

    /// Opens a nested table.
    pub fn table(&mut self, key: &'static str, name: &'static str) -> Option<Table<'d>> {
        let value = self.get(key)?;
        let Some(entries) = value.get_ref().as_table() else {
            let found = kind(value.get_ref());
            self.report
                .add(value.span().into(), format!("`{key}` must be a table, written as {name}, not {found}"));
            return None;
        };
        Some(Self::new(name, value.span().into(), entries, self.report))
    }

    /// Opens an array of tables. `None` if the value is something else.
    pub fn tables(&mut self, key: &'static str, name: &'static str) -> Option<Vec<Table<'d>>> {
        let Some(value) = self.get(key) else { return Some(Vec::new()) };
        let open = |item: &'d Spanned<DeValue<'d>>| {
            let entries = item.get_ref().as_table()?;
            Some(Self::new(name, item.span().into(), entries, self.report))
        };
        let tables = value.get_ref().as_array().and_then(|array| array.iter().map(open).collect());
        if tables.is_none() {
            let found = kind(value.get_ref());
            self.report.add(
                value.span().into(),
                format!("`{key}` must be an array of tables, written as {name}, not {found}"),
            );
        }
        tables
    }

    /// Reports keys that were not read.
    pub fn close(self) {
        self.close_with(&[]);
    }

    /// The same. `advice`: what looks like a key, and what to do instead.
    pub fn close_with(self, advice: &[(&str, &str)]) {
        for key in self.entries.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let name = key.get_ref();
            let shown = quote(name);
            let hint = match advice.iter().find(|(wrong, _)| wrong == name) {
                Some((_, instead)) => format!(": {instead}"),
                None => suggest(name, &self.known),
            };
            let message = format!("unknown key {shown} in {}{hint}", self.name);
            self.report.add(key.span().into(), message);
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.push(key);
        self.entries.get(key)
    }
}

/// A value's type, with an article.
pub fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
