//! Mistakes in a file, collected with their positions and shown together.
//!
//! ```text
//! xlb.toml:31:1: unknown key `wieght`: did you mean `weight`?
//!    31 | wieght = 50
//!       | ^^^^^^
//! ```

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::Range};

use serde::Serialize;

use crate::text::visible;

/// Maximum number of mistakes shown for a file. The others are counted.
pub const MAX_MISTAKES: usize = 100;
/// Maximum number of characters shown of a line.
const MAX_EXCERPT: usize = 100;

/// A part of the file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// The beginning of the file, for mistakes without a position.
    pub const START: Self = Self { start: 0, end: 0 };
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// A value and its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

/// Collects the mistakes of one file while it is read.
pub struct Report<'t> {
    text: &'t str,
    /// Ends of lines: a file may have as many mistakes as lines.
    newlines: Vec<usize>,
    found: RefCell<BTreeSet<(Span, String)>>,
}

impl<'t> Report<'t> {
    pub fn new(text: &'t str) -> Self {
        let newlines = text.match_indices('\n').map(|(offset, _)| offset).collect();
        Self { text, newlines, found: RefCell::new(BTreeSet::new()) }
    }

    /// Reports a mistake.
    pub fn add(&self, span: Span, message: impl Into<String>) {
        self.found.borrow_mut().insert((span, message.into()));
    }

    /// Reports the mistake, if there is one; otherwise returns the value.
    pub fn take<T>(&self, span: Span, outcome: Result<T, impl fmt::Display>) -> Option<T> {
        outcome.map_err(|message| self.add(span, message.to_string())).ok()
    }

    /// The line number, for messages about two places.
    pub fn line(&self, span: Span) -> usize {
        self.newlines.partition_point(|newline| *newline < span.start) + 1
    }

    /// All mistakes in the order of the file, or none.
    pub fn finish(self, name: &str) -> Result<(), Mistakes> {
        let found = self.found.into_inner();
        if found.is_empty() {
            return Ok(());
        }

        let more = found.len().saturating_sub(MAX_MISTAKES);
        let shown = found.into_iter().take(MAX_MISTAKES);
        let list = shown.map(|(span, message)| Mistake::in_text(self.text, span, message)).collect();
        Err(Mistakes { file: name.to_owned(), list, more })
    }
}

/// All mistakes in a file, in readable form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    file: String,
    list: Vec<Mistake>,
    more: usize,
}

impl Mistakes {
    /// A mistake about the file as a whole: it cannot be read.
    pub fn of_file(name: &str, message: &str) -> Self {
        let whole = Mistake { line: None, column: None, message: message.to_owned(), excerpt: None };
        Self { file: name.to_owned(), list: vec![whole], more: 0 }
    }

    /// A mistake at one position of a text.
    pub fn at(name: &str, text: &str, span: Span, message: String) -> Self {
        Self { file: name.to_owned(), list: vec![Mistake::in_text(text, span, message)], more: 0 }
    }

    /// Is it a single mistake about the file as a whole?
    pub fn is_of_file(&self) -> bool {
        self.list.iter().all(|mistake| mistake.line.is_none())
    }

    /// The mistakes that are shown.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }

    /// The number of mistakes that are not shown.
    pub fn more(&self) -> usize {
        self.more
    }

    /// `file:line:column: message` for each, with the line.
    pub fn each(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.list.iter().map(|mistake| mistake.display(&self.file)).chain(more).collect()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.each().join("\n"))
    }
}

/// A mistake for programs; [`Mistakes`] is for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// `None`: the file as a whole.
    line: Option<usize>,
    column: Option<usize>,
    message: String,
    #[serde(skip)]
    excerpt: Option<String>,
}

impl Mistake {
    fn in_text(text: &str, span: Span, message: String) -> Self {
        let position = Position::of(text, span.start);
        let (line, column) = (Some(position.line), Some(position.column));
        Self { line, column, message, excerpt: position.excerpt(span) }
    }

