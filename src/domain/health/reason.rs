//! Why something is not well, and what to do about it.

use serde::Serialize;
use utoipa::ToSchema;

use super::code::{Code, Means};
use super::facts::{Fault, ResourceFacts, StreamVerdict};
use crate::domain::cause::ErrorClass;
use crate::domain::plural::counted;
use crate::domain::shop::Shop;
use crate::domain::shop_id::ShopId;
use crate::domain::stream_status::Trouble;
use crate::domain::timestamp::Timestamp;

/// One reason why the installation is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = HealthReason)]
pub struct Reason {
    /// Stable, for example `refused` or `calls_fail`. New codes may be added.
    #[schema(value_type = String)]
    pub code: Code,
    /// Null: the reason concerns the whole installation.
    #[schema(required, value_type = Option<String>)]
    pub shop_id: Option<ShopId>,
    /// Null: the reason concerns the whole shop or installation.
    #[schema(required)]
    pub resource: Option<String>,
    #[serde(serialize_with = "crate::domain::clock::serialize_opt")]
    #[schema(required, value_type = Option<Timestamp>)]
    pub since: Option<Timestamp>,
    /// What is wrong. Holds no secret and nothing of a document.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl Reason {
    pub(super) fn of_fault(fault: &Fault, means: Means) -> Reason {
        let remedy = fault_remedy(fault.code, means);
        let text = fault.text.clone();
        Reason { code: fault.code, shop_id: None, resource: None, since: fault.since, text, remedy }
    }

    pub(super) fn of_stream(shop: &Shop, resource: &str, verdict: &StreamVerdict, means: Means) -> Reason {
        Reason {
            code: verdict.code,
            shop_id: Some(shop.id.clone()),
            resource: Some(resource.to_owned()),
            since: verdict.since,
            text: verdict.text.clone(),
            remedy: stream_remedy(&shop.id, resource, verdict, means),
        }
    }

    pub(super) fn parked(shop: &ShopId, of: &ResourceFacts, means: Means) -> Reason {
        let waits_for_call = |(_, trouble): (_, &Trouble)| trouble.cause.class == ErrorClass::AllNotFound;
        let see = match of.streams.iter().flat_map(|stream| stream.status.troubles()).any(waits_for_call) {
            true => {
                format!(
                    "see why in GET /api/v1/parked?shop={shop}; they are read by themselves once a call is answered"
                )
            }
            false => format!(
                "see why in GET /api/v1/parked?shop={shop}; when the cause is fixed, retry them with POST \
                 /api/v1/shops/{shop}/parked/retry; those of a definition that is corrected are tried again at the next \
                 start"
            ),
        };
        Reason {
            code: Code::Parked,
            shop_id: Some(shop.clone()),
            resource: Some(of.name.clone()),
            since: None,
            text: format!(
                "{} could not be read or written; set aside, and not tried now",
                counted(of.parked, "page or document", "pages or documents")
            ),
            remedy: means.choose(see.as_str(), format!("start `waybill serve`, {see}")),
        }
    }

    pub(super) fn more(count: usize, means: Means) -> Reason {
        Reason {
            code: Code::More,
            shop_id: None,
            resource: None,
            since: None,
            text: format!("{count} more reasons are not listed"),
            remedy: means.choose(
                "GET /api/v1/shops shows the state of each shop and resource",
                "`waybill status` shows the state of each shop and resource",
            ),
        }
    }
}

/// How to resume work when no server runs.
const START: &str = "let `waybill serve` or `waybill sync` run";

