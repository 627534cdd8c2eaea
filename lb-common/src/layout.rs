//! The memory layout of the maps' keys and values, as data.
//!
//! The daemon pins the layouts next to its maps. Another version, newer or older, compares them with its own: it keeps the
//! maps whose layout is the same, and copies the others field by field.
//!
//! A type lists its fields with [`fields!`](crate::fields), next to its definition. A list with a missing field, or a
//! struct with padding, does not compile. A value with internal parts, such as the bits of a word, is described by a
//! text ([`plain!`](crate::plain)). The text must change when the meaning of a part changes, because two versions with
//! equal texts use each other's maps.

/// The layout of a type in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    /// The size of one value, in bytes.
    pub size: usize,
    /// The number of consecutive values: 1, except for the records of a bucket.
    pub count: usize,
    /// What each value consists of.
    pub content: Content,
}

/// What a type consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes that are copied together, and what they are.
    Plain(&'static str),
    /// An array of these.
    List(&'static str, usize),
    /// Fields, in their order in memory.
    Struct(&'static [Field]),
}

/// A field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name. Fields of two versions are the same if their names and types are equal.
    pub name: &'static str,
    /// Its offset, in bytes.
    pub offset: usize,
    /// Its type.
    pub content: Type,
}

/// A type whose layout is known.
pub trait Layout {
    /// The layout in memory.
    const TYPE: Type;
}

impl Type {
    /// No bytes: the key and value of a ring buffer.
    pub const NOTHING: Self = Self { size: 0, count: 1, content: Content::Struct(&[]) };

    /// Bytes that are copied together.
    pub const fn plain<T>(what: &'static str) -> Self {
        Self { size: size_of::<T>(), count: 1, content: Content::Plain(what) }
    }

    /// A struct: its fields in memory order, with no bytes between them.
    pub const fn of_fields<T>(fields: &'static [Field]) -> Self {
        let (mut next, mut index) = (0, 0);
        while index < fields.len() {
            assert!(fields[index].offset == next, "a field is out of order, or padding precedes it");
            next += fields[index].content.bytes();
            index += 1;
        }
        assert!(next == size_of::<T>(), "the fields do not fill the struct");
        Self { size: size_of::<T>(), count: 1, content: Content::Struct(fields) }
    }

    /// The same bytes, with a meaning that the field's type does not show.
    pub const fn means(self, meaning: Self) -> Self {
        assert!(self.bytes() == meaning.bytes(), "the meaning differs in size from the field");
        meaning
    }

    /// The size of all values, in bytes.
    pub const fn bytes(&self) -> usize {
        self.size * self.count
    }
}

/// The type of the field that the function returns.
pub const fn of_field<T, F: Layout>(_: fn(&T) -> &F) -> Type {
    F::TYPE
}

impl<T: Layout, const N: usize> Layout for [T; N] {
    const TYPE: Type = match T::TYPE.content {
        Content::Plain(what) => Type { size: T::TYPE.bytes() * N, count: 1, content: Content::List(what, N) },
        Content::List(..) | Content::Struct(_) => panic!("only arrays of plain values have a layout"),
    };
}

/// Lists the fields of a struct, in memory order. `field: Type` gives the meaning of a word.
#[macro_export]
macro_rules! fields {
    ($type:ident { $($field:ident $(: $meaning:ty)?),* $(,)? }) => {
        impl $crate::layout::Layout for $type {
            const TYPE: $crate::layout::Type = $crate::layout::Type::of_fields::<Self>(&[$(
                $crate::layout::Field {
                    name: stringify!($field),
                    offset: core::mem::offset_of!($type, $field),
                    content: $crate::layout::of_field(|it: &$type| &it.$field)
                        $(.means(<$meaning as $crate::layout::Layout>::TYPE))?,
                }
            ),*]);
        }

        // A field that is not listed does not compile, and neither does a struct with padding.
        const _: fn(&$type) = |it| {
            let $type { $($field: _),* } = it;
        };
        const _: $crate::layout::Type = <$type as $crate::layout::Layout>::TYPE;
    };
}

/// Describes a plain value. The text changes with the meaning, not with the name of the Rust type.
#[macro_export]
macro_rules! plain {
    ($($type:ty = $what:literal),* $(,)?) => {
        $(
            impl $crate::layout::Layout for $type {
                const TYPE: $crate::layout::Type = $crate::layout::Type::plain::<$type>($what);
            }
        )*
    };
}

plain! {
    u8 = "u8",
    u16 = "u16",
    u32 = "u32",
    u64 = "u64",
}
