//! The state that all endpoints share.

use std::sync::Arc;

use super::auth::{AccessControl, RequiredScope};
use super::cursor::{Cursors, InvalidCursor};
use super::description::Description;
use super::in_flight_keys::InFlightKeys;
use super::limits::ServerLimits;
use super::query::Params;
use super::reply::{Problem, ProblemKind};
use super::request::RequestHead;
use crate::catalog::Definition;
use crate::service::{KeyGrant, Service};

/// State shared by all endpoints.
pub(super) struct Api {
    pub(super) service: Service,
    pub(super) limits: ServerLimits,
    pub(super) definitions: Vec<Arc<Definition>>,
    pub(super) description: Description,
    pub(super) cursors: Cursors,
    pub(super) access: AccessControl,
    pub(super) in_flight: InFlightKeys,
}

impl Api {
    pub(super) fn new(service: Service, limits: ServerLimits, description: Description) -> Api {
        Api {
            description,
            cursors: Cursors::new(service.cursor_key()),
            access: AccessControl::new(service.clone(), &limits),
            in_flight: InFlightKeys::default(),
            definitions: service.definitions().to_vec(),
            limits,
            service,
        }
    }

    pub(super) fn definition(&self, resource: &str) -> Option<&Arc<Definition>> {
        self.definitions.iter().find(|definition| definition.name == resource)
    }

    pub(super) fn admit(&self, head: &RequestHead, required: RequiredScope) -> Result<KeyGrant, Problem> {
        if head.path.len() + head.query.len() > self.limits.uri_bytes_max {
            let detail = format!("the URI must not be longer than {} bytes", self.limits.uri_bytes_max);
            return Err(Problem::new(ProblemKind::UriTooLong, detail));
        }
        self.access.admit(head, required)
    }

    /// 404 unless the shop exists and the key may see it; checked before the body is read.
    pub(super) fn has_shop(&self, grant: &KeyGrant, shop_id: &str) -> Result<(), Problem> {
        let is_there = grant.sees(shop_id) && self.service.shop(shop_id)?.is_some();
        if is_there { Ok(()) } else { Err(Problem::not_found()) }
    }

    /// Decodes the `cursor` parameter and checks that it belongs to this list and these filters.
    pub(super) fn decode_cursor(&self, of: &str, params: &Params) -> Result<Option<Vec<String>>, Problem> {
        let Some(text) = params.get("cursor") else { return Ok(None) };
        let last = self.cursors.decode(of, &params.filters(), text);
        last.map(Some).map_err(|InvalidCursor| {
            Problem::parameter("cursor", "is invalid for this list; use `next_cursor` with the same filters")
        })
    }
}
