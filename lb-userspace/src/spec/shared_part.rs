//! The part of a file that all nodes of a cluster share, as text: `[[service]]` and `[defaults]`, with their comments.
//!
//! ```text
//!   version = 1            kept
//!   [[interface]] ..       of the node: left out
//!   # comment              goes with the header below it
//!   [[service]] ..         kept
//! ```

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::load::syntax;
use crate::document::mistakes::Mistakes;

/// The tables of each node.
const LOCAL: [&str; 9] =
    ["interface", "api", "metrics", "limits", "hash", "announce", "exec", "group", "cluster"];

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPart {
    /// With empty lines in place of what was left out: positions are those in the file.
    pub in_place: String,
    /// Without.
    pub compact: String,
}

/// A run of lines.
struct Segment<'t> {
    text: &'t str,
    is_local: bool,
}

/// Leaves out the tables of the node. `name` is the file name in messages.
pub fn shared_part(name: &str, text: &str) -> Result<SharedPart, Mistakes> {
    let document = syntax(name, text)?;
    let mut part = SharedPart { in_place: String::new(), compact: String::new() };
    for Segment { text, is_local } in segments(text, document.get_ref()) {
        if is_local {
            part.in_place.extend(text.matches('\n'));
        } else {
            part.in_place += text;
            part.compact += text;
        }
    }
    if has_the_same(text, &part.compact) {
        return Ok(part);
    }
    let message = format!(
        "has tables of the node that cannot be told from the services: write each of {} as a table with a header \
         of its own",
        LOCAL.join(", ")
    );
    Err(Mistakes::of_file(name, &message))
}

/// Nothing but the tables of the node was left out.
fn has_the_same(whole: &str, part: &str) -> bool {
    let (Ok(mut whole), Ok(part)) = (whole.parse::<toml::Table>(), part.parse::<toml::Table>()) else {
        return false;
    };
    whole.retain(|key, _| !LOCAL.contains(&key));
    whole == part
}

fn segments<'t>(text: &'t str, document: &DeTable<'_>) -> Vec<Segment<'t>> {
    let mut inside = Vec::new();
    values(document, text, &mut inside);
    let mut segments = Vec::new();
    let (mut begin, mut is_local) = (0, false);
    // Where the comment directly above the next line begins.
    let mut comment = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let written = line.trim_start();
        let at = offset + (line.len() - written.len());
        let is_inside = inside.iter().any(|(first, end)| *first < at && at < *end);
        if written.starts_with('[') && !is_inside {
            let end = comment.unwrap_or(offset);
            segments.push(Segment { text: &text[begin..end], is_local });
            (begin, is_local) = (end, LOCAL.contains(&first_key(written)));
        }
        comment = (written.starts_with('#') && !is_inside).then(|| comment.unwrap_or(offset));
        offset += line.len();
    }
    segments.push(Segment { text: &text[begin..], is_local });
    segments
}

/// `service` of `[[service.backend]]`.
fn first_key(header: &str) -> &str {
    let key = header.trim_start_matches('[').trim_start();
    let end = key.find(['.', ']', ' ', '\t']).unwrap_or(key.len());
    key[..end].trim_matches(['"', '\''])
}

/// The places of strings and lists: a bracket in them is no header.
fn values(table: &DeTable<'_>, text: &str, found: &mut Vec<(usize, usize)>) {
    for (_, value) in table {
        within(value, text, found);
    }
}

fn within(value: &Spanned<DeValue<'_>>, text: &str, found: &mut Vec<(usize, usize)>) {
    let span = value.span();
    match value.get_ref() {
        DeValue::Table(table) => values(table, text, found),
        DeValue::Array(items) => {
            let written = text.get(span.start..).unwrap_or_default();
            let is_table = items.iter().all(|it| matches!(it.get_ref(), DeValue::Table(_)));
            if !(is_table && written.starts_with("[[")) {
                found.push((span.start, span.end));
            }
            items.iter().for_each(|item| within(item, text, found));
        }
        DeValue::String(_) => found.push((span.start, span.end)),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# This is lb-1.
version = 1

# Both links.
[[interface]]
name = "eth0"

# What is checked.
[defaults.health]
interval = "1s"

[ "limits" ]
flows = 100
[[service]]  # [[interface]]
name = "web"
listen = [
  "192.0.2.10:80",
  "192.0.2.11:80",
]
note = """
[[interface]]
# no comment
"""
[service.health]
type = "tcp"

# The node.
[group]
node = "lb-1"
[[group.peer]]
node = "lb-2"

# The first one.
[[service.backend]]
name = "web-1"
"#;

    #[test]
    fn what_is_of_the_node_is_left_out_with_its_comments() {
        let part = shared_part("x", FILE).unwrap();

        let expected = r#"# This is lb-1.
version = 1

# What is checked.
[defaults.health]
interval = "1s"

[[service]]  # [[interface]]
name = "web"
listen = [
  "192.0.2.10:80",
  "192.0.2.11:80",
]
note = """
[[interface]]
# no comment
"""
[service.health]
type = "tcp"

# The first one.
[[service.backend]]
name = "web-1"
"#;
        assert_eq!(part.compact, expected);
        assert_eq!(shared_part("x", expected).unwrap().compact, expected);
    }

    #[test]
    fn lines_keep_their_numbers() {
        let part = shared_part("x", FILE).unwrap();

        assert_eq!(part.in_place.lines().count(), FILE.lines().count());
        for (line, (kept, written)) in part.in_place.lines().zip(FILE.lines()).enumerate() {
            assert!(kept.is_empty() || kept == written, "line {line}: {kept}");
        }
    }

    #[test]
    fn a_key_that_is_unknown_is_kept_for_the_message_about_it() {
        let text = "version = 1\n[[servcie]]\nname = 'web'\n";

        assert_eq!(shared_part("x", text).unwrap().compact, text);
    }

    #[test]
    fn tables_of_the_node_without_a_header_are_refused() {
        for text in ["interface = [{ name = 'eth0' }]\n", "limits.flows = 5\n", "version = 1\napi = {}\n"] {
            let mistakes = shared_part("xlb.toml", text).unwrap_err().to_string();

            assert!(mistakes.starts_with("xlb.toml: has tables of the node"), "{mistakes}");
        }
        let mistakes = shared_part("xlb.toml", "a = [\n").unwrap_err().to_string();
        assert!(mistakes.contains("xlb.toml:1:") && mistakes.contains("invalid TOML"), "{mistakes}");
    }
}
