//! The marketplace's side: answers a request, with authentication, limiter, faults and the record of calls around it.
//!
//! Called by `server` for every request; never waits and does no IO itself. Every call is recorded, whatever
//! its outcome.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use crate::apply_fault::{Outcome, apply};
use crate::audit::Call;
use crate::body::{ANSWER_TYPE, MEDIA_TYPE, OFFERS_ANSWER_TYPE, OFFERS_MEDIA_TYPE, json as text};
use crate::clock::{Millis, http_date};
use crate::document::Method;
use crate::fault::FaultKind;
use crate::limiter::Standing;
use crate::limits::Unit;
use crate::other_resources::lists::document_at;
use crate::query::{Asked, Query, collection, cut};
use crate::shop::Shop;
use crate::state::{Sandbox, Settings, lock};
use crate::stock::Shipment;
use crate::values::mix;
use crate::wire::{Answer, Request};
use crate::{admin, login, problem};

impl Sandbox {
    /// Answers one request.
    pub(crate) fn answer(&self, request: &Request) -> Outcome {
        let settings = self.settings();
        if let Some(control) = request.path.strip_prefix("/_sandbox/").filter(|_| self.0.admin) {
            return Outcome::whole(admin::answer(self, control, request));
        }
        let mut call = self.new_call(request);
        let mut outcome = match marketplace_path(&request.path) {
            Some("/token") => self.token_call(request, &settings, &mut call),
            Some(path) => self.api_call(path, request, &settings, &mut call),
            None => Outcome::whole(problem::problem(404, "Not Found", "No such resource.", &request.path)),
        };
        outcome.pause += settings.latency;
        outcome
            .answer
            .headers
            .push(("date".to_owned(), http_date(self.0.clock.now().saturating_add(settings.dates_off_ms))));
        call.status = outcome.answer.status;
        call.bytes = outcome.answer.body.len() as u64;
        lock(&self.0.ledger).record(call);
        outcome
    }

    fn new_call(&self, request: &Request) -> Call {
        let since = request.arrived.saturating_duration_since(self.0.started);
        Call {
            at_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
            client_id: String::new(),
            account: String::new(),
            method: request.method.clone(),
            path: format!("{}{}", request.path, request.query_text),
            rule: None,
            page: None,
            id: None,
            status: 0,
            bytes: 0,
            token: false,
            faulted: false,
            spoiled: false,
            unknown_parameters: 0,
        }
    }

    fn token_call(&self, request: &Request, settings: &Settings, call: &mut Call) -> Outcome {
        call.token = true;
        // The query may contain a secret, which is not recorded.
        call.path.clone_from(&request.path);
        if let Some((client_id, _)) = login::basic(request) {
            call.client_id = client_id;
        }
        let fault = lock(&self.0.faults).take("/token", "/token", &call.client_id);
        let answer = self.login(request, settings);
        match fault {
            Some(kind) => {
                call.faulted = true;
                call.spoiled = kind.spoils();
                apply(kind, answer, request)
            }
            None => Outcome::whole(answer),
        }
    }

    fn api_call(&self, path: &str, request: &Request, settings: &Settings, call: &mut Call) -> Outcome {
        if path == "/retailer/public/ratelimits" {
            return Outcome::whole(rate_table(settings));
        }
        let rule = settings.rules.find(&request.method, path);
        call.rule = rule.map(|rule| rule.name.clone());
        let (shop, refusal) = match self.authenticate(request) {
            Ok(shop) => (Some(shop), None),
            Err((shop, refusal)) => (shop, Some(refusal)),
        };
        if let Some(shop) = &shop {
            call.client_id = shop.client_id.to_string();
            call.account = shop.account.to_string();
        }
        let shop = match (shop, refusal) {
            (Some(shop), None) => shop,
            (_, refusal) => return Outcome::whole(refusal.unwrap_or_else(problem::not_active)),
        };
        let now = self.0.clock.now();
        let limit = rule.and_then(|rule| rule.limit.map(|limit| (rule.name.as_str(), limit)));
        let standing = limit.map(|(name, limit)| lock(&self.0.limiter).count(&shop.account, name, limit, now));
        if let Some(standing) = standing.filter(|standing| standing.refused) {
            return Outcome::whole(decorate(too_many(standing, settings), Some(standing), call, now));
        }
        if !shop.active.load(Ordering::SeqCst) {
            return Outcome::whole(decorate(problem::not_active(), standing, call, now));
        }
        let full = format!("{path}{}", request.query_text);
        let fault = lock(&self.0.faults).take(path, &full, &shop.client_id);
        call.faulted = fault.is_some();
        call.spoiled = fault.as_ref().is_some_and(FaultKind::spoils);
        let reversed = fault == Some(FaultKind::Reversed);
        let mut asked = Asked { request, path, full: &full, page: None, reversed, call };
        if fault == Some(FaultKind::SamePage) {
            asked.page = Some(1);
        }
        let answer = self.resource(&shop, &mut asked, settings);
        let answer = decorate(answer, standing, call, now);
        match fault {
            Some(kind) => apply(kind, answer, request),
            None => Outcome::whole(answer),
        }
    }