fn fault_remedy(code: Code, means: Means) -> String {
    match code {
        Code::LoginsPaused => {
            let ask = "if it lasts, ask the marketplace whether it blocks this address";
            means.choose(
                format!("wait: logins go on by themselves at the time given; {ask}"),
                format!(
                    "wait until the time given; then logins go on while `waybill serve` or `waybill sync` runs; {ask}"
                ),
            )
        }
        Code::RestorePending => {
            "let MySQL answer, with tables that fit: `waybill check` shows which step fails".to_owned()
        }
        Code::SinkChanged => means.choose(
            "nothing to do: it ends by itself",
            format!("configure the other sink again, or {START}: they are read again while one of them runs"),
        ),
        Code::ShopsUnrestored => means.choose(
            "adopt each with its client secret, which keeps its id: POST /api/v1/adoptions with shop_id and client_secret; or \
             delete its rows: DELETE /api/v1/shops/{id}?purge=true. GET /api/v1/adoptions lists them",
            "adopt each with its client secret, which keeps its id: `waybill shops adopt ID`; or delete its rows: `waybill \
             shops remove ID --purge`. `waybill check` lists them",
        ),
        Code::ArchiveMoving => {
            means.choose("nothing to do: it ends by itself", format!("{START}: they move while one of them runs"))
        }
        Code::SinkUnknown => {
            "nothing: it is being asked; `waybill check` shows which step fails if it lasts".to_owned()
        }
        Code::SinkUnavailable => {
            "make MySQL take documents again: `waybill check` shows which step fails; nothing is lost meanwhile"
                .to_owned()
        }
        Code::OutboxFull => means.choose(
            "make MySQL take documents again, or raise limits.outbox_max_bytes",
            format!("make MySQL take documents again, or raise limits.outbox_max_bytes; then {START}"),
        ),
        Code::NoRoom => "free space on the disk that holds data_dir".to_owned(),
        Code::ClockWrong => {
            "set the clock of this machine right (NTP): schedules and all recorded times follow it".to_owned()
        }
        Code::PartFailed => "restart the process; if it happens again, report what the log says".to_owned(),
        _ => means.choose("see GET /api/v1/status", "see `waybill status`"),
    }
}

fn stream_remedy(shop: &str, resource: &str, verdict: &StreamVerdict, means: Means) -> String {
    match verdict.code {
        Code::Refused => means.choose(
            format!(
                "if the account was off and is on again: PATCH /api/v1/shops/{shop} with {{\"paused\": false}}, or, with the \
                 service stopped, `waybill shops resume {shop}`, tries its secret again; if the secret changed, give the new \
                 one: PATCH with client_secret, or `waybill shops rotate {shop}`"
            ),
            format!(
                "if the account was off and is on again: `waybill shops resume {shop}` tries its secret again; if the secret \
                 changed, give the new one: `waybill shops rotate {shop}`"
            ),
        ),
        Code::Paused => means.choose(
            format!("PATCH /api/v1/shops/{shop} with {{\"paused\": false}} resumes it"),
            format!("`waybill shops resume {shop}` resumes it"),
        ),
        Code::FirstWalk => means.choose(
            "nothing: it goes on by itself; GET /api/v1/runs shows how far it is",
            format!("{START}: it goes on while one of them runs"),
        ),
        Code::Backlog => {
            let ask = "if they do not become fewer, ask for higher rate limits";
            means.choose(
                format!("nothing: they are read by themselves; GET /api/v1/status shows which budget they wait for; {ask}"),
                format!("{START}: they are read while one of them runs; {ask}"),
            )
        }
        Code::Behind | Code::Stale => means.choose(
            format!(
                "see the open run in GET /api/v1/runs?shop={shop}&resource={resource} and the budgets in GET /api/v1/status"
            ),
            format!("{START}; `waybill state` shows open runs and budgets"),
        ),
        Code::SinkChanged => means.choose(
            format!("nothing to do: it ends by itself; GET /api/v1/shops/{shop}/completeness shows what is missing meanwhile"),
            format!("{START}: it goes on while one of them runs; `waybill verify` shows what is missing meanwhile"),
        ),
        Code::DocumentsMissing => means.choose(
            format!(
                "GET /api/v1/shops/{shop}/completeness names them; restore them from a backup of the sink that had them, \
                 then POST to the same address; without one they are lost: `waybill verify --accept-missing`, with the \
                 service stopped, accepts that"
            ),
            "`waybill verify` names them; restore them from a backup of the sink that had them, then run `waybill verify \
             --mend`; without one they are lost: `waybill verify --accept-missing` accepts that"
                .to_owned(),
        ),
        Code::WritesFail => {
            let again = format!("POST /api/v1/shops/{shop}/parked/retry");
            means.choose(
                format!("change what refuses them in the database, or let them through, then retry them with {again}"),
                format!("change what refuses them in the database: `waybill check` tests it; then start `waybill serve` and {again}"),
            )
        }
        Code::ClockAhead => "set the clock right (NTP); the next run that ends well corrects the record".to_owned(),
        Code::Unproved => unproved_remedy(resource, verdict.class.unwrap_or_default(), means),
        _ => class_remedy(resource, verdict.class.unwrap_or_default(), means),
    }
}

