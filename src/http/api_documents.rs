//! `/api/v1/{resource}`: the documents that were read, by filters, page by page, and one by one.
//!
//! A document's JSON is put into the answer as the sink has it, byte for byte: no number is rounded
//! and no field is lost.

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::auth::Need;
use super::backend::{ApiError, DocumentItem, DocumentQuery};
use super::query::{LIMIT_DEFAULT, Params, Segment};
use super::reply::{Outcome, Page, Problem, Reply};
use super::{Api, Call, Endpoint, JSON, filters, guarded, reads};
use crate::catalog::Definition;
use crate::domain::clock::rfc3339;

/// Parameters of listings; a definition adds its filters.
const PARAMETERS: [&str; 6] = ["shop", "from", "to", "q", "limit", "cursor"];

/// Longest `q`, in characters: a search is a name or a number, not a text.
pub(super) const SEARCH_CHARS_MAX: usize = 200;

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let resource = warp::path("api").and(warp::path("v1")).and(resource(api));
    let list = resource.clone().and(warp::path::end()).and(reads()).boxed();
    let one = resource
        .and(warp::path::param())
        .and(warp::path::param())
        .and(warp::path::end())
        .and(reads())
        .map(|definition, Segment(shop_id), Segment(id)| (definition, shop_id, id))
        .boxed();
    let at = |name| Endpoint { name, need: Need::Read, gives: JSON };
    guarded(api, at("list documents"), list, list_documents)
        .or(guarded(api, at("show document"), one, show_document))
        .unify()
        .boxed()
}

/// Matches the name of a configured resource; all other names are left to the routes behind.
fn resource(api: &Arc<Api>) -> impl Filter<Extract = (Arc<Definition>,), Error = warp::Rejection> + Clone + use<> {
    let api = Arc::clone(api);
    warp::path::param().and_then(move |Segment(name)| {
        let definition = api.definition(&name).map(Arc::clone);
        std::future::ready(definition.ok_or_else(warp::reject::not_found))
    })
}

/// A document as the API shows it: fixed fields, typed columns, then the document.
struct DocumentForm<'a> {
    item: &'a DocumentItem,
    document: &'a RawValue,
}

impl<'a> DocumentForm<'a> {
    fn new(item: &'a DocumentItem) -> Result<DocumentForm<'a>, ApiError> {
        let document = serde_json::from_slice(&item.document)
            .map_err(|error| ApiError::Internal(format!("a stored document is not JSON: {error}")))?;
        Ok(DocumentForm { item, document })
    }
}

impl Serialize for DocumentForm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let item = self.item;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("shop_id", &item.shop_id)?;
        map.serialize_entry("id", &item.id)?;
        map.serialize_entry("fetched_at", &rfc3339(item.fetched_at))?;
        map.serialize_entry("version", &item.version)?;
        map.serialize_entry("first_listed_at", &rfc3339(item.first_listed_at))?;
        map.serialize_entry("no_longer_listed_at", &item.no_longer_listed_at.map(rfc3339))?;
        for (name, value) in &item.columns {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("document", self.document)?;
        map.end()
    }
}

async fn list_documents(api: Arc<Api>, call: Call, definition: Arc<Definition>) -> Outcome {
    let params = call.params(&parameters(&definition))?;
    let after = api.open_cursor(&definition.name, &params)?;
    let query = DocumentQuery {
        shops: call.grant.visible(params.get("shop")),
        after: after.and_then(pair),
        ..document_query(&definition, &params)?
    };
    let page = match &query.shops {
        Some(shops) if shops.is_empty() => super::backend::DocumentPage::default(),
        _ => api.backend.documents(&definition.name, query).await?,
    };
    let seal = |(shop, id): &(String, String)| api.cursors.seal(&definition.name, &params.filters(), &[shop, id]);
    let next_cursor = page.next.as_ref().map(seal);
    let items = page.items.iter().map(DocumentForm::new).collect::<Result<Vec<_>, _>>()?;
    Reply::json(&Page { items, next_cursor })
}

/// What goes with a definition: not every one has a time or a search.
pub(super) fn parameters(definition: &Definition) -> Vec<&str> {
    let table = &definition.table;
    let goes = |name: &&str| match *name {
        "from" | "to" => table.time.is_some(),
        "q" => !table.search.is_empty(),
        _ => true,
    };
    PARAMETERS.into_iter().filter(goes).chain(table.filters.iter().map(|(name, _)| name.as_str())).collect()
}

/// The conditions that the client set.
fn document_query(definition: &Definition, params: &Params) -> Result<DocumentQuery, Problem> {
    let table = &definition.table;
    let (from, to) = (params.time("from")?, params.time("to")?);
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(Problem::parameter("from", "is later than `to`"));
    }
    let q = params.get("q").map(str::to_owned);
    if q.as_ref().is_some_and(|q| q.chars().count() > SEARCH_CHARS_MAX) {
        return Err(Problem::parameter("q", format!("must have at most {SEARCH_CHARS_MAX} characters")));
    }
    let filters = filters::read(table, params)?;
    Ok(DocumentQuery { filters, from, to, q, limit: params.limit(LIMIT_DEFAULT)?, ..DocumentQuery::default() })
}

fn pair(last: Vec<String>) -> Option<(String, String)> {
    let mut last = last.into_iter();
    last.next().zip(last.next())
}

async fn show_document(
    api: Arc<Api>,
    call: Call,
    (definition, shop_id, id): (Arc<Definition>, String, String),
) -> Outcome {
    call.params(&[])?;
    if !call.grant.sees(&shop_id) {
        return Err(Problem::not_found());
    }
    let item = api.backend.document(&definition.name, &shop_id, &id).await?.ok_or_else(Problem::not_found)?;
    Reply::json(&DocumentForm::new(&item)?)
}
