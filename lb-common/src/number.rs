//! Newtypes for indexes and numbers. All are small integers, so plain ones would be easy to confuse.

macro_rules! numbers {
    ($($(#[$about:meta])* $number:ident),* $(,)?) => {
        $(
            $(#[$about])*
            #[repr(transparent)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $number(pub u32);

            impl From<u32> for $number {
                fn from(number: u32) -> Self {
                    Self(number)
                }
            }

            impl core::fmt::Display for $number {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    self.0.fmt(f)
                }
            }

            $crate::plain!($number = "u32");
        )*
    };
}

pub(crate) use numbers;
