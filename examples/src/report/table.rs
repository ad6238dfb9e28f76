//! Plain-text and Markdown tables: one set of rows, shown the same in the terminal and in the report.

use std::fmt;

/// Where a column's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under a heading; its [`Display`](fmt::Display) is a Markdown table with aligned columns.
#[derive(Clone, Debug)]
pub struct Table {
    heading: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(heading: &[(&str, Align)]) -> Self {
        Self { heading: heading.iter().map(|&(name, align)| (name.to_owned(), align)).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has another number of cells than the heading.
    #[track_caller]
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) -> &mut Self {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        assert_eq!(cells.len(), self.heading.len(), "a row has as many cells as the heading");
        self.rows.push(cells);
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.heading.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].chars().count());
                cells.chain([self.heading[column].0.chars().count(), 3]).max().unwrap_or(3)
            })
            .collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            for ((cell, &width), (_, align)) in cells.zip(&widths).zip(&self.heading) {
                match align {
                    Align::Left => write!(f, "| {cell:<width$} ")?,
                    Align::Right => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")
        };
        line(f, &mut self.heading.iter().map(|(name, _)| name.as_str()))?;
        for (&width, (_, align)) in widths.iter().zip(&self.heading) {
            match align {
                Align::Left => write!(f, "|:{:-<1$}", "", width + 1)?,
                Align::Right => write!(f, "|{:-<1$}:", "", width + 1)?,
            }
        }
        writeln!(f, "|")?;
        for row in &self.rows {
            line(f, &mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("node", Align::Left), ("accuracy", Align::Right)]);
        table.row(["n0", "0.8712"]).row(["everyone", "0.9"]);
        assert_eq!(
            table.to_string(),
            "| node     | accuracy |\n|:---------|---------:|\n| n0       |   0.8712 |\n| everyone |      0.9 |\n"
        );
    }
}