/// The remedy for a walk that is not proved to have seen the whole list.
fn unproved_remedy(resource: &str, class: ErrorClass, means: Means) -> String {
    match class {
        ErrorClass::Vanished => format!(
            "see with the marketplace whether {resource} of this account is really empty, and whether the account may still \
             read it; Waybill walks the list again at its schedule, and believes what it sees when a walk an hour later sees \
             the same"
        ),
        ErrorClass::Unproved => {
            let check = means.choose("`waybill check`, with the service stopped,", "`waybill check`");
            format!(
                "rows may be missing: {check} tests the pages of {resource}; let its definition say how the end of the list \
                 is known (size, total, more or end; docs/resources.md)"
            )
        }
        // A page could not be read.
        _ => class_remedy(resource, class, means),
    }
}

/// The remedy for errors of a class.
pub fn class_remedy(resource: &str, class: ErrorClass, means: Means) -> String {
    let again =
        means.choose("it is tried again by itself", "it is tried again while `waybill serve` or `waybill sync` runs");
    // Beside a running server it cannot make calls for a shop.
    let check = means.choose("`waybill check`, with the service stopped,", "`waybill check`");
    match class {
        ErrorClass::Throttled => {
            "wait: calls go on when the API allows them; lower source.limits if it lasts, and see who else uses the \
             account"
                .to_owned()
        }
        ErrorClass::Login => {
            format!("see whether source.token_url can be reached: {check} shows which step fails; {again}")
        }
        ErrorClass::Unauthorized => {
            "see whether source.base_url and source.token_url belong together; if so, ask the marketplace why it \
             refuses new tokens"
                .to_owned()
        }
        ErrorClass::Forbidden => {
            format!("have the account allowed to read {resource}, or leave {resource} out of the resources of the shop")
        }
        ErrorClass::AllNotFound => {
            format!(
                "correct resource.{resource}.detail.path, or have the account allowed to read {resource}: {check} reads one \
                 document of {resource}; what is parked is then read by itself"
            )
        }
        ErrorClass::NotFound | ErrorClass::Rejected => {
            format!("compare the definition of {resource} and source.base_url with the API's documentation")
        }
        ErrorClass::Unreachable => {
            format!("see DNS, network, certificates and source.base_url: {check} shows which step fails")
        }
        ErrorClass::Redirected => {
            "set source.base_url to the address that the API redirects to, and run `waybill source move` with the service \
             stopped"
                .to_owned()
        }
        ErrorClass::Malformed | ErrorClass::Shape | ErrorClass::TooLarge | ErrorClass::Other => {
            let preview = means.choose(
                format!("`waybill preview {resource}`, with the service stopped"),
                format!("`waybill preview {resource}`"),
            );
            format!("compare what the API sends with the definition: {preview}")
        }
        ErrorClass::Unavailable
        | ErrorClass::TimedOut
        | ErrorClass::Interrupted
        | ErrorClass::Stopping
        | ErrorClass::Refused
        | ErrorClass::Vanished
        | ErrorClass::Unproved => format!("nothing here: {again}; ask the marketplace if it lasts"),
    }
}
