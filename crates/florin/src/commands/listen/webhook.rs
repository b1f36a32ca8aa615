//! A POST for each transaction, over a connection that is kept.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use florin_client::listener::Delivery;
use florin_core::{Code, Error, Result};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use ring::hmac;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::line::json_of;

/// For everything, from connecting to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that are read so that the connection can be used again.
const ANSWER_MAX: usize = 64 << 10;

/// Where to post, and with what secret.
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
    secure: bool,
    allow_http: bool,
    secret: hmac::Key,
}

impl Target {
    /// From what the user gave. Errors: `USAGE`, `BAD_FILE`.
    pub fn new(url: &str, secret: &str, allow_http: bool) -> Result<Target> {
        let bad = |found: &str| Error::expected(Code::Usage, "--webhook", "https://HOST[:PORT]/PATH", found);
        let uri: Uri = url.parse().map_err(|_| bad(url))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad(url)),
        };
        // A password in a URL would be in every process list.
        let authority =
            uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(|| bad("no host, or a user"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &read_secret(secret)?);
        Ok(Target { uri, host, port, secure, allow_http, secret })
    }

    /// `t=SECONDS,v1=HEX`: HMAC-SHA256 over "SECONDS.BODY".
    fn signature(&self, seconds: u64, body: &str) -> String {
        let tag = hmac::sign(&self.secret, format!("{seconds}.{body}").as_bytes());
        format!("t={seconds},v1={}", hex::encode(tag))
    }
}

fn read_secret(text: &str) -> Result<Vec<u8>> {
    let secret = match (text.strip_prefix("file:"), text.strip_prefix("env:")) {
        (Some(path), _) => {
            std::fs::read(path).map_err(|e| Error::new(Code::BadFile, format!("--webhook-secret: {path}: {e}")))?
        }
        (_, Some(name)) => {
            let missing = |_| Error::new(Code::Usage, format!("--webhook-secret: the environment has no {name}"));
            std::env::var(name).map_err(missing)?.into_bytes()
        }
        // The text may be the secret itself: it is not repeated.
        _ => return Err(Error::expected(Code::Usage, "--webhook-secret", "file:PATH or env:NAME", "something else")),
    };
    let secret = secret.trim_ascii().to_vec();
    match secret.len() {
        0..16 => Err(Error::expected(Code::Usage, "bytes of --webhook-secret", "at least 16", secret.len())),
        _ => Ok(secret),
    }
}

/// Posts one after the other.
pub struct Webhook {
    target: Target,
    tls: Option<TlsConnector>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Webhook {
    /// With the certificate authorities of this system; SSL_CERT_FILE names others. Errors: `BAD_CONFIG` if there are none.
    pub fn new(target: Target) -> Result<Webhook> {
        let tls = if target.secure { Some(tls()?) } else { None };
        Ok(Webhook { target, tls, connection: None })
    }

    /// Posts a transaction: an error is why it was not taken.
    pub async fn post(&mut self, delivery: &Delivery) -> std::result::Result<(), String> {
        let connection = self.connection.take();
        let posted = async {
            // The other side may have closed it meanwhile.
            let kept = match connection {
                Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
                None => None,
            };
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let request = self.request(delivery)?;
            let answer = sender.send_request(request).await.map_err(|e| format!("{}: {e}", self.target.host))?;
            let status = answer.status();
            let rest = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            if rest.is_ok() {
                self.connection = Some(sender);
            }
            if status.is_success() { Ok(()) } else { Err(format!("{} answers {status}", self.target.host)) }
        };
        match tokio::time::timeout(PATIENCE, posted).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    fn request(&self, delivery: &Delivery) -> std::result::Result<Request<Full<Bytes>>, String> {
        let target = &self.target;
        let body = json_of(delivery).to_string();
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let path = target.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = target.uri.authority().map_or("", |authority| authority.as_str());
        Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("florin/", env!("CARGO_PKG_VERSION")))
            .header("idempotency-key", delivery.key().to_string())
            .header("florin-signature", target.signature(seconds, &body))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())
    }

    async fn connect(&self) -> std::result::Result<SendRequest<Full<Bytes>>, String> {
        let target = &self.target;
        let failed = |e: std::io::Error| format!("{}:{}: {e}", target.host, target.port);
        let socket = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let Some(tls) = &self.tls else {
            let peer = socket.peer_addr().map_err(failed)?.ip();
            if !peer.is_loopback() && !target.allow_http {
                return Err(format!("{peer} is another machine: use https, or say --allow-http"));
            }
            return open(socket).await;
        };
        let name = ServerName::try_from(target.host.clone()).map_err(|e| format!("{}: {e}", target.host))?;
        open(tls.connect(name, socket).await.map_err(failed)?).await
    }
}

async fn open<IO>(io: IO) -> std::result::Result<SendRequest<Full<Bytes>>, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

fn tls() -> Result<TlsConnector> {
    let bad = |e: &dyn std::fmt::Display| Error::new(Code::BadConfig, format!("certificate authorities: {e}"));
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(bad(&"this system has none; name a file of them in SSL_CERT_FILE"));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_anyone_can_compute() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        let secret = format!("file:{}", path.display());
        let target = Target::new("https://example.com/hook?a=1", &secret, false).unwrap();
        // printf '17.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "47fbe0b0fc46f5c1c83c07456c70992bb9ad376f5f8bd7e3c695a76445ac2cbc";
        assert_eq!(target.signature(17, "{}"), format!("t=17,v1={expected}"));
        assert_eq!((target.port, target.secure), (443, true));
        for bad in ["ftp://a/", "example.com", "https://user:pass@example.com/", "https:///x"] {
            assert_eq!(Target::new(bad, &secret, false).err().map(|e| e.code), Some(Code::Usage), "{bad}");
        }
        std::fs::write(&path, "short").unwrap();
        for bad in [&secret, "0123456789abcdef", "env:FLORIN_NO_SUCH_NAME"] {
            assert_eq!(Target::new("https://example.com", bad, false).err().map(|e| e.code), Some(Code::Usage));
        }
    }
}
