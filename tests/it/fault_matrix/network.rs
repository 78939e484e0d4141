//! A line to a server that a test can cut, let hang, or put behind a certificate that is not trusted.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What the line does with connections. A change cuts all that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Pass,
    /// Connections are taken and never answered.
    Hang,
    /// Connections are closed at once.
    Cut,
    /// TLS with a certificate of an unknown authority.
    Stranger,
}

/// A listening socket in front of a server.
pub(super) struct Line {
    pub(super) port: u16,
    mode: watch::Sender<Mode>,
}

/// The certificates of a line with TLS: the one that clients trust, and another.
#[derive(Clone)]
pub(super) struct Certificates {
    /// What a client must trust, as PEM.
    pub(super) authority: String,
    trusted: TlsAcceptor,
    stranger: TlsAcceptor,
}

impl Certificates {
    pub(super) fn new() -> Certificates {
        drop(rustls::crypto::ring::default_provider().install_default());
        let (known, unknown) = (authority(), authority());
        Certificates { authority: known.pem(), trusted: acceptor(&known), stranger: acceptor(&unknown) }
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn acceptor(authority: &CertifiedIssuer<'static, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap()))
}

impl Line {
    /// Opens a line to `server`, as `127.0.0.1:3306`; it ends with the test's runtime.
    pub(super) async fn open(server: &str, certificates: Option<Certificates>) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, modes) = watch::channel(Mode::Pass);
        let server = server.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (modes, server, certificates) = (modes.clone(), server.clone(), certificates.clone());
                tokio::spawn(carry(client, server, certificates, modes));
            }
        });
        Line { port, mode }
    }

    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// One connection, until the mode changes.
async fn carry(
    client: TcpStream,
    server: String,
    certificates: Option<Certificates>,
    mut modes: watch::Receiver<Mode>,
) {
    let mode = *modes.borrow_and_update();
    let carried = async {
        match (mode, certificates) {
            (Mode::Cut, _) => {}
            (Mode::Hang, _) => std::future::pending().await,
            (Mode::Pass | Mode::Stranger, None) => join(client, &server).await,
            (Mode::Pass, Some(of)) => accept(of.trusted, client, &server).await,
            (Mode::Stranger, Some(of)) => accept(of.stranger, client, &server).await,
        }
    };
    tokio::select! {
        () = carried => {}
        _ = modes.changed() => {}
    }
}

async fn accept(acceptor: TlsAcceptor, client: TcpStream, server: &str) {
    // A client that does not trust the certificate goes away.
    if let Ok(client) = acceptor.accept(client).await {
        join(client, server).await;
    }
}

async fn join(mut client: impl AsyncRead + AsyncWrite + Unpin, server: &str) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    // Either side may end in any way.
    drop(copy_bidirectional(&mut client, &mut server).await);
}
