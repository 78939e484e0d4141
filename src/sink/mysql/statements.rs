//! The multi-row statements of the writer and the replay, each in a few sizes.

use crate::catalog::definition::Table;

/// Rows per statement. Few sizes, so that prepared statements are reused; a remainder is split into them.
const SIZES: [usize; 5] = [128, 32, 8, 2, 1];

/// The server's limit is 65,535. Each placeholder also costs some hundred bytes on both sides while the statement is
/// cached (measured with 16,384: 14 MB more, and no faster).
pub(super) const PLACEHOLDERS_MAX: usize = 4_096;

/// A statement for a fixed number of rows.
pub(super) struct Sized {
    pub rows: usize,
    pub text: String,
}

/// The statement sizes for rows with this many placeholders.
pub(super) fn sizes(width: usize) -> impl Iterator<Item = usize> {
    SIZES.into_iter().filter(move |rows| *rows == 1 || rows * width <= PLACEHOLDERS_MAX)
}

/// Reads which documents exist, and their versions, locking their rows until the transaction ends. By the primary key
/// alone: a table scan would wait for every other writer.
pub(super) fn versions(parent: &str, id: &str) -> Vec<Sized> {
    by_key(&format!("SELECT `shop_id`,`{id}`,`version` FROM `{parent}` FORCE INDEX (PRIMARY)"), id, " FOR UPDATE")
}

/// Counts the child rows of documents, and reads the greatest position of each.
pub(super) fn child_counts(child: &str, id: &str) -> Vec<Sized> {
    let select = format!("SELECT `shop_id`,`{id}`,COUNT(*),MAX(`position`) FROM `{child}` FORCE INDEX (PRIMARY)");
    by_key(&select, id, &format!(" GROUP BY `shop_id`,`{id}`"))
}

/// Key pairs as one IN list: both servers resolve it to ranges of the primary key, in half the time of the same pairs
/// as OR (measured with 128 on MariaDB 10.11: 0.35 ms against 0.8).
fn by_key(select: &str, id: &str, rest: &str) -> Vec<Sized> {
    let text = |rows: usize| format!("{select} WHERE (`shop_id`,`{id}`) IN ({}){rest}", vec!["(?,?)"; rows].join(","));
    SIZES.iter().map(|rows| Sized { rows: *rows, text: text(*rows) }).collect()
}

/// Upserts, because the server takes many rows of them at once. Only for existing, locked rows: columns that an insert
/// would require get placeholder values.
pub(super) fn refills(table: &Table) -> Vec<Sized> {
    let columns: Vec<String> = table.columns.iter().map(|column| format!("`{}`", column.name)).collect();
    if columns.is_empty() {
        return Vec::new();
    }
    let width = columns.len() + 2;
    let row = format!("({},'null','1970-01-01','1970-01-01',0)", vec!["?"; width].join(","));
    let assignments: Vec<String> = columns.iter().map(|column| format!("{column} = VALUES({column})")).collect();
    let text = |rows: usize| {
        format!(
            "INSERT INTO `{}` (`shop_id`,`{}`,{},`document`,`fetched_at`,`first_listed_at`,`version`) VALUES {} \
             ON DUPLICATE KEY UPDATE {}",
            table.name,
            table.id_column,
            columns.join(","),
            vec![row.as_str(); rows].join(","),
            assignments.join(", ")
        )
    };
    sizes(width).map(|rows| Sized { rows, text: text(rows) }).collect()
}

/// Deletes the child rows of documents from a position on.
pub(super) fn surpluses(child: &str, id: &str) -> Vec<Sized> {
    let text = |rows: usize| {
        let row = format!("(`shop_id` = ? AND `{id}` = ? AND `position` >= ?)");
        format!("DELETE FROM `{child}` WHERE {}", vec![row.as_str(); rows].join(" OR "))
    };
    SIZES.iter().map(|rows| Sized { rows: *rows, text: text(*rows) }).collect()
}