    fn display(&self, file: &str) -> String {
        let place = [self.line, self.column].into_iter().flatten().map(|number| format!("{number}:"));
        let excerpt = self.excerpt.iter().map(|excerpt| format!("\n{excerpt}"));
        let (place, excerpt): (String, String) = (place.collect(), excerpt.collect());
        format!("{file}:{place} {}{excerpt}", self.message)
    }
}

/// A position in lines and characters, counted from 1.
struct Position<'t> {
    line: usize,
    column: usize,
    /// The line, and where it begins.
    shown: &'t str,
    begins: usize,
}

impl<'t> Position<'t> {
    fn of(text: &'t str, offset: usize) -> Self {
        let offset = text.floor_char_boundary(offset);
        let before = &text[..offset];
        let after_newline = before.rfind('\n').map_or(0, |newline| newline + 1);
        // A byte order mark is not a character of the first line.
        let mark = if after_newline == 0 && text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let begins = after_newline + mark;
        let shown = text[begins..].lines().next().unwrap_or("");
        let column = text.get(begins..offset).unwrap_or("").chars().count() + 1;
        Self { line: before.matches('\n').count() + 1, column, shown, begins }
    }

    /// The line with a caret below the mistake. Long lines are cut.
    fn excerpt(&self, span: Span) -> Option<String> {
        if self.shown.trim().is_empty() {
            return None;
        }
        let ends = span.end.saturating_sub(self.begins).min(self.shown.len());
        let end = self.shown[..self.shown.floor_char_boundary(ends)].chars().count();
        let first = self.column - 1;
        let from = if first < MAX_EXCERPT { 0 } else { first };

        let line: String = self.shown.chars().skip(from).take(MAX_EXCERPT).map(visible).collect();
        let carets = end.saturating_sub(first).clamp(1, MAX_EXCERPT - (first - from));
        let number = self.line;
        let indent = " ".repeat(first - from);
        Some(format!("{number:>5} | {}\n      | {indent}{}", line.trim_end(), "^".repeat(carets)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_with_its_line_and_a_caret() {
        let report = Report::new("a = 1\nwieght = 50\n");

        report.add(Span::from(6..12), "unknown key");

        let expected = "x.toml:2:1: unknown key\n    2 | wieght = 50\n      | ^^^^^^";
        assert_eq!(report.finish("x.toml").unwrap_err().to_string(), expected);
    }

    #[test]
    fn columns_are_characters_and_a_byte_order_mark_is_none() {
        let text = "\u{feff}größe = 1\r\n";
        let one = text.find('1').unwrap();

        let mistakes = Mistakes::at("x", text, Span::from(one..one + 1), "no".to_owned());

        assert_eq!(mistakes.to_string(), "x:1:9: no\n    1 | größe = 1\n      |         ^");
    }

    #[test]
    fn mistakes_come_in_the_order_of_the_file_and_each_once() {
        let report = Report::new("a\nb\n");

        for (at, message) in [(2, "second"), (0, "first"), (2, "second")] {
            report.add(Span::from(at..at + 1), message);
        }

        assert_eq!(
            report.finish("x").unwrap_err().each(),
            ["x:1:1: first\n    1 | a\n      | ^", "x:2:1: second\n    2 | b\n      | ^"]
        );
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let text = "x\n".repeat(MAX_MISTAKES + 7);
        let report = Report::new(&text);

        for line in 0..MAX_MISTAKES + 7 {
            report.add(Span::from(2 * line..2 * line + 1), "no");
        }

        let mistakes = report.finish("x").unwrap_err();
        assert_eq!(mistakes.each().len(), MAX_MISTAKES + 1);
        assert!(mistakes.to_string().ends_with("\nand 7 more"));
    }

    #[test]
    fn places_out_of_the_text_and_within_characters_do_no_harm() {
        let text = "ä\u{1b}[31m\t".repeat(60);

        for start in 0..text.len() + 3 {
            let shown = Mistakes::at("x", &text, Span::from(start..start + 500), "no".to_owned()).to_string();
            assert!(!shown.contains('\u{1b}'));
        }
    }
}
