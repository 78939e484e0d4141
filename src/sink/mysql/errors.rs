//! The one table from MySQL's and MariaDB's error codes to [`SinkErrorClass`].
//!
//! Server messages may quote row values, which must not leave the sink: only classes whose messages are about names,
//! rights and space keep the text; the others have everything in quotes removed.

use mysql_async::{DriverError, Error, IoError};

use crate::sink::{SinkError, SinkErrorClass};

use super::{remedy, tls};

/// Maximum length of an error text; a server may send 512 bytes and more.
const TEXT_CHARS_MAX: usize = 360;

/// A refused login, for its password or for what the server requires of the connection.
pub(super) const DENIED: u16 = 1045;

/// Duplicate value in a unique index.
const DUPLICATE: u16 = 1062;

/// A duplicate in the primary key, which is ours, means that another writer was first. Any other unique index was
/// added, and refuses the document for its content.
fn class_of_duplicate(message: &str) -> SinkErrorClass {
    if message.ends_with("PRIMARY'") { SinkErrorClass::Unknown } else { SinkErrorClass::Poison }
}

/// The class of a server's error code.
pub(super) fn class_of(code: u16) -> SinkErrorClass {
    match code {
        // Deadlock, lock wait, record changed, global read lock, too many concurrent transactions, interrupted
        // statement, and a table that was changed meanwhile.
        1205 | 1213 | 1020 | 1223 | 1317 | 1412 | 1615 | 1637 | 1969 | 3024 => SinkErrorClass::Repeat,
        // The connection broke: gone, killed, out of sync, or its prepared statements are lost.
        1156 | 1158..=1161 | 1243 | 1927 | 2006 | 2013 => SinkErrorClass::Disconnected,
        // The server itself takes no work now: out of connections or statements, shutting down, offline, not (yet)
        // part of its cluster, read-only as after a failover. 4031: closed for idling.
        1040 | 1047 | 1053 | 1135 | 1203 | 1226 | 1290 | 1461 | 1792 | 1836 | 2002 | 2003 | 3032 | 4031 => {
            SinkErrorClass::Unavailable
        }
        // 1030 is the storage engine's refusal, in practice a full disk.
        1114 | 1021 | 1030 | 1037 | 1038 | 1041 | 3 | 28 => SinkErrorClass::NoRoom,
        // Rights, host and login rules, names; 1005: a table cannot be created, as for lack of space; 1118 and 1071: a
        // definition too wide for a table; 1665: statement-based binary log.
        1005 | 1044 | 1045 | 1049 | 1054 | 1071 | 1118 | 1129 | 1130 | 1142 | 1143 | 1146 | 1227 | 1370 | 1665
        | 1698 | 1820 | 1862 | 3118 | 3159 => SinkErrorClass::Operator,
        // An unusable table: damaged files, a view in its place, an added column that requires a value, a trigger
        // whose definer is gone.
        1016 | 1017 | 1034 | 1036 | 1194 | 1195 | 1288 | 1364 | 1449 | 1814 | 1932 => SinkErrorClass::Operator,
        // Refused data: too large, not text, too long, out of range, not a date, not JSON, a violated check
        // constraint.
        1153 | 1264 | 1265 | 1292 | 1300 | 1366 | 1406 | 1411 | 3140 | 3141 | 3157 | 3819 | 4025 | 4038 | 4040 => {
            SinkErrorClass::Poison
        }
        _ => SinkErrorClass::Unknown,
    }
}

/// Converts a driver error. Never shows passwords or row values.
pub(super) fn sink_error(error: &Error) -> SinkError {
    match error {
        Error::Server(server) => {
            let class = match server.code {
                DUPLICATE => class_of_duplicate(&server.message),
                code => class_of(code),
            };
            let message = match class {
                SinkErrorClass::Disconnected
                | SinkErrorClass::Unavailable
                | SinkErrorClass::NoRoom
                | SinkErrorClass::Operator => server.message.clone(),
                // These may quote a value of a document.
                SinkErrorClass::Repeat
                | SinkErrorClass::Unconfirmed
                | SinkErrorClass::Poison
                | SinkErrorClass::Fenced
                | SinkErrorClass::Unknown => without_values(&server.message),
            };
            let text = tidy(&format!("MySQL error {}: {message}", server.code));
            with_remedy(class, text, remedy::of_code(server.code, &server.message).as_deref())
        }
        Error::Io(IoError::Io(io)) if tls::trouble(io).is_some() => {
            let text = tls::trouble(io).unwrap_or_default();
            SinkError::new(SinkErrorClass::Operator, tidy(&format!("MySQL connection: {text}")))
        }
        Error::Io(io) => {
            let IoError::Io(cause) = io else {
                return SinkError::new(SinkErrorClass::Disconnected, tidy(&format!("MySQL connection: {io}")));
            };
            let text = tidy(&format!("MySQL connection: {io}"));
            with_remedy(SinkErrorClass::Disconnected, text, remedy::of_io(cause.kind()))
        }
        Error::Driver(driver) => SinkError::new(class_of_driver(driver), tidy(&format!("MySQL connection: {driver}"))),
        Error::Url(url) => SinkError::new(SinkErrorClass::Operator, tidy(&format!("mysql.url: {url}"))),
        Error::Other(other) => {
            SinkError::new(SinkErrorClass::Disconnected, tidy(&format!("MySQL connection: {other}")))
        }
    }
}

