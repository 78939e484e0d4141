//! Filters of document lists, parsed by the type of their column.
//!
//! A value that no row can have is a client error, not an empty page.

use serde_json::{Value, json};

use super::params;
use super::query::{Params, VALUE_CHARS_MAX, with_plus};
use super::reply::Problem;
use crate::catalog::definition::{ColumnKind, Place, Table};
use crate::service::held;

/// Reads the filters of a request.
///
/// # Errors
/// 400 for a value that the column cannot hold.
pub(super) fn read(table: &Table, params: &Params) -> Result<Vec<(Place, String)>, Problem> {
    let mut filters = Vec::new();
    for (name, place) in &table.filters {
        let Some(text) = params.get(name) else { continue };
        let kind = kind_at(table, place);
        let text = if kind == ColumnKind::Datetime { with_plus(text) } else { text.into() };
        if held(kind, &text).is_none() {
            return Err(Problem::parameter(name, wanted(kind)));
        }
        filters.push((place.clone(), text.into_owned()));
    }
    Ok(filters)
}

/// The type of the filtered column. An unknown column accepts any text and matches nothing.
fn kind_at(table: &Table, place: &Place) -> ColumnKind {
    let (columns, name) = match place {
        Place::Id => return ColumnKind::Text(None),
        Place::Column(name) => (Some(&table.columns), name),
        Place::Child { table: child, column } => {
            (table.children.iter().find(|known| known.name == *child).map(|child| &child.columns), column)
        }
    };
    let column = columns.and_then(|columns| columns.iter().find(|column| column.name == *name));
    column.map_or(ColumnKind::Text(None), |column| column.kind)
}

fn wanted(kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Text(_) | ColumnKind::Json => "must be text".to_owned(),
        ColumnKind::Boolean => "must be true or false".to_owned(),
        ColumnKind::Integer => "must be a whole number like 12".to_owned(),
        ColumnKind::Date => "must be a date like 2026-01-31".to_owned(),
        ColumnKind::Datetime => "must be a time in RFC 3339 like 2026-01-31T12:00:00Z".to_owned(),
        ColumnKind::Decimal { digits, scale } => {
            let whole = digits.saturating_sub(scale);
            format!(
                "must be a number like 12.5, with at most {whole} digits before the decimal point and {scale} after it"
            )
        }
    }
}

/// OpenAPI schema of a filter.
pub(super) fn schema(table: &Table, place: &Place) -> Value {
    match kind_at(table, place) {
        ColumnKind::Text(_) | ColumnKind::Json => params::text(VALUE_CHARS_MAX),
        ColumnKind::Boolean => json!({"type": "boolean"}),
        ColumnKind::Integer => json!({"type": "integer", "format": "int64", "minimum": i64::MIN, "maximum": i64::MAX}),
        ColumnKind::Date => json!({"type": "string", "format": "date"}),
        ColumnKind::Datetime => json!({"type": "string", "format": "date-time"}),
        ColumnKind::Decimal { digits, scale } => {
            let whole = digits.saturating_sub(scale).max(1);
            let fraction = if scale == 0 { String::new() } else { format!("(\\.[0-9]{{1,{scale}}})?") };
            json!({"type": "string", "pattern": format!("^-?[0-9]{{1,{whole}}}{fraction}$")})
        }
    }
}
