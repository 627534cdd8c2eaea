//! Enums whose values have names, which are the same in the configuration, in JSON, in metrics and in messages.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

use crate::text::either;

/// An enum whose values have names.
pub trait Named: Copy + 'static {
    /// Every value, in the order in which messages list them.
    const ALL: &'static [Self];

    /// The name of this value.
    fn name(self) -> &'static str;
}

/// Defines the names of an enum.
macro_rules! named {
    ($Type:ty { $($Value:ident = $name:literal,)* }) => {
        impl $crate::named::Named for $Type {
            const ALL: &'static [Self] = &[$(Self::$Value,)*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$Value => $name,)*
                }
            }
        }
    };
}
pub(crate) use named;

/// Uses the names in JSON. Enums of other crates need `#[serde(with = "named")]` instead.
macro_rules! json_by_name {
    ($Type:ty) => {
        impl serde::Serialize for $Type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::named::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $Type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::named::deserialize(deserializer)
            }
        }
    };
}
pub(crate) use json_by_name;

/// The value with a name.
pub fn find<T: Named>(name: &str) -> Option<T> {
    T::ALL.iter().copied().find(|value| value.name() == name)
}

/// For `#[serde(with = "named")]`.
pub fn serialize<T: Named, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.name())
}

/// For `#[serde(with = "named")]`.
pub fn deserialize<'de, T: Named, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let name = String::deserialize(deserializer)?;
    find(&name).ok_or_else(|| {
        let known: Vec<_> = T::ALL.iter().map(|value| value.name()).collect();
        D::Error::custom(format!("unknown variant `{name}`: expected {}", either(&known)))
    })
}
