//! Tables for terminals: plain text, cut to the width, safe to print.
//!
//! Cells hold text from the marketplace and from clients, so control and direction characters never
//! reach the terminal: an escape sequence in a name must not move the cursor or set a title.

use crate::domain::text::acts_on_a_terminal;

/// Between two columns.
const GAP: &str = "  ";
/// No column is cut below this, as long as another can give.
const COLUMN_LEAST: usize = 8;

/// Lays rows out under their heads. Lines end without blanks and are at most `width` wide; when even
/// narrow columns do not fit, the last ones are left out.
pub(super) fn render(heads: &[&str], rows: &[Vec<String>], width: usize) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let widths = fit(wanted(heads, &rows), width);
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
        padded.join(GAP).trim_end().to_owned()
    };
    let mut lines = vec![line(&mut heads.iter().copied())];
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    lines.push(rules.join(GAP));
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines
}

fn wanted(heads: &[&str], rows: &[Vec<String>]) -> Vec<usize> {
    heads
        .iter()
        .enumerate()
        .map(|(at, head)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| columns_of(cell));
            cells.max().unwrap_or(0).max(columns_of(head))
        })
        .collect()
}

/// Takes from the widest column until all fit.
fn fit(widths: Vec<usize>, width: usize) -> Vec<usize> {
    let mut widths: Vec<usize> = widths.into_iter().map(|column| column.min(width)).collect();
    while widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1) > width {
        match widths.iter_mut().max() {
            Some(widest) if *widest > COLUMN_LEAST => *widest -= 1,
            _ => widths.truncate(widths.len() - 1),
        }
    }
    widths
}

fn pad(cell: &str, width: usize) -> String {
    let have = columns_of(cell);
    if have <= width {
        return format!("{cell}{}", " ".repeat(width - have));
    }
    let mut short = String::new();
    let mut used = 0;
    for letter in cell.chars() {
        if used + columns(letter) + 1 > width {
            break;
        }
        used += columns(letter);
        short.push(letter);
    }
    short.push('…');
    format!("{short}{}", " ".repeat(width.saturating_sub(used + 1)))
}

/// The text without anything that acts on a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|letter| if acts_on_a_terminal(letter) { '·' } else { letter }).collect()
}

fn columns_of(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// Columns of one character: near enough for names and addresses.
fn columns(letter: char) -> usize {
    match letter {
        '\u{0300}'..='\u{036f}' | '\u{200b}'..='\u{200d}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{clean, columns_of, render};
    use proptest::prelude::{any, prop_assert, proptest};

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn columns_line_up_and_long_cells_are_cut() {
        let rows = [row(&["1", "Kaas 🧀", "Dam"]), row(&["22", "een heel lange naam", "Zuiderzeestraatweg"])];
        assert_eq!(
            render(&["id", "name", "street"], &rows, 30),
            [
                "id  name          street",
                "--  ------------  ------------",
                "1   Kaas 🧀       Dam",
                "22  een heel la…  Zuiderzeest…",
            ]
        );
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(clean("\u{1b}]0;x\u{7}a\nb\u{202e}c"), "·]0;x·a·b·c");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(
            cells in proptest::collection::vec(proptest::collection::vec(any::<String>(), 4), 0..4), width in 10usize..120,
        ) {
            for line in render(&["one", "two", "three", "four"], &cells, width) {
                prop_assert!(columns_of(&line) <= width, "{line:?}");
            }
        }
    }
}
