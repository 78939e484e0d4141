//! Remedies for the server's errors: where possible, the statement for an administrator to run. Pure.

/// Rights that Waybill needs: four for rows, the others for creating and extending tables.
const RIGHTS: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER";

/// Placeholder of the database of `mysql.url` until that is put in its place.
pub(super) const DATABASE: &str = "<database of mysql.url>";
/// The same for the user.
pub(super) const USER: &str = "<user of mysql.url>";

/// Names quoted in a server message: `'user'@'host'`, `'database'`, or `` `database`.`table` ``.
struct QuotedNames {
    account: String,
    database: String,
}

impl QuotedNames {
    fn of(message: &str) -> QuotedNames {
        let account = message.find("'@'").and_then(|at| {
            let begin = message.get(..at)?.rfind('\'')?;
            let host = message.get(at + 3..)?;
            message.get(begin..at + 3 + host.find('\'')? + 1)
        });
        let behind = |word: &str| message.split_once(word).map(|(_, behind)| behind);
        let database = behind("database '")
            .and_then(|name| name.split_once('\''))
            .or_else(|| behind("table `").and_then(|name| name.split_once("`.`")))
            .map(|(name, _)| format!("`{name}`"));
        QuotedNames {
            account: account.map_or_else(|| format!("'{USER}'"), str::to_owned),
            // MySQL names the table alone.
            database: database.unwrap_or_else(|| format!("`{DATABASE}`")),
        }
    }
}

/// The GRANT statement for these rights.
pub fn grant(rights: &str, database: &str, account: &str) -> String {
    format!("GRANT {rights} ON {database}.* TO {account}")
}

/// The remedy for an error code; None if the message says enough.
pub(super) fn of_code(code: u16, message: &str) -> Option<String> {
    let QuotedNames { account, database } = QuotedNames::of(message);
    let all = grant(RIGHTS, &database, &account);
    Some(match code {
        1049 => format!("run CREATE DATABASE {database}, or correct the name in mysql.url"),
        1044 => format!("create the database if it is missing, and run {all}"),
        1142 | 1143 => {
            let right = message.split_once(" command denied").map(|(right, _)| right.trim());
            let is_right =
                |right: &&str| !right.is_empty() && right.chars().all(|c| c.is_ascii_uppercase() || c == ' ');
            let rights = right.filter(is_right).filter(|right| !RIGHTS.contains(*right));
            let rights = rights.map_or_else(|| RIGHTS.to_owned(), |right| format!("{RIGHTS}, {right}"));
            format!("run {}", grant(&rights, &database, &account))
        }
        1045 | 1698 => format!(
            "correct the user or password in mysql.url, or set it with ALTER USER {account} IDENTIFIED BY '<password>'; a \
             user who does not exist yet: CREATE USER {account} IDENTIFIED BY '<password>', then {}",
            grant(RIGHTS, &database, &account)
        ),
        1130 => format!(
            "no user may log in from this machine; run CREATE USER '{USER}'@'<this machine>' IDENTIFIED BY '<password>', then {}",
            grant(RIGHTS, &database, &format!("'{USER}'@'<this machine>'"))
        ),
        1129 => "run FLUSH HOSTS on the server (MySQL 8: TRUNCATE TABLE performance_schema.host_cache)".to_owned(),
        1040 | 1203 => "raise max_connections on the server; Waybill uses up to 8".to_owned(),
        1290 if !message.contains("read-only") && !message.contains("read_only") => return None,
        1290 | 1792 | 1836 => {
            "the server is read-only: point mysql.url at the primary, or run SET GLOBAL read_only = OFF".to_owned()
        }
        3159 => "add ?require_ssl=true to mysql.url, and name a private authority with mysql.ca_file".to_owned(),
        3118 => format!("run ALTER USER {account} ACCOUNT UNLOCK"),
        1820 | 1862 => format!("run ALTER USER {account} IDENTIFIED BY '<password>': the password has expired"),
        _ => return None,
    })
}

/// The remedy for a failed connection.
pub(super) fn of_io(kind: std::io::ErrorKind) -> Option<&'static str> {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match kind {
        ConnectionRefused => Some(
            "no server listens at the address in mysql.url: start it (systemctl start mariadb, or mysql), or correct host \
             and port",
        ),
        HostUnreachable | NetworkUnreachable | TimedOut => {
            Some("the host in mysql.url cannot be reached: see its address, the network and the firewall")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::of_code;

    #[test]
    fn each_error_of_access_names_the_statement_that_repairs_it() {
        let granted = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER ON";
        for (code, message, remedy) in [
            (1049, "Unknown database 'way-bill'", "run CREATE DATABASE `way-bill`".to_owned()),
            (1044, "Access denied for user 'w'@'%' to database 'shops'", format!("{granted} `shops`.* TO 'w'@'%'")),
            (
                1142,
                "INSERT command denied to user 'w'@'10.0.0.%' for table `db`.`t`",
                format!("{granted} `db`.* TO 'w'@'10.0.0.%'"),
            ),
            (
                1142,
                "DROP command denied to user 'w'@'h' for table `db`.`t`",
                "CREATE, ALTER, DROP ON `db`.* TO 'w'@'h'".to_owned(),
            ),
            (
                1142,
                "UPDATE command denied to user 'w'@'h' for table 't'",
                format!("{granted} `<database of mysql.url>`.* TO 'w'@'h'"),
            ),
            (
                1045,
                "Access denied for user 'w'@'localhost' (using password: YES)",
                "ALTER USER 'w'@'localhost'".to_owned(),
            ),
            (1045, "Access denied", "'<user of mysql.url>'".to_owned()),
            (3159, "Connections using insecure transport are prohibited", "?require_ssl=true".to_owned()),
        ] {
            let said = of_code(code, message).unwrap();
            assert!(said.contains(&remedy), "{code}: {said}");
        }
        assert_eq!(of_code(1406, "Data too long for column 'x'"), None);
    }
}
