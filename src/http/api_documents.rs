//! `/api/v1/{resource}`: lists documents by filters, page by page, and shows single ones.
//!
//! A document's JSON is copied from the sink byte for byte: no number is rounded and no field is lost.

use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::api::Api;
use super::auth::RequiredScope;
use super::endpoint::{Endpoint, JSON, endpoint};
use super::filters;
use super::params::{SEARCH_CHARS_MAX, of_documents};
use super::query::{LIMIT_DEFAULT, Params, Segment};
use super::reply::{ApiResult, PageForm, Problem, Reply};
use super::request::{ApiRequest, get_or_head};
use crate::catalog::Definition;
use crate::domain::ShopId;
use crate::domain::clock::rfc3339;
use crate::service::{Item, ItemPage, ListQuery, ServiceError};

pub(super) fn routes(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let resource = warp::path("api").and(warp::path("v1")).and(resource(api));
    let list = resource.clone().and(warp::path::end()).and(get_or_head()).boxed();
    let one = resource
        .and(warp::path::param())
        .and(warp::path::param())
        .and(warp::path::end())
        .and(get_or_head())
        .map(|definition, Segment(shop_id), Segment(id)| OneDocument { definition, shop_id, id })
        .boxed();
    let at = |name| Endpoint { name, scope: RequiredScope::Read, media_type: JSON };
    endpoint(api, at("list documents"), list, list_documents)
        .or(endpoint(api, at("show document"), one, show_document))
        .unify()
        .boxed()
}

/// Matches the name of a configured resource; other names fall through to the next routes.
fn resource(api: &Arc<Api>) -> impl Filter<Extract = (Arc<Definition>,), Error = warp::Rejection> + Clone + use<> {
    let api = Arc::clone(api);
    warp::path::param().and_then(move |Segment(name)| {
        let definition = api.definition(&name).map(Arc::clone);
        std::future::ready(definition.ok_or_else(warp::reject::not_found))
    })
}

/// JSON form of a document: fixed fields, typed columns, then the document itself.
struct DocumentForm<'a> {
    item: &'a Item,
    document: &'a RawValue,
}

impl<'a> DocumentForm<'a> {
    fn new(item: &'a Item) -> Result<DocumentForm<'a>, ServiceError> {
        let document = serde_json::from_slice(&item.document)
            .map_err(|error| ServiceError::Internal(format!("a stored document is not JSON: {error}")))?;
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

async fn list_documents(api: Arc<Api>, request: ApiRequest, definition: Arc<Definition>) -> ApiResult {
    let params = request.params(&of_documents(&definition))?;
    let after = api.decode_cursor(&definition.name, &params)?;
    let query = ListQuery {
        shops: request.grant.visible(params.get("shop")),
        after: after.and_then(pair),
        ..document_query(&definition, &params)?
    };
    let page = match &query.shops {
        Some(shops) if shops.is_empty() => ItemPage::default(),
        _ => api.service.documents(&definition.name, &query, &request.grant.key_id).await?,
    };
    let seal = |(shop, id): &(ShopId, String)| api.cursors.encode(&definition.name, &params.filters(), &[shop, id]);
    let next_cursor = page.next.as_ref().map(seal);
    let items = page.items.iter().map(DocumentForm::new).collect::<Result<Vec<_>, _>>()?;
    Reply::json(&PageForm { items, next_cursor })
}

/// Reads the filters, times, search and limit of the query.
fn document_query(definition: &Definition, params: &Params) -> Result<ListQuery, Problem> {
    let table = &definition.table;
    let (from, to) = (params.time("from")?, params.time("to")?);
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(Problem::parameter("from", "is later than `to`"));
    }
    let q = params.get("q").map(str::to_owned);
    if q.as_ref().is_some_and(|q| q.chars().count() > SEARCH_CHARS_MAX) {
        return Err(Problem::parameter("q", format!("must not have more than {SEARCH_CHARS_MAX} characters")));
    }
    let filters = filters::read(table, params)?;
    Ok(ListQuery { filters, from, to, q, limit: params.limit(LIMIT_DEFAULT)?, ..ListQuery::default() })
}

fn pair(last: Vec<String>) -> Option<(ShopId, String)> {
    let mut last = last.into_iter();
    Some((last.next()?.into(), last.next()?))
}

/// The document that a path names.
struct OneDocument {
    definition: Arc<Definition>,
    shop_id: String,
    id: String,
}

async fn show_document(api: Arc<Api>, request: ApiRequest, of: OneDocument) -> ApiResult {
    let OneDocument { definition, shop_id, id } = of;
    request.params(&[])?;
    if !request.grant.sees(&shop_id) {
        return Err(Problem::not_found());
    }
    let item = api.service.document(&definition.name, &shop_id, &id).await?.ok_or_else(Problem::not_found)?;
    Reply::json(&DocumentForm::new(&item)?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::DocumentForm;
    use crate::domain::Timestamp;
    use crate::service::Item;

    #[test]
    fn a_document_is_copied_byte_for_byte_even_if_a_field_is_in_it_twice() {
        let received = r#"{"big": 12345678901234567890123, "a":1, "a":2}"#;
        let item = Item {
            shop_id: "one".into(),
            id: "id-1".to_owned(),
            fetched_at: Timestamp::EPOCH,
            version: 7,
            first_listed_at: Timestamp::EPOCH,
            no_longer_listed_at: None,
            columns: Vec::new(),
            document: Bytes::from_static(received.as_bytes()),
        };
        let shown = serde_json::to_string(&DocumentForm::new(&item).unwrap()).unwrap();
        assert!(shown.contains(&format!("\"document\":{received}")), "{shown}");
    }
}
