//! `/api/v1/resources`: configured resources, and the fields of documents that their columns do not cover.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, JSON, endpoint, sync_handler};
use super::query::Segment;
use super::reply::{ApiResult, Problem, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::catalog::Definition;
use crate::catalog::coverage::FieldDrift;
use crate::catalog::definition::Column;
use crate::domain::Timestamp;
use crate::domain::clock;
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

/// The configured resources.
#[derive(Serialize, ToSchema)]
#[schema(as = Resource_list)]
pub(super) struct ResourcesForm<'a> {
    items: Vec<ResourceForm<'a>>,
}

/// A configured resource and its tables.
#[derive(Serialize, ToSchema)]
#[schema(as = Resource)]
struct ResourceForm<'a> {
    name: &'a str,
    table: &'a str,
    id: &'a str,
    #[schema(required)]
    parent: Option<&'a str>,
    columns: Vec<ColumnForm<'a>>,
    children: Vec<ChildForm<'a>>,
    filters: Vec<&'a str>,
}

/// A column of a table.
#[derive(Serialize, ToSchema)]
#[schema(as = Column)]
struct ColumnForm<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: String,
}

/// A child table.
#[derive(Serialize, ToSchema)]
#[schema(as = ChildTable)]
struct ChildForm<'a> {
    table: &'a str,
    columns: Vec<ColumnForm<'a>>,
}

fn list_resources(api: &Api, request: &ApiRequest) -> ApiResult {
    request.params(&[])?;
    Reply::json(&ResourcesForm { items: api.definitions.iter().map(|definition| resource(definition)).collect() })
}

fn resource(definition: &Definition) -> ResourceForm<'_> {
    let table = &definition.table;
    let children = table.children.iter();
    ResourceForm {
        name: &definition.name,
        table: &table.name,
        id: &table.id_column,
        parent: definition.parent.as_deref(),
        columns: columns(&table.columns),
        children: children.map(|child| ChildForm { table: &child.name, columns: columns(&child.columns) }).collect(),
        filters: table.filters.iter().map(|(name, _)| name.as_str()).collect(),
    }
}

fn columns(columns: &[Column]) -> Vec<ColumnForm<'_>> {
    columns.iter().map(|column| ColumnForm { name: &column.name, kind: column.kind.to_string() }).collect()
}

/// Fields of a resource's documents that its columns do not cover.
#[derive(Serialize, ToSchema)]
#[schema(as = Drift)]
pub(super) struct DriftForm {
    resource: String,
    /// Start of counting.
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    since: Timestamp,
    unmapped: Vec<PathDriftForm>,
    misfits: Vec<ColumnDriftForm>,
    /// JSON errors that were tolerated, by path.
    tolerated: Vec<PathDriftForm>,
    /// Paths where the definition's `time` could not be parsed.
    untimed: Vec<PathDriftForm>,
    /// Occurrences at further paths, which are not named.
    more: u64,
}

/// A path in the documents, and when it was seen.
#[derive(Serialize, ToSchema)]
#[schema(as = PathDrift)]
struct PathDriftForm {
    path: String,
    kind: &'static str,
    #[serde(flatten)]
    seen: SeenForm,
}

/// A column whose values did not fit, and when that was seen.
#[derive(Serialize, ToSchema)]
#[schema(as = ColumnDrift)]
struct ColumnDriftForm {
    table: String,
    column: String,
    kind: &'static str,
    #[serde(flatten)]
    seen: SeenForm,
}

/// In how many documents something was seen, and when.
#[derive(Serialize, ToSchema)]
#[schema(as = Seen)]
struct SeenForm {
    documents: u64,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    first_seen: Timestamp,
    #[serde(serialize_with = "clock::serialize")]
    #[schema(value_type = Timestamp)]
    last_seen: Timestamp,
}

async fn show_drift(api: Arc<Api>, request: ApiRequest, resource: String) -> ApiResult {
    request.params(&[])?;
    if api.definition(&resource).is_none() {
        return Err(Problem::not_found());
    }
    let drift = api.service.drift(&resource);
    let (since, more) = (drift.since.unwrap_or_default(), drift.more);
    let (unmapped, misfits, tolerated, untimed) = (vec![], vec![], vec![], vec![]);
    let mut form = DriftForm { resource, since, unmapped, misfits, tolerated, untimed, more };
    for (left, Seen { documents, first, last }) in drift.places {
        let seen = SeenForm { documents, first_seen: first, last_seen: last };
        match left {
            FieldDrift::Unmapped { path, kind } => form.unmapped.push(PathDriftForm { path, kind, seen }),
            FieldDrift::TypeMismatch { table, column, kind } => {
                form.misfits.push(ColumnDriftForm { table, column, kind, seen });
            }
            FieldDrift::Tolerated { path, kind } => form.tolerated.push(PathDriftForm { path, kind, seen }),
            FieldDrift::Untimed { path, kind } => form.untimed.push(PathDriftForm { path, kind, seen }),
        }
    }
    Reply::json(&form)
}
