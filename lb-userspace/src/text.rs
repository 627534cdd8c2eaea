//! Words for messages: quoted values, lists, suggestions.

/// Maximum number of characters of a value in a message.
const MAX_QUOTE: usize = 64;
/// Maximum number of characters of another program's message in ours.
const MAX_MESSAGE: usize = 200;

/// The text without control characters, so that it stays on one line and cannot control a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// One character of [`printable`] text. A tab becomes a space, to keep columns aligned.
pub fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        control if control.is_control() => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// A value in a message: in back quotes, shortened if it is long.
pub fn quote(value: &str) -> String {
    format!("`{}`", beginning(value, MAX_QUOTE))
}

/// Another program's message in ours: on one line, shortened if it is long.
pub fn shorten(message: &str) -> String {
    beginning(message, MAX_MESSAGE)
}

fn beginning(text: &str, most: usize) -> String {
    let mut characters = text.chars().map(visible);
    let shown: String = characters.by_ref().take(most).collect();
    let rest = if characters.next().is_some() { "..." } else { "" };
    format!("{shown}{rest}")
}

/// "1 flow", "2 flows".
pub fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// ": did you mean `weight`?", or the valid names.
pub fn suggest(wrong: &str, known: &[&str]) -> String {
    let distance = |name: &&&str| strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase());
    let near = |name: &&&str| wrong.len() <= MAX_QUOTE && distance(name) <= (name.len() / 3).max(1);
    match known.iter().filter(near).min_by_key(distance) {
        Some(name) => format!(": did you mean `{name}`?"),
        None => format!(": expected {}", either(known)),
    }
}

/// "`a`, `b` or `c`"
pub fn either(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => format!("`{only}`"),
        [most @ .., last] => format!("`{}` or `{last}`", most.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_else_all() {
        let keys = ["name", "address", "weight", "backup"];

        assert_eq!(suggest("wieght", &keys), ": did you mean `weight`?");
        assert_eq!(suggest("Name", &keys), ": did you mean `name`?");
        assert_eq!(suggest("NXDOMIAN", &["NOERROR", "NXDOMAIN"]), ": did you mean `NXDOMAIN`?");
        assert_eq!(suggest("port", &keys), ": expected `name`, `address`, `weight` or `backup`");
    }

    #[test]
    fn a_quoted_value_is_short_and_cannot_control_the_terminal() {
        assert_eq!(quote("a\tb\u{1b}[2J\n"), "`a b\u{fffd}[2J\u{fffd}`");
        assert_eq!(quote(&"x".repeat(MAX_QUOTE + 1)), format!("`{}...`", "x".repeat(MAX_QUOTE)));
        assert_eq!(shorten(&"\n".repeat(MAX_MESSAGE + 1)), format!("{}...", "\u{fffd}".repeat(MAX_MESSAGE)));
    }

    #[test]
    fn one_is_singular() {
        assert_eq!((counted(1, "flow"), counted(0, "flow")), ("1 flow".to_owned(), "0 flows".to_owned()));
    }
}
