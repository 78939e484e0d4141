//! Tables for terminals: wrapped to the width, complete, and safe to print.
//!
//! Words are never broken, so that an id can be copied. If even the longest words do not fit side by side, each row
//! becomes a block of `column: value` lines, without the fields that are empty or count nothing. Without a terminal each
//! row is one line.
//!
//! Cells contain text from the marketplace and from clients, so control and direction characters never reach the
//! terminal: an escape sequence in a name must not move the cursor or set a title.

use comfy_table::presets::NOTHING;
use comfy_table::{Color, ColumnConstraint, ContentArrangement, ContentLineStyle, LineStyle, Table, Width};
use console::{Style, measure_text_width};

use crate::domain::terminal::is_unsafe;

/// Width of a gap: the padding of a cell and the separator.
const GAP: usize = 2;
/// Text is not wrapped narrower than this; a block reads better.
const TEXT_MIN: usize = 16;

/// Severity of a row, shown as a colour; the worst last. The text says it too, never the colour alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    #[default]
    Plain,
    /// Green.
    Good,
    /// Yellow: unproved, behind, pending.
    Unsure,
    /// Red: a person must act.
    Bad,
}

impl Mark {
    /// The text in the mark's colour.
    pub(super) fn paint(self, text: &str) -> String {
        let style = Style::new().force_styling(true);
        match self {
            Mark::Plain => text.to_owned(),
            Mark::Good => style.green().apply_to(text).to_string(),
            Mark::Unsure => style.yellow().apply_to(text).to_string(),
            Mark::Bad => style.red().apply_to(text).to_string(),
        }
    }

    fn color(self) -> Option<Color> {
        match self {
            Mark::Plain => None,
            Mark::Good => Some(Color::DarkGreen),
            Mark::Unsure => Some(Color::DarkYellow),
            Mark::Bad => Some(Color::DarkRed),
        }
    }
}

/// One field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableCell {
    text: String,
    mark: Mark,
    /// A block says no less without it.
    is_nothing: bool,
}

impl TableCell {
    pub(super) fn new(text: impl Into<String>, mark: Mark) -> TableCell {
        let text = clean(&text.into());
        TableCell { is_nothing: text.is_empty(), text, mark }
    }

    /// How many there are. A value of a document is no count: there, 0 says something.
    pub(super) fn count(count: u64, mark: Mark) -> TableCell {
        TableCell { is_nothing: count == 0, ..TableCell::new(count.to_string(), mark) }
    }

    /// A text, or a dash if there is none.
    pub(super) fn known(text: Option<String>) -> TableCell {
        TableCell { is_nothing: text.is_none(), ..TableCell::new(text.unwrap_or_else(|| "-".to_owned()), Mark::Plain) }
    }
}

impl<T: Into<String>> From<T> for TableCell {
    fn from(text: T) -> TableCell {
        TableCell::new(text, Mark::Plain)
    }
}

/// Output properties of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutputPage {
    /// None: no terminal, so no limit.
    pub(super) width: Option<usize>,
    pub(super) has_colors: bool,
}

/// Renders rows as a table, or as blocks if a table would be too wide.
pub(super) fn render(heads: &[&str], rows: &[Vec<TableCell>], page: OutputPage) -> Vec<String> {
    side_by_side(heads, rows, page).unwrap_or_else(|| blocks(heads, rows, page))
}

/// Renders rows as a table; None if it would be too wide.
pub(super) fn side_by_side(heads: &[&str], rows: &[Vec<TableCell>], page: OutputPage) -> Option<Vec<String>> {
    let least = |at: usize| {
        let texts = || std::iter::once(heads.get(at).copied().unwrap_or_default()).chain(column(rows, at));
        let whole = texts().map(measure_text_width).max().unwrap_or(0);
        let word = texts().flat_map(|text| text.split(' ')).map(measure_text_width).max().unwrap_or(0);
        if word < whole { word.max(whole.min(TEXT_MIN)) } else { word }
    };
    let least: Vec<usize> = (0..heads.len()).map(least).collect();
    let needed = least.iter().sum::<usize>() + GAP * heads.len().saturating_sub(1);
    if page.width.is_some_and(|width| needed > width) {
        return None;
    }
    let lines = table(heads, rows, &least, page);
    // The library decides on widths; if it got them wrong, use blocks.
    let is_wrong = page.width.is_some_and(|width| lines.iter().any(|line| measure_text_width(line) > width));
    (!is_wrong).then_some(lines)
}

fn column(rows: &[Vec<TableCell>], at: usize) -> impl Iterator<Item = &str> {
    rows.iter().filter_map(move |row| row.get(at)).map(|cell| cell.text.as_str())
}

