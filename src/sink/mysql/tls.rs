//! The encrypted connection: which authorities are trusted, and what a failure of it means.
//!
//! With `mysql.ca_file` only the certificates in that file are trusted. Without it, those of the machine, as for the
//! API: `SSL_CERT_FILE` and `SSL_CERT_DIR` apply; a machine that has none gets the browsers' list.

use std::path::Path;
use std::time::Duration;

use mysql_async::SslOpts;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{CertificateError, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Timeout of the server's greeting.
const GREETING_TIME_MAX: Duration = Duration::from_secs(3);
/// The server supports TLS.
const CLIENT_SSL: u16 = 0x0800;
/// The protocol version of all current servers.
const PROTOCOL: u8 = 10;

/// The TLS options. `given`: the options of the address, which may disable verification.
///
/// # Errors
/// What is wrong with the file, as text that follows `mysql.ca_file: `.
pub(super) fn options(given: SslOpts, ca_file: Option<&Path>) -> Result<SslOpts, String> {
    let own = match ca_file {
        Some(file) => read(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let own = own.into_iter().filter(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    let roots: Vec<_> = own.map(|certificate| certificate.to_vec().into()).collect();
    if roots.is_empty() {
        return match ca_file {
            Some(file) => Err(format!("{} holds no certificate that can be read", file.display())),
            None => Ok(given),
        };
    }
    Ok(given.with_root_certs(roots).with_disable_built_in_roots(true))
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let bytes = std::fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    found.map_err(|error| format!("{shown} is no file of certificates in PEM: {error}"))
}

/// The meaning and remedy of a TLS failure; None if the failure is about something else.
pub(super) fn trouble(error: &std::io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(certificate) = error else { return Some(format!("TLS failed: {error}")) };
    let repair = match certificate {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use a name of the certificate as the host in mysql.url"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "renew the server's certificate",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "the clocks differ",
        _ => "name the file of the authority that signed it with mysql.ca_file (or SSL_CERT_FILE)",
    };
    Some(format!("the server's certificate is not trusted ({error}); {repair}"))
}

/// Whether the server offers TLS, from its greeting. None if it did not say.
pub(super) async fn is_offered(host: &str, port: u16) -> Option<bool> {
    let greeted = timeout(GREETING_TIME_MAX, async {
        let mut stream = TcpStream::connect((host, port)).await?;
        let mut head = [0; 4];
        stream.read_exact(&mut head).await?;
        let [first, second, third, _] = head;
        let length = u32::from_le_bytes([first, second, third, 0]);
        let mut greeting = Vec::new();
        stream.take(u64::from(length)).read_to_end(&mut greeting).await?;
        Ok::<_, std::io::Error>(greeting)
    });
    capabilities(&greeted.await.ok()?.ok()?).map(|flags| flags & CLIENT_SSL != 0)
}

/// The lower half of the capability flags in a greeting: protocol, version up to a zero, thread (4), salt (8), a zero,
/// flags.
fn capabilities(greeting: &[u8]) -> Option<u16> {
    let (protocol, rest) = greeting.split_first()?;
    let version_end = rest.iter().position(|byte| *byte == 0)?;
    let flags = rest.get(version_end + 1 + 4 + 8 + 1..)?.first_chunk::<2>()?;
    (*protocol == PROTOCOL).then(|| u16::from_le_bytes(*flags))
}

#[cfg(test)]
mod tests {
    use super::{CLIENT_SSL, capabilities};

    #[test]
    fn a_greeting_says_whether_the_server_speaks_tls() {
        let mut greeting = b"\x0a10.11.19-MariaDB\0\x01\0\0\0saltsalt\0".to_vec();
        greeting.extend((CLIENT_SSL | 2).to_le_bytes());
        assert_eq!(capabilities(&greeting), Some(CLIENT_SSL | 2));
        // A full server sends this at once.
        assert_eq!(capabilities(b"\xff\x10\x04Too many connections"), None);
        greeting.pop();
        assert_eq!(capabilities(&greeting), None);
    }
}
