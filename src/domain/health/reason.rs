//! Why something is not well, and what to do about it.

use serde::Serialize;

use super::{Fault, Level, ResourceFacts, Verdict};
use crate::domain::cause::ErrorClass;
use crate::domain::clock::Millis;
use crate::domain::shop::Shop;

/// The kind of a reason. Worse ones are greater; the names are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// There are more reasons than are listed.
    More,
    /// The first walk of a stream has not ended yet.
    FirstWalk,
    /// MySQL has not answered yet since the start.
    SinkUnknown,
    /// A shop is paused.
    Paused,
    /// Documents or pages were given up.
    Parked,
    /// Listed documents have been waiting for three schedules.
    Backlog,
    /// Three schedules were missed.
    Behind,
    /// `alerts.stale_after` has passed.
    Stale,
    /// The clock was ahead when something was recorded.
    ClockAhead,
    /// The clock of this machine is wrong now, by the dates on the answers of the API and the login host.
    ClockWrong,
    /// A walk ended without a proof.
    Unproved,
    /// It is unknown which shops MySQL has.
    RestorePending,
    /// Logins pause: the login host throttles or blocks them.
    LoginsPaused,
    /// Calls of a stream fail.
    CallsFail,
    /// Runs of a stream fail.
    RunFailed,
    /// The login host refuses a shop's credentials.
    Refused,
    /// MySQL takes no documents.
    SinkUnavailable,
    /// Fetching pauses until documents have left the outbox.
    OutboxFull,
    /// Nothing can be written.
    NoRoom,
    /// A part of the process failed.
    PartFailed,
}

impl Code {
    pub fn level(self) -> Level {
        match self {
            Code::More
            | Code::FirstWalk
            | Code::SinkUnknown
            | Code::Paused
            | Code::Parked
            | Code::Backlog
            | Code::Behind
            | Code::Stale
            | Code::ClockAhead
            | Code::ClockWrong
            | Code::Unproved => Level::Attention,
            Code::RestorePending
            | Code::LoginsPaused
            | Code::CallsFail
            | Code::RunFailed
            | Code::Refused
            | Code::SinkUnavailable
            | Code::OutboxFull
            | Code::NoRoom
            | Code::PartFailed => Level::Failing,
        }
    }

    /// Its name in JSON and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Code::More => "more",
            Code::FirstWalk => "first_walk",
            Code::SinkUnknown => "sink_unknown",
            Code::Paused => "paused",
            Code::Parked => "parked",
            Code::Backlog => "backlog",
            Code::Behind => "behind",
            Code::Stale => "stale",
            Code::ClockAhead => "clock_ahead",
            Code::ClockWrong => "clock_wrong",
            Code::Unproved => "unproved",
            Code::RestorePending => "restore_pending",
            Code::LoginsPaused => "logins_paused",
            Code::CallsFail => "calls_fail",
            Code::RunFailed => "run_failed",
            Code::Refused => "refused",
            Code::SinkUnavailable => "sink_unavailable",
            Code::OutboxFull => "outbox_full",
            Code::NoRoom => "no_room",
            Code::PartFailed => "part_failed",
        }
    }

    /// Whether it keeps every document from reaching the sink.
    pub(super) fn blocks_all(self) -> bool {
        matches!(self, Code::SinkUnknown | Code::SinkUnavailable | Code::OutboxFull | Code::NoRoom | Code::PartFailed)
    }
}

/// One reason why the installation is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub code: Code,
    /// None: it is about the installation as a whole.
    pub shop_id: Option<String>,
    /// None: it is about a shop as a whole, or the installation.
    pub resource: Option<String>,
    #[serde(serialize_with = "crate::domain::clock::serialize_opt")]
    pub since: Option<Millis>,
    /// What is wrong. Holds no secret and nothing of a document.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// What an operator can act with. A remedy names only what is available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Means {
    /// The API of the running server. Commands that lock the data directory do not work beside it.
    #[default]
    Api,
    /// Commands: no server runs, and nothing is synced unless `waybill serve` or `waybill sync` runs.
    Commands,
}

impl Means {
    fn choose(self, api: impl Into<String>, commands: impl Into<String>) -> String {
        match self {
            Means::Api => api.into(),
            Means::Commands => commands.into(),
        }
    }
}

impl Reason {
    pub(super) fn of_fault(fault: &Fault, means: Means) -> Reason {
        let remedy = fault_remedy(fault.code, means);
        let text = fault.text.clone();
        Reason { code: fault.code, shop_id: None, resource: None, since: fault.since, text, remedy }
    }

    pub(super) fn of_stream(shop: &Shop, resource: &str, verdict: &Verdict, means: Means) -> Reason {
        Reason {
            code: verdict.code,
            shop_id: Some(shop.id.clone()),
            resource: Some(resource.to_owned()),
            since: verdict.since,
            text: verdict.text.clone(),
            remedy: stream_remedy(&shop.id, resource, verdict, means),
        }
    }

    pub(super) fn parked(shop: &str, of: &ResourceFacts, means: Means) -> Reason {
        let see = format!(
            "see why in GET /api/v1/parked?shop={shop}; when the cause is fixed, retry them with POST \
             /api/v1/shops/{shop}/parked/retry"
        );
        Reason {
            code: Code::Parked,
            shop_id: Some(shop.to_owned()),
            resource: Some(of.name.clone()),
            since: None,
            text: format!(
                "{} pages or documents could not be read or written; they are set aside and not tried now",
                of.parked
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
const START: &str = "start `waybill serve` or `waybill sync`";

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

fn stream_remedy(shop: &str, resource: &str, verdict: &Verdict, means: Means) -> String {
    match verdict.code {
        Code::Refused => {
            let give = "correct the secret or have the account switched on, then give the secret, the same one too:";
            means.choose(
                format!(
                    "{give} PATCH /api/v1/shops/{shop} with client_secret, or, with the service stopped, `waybill shops \
                     rotate {shop}`"
                ),
                format!("{give} `waybill shops rotate {shop}`"),
            )
        }
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
        _ => {
            let check = means.choose("`waybill check`, with the service stopped,", "`waybill check`");
            format!(
                "rows may be missing: {check} tests the pages of {resource}; let its definition say how the end of the list \
                 is known (size, total, more or end; docs/resources.md)"
            )
        }
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
        ErrorClass::NotFound | ErrorClass::Rejected => {
            format!("compare the definition of {resource} and source.base_url with the API's documentation")
        }
        ErrorClass::Unreachable => {
            format!("see DNS, network, certificates and source.base_url: {check} shows which step fails")
        }
        ErrorClass::Redirected => "set source.base_url to the address that the API redirects to".to_owned(),
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