fn table(heads: &[&str], rows: &[Vec<TableCell>], least: &[usize], page: OutputPage) -> Vec<String> {
    let gap = ContentLineStyle::none().junction(' ');
    let rule = LineStyle::none().fill('-').junction(' ');
    let mut table = Table::new();
    table.load_style(NOTHING.header_lines(gap).content_lines(gap).header_separator(rule));
    table.set_header(heads.iter().map(comfy_table::Cell::new));
    for row in rows {
        table.add_row(row.iter().map(|cell| {
            let shown = comfy_table::Cell::new(&cell.text);
            cell.mark.color().map_or(shown.clone(), |color| shown.fg(color))
        }));
    }
    match page.width {
        None => table.set_content_arrangement(ContentArrangement::Disabled),
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(u16::try_from(width).unwrap_or(u16::MAX)),
    };
    match page.has_colors {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    for (column, (at, least)) in table.column_iter_mut().zip(least.iter().enumerate()) {
        let padding = u16::from(at + 1 < heads.len());
        column.set_padding((0, padding));
        // The bound includes the padding.
        let least = u16::try_from(*least).unwrap_or(u16::MAX).saturating_add(padding);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    if lines.len() <= rows.len() + 2 {
        return lines;
    }
    // If cells wrap, an empty line separates the rows.
    table.style_mut().row_separator = LineStyle::none().fill(' ').junction(' ');
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Renders each row as a block, wrapped between words. Fields without a value are left out, unless all of them are.
fn blocks(heads: &[&str], rows: &[Vec<TableCell>], page: OutputPage) -> Vec<String> {
    let widest = heads.iter().map(|head| measure_text_width(head)).max().unwrap_or(0);
    // A colon and a space.
    let indent = widest + 2;
    let room = page.width.map(|width| width.saturating_sub(indent)).filter(|room| *room >= TEXT_MIN);
    let mut lines = Vec::new();
    for row in rows {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        let is_empty = row.iter().all(|cell| cell.is_nothing);
        for (head, cell) in heads.iter().zip(row).filter(|(_, cell)| is_empty || !cell.is_nothing) {
            let mark = if page.has_colors { cell.mark } else { Mark::Plain };
            let parts = room.map_or_else(|| vec![cell.text.clone()], |room| wrap(&cell.text, room, 0));
            let before = std::iter::once(format!("{head}:")).chain(std::iter::repeat(String::new()));
            let line = |(before, part): (String, &String)| {
                let pad = " ".repeat(indent.saturating_sub(measure_text_width(&before)));
                format!("{before}{pad}{}", mark.paint(part)).trim_end().to_owned()
            };
            lines.extend(before.zip(&parts).map(line));
        }
    }
    lines
}

/// Wraps a sentence between words, with a hanging indent. A word that does not fit stays whole, and so does a command in
/// backticks that fits on a line.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in words(text, width.saturating_sub(indent)) {
        let needed = measure_text_width(&line) + usize::from(!line.is_empty()) + measure_text_width(&word);
        if needed > width && !line.trim().is_empty() {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    lines.push(line);
    lines
}

fn words(text: &str, width: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match words.last_mut() {
            Some(open)
                if open.matches('`').count() % 2 == 1
                    && measure_text_width(open) + 1 + measure_text_width(word) <= width =>
            {
                *open += " ";
                *open += word;
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// Replaces characters that are unsafe on a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|letter| if is_unsafe(letter) { '·' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Mark, OutputPage, TableCell, clean, render, wrap};
    use console::{measure_text_width, strip_ansi_codes};
    use proptest::prelude::{prop_assert, proptest};

    fn row(cells: &[&str]) -> Vec<TableCell> {
        cells.iter().map(|text| TableCell::from(*text)).collect()
    }

    fn plain(width: usize) -> OutputPage {
        OutputPage { width: Some(width), has_colors: false }
    }

    const WHOLE: OutputPage = OutputPage { width: None, has_colors: false };

    #[test]
    fn columns_align_and_text_wraps_between_words() {
        let rows = [row(&["1", "Kaas 🧀", "Dam"]), row(&["22", "een heel lange naam", "Zuiderzeestraatweg"])];
        assert_eq!(
            render(&["id", "name", "street"], &rows, WHOLE),
            [
                "id  name                 street",
                "--- -------------------- ------------------",
                "1   Kaas 🧀              Dam",
                "22  een heel lange naam  Zuiderzeestraatweg",
            ]
        );
        assert_eq!(
            render(&["id", "name", "street"], &rows, plain(40)),
            [
                "id  name              street",
                "--- ----------------- ------------------",
                "1   Kaas 🧀           Dam",
                "",
                "22  een heel lange    Zuiderzeestraatweg",
                "    naam",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_gets_one_block_per_row() {
        let rows = [row(&["k3v9x0q2m1ab", "Kaas", ""]), row(&["a", "b", "no: 3 missing, of a long reason"])];
        assert_eq!(
            render(&["id", "name", "complete"], &rows, plain(20)),
            [
                "id:       k3v9x0q2m1ab",
                "name:     Kaas",
                "",
                "id:       a",
                "name:     b",
                "complete: no: 3 missing, of a long reason",
            ]
        );
    }

    #[test]
    fn a_block_wraps_between_words_and_leaves_out_what_is_nothing() {
        let heads = ["id", "listed", "parked", "walked", "quantity", "error"];
        let counts = |listed, parked| [TableCell::count(listed, Mark::Plain), TableCell::count(parked, Mark::Bad)];
        let of = |id: &str, counts: [TableCell; 2], walked: Option<&str>, error: &str| {
            let rest = [TableCell::known(walked.map(str::to_owned)), "0".into(), error.into()];
            [&[TableCell::from(id)], &counts[..], &rest].concat()
        };
        let rows = [
            of("an-id-that-is-longer-than-the-terminal", counts(0, 2), None, "the list answered 500 three times"),
            of("k3v", counts(7, 0), Some("yesterday"), ""),
        ];
        assert_eq!(
            render(&heads, &rows, plain(30)),
            [
                "id:       an-id-that-is-longer-than-the-terminal",
                "parked:   2",
                "quantity: 0",
                "error:    the list answered",
                "          500 three times",
                "",
                "id:       k3v",
                "listed:   7",
                "walked:   yesterday",
                "quantity: 0",
            ]
        );
        let nothing = [vec![TableCell::from(""), TableCell::count(0, Mark::Plain)]];
        assert_eq!(render(&["an-error", "parked"], &nothing, plain(10)), ["an-error:", "parked:   0"]);
    }

    #[test]
    fn marks_are_coloured_only_if_colours_are_enabled() {
        let rows = [vec![TableCell::from("x"), TableCell::new("failed", Mark::Bad)]];
        for width in [None, Some(80), Some(3)] {
            let colored = render(&["a", "state"], &rows, OutputPage { width, has_colors: true });
            let shown = colored.join("\n");
            assert!(shown.contains("\u{1b}[") && shown.contains("failed"), "{shown:?}");
            let bare: Vec<_> = colored.iter().map(|line| strip_ansi_codes(line).trim_end().to_owned()).collect();
            assert_eq!(bare, render(&["a", "state"], &rows, OutputPage { width, has_colors: false }));
        }
    }

    #[test]
    fn sentences_wrap_between_words_and_long_words_stay_whole() {
        assert_eq!(wrap("ok    shop: it is there", 12, 6), ["ok    shop:", "      it is", "      there"]);
        assert_eq!(wrap("a /very/long/path is", 8, 2), ["a", "  /very/long/path", "  is"]);
        assert_eq!(wrap("try `waybill sync` now", 16, 2), ["try", "  `waybill sync`", "  now"]);
        assert_eq!(wrap("try `waybill shops list` now", 12, 2), ["try `waybill", "  shops", "  list` now"]);
        assert_eq!(wrap("", 8, 2), [""]);
        assert_eq!(wrap("all of it", 80, 2), ["all of it"]);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(clean("\u{1b}]0;x\u{7}a\nb\u{202e}c"), "·]0;x·a·b·c");
        let rows = [row(&["\u{1b}[2J"])];
        assert_eq!(render(&["id"], &rows, WHOLE), ["id", "----", "·[2J"]);
    }

    proptest! {
        #[test]
        fn nothing_is_hidden_and_no_line_of_a_table_is_too_wide(
            cells in proptest::collection::vec(proptest::collection::vec("[a-z0-9🧀é]{0,14}( [a-z]{1,9}){0,5}", 5), 1..5),
            width in 10usize..170,
        ) {
            let heads = ["one", "two words", "three", "four", "five"];
            let rows: Vec<Vec<TableCell>> = cells.iter().map(|row| row.iter().map(|cell| TableCell::from(cell.as_str())).collect()).collect();
            let lines = render(&heads, &rows, plain(width));
            let all = lines.join("\n");
            let is_table = lines.iter().any(|line| line.starts_with('-'));
            let has_value = |at: usize| cells.iter().any(|row| !row[at].is_empty());
            let needed = heads.iter().enumerate().filter(|(at, _)| is_table || has_value(*at)).map(|(_, head)| *head);
            for word in cells.iter().flatten().map(String::as_str).chain(needed).flat_map(|text| text.split(' ')) {
                prop_assert!(all.contains(word), "{word}\n{all}");
            }
            if is_table {
                prop_assert!(lines.iter().all(|line| measure_text_width(line) <= width), "{all}");
            }
        }
    }
}
