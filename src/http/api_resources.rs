//! `/api/v1/resources`: configured resources, and the fields of documents that their columns do not cover.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::auth::RequiredScope;
use super::query::Segment;
use super::reply::{ApiResult, Problem, Reply};
use super::{Api, Call, Endpoint, JSON, endpoint, get_or_head, sync_handler};
use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::catalog::definition::Column;
use crate::domain::clock::{self, Millis};
use crate::service::Seen;

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let at = |name, scope| Endpoint { name, scope, media_type: JSON };
    let all = warp::path!("api" / "v1" / "resources").and(get_or_head()).map(|| ()).boxed();
    let drift =
        warp::path!("api" / "v1" / "resources" / Segment / "drift").map(|Segment(name)| name).and(get_or_head());
    endpoint(api, at("list resources", RequiredScope::Read), all, sync_handler(list_resources))
        .or(endpoint(api, at("show drift", RequiredScope::ReadAll), drift.boxed(), show_drift))
        .unify()
        .boxed()
}

fn list_resources(api: &Api, call: &Call) -> ApiResult {
    call.params(&[])?;
    let items: Vec<Value> = api.definitions.iter().map(|definition| resource(definition)).collect();
    Reply::json(&json!({ "items": items }))
}

fn resource(definition: &Definition) -> Value {
    let columns = |columns: &[Column]| -> Vec<Value> {
        columns.iter().map(|column| json!({ "name": column.name, "type": column.kind.to_string() })).collect()
    };
    let table = &definition.table;
    let child = |child: &crate::catalog::definition::ChildTable| json!({ "table": child.name, "columns": columns(&child.columns) });
    json!({
        "name": definition.name,
        "table": table.name,
        "id": table.id_column,
        "parent": definition.parent,
        "columns": columns(&table.columns),
        "children": table.children.iter().map(child).collect::<Vec<_>>(),
        "filters": table.filters.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    })
}

#[derive(Serialize)]
struct DriftForm {
    resource: String,
    /// Start of counting.
    #[serde(serialize_with = "clock::serialize")]
    since: Millis,
    unmapped: Vec<DriftEntryForm>,
    misfits: Vec<DriftEntryForm>,
    /// JSON errors that were tolerated, by path.
    tolerated: Vec<DriftEntryForm>,
    /// Paths where the definition's `time` could not be parsed.
    untimed: Vec<DriftEntryForm>,
    /// Occurrences at further paths, which are not named.
    more: u64,
}

#[derive(Serialize)]
struct DriftEntryForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    kind: &'static str,
    documents: u64,
    #[serde(serialize_with = "clock::serialize")]
    first_seen: Millis,
    #[serde(serialize_with = "clock::serialize")]
    last_seen: Millis,
}

impl DriftEntryForm {
    fn new(left: FieldDrift, seen: Seen) -> DriftEntryForm {
        let Seen { documents, first: first_seen, last: last_seen } = seen;
        let (path, table, column, kind) = match left {
            FieldDrift::Unmapped { path, kind }
            | FieldDrift::Tolerated { path, kind }
            | FieldDrift::Untimed { path, kind } => (Some(path), None, None, kind),
            FieldDrift::TypeMismatch { table, column, kind } => (None, Some(table), Some(column), kind),
        };
        DriftEntryForm { path, table, column, kind, documents, first_seen, last_seen }
    }
}

async fn show_drift(api: Arc<Api>, call: Call, resource: String) -> ApiResult {
    call.params(&[])?;
    if api.definition(&resource).is_none() {
        return Err(Problem::not_found());
    }
    let drift = api.service.drift(&resource);
    let (since, more) = (drift.since.unwrap_or_default(), drift.more);
    let mut form =
        DriftForm { resource, since, unmapped: vec![], misfits: vec![], tolerated: vec![], untimed: vec![], more };
    for (left, seen) in drift.places {
        let list = match left {
            FieldDrift::Unmapped { .. } => &mut form.unmapped,
            FieldDrift::TypeMismatch { .. } => &mut form.misfits,
            FieldDrift::Tolerated { .. } => &mut form.tolerated,
            FieldDrift::Untimed { .. } => &mut form.untimed,
        };
        list.push(DriftEntryForm::new(left, seen));
    }
    Reply::json(&form)
}
