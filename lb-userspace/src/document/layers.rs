//! A table that inherits keys from another one, as `[service.health]` does from `[defaults.health]`.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    mistakes::{At, Report, Span},
    parts::{self, Wrong},
    table::Given,
};

/// A key of a table, with its reader.
pub struct Key<T> {
    name: &'static str,
    reader: Reader<T>,
}

enum Reader<T> {
    Whole(fn(&DeValue<'_>) -> Result<T, String>),
    Parts(fn(&Spanned<DeValue<'_>>) -> Result<T, Wrong>),
}

impl<T> Key<T> {
    pub const fn new(name: &'static str, read: fn(&DeValue<'_>) -> Result<T, String>) -> Self {
        Self { name, reader: Reader::Whole(read) }
    }

    /// A key whose value has [parts].
    pub const fn of_parts(name: &'static str, read: fn(&Spanned<DeValue<'_>>) -> Result<T, Wrong>) -> Self {
        Self { name, reader: Reader::Parts(read) }
    }

    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<T, Wrong> {
        match self.reader {
            Reader::Whole(read) => parts::read(value, read).map_err(|mistake| vec![mistake]),
            Reader::Parts(read) => read(value),
        }
    }
}

/// A key with a value of any type.
pub trait AnyKey {
    fn name(&self) -> &'static str;

    /// Checks a value. The error is for the operator.
    fn judge(&self, value: &Spanned<DeValue<'_>>) -> Result<(), Wrong>;
}

impl<T> AnyKey for Key<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn judge(&self, value: &Spanned<DeValue<'_>>) -> Result<(), Wrong> {
        self.read(value).map(drop)
    }
}

/// A table, and the one that it inherits from. Mistakes in single values have been reported by
/// [`Table::judge`](super::table::Table::judge).
#[derive(Clone, Copy)]
pub struct Layers<'d> {
    pub own: Option<&'d DeTable<'d>>,
    pub inherited: Option<&'d DeTable<'d>>,
}

impl Layers<'_> {
    /// The value in the table itself; otherwise the inherited one.
    pub fn get<T>(&self, key: &Key<T>) -> Given<T> {
        match self.own(key) {
            Given::Absent => read(self.inherited, key),
            own @ (Given::Wrong | Given::Good(_)) => own,
        }
    }

    /// The value in the table itself.
    pub fn own<T>(&self, key: &Key<T>) -> Given<T> {
        read(self.own, key)
    }

    /// The position of this key's value in the table itself, if it is valid.
    pub fn own_place(&self, key: &dyn AnyKey) -> Option<Span> {
        let value = self.own?.get(key.name())?;
        key.judge(value).ok().map(|()| value.span().into())
    }
}

/// The keys of one table, for the reader that owns them: it gets their values, and reports what is wrong with several
/// of them together.
pub struct Keys<'k> {
    pub layers: Layers<'k>,
    pub report: &'k Report<'k>,
    /// The position of what makes the keys necessary, for those that are not given.
    pub place: Span,
}

impl Keys<'_> {
    /// The value, the inherited one, or this default.
    pub fn or<T>(&self, key: &Key<T>, default: T) -> T {
        self.layers.get(key).or(default)
    }

    /// The value or the inherited one.
    pub fn value<T>(&self, key: &Key<T>) -> Option<T> {
        self.layers.get(key).value()
    }

    /// Is there a value, right or wrong?
    pub fn has(&self, key: &dyn AnyKey) -> bool {
        let name = key.name();
        [self.layers.own, self.layers.inherited].iter().flatten().any(|table| table.get(name).is_some())
    }

    /// Reports a mistake at the value of a key.
    pub fn refuse(&self, key: &dyn AnyKey, message: impl Into<String>) {
        self.report.add(self.layers.own_place(key).unwrap_or(self.place), message);
    }
}

fn read<T>(table: Option<&DeTable<'_>>, key: &Key<T>) -> Given<T> {
    let Some(value) = table.and_then(|table| table.get(key.name)) else { return Given::Absent };
    match key.read(value) {
        Ok(read) => Given::Good(At { value: read, span: value.span().into() }),
        Err(_reported) => Given::Wrong,
    }
}