fn with_remedy(class: SinkErrorClass, mut text: String, remedy: Option<&str>) -> SinkError {
    if let Some(remedy) = remedy {
        text.push_str("; ");
        text.extend(remedy.chars().filter(|c| !c.is_control()));
    }
    SinkError::new(class, text)
}

fn class_of_driver(error: &DriverError) -> SinkErrorClass {
    match error {
        DriverError::PacketTooLarge => SinkErrorClass::Poison,
        DriverError::UnknownAuthPlugin { .. }
        | DriverError::MysqlOldPasswordDisabled
        | DriverError::CleartextPluginDisabled
        | DriverError::NoKeyFound
        | DriverError::NoClientSslFlagFromServer => SinkErrorClass::Operator,
        DriverError::FromValue { .. }
        | DriverError::FromRow { .. }
        | DriverError::Params(_)
        | DriverError::MixedParams
        | DriverError::StmtParamsMismatch { .. }
        | DriverError::StmtParamsNumberExceedsLimit { .. } => SinkErrorClass::Unknown,
        _ => SinkErrorClass::Disconnected,
    }
}

/// Removes what is in single quotes. The name after the last "for column" or "for key" stays, as operators need it; a
/// value cannot follow it.
fn without_values(message: &str) -> String {
    let (head, tail) = match message.rfind(" for column ").or_else(|| message.rfind(" for key ")) {
        Some(at) => message.split_at(at),
        None => (message, ""),
    };
    match (head.find('\''), head.rfind('\'')) {
        (Some(first), Some(last)) => {
            let before = head.get(..first).unwrap_or_default();
            let after = if last > first { head.get(last + 1..).unwrap_or_default() } else { "" };
            format!("{before}'...'{after}{tail}")
        }
        _ => message.to_owned(),
    }
}

/// Collapses a text to one bounded line.
fn tidy(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::{class_of, sink_error, without_values};
    use crate::sink::SinkErrorClass::{Disconnected, NoRoom, Operator, Poison, Repeat, Unavailable, Unknown};
    use mysql_async::{DriverError, Error, ServerError};

    #[test]
    fn every_promised_code_has_its_class() {
        let table = [
            (Repeat, &[1205, 1213, 1020][..]),
            (Disconnected, &[2006, 2013, 1927, 1158, 1161]),
            (Unavailable, &[2002, 2003, 1040, 1203, 1053, 1290, 1792, 1836, 1047, 3032]),
            (NoRoom, &[1114, 1021, 1041, 3, 28]),
            (Operator, &[1005, 1044, 1045, 1049, 1054, 1142, 1146, 1036, 1364]),
            (Poison, &[1153, 1366, 1406, 1264, 1292, 3140, 4025]),
            (Unknown, &[1062, 1064, 9999]),
        ];
        for (class, codes) in table {
            for code in codes {
                assert_eq!(class_of(*code), class, "{code}");
            }
        }
    }

    #[test]
    fn a_duplicate_is_the_documents_fault_unless_the_primary_key_found_it() {
        let class = |message: &str| {
            sink_error(&Error::Server(ServerError { code: 1062, message: message.into(), state: "23000".into() })).class
        };
        assert_eq!(class("Duplicate entry 's-1' for key 'PRIMARY'"), Unknown);
        assert_eq!(class("Duplicate entry 's-1' for key 'things.PRIMARY'"), Unknown, "as MySQL 8 says it");
        assert_eq!(class("Duplicate entry 'same' for key 'by_somebody'"), Poison);
    }

    #[test]
    fn values_of_rows_never_show_in_a_text() {
        let error = |code, message: &str| {
            sink_error(&Error::Server(ServerError { code, message: message.into(), state: "22007".into() })).text
        };
        let text = error(1292, "Incorrect datetime value: 'Jansen's \u{1f600}' for column `db`.`t`.`at` at row 1");
        assert!(!text.contains("Jansen") && text.contains("`at` at row 1"), "{text}");
        let text = error(1062, "Duplicate entry 'Jansen-1' for key 'PRIMARY'");
        assert!(!text.contains("Jansen") && text.ends_with("for key 'PRIMARY'"), "{text}");
        assert_eq!(without_values("value 'cut off by the serv"), "value '...'");
        assert_eq!(without_values("plain"), "plain");
        assert_eq!(without_values("before 'one' and 'two' after"), "before '...' after");
        let named = error(1049, "Unknown database 'shops'");
        assert!(named.contains("'shops'"), "names are what the operator looks for: {named}");
        assert!(!error(1366, "a\nb 'x'").contains('\n'));
    }

    #[test]
    fn a_packet_too_large_is_the_documents_fault_and_a_closed_socket_is_not() {
        assert_eq!(sink_error(&Error::Driver(DriverError::PacketTooLarge)).class, Poison);
        assert_eq!(sink_error(&Error::Driver(DriverError::ConnectionClosed)).class, Disconnected);
        let plugin = DriverError::UnknownAuthPlugin { name: "sha3".into() };
        assert_eq!(sink_error(&Error::Driver(plugin)).class, Operator);
        assert_eq!(sink_error(&Error::Driver(DriverError::MixedParams)).class, Unknown);
        assert_eq!(sink_error(&std::io::Error::other("x").into()).class, Disconnected);
    }
}
