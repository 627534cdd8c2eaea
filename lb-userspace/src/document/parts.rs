//! Values with parts, as lists and tables have. Each part that is wrong is a mistake of its own, at its own place.

use toml::{Spanned, de::DeValue};

use super::mistakes::At;

/// What is wrong with a value: at least one message, each with its place.
pub type Wrong = Vec<At<String>>;

/// A mistake at a whole value, or at a key.
pub fn at<T>(place: &Spanned<T>, message: impl Into<String>) -> At<String> {
    At { value: message.into(), span: place.span().into() }
}

/// Reads one value.
pub fn read<'v, T>(
    value: &Spanned<DeValue<'v>>,
    read: impl FnOnce(&DeValue<'v>) -> Result<T, String>,
) -> Result<T, At<String>> {
    read(value.get_ref()).map_err(|message| at(value, message))
}

/// All parts, or all that is wrong with them.
pub fn all<T>(parts: impl IntoIterator<Item = Result<T, At<String>>>) -> Result<Vec<T>, Wrong> {
    let (mut good, mut wrong) = (Vec::new(), Wrong::new());
    for part in parts {
        match part {
            Ok(part) => good.push(part),
            Err(mistake) => wrong.push(mistake),
        }
    }
    if wrong.is_empty() { Ok(good) } else { Err(wrong) }
}
