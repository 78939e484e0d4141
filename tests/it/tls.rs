//! A marketplace behind TLS: who cannot prove that it is the one, hears nothing; and a machine that trusts no one yet,
//! as a slim container does, starts all the same.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sandbox::{Options, ShopOptions};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::no_limits;
use crate::support::program::{Ended, Folder, Market};

const CLIENT: &str = "behind-tls";
const SECRET: &str = "secret-of-behind-tls";
const LIFTED: &str =
    "[source.limits]\n\"GET /retailer/shipments\" = \"none\"\n\"GET /retailer/shipments/*\" = \"none\"\n";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server in front of the marketplace, on a port of its own.
struct Front {
    port: u16,
    /// Connections that a client took for the marketplace.
    believed: Arc<AtomicUsize>,
}

impl Front {
    async fn open(behind: &str, authority: &Authority, name: &str, ends_in: i32) -> Front {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(ends_in, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (behind, believed) = (behind.replace("http://", ""), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&believed);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, behind, counted) = (acceptor.clone(), behind.clone(), Arc::clone(&counted));
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
                        // A client that ends does not say goodbye.
                        let ends = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                        assert!(ends.contains(&error.kind()), "{error}");
                    }
                });
            }
        });
        Front { port, believed }
    }

    fn believed(&self) -> usize {
        self.believed.load(Ordering::SeqCst)
    }
}

async fn market() -> Market {
    let shop = ShopOptions { client_id: CLIENT.into(), client_secret: SECRET.into(), fbr: 20, fbb: 5 };
    Market::open(Options { shops: vec![shop], limits: no_limits(), ..Options::default() }).await
}

/// A folder whose commands trust the authorities in one file, and no others.
fn folder(base: &str, trusted: &str) -> Folder {
    let mut folder = Folder::at(base, LIFTED);
    folder.write("authorities.pem", trusted);
    folder.set("SSL_CERT_FILE", folder.path("authorities.pem").to_str().unwrap());
    folder.set("SSL_CERT_DIR", "");
    folder
}

async fn add_shop(folder: Folder) -> (Folder, Ended) {
    let add = move || {
        let ended = folder.feed(&["shops", "add", "--name", "Behind TLS", "--client-id", CLIENT], SECRET);
        (folder, ended)
    };
    tokio::task::spawn_blocking(add).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_marketplace_that_proves_who_it_is_is_asked() {
    let market = market().await;
    let (known, unknown) = (authority(), authority());
    let base = |front: &Front| format!("https://localhost:{}", front.port);
    for (what, authority, name, ends_in) in [
        ("another name", &known, "login.example", 2100),
        ("an unknown authority", &unknown, "localhost", 2100),
        ("a former certificate", &known, "localhost", 2021),
    ] {
        let front = Front::open(&market.base, authority, name, ends_in).await;
        let (_, ended) = add_shop(folder(&base(&front), &known.pem())).await;
        let reported = ended.err.clone();
        ended.expect(1);
        assert!(reported.contains("certificate"), "{what}: {reported}");
        assert!(!reported.contains(SECRET), "{what}: {reported}");
        assert_eq!(front.believed(), 0, "{what}");
    }
    assert_eq!(market.sandbox.audit().token_requests, 0, "no one logged in");

    let front = Front::open(&market.base, &known, "localhost", 2100).await;
    let (folder, ended) = add_shop(folder(&base(&front), &known.pem())).await;
    ended.expect(0);
    tokio::task::spawn_blocking(move || folder.run(&["sync", "--quiet"]).expect(0)).await.unwrap();
    assert_eq!(market.sandbox.audit().details_read, 25);
    assert!(front.believed() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_asks_a_server_behind_tls_that_proves_who_it_is() {
    let market = market().await;
    let home = Folder::at(&market.base, LIFTED);
    let serving = home.serve();
    let (known, unknown) = (authority(), authority());
    for (authority, code, said) in [(&known, 0, ""), (&unknown, 1, "no TLS connection to https://localhost:")] {
        let front = Front::open(&serving.base, authority, "localhost", 2100).await;
        let elsewhere = folder(&market.base, &known.pem());
        let address = format!("https://localhost:{}/", front.port);
        let ask = move || elsewhere.run(&["status", "--server", &address]);
        let ended = tokio::task::spawn_blocking(ask).await.unwrap().expect(code);
        assert!(ended.err.contains(said) && (code == 0 || ended.err.contains("SSL_CERT_FILE")), "{}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_certificate_authorities_starts() {
    let market = market().await;
    let (folder, ended) = add_shop(folder(&market.base, "")).await;
    ended.expect(0);
    // Trusting those of browsers, it does not trust just anybody.
    let front = Front::open(&market.base, &authority(), "localhost", 2100).await;
    let base = format!("https://localhost:{}", front.port);
    drop(folder);
    let (_, ended) = add_shop(self::folder(&base, "")).await;
    let reported = ended.err.clone();
    ended.expect(1);
    assert!(reported.contains("certificate"), "{reported}");
    assert_eq!(front.believed(), 0);
}
