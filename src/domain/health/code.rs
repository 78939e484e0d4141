//! The kinds of reasons, and the means that remedies may name.

use serde::Serialize;

use super::level::Level;

/// The kind of a reason. Worse ones are greater; the names are part of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// There are more reasons than are listed.
    More,
    /// The first walk of a stream has not ended yet.
    FirstWalk,
    /// Documents of the embedded archive are moving to MySQL.
    ArchiveMoving,
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
    /// The sink is not the one that was written to, or lost documents; they are compared or read again.
    SinkChanged,
    /// Documents are missing in the sink and cannot be read again.
    DocumentsMissing,
    /// It is unknown which shops MySQL has.
    RestorePending,
    /// Shops of MySQL could not be restored: their rows are damaged.
    ShopsUnrestored,
    /// Logins pause: the login host throttles or blocks them.
    LoginsPaused,
    /// Calls of a stream fail.
    CallsFail,
    /// The sink refuses all documents of a stream.
    WritesFail,
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
            | Code::ArchiveMoving
            | Code::SinkUnknown
            | Code::Paused
            | Code::Parked
            | Code::Backlog
            | Code::Behind
            | Code::Stale
            | Code::ClockAhead
            | Code::ClockWrong
            | Code::Unproved
            | Code::SinkChanged
            | Code::DocumentsMissing => Level::Attention,
            Code::RestorePending
            | Code::ShopsUnrestored
            | Code::LoginsPaused
            | Code::CallsFail
            | Code::WritesFail
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
            Code::ArchiveMoving => "archive_moving",
            Code::SinkUnknown => "sink_unknown",
            Code::Paused => "paused",
            Code::Parked => "parked",
            Code::Backlog => "backlog",
            Code::Behind => "behind",
            Code::Stale => "stale",
            Code::ClockAhead => "clock_ahead",
            Code::ClockWrong => "clock_wrong",
            Code::Unproved => "unproved",
            Code::SinkChanged => "sink_changed",
            Code::DocumentsMissing => "documents_missing",
            Code::RestorePending => "restore_pending",
            Code::ShopsUnrestored => "shops_unrestored",
            Code::LoginsPaused => "logins_paused",
            Code::CallsFail => "calls_fail",
            Code::WritesFail => "writes_fail",
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
    pub(super) fn choose(self, api: impl Into<String>, commands: impl Into<String>) -> String {
        match self {
            Means::Api => api.into(),
            Means::Commands => commands.into(),
        }
    }
}
