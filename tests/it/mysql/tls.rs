//! Encrypted connections to the database: which authorities are trusted, and what a failure says.

use std::path::Path;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use waybill::sink::{Mysql, SinkError, SinkErrorClass};

use super::{definitions, entry, shipment};
use crate::support::mariadb::MariaDb;
use crate::support::program::Folder;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server whose certificate an authority of its own signed, for these names.
struct Secure {
    server: MariaDb,
    folder: TempDir,
}

impl Secure {
    /// With the user `app`, whose password is `geheim`, and the database `waybill`.
    async fn start(names: &[&str], more: &[&str]) -> Secure {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name).display().to_string()
        };
        let mut options = vec![
            format!("--ssl-ca={}", write("ca.pem", authority.pem())),
            format!("--ssl-cert={}", write("server.pem", certificate.pem())),
            format!("--ssl-key={}", write("server.key", key.serialize_pem())),
        ];
        options.extend(more.iter().map(|option| (*option).to_owned()));
        let server = tokio::task::block_in_place(|| MariaDb::start_with(options));
        let secure = Secure { server, folder };
        // By the socket, which is secure whatever the server requires.
        let socket = secure.server.socket();
        let mut root = Conn::new(OptsBuilder::default().user(Some("root")).socket(Some(socket.display().to_string())))
            .await
            .unwrap();
        for statement in
            ["CREATE DATABASE waybill", "CREATE USER app IDENTIFIED BY 'geheim'", "GRANT ALL ON waybill.* TO app"]
        {
            root.query_drop(statement).await.unwrap();
        }
        root.disconnect().await.unwrap();
        secure
    }

    fn url(&self, host: &str, more: &str) -> String {
        format!("mysql://app:geheim@{host}:{}/waybill{more}", self.server.port())
    }

    fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("ca.pem")
    }
}

async fn ping(url: String, ca: Option<&Path>) -> Result<(), SinkError> {
    let mysql = Mysql::at(&url.into(), ca, definitions("")).unwrap();
    mysql.ping().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_trusted_when_its_file_is_named_and_no_other_is() {
    let secure = Secure::start(&["localhost"], &["--require-secure-transport=ON"]).await;
    let ca = secure.ca();
    let mysql = Mysql::at(&secure.url("localhost", "").into(), Some(&ca), definitions("")).unwrap();
    mysql.prepare().await.unwrap();
    mysql.write(&[entry("s", "1", 1, &shipment("o", &["1"]))]).await.unwrap();
    assert!(mysql.get("shipments", "s", "1").await.unwrap().is_some());

    let unknown = ping(secure.url("localhost", "?require_ssl=true"), None).await.unwrap_err();
    assert_eq!(unknown.class, SinkErrorClass::Operator, "{unknown}");
    assert!(unknown.text.contains("UnknownIssuer") && unknown.text.contains("mysql.ca_file"), "{unknown}");
    let other = secure.folder.path().join("other.pem");
    std::fs::write(&other, authority().pem()).unwrap();
    let unknown = ping(secure.url("localhost", ""), Some(&other)).await.unwrap_err();
    assert!(unknown.text.contains("mysql.ca_file"), "{unknown}");
    let misnamed = ping(secure.url("127.0.0.1", ""), Some(&ca)).await.unwrap_err();
    assert_eq!(misnamed.class, SinkErrorClass::Operator, "{misnamed}");
    assert!(misnamed.text.contains("as the host in mysql.url"), "{misnamed}");
    ping(secure.url("localhost", "?require_ssl=true&verify_ca=false"), None).await.unwrap();

    // Without TLS the server says no more than that the login is refused.
    let plain = ping(secure.url("localhost", ""), None).await.unwrap_err();
    assert_eq!(plain.class, SinkErrorClass::Operator, "{plain}");
    assert!(plain.text.contains("require_ssl=true") && plain.text.contains("not encrypted"), "{plain}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ssl_cert_file_applies_to_mysql_as_to_the_api() {
    let secure = Secure::start(&["localhost"], &[]).await;
    let mut folder = Folder::bare();
    let config = |more: &str, ca: &str| {
        format!("resources = [\"shipments\"]\n[mysql]\nurl = \"{}\"\n{ca}", secure.url("localhost", more))
    };
    folder.write("waybill.toml", &config("?require_ssl=true", ""));
    let unknown = folder.run(&["check"]).expect(1);
    assert!(unknown.out.contains("FAIL  mysql: ") && unknown.out.contains("mysql.ca_file"), "{}", unknown.out);
    folder.set("SSL_CERT_FILE", secure.ca().to_str().unwrap());
    folder.set("SSL_CERT_DIR", "");
    folder.run(&["check"]).expect(0);
    folder.set("SSL_CERT_FILE", "");
    // From the folder of the configuration.
    std::fs::copy(secure.ca(), folder.path("mysql-ca.pem")).unwrap();
    folder.write("waybill.toml", &config("", "ca_file = \"mysql-ca.pem\"\n"));
    let known = folder.run(&["check"]).expect(0);
    assert!(known.out.contains("ok    mysql: "), "{}", known.out);
    for (file, says) in [("missing.pem", "missing.pem"), ("waybill.toml", "no certificate")] {
        folder.write("waybill.toml", &config("", &format!("ca_file = \"{file}\"\n")));
        let wrong = folder.run(&["check", "--offline"]).expect(2);
        assert!(wrong.err.contains("mysql.ca_file") && wrong.err.contains(says), "{}", wrong.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_by_its_ipv6_address() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("skipped: this machine has no loopback address of version 6");
    }
    let secure = Secure::start(&["::1"], &["--bind-address=::1"]).await;
    ping(secure.url("[::1]", ""), None).await.unwrap();
    ping(secure.url("[::1]", ""), Some(&secure.ca())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_gets_no_tls_hint_if_the_server_offers_none() {
    let server = tokio::task::block_in_place(MariaDb::start);
    let url = format!("mysql://unknown:geheim@127.0.0.1:{}/waybill", server.port());
    let denied = ping(url.clone(), None).await.unwrap_err();
    assert_eq!(denied.class, SinkErrorClass::Operator, "{denied}");
    assert!(denied.text.contains("Access denied") && !denied.text.contains("TLS"), "{denied}");
    let none = ping(format!("{url}?require_ssl=true"), None).await.unwrap_err();
    assert_eq!(none.class, SinkErrorClass::Operator, "{none}");
    assert!(none.text.to_lowercase().contains("ssl"), "{none}");
}
