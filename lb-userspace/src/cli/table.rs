//! Tables like those of kubectl: columns separated by spaces, no lines, one row per line.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, presets};

use crate::text::printable;

const GAP: u16 = 3;

/// The colour of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    /// In service only in part, or not known to be: drain, maint, health unknown.
    Warning,
    /// Out of service.
    Alarm,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Alarm => AnsiColor::Red.on_default(),
        }
    }
}

pub struct Table {
    table: comfy_table::Table,
    tones: Vec<Tone>,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header);
        Self { table, tones: Vec::new() }
    }

    /// Answers of backends may contain control characters: see [`printable`].
    pub fn row(&mut self, tone: Tone, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().map(|cell| printable(&cell)).collect::<Vec<_>>());
        self.tones.push(tone);
    }

    /// One line for the header and for each row, with colours if enabled.
    pub fn lines(&mut self, is_colourful: bool) -> Vec<String> {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        let tones = std::iter::once(Tone::Plain).chain(self.tones.iter().copied());
        let painted = self.table.lines().zip(tones).map(|(line, tone)| {
            let style = if is_colourful { tone.style() } else { Style::new() };
            format!("{style}{}{style:#}", line.trim_end())
        });
        painted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "HEALTH"]);
        table.row(Tone::Plain, ["web-1".to_owned(), "up".to_owned()]);
        table.row(Tone::Alarm, ["web-10".to_owned(), "down".to_owned()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_where_text_ends() {
        assert_eq!(table().lines(false), ["NAME     HEALTH", "web-1    up", "web-10   down"]);
    }

    #[test]
    fn colours_do_not_move_columns() {
        assert_eq!(
            table().lines(true),
            ["NAME     HEALTH", "web-1    up", "\u{1b}[31mweb-10   down\u{1b}[0m"]
        );
    }

    #[test]
    fn a_cell_cannot_control_the_terminal() {
        let mut table = Table::new(&["LAST"]);
        table.row(Tone::Plain, ["HTTP 500 \u{1b}[2J\nweb-2 up".to_owned()]);

        assert_eq!(table.lines(false), ["LAST", "HTTP 500 \u{fffd}[2J\u{fffd}web-2 up"]);
    }
}