    fn resource(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        if asked.request.method != "GET" {
            return problem::problem(405, "Method Not Allowed", "This resource can only be read.", asked.full)
                .with("allow", "GET");
        }
        let rest = asked.path.strip_prefix("/retailer/").unwrap_or_default();
        let is_v11 = rest == "offers" || rest.starts_with("offers/");
        let media_type = if is_v11 { OFFERS_MEDIA_TYPE } else { MEDIA_TYPE };
        if !accepts(asked.request.header("accept").unwrap_or_default(), media_type) {
            let detail = format!("The supplied accept media type is not supported. Use {media_type}.");
            return problem::problem(406, "Not Acceptable", &detail, asked.full);
        }
        if let Some(mut answer) = self.list_other_resource(rest, shop, asked, settings) {
            if is_v11 && answer.status == 200 {
                answer.content_type = OFFERS_ANSWER_TYPE.into();
            }
            return answer;
        }
        if let Some((kind, what, id)) = document_at(rest) {
            let id = asked.wants(id);
            let media = if is_v11 { OFFERS_ANSWER_TYPE } else { ANSWER_TYPE };
            let body = self.other_document(shop, kind, &id);
            return body.map_or_else(|| asked.not_found(what, &id), |body| Answer::new(200, media, body));
        }
        match rest.split_once('/') {
            None if rest == "shipments" => self.list_shipments(shop, asked, settings),
            None if rest == "orders" => self.list_orders(shop, asked, settings),
            Some(("shipments", id)) => {
                let id = asked.wants(id);
                let found = self.stock(shop).get(&id);
                found.map_or_else(
                    || asked.not_found("Shipment for shipment id", &id),
                    |shipment| Answer::new(200, ANSWER_TYPE, shipment.detail().clone()),
                )
            }
            Some(("orders", id)) => {
                let id = asked.wants(id);
                match self.order(shop, &id) {
                    Some(body) => Answer::new(200, ANSWER_TYPE, body),
                    None => asked.not_found("Order for order id", &id),
                }
            }
            _ => problem::problem(404, "Not Found", "The sandbox has no such resource.", asked.full),
        }
    }

    fn list_shipments(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "fulfilment-method", "order-id"]);
        let page = query.page();
        let reversed = query.asked.reversed;
        let method = query.choice("fulfilment-method", &["FBR", "FBB"]);
        let order_id = query.text("order-id");
        if order_id.is_some() && method.is_some() {
            query.violation(None, "Parameter order-id can only be used without fulfilment-method.".to_owned());
        }
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let method = if method.as_deref() == Some("FBB") { Method::Fbb } else { Method::Fbr };
        let now = self.0.clock.now();
        let stock = self.stock(shop);
        let rows: Vec<Arc<Shipment>> = match &order_id {
            Some(order_id) => {
                let both = stock.listed(Method::Fbr, now).chain(stock.listed(Method::Fbb, now));
                cut(both.filter(|shipment| shipment.spec.order_id() == *order_id), page).map(Arc::clone).collect()
            }
            None if reversed => {
                let mut listed: Vec<&Arc<Shipment>> = stock.listed(method, now).collect();
                listed.reverse();
                cut(listed.into_iter(), page).map(Arc::clone).collect()
            }
            None => cut(stock.listed(method, now), page).map(Arc::clone).collect(),
        };
        drop(stock);
        collection("shipments", rows.iter().map(|shipment| shipment.row().clone()), settings)
    }
}

/// The path below the base address, if it is one of the API's.
fn marketplace_path(path: &str) -> Option<&str> {
    match path.find("/retailer/") {
        Some(at) => path.get(at..),
        None => path.ends_with("/token").then_some("/token"),
    }
}

fn accepts(header: &str, wanted: &str) -> bool {
    header.split(',').any(|one| one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted))
}

fn too_many(standing: Standing, settings: &Settings) -> Answer {
    let detail = format!("Too many requests, retry in {} seconds.", standing.reset);
    let answer = problem::gateway(429, "Too Many Requests", &detail);
    if settings.retry_after { answer.with("Retry-After", standing.reset) } else { answer }
}

/// Adds the headers of every API response. Letter case differs by endpoint, as in the API.
fn decorate(answer: Answer, standing: Option<Standing>, call: &Call, now: Millis) -> Answer {
    let request_id = mix(call.at_us, now.unsigned_abs());
    let mut answer = answer.with("x-request-id", format_args!("{request_id:016x}{:016x}", call.at_us));
    if let Some(standing) = standing {
        let names = if call.page.is_some() {
            ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]
        } else {
            ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
        };
        answer =
            answer.with(names[0], standing.limit).with(names[1], standing.remaining).with(names[2], standing.reset);
    }
    answer
}

/// The public table of limits: an array of objects with five texts.
fn rate_table(settings: &Settings) -> Answer {
    let rows: Vec<_> = settings
        .rules
        .iter()
        .filter_map(|rule| {
            let limit = rule.limit?;
            let (count, unit) = limit.in_units();
            let unit = match unit {
                Unit::Seconds => "SECONDS",
                Unit::Minutes => "MINUTES",
                Unit::Hours => "HOURS",
            };
            Some(json!({
                "path": rule.pattern, "methods": rule.method, "maxCapacity": limit.calls.to_string(),
                "timeToLive": count.to_string(), "timeUnit": unit,
            }))
        })
        .collect();
    Answer::new(200, "application/json", text(&rows))
}
