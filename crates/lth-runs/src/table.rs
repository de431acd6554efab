//! One table, two looks: aligned plain text for a terminal, Markdown for a file.

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table of text. Cells hold plain text: what Markdown would take for markup is escaped when it is drawn.
///
/// ```
/// use lth_runs::table::{Align::*, Table};
///
/// let mut table = Table::new([("layer", Left), ("zeros", Right)]);
/// table.push(["conv1.weight", "4704"]);
/// assert_eq!(table.plain(), "layer         zeros\n------------  -----\nconv1.weight   4704\n");
/// assert_eq!(table.markdown(), "| layer        | zeros |\n|:-------------|------:|\n| conv1.weight |  4704 |\n");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = (S, Align)>) -> Table {
        let columns = columns.into_iter().map(|(title, align)| (title.into(), align)).collect();
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row. Cells that it lacks are empty; cells beyond the last column are dropped.
    pub fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Titles of the columns and where their cells stand.
    pub fn columns(&self) -> &[(String, Align)] {
        &self.columns
    }

    /// Rows of plain text, each with a cell for every column.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned text, two spaces between columns, a rule under the titles; lines end in a newline and not in spaces.
    pub fn plain(&self) -> String {
        let clean = |text: &str| text.replace(char::is_control, " ");
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| clean(title)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
        let widths = widths(&titles, &rows, 1);
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let line = |cells: &[String]| {
            let cells = self.aligned(cells, &widths);
            format!("{}\n", cells.join("  ").trim_end())
        };
        [&titles, &rule].into_iter().chain(&rows).map(|cells| line(cells)).collect()
    }

    /// A Markdown table, its source aligned too.
    pub fn markdown(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| escape(title)).collect();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
        let widths = widths(&titles, &rows, 2);
        let line = |cells: &[String]| format!("| {} |\n", self.aligned(cells, &widths).join(" | "));
        let rule: String = self
            .columns
            .iter()
            .zip(&widths)
            .map(|((_, align), width)| match align {
                Align::Left => format!("|:{}", "-".repeat(width + 1)),
                Align::Right => format!("|{}:", "-".repeat(width + 1)),
            })
            .collect();
        let body: String = rows.iter().map(|row| line(row)).collect();
        format!("{}{rule}|\n{body}", line(&titles))
    }

    fn aligned(&self, cells: &[String], widths: &[usize]) -> Vec<String> {
        let pad = |((cell, (_, align)), width): ((&String, &(String, Align)), &usize)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        };
        cells.iter().zip(&self.columns).zip(widths).map(pad).collect()
    }
}

/// `text` as Markdown that shows it as it is.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '*' | '`' | '[' | ']' | '\\' => escaped.extend(['\\', character]),
            _ if character.is_control() => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Each column's width in characters.
fn widths(titles: &[String], rows: &[Vec<String>], least: usize) -> Vec<usize> {
    let width = |column: usize, title: &String| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([title.chars().count(), least]).max().unwrap_or(least)
    };
    titles.iter().enumerate().map(|(column, title)| width(column, title)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_rows_fit_the_columns() {
        let mut table = Table::new([("a", Align::Left), ("b", Align::Right)]);
        assert!(table.is_empty());
        table.push(["x"]);
        table.push(["x", "y", "z"]);
        assert_eq!(table.plain(), "a  b\n-  -\nx\nx  y\n");
    }

    #[test]
    fn markup_in_a_cell_stays_text() {
        let mut table = Table::new([("name", Align::Left)]);
        table.push(["a|b\n<script>*"]);
        let markdown = table.markdown();
        assert_eq!(markdown.lines().count(), 3);
        assert!(markdown.contains(r"a\|b &lt;script>\*"));
        assert!(table.plain().contains("a|b <script>*"));
    }

    #[test]
    fn width_counts_characters() {
        let mut table = Table::new([("±", Align::Left), ("n", Align::Right)]);
        table.push(["1 ± 2", "3"]);
        assert_eq!(table.plain(), "±      n\n-----  -\n1 ± 2  3\n");
    }
}
