//! TLS 1.3 between parties who know each other by ed25519 key.
//!
//! The certificate is only the envelope that TLS wants around a key: names, dates and issuers in it are
//! ignored. What authenticates is that the handshake is signed with the key in it, and that this key is
//! the expected one (of a server), or is handed to the service, which knows its peers (of a client).

use std::sync::Arc;
use std::{error, fmt};

use florin_core::error::{Code, Error, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme,
};
use zeroize::{Zeroize, Zeroizing};

/// DER of a PKCS #8 ed25519 private key, up to the seed.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// DER of an ed25519 SubjectPublicKeyInfo, up to the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The one signature scheme in use, whatever else the provider can do.
const ED25519_ONLY: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::ring::ED25519],
    mapping: &[(SignatureScheme::ED25519, &[webpki::ring::ED25519])],
};

type TlsResult<T> = std::result::Result<T, rustls::Error>;

/// A server's side. `seed` is its transport key. Clients may show a certificate of their own; its key is
/// then what [`crate::server::peer_identity`] returns.
///
/// Errors: [`Code::BadKey`].
pub fn server_config(seed: &[u8; 32]) -> Result<Arc<ServerConfig>> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(bad_key)?
        .with_client_cert_verifier(Arc::new(AnyEd25519Client))
        .with_cert_resolver(identity(seed)?);
    // Every connection proves its key afresh; handshakes are rare enough.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A client's side: speaks only to the server that holds the key `pinned`, and proves `own` if given.
pub fn client_config(pinned: [u8; 32], own: Option<&[u8; 32]>) -> Arc<ClientConfig> {
    client(Some(pinned), own)
}

/// A client's side that speaks to whoever holds the key that it shows.
pub(crate) fn client_config_of_any() -> Arc<ClientConfig> {
    client(None, None)
}

fn client(pinned: Option<[u8; 32]>, own: Option<&[u8; 32]>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("ring offers TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedServer { pinned }));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(seed) => builder.with_client_cert_resolver(identity(seed).expect("any 32 bytes are an ed25519 seed")),
    };
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// The ed25519 public key in a certificate. Any other kind of key is refused.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> TlsResult<[u8; 32]> {
    let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let info = parsed.subject_public_key_info();
    match info.as_ref().strip_prefix(&SPKI_PREFIX).map(<[u8; 32]>::try_from) {
        Some(Ok(key)) => Ok(key),
        _ => Err(refused("certificate key: expected ed25519, found another kind".to_owned())),
    }
}

/// What made a handshake fail, in words for people.
pub(crate) fn cause(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => other.0.to_string(),
        _ => error.to_string(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn bad_key(error: impl fmt::Display) -> Error {
    Error::new(Code::BadKey, format!("transport key: {error}"))
}

/// The same certificate at every start: serial and dates are fixed, and ed25519 draws no randomness.
fn identity(seed: &[u8; 32]) -> Result<Arc<SingleCertAndKey>> {
    let mut der = Zeroizing::new([0; PKCS8_PREFIX.len() + 32]);
    der[..PKCS8_PREFIX.len()].copy_from_slice(&PKCS8_PREFIX);
    der[PKCS8_PREFIX.len()..].copy_from_slice(seed);
    let key = PrivatePkcs8KeyDer::from(&der[..]);
    let mut pair = KeyPair::try_from(&key).map_err(bad_key)?;
    let certificate = CertificateParams::new(vec!["florin".to_owned()]).and_then(|params| params.self_signed(&pair));
    pair.zeroize();
    let signer = any_eddsa_type(&key).map_err(bad_key)?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.map_err(bad_key)?.der().clone()], signer).into()))
}

/// Refused for a reason of ours.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Refused {}

fn refused(why: String) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(Refused(why)))).into()
}

fn tls12_is_off() -> TlsResult<HandshakeSignatureValid> {
    Err(rustls::Error::General("TLS 1.2 is off".to_owned()))
}

#[derive(Debug)]
struct PinnedServer {
    /// None: any.
    pinned: Option<[u8; 32]>,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> TlsResult<ServerCertVerified> {
        let found = public_key(end_entity)?;
        if let Some(pinned) = self.pinned.filter(|pinned| *pinned != found) {
            let (expected, found) = (hex::encode(pinned), hex::encode(found));
            return Err(refused(format!("server key: expected {expected}, found {found}")));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> TlsResult<HandshakeSignatureValid> {
        tls12_is_off()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> TlsResult<HandshakeSignatureValid> {
        verify_tls13_signature(message, cert, dss, &ED25519_ONLY)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ED25519_ONLY.supported_schemes()
    }
}

/// Takes any ed25519 key, and none: which keys may do what is for the service to say.
#[derive(Debug)]
struct AnyEd25519Client;

impl ClientCertVerifier for AnyEd25519Client {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> TlsResult<ClientCertVerified> {
        public_key(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> TlsResult<HandshakeSignatureValid> {
        tls12_is_off()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> TlsResult<HandshakeSignatureValid> {
        verify_tls13_signature(message, cert, dss, &ED25519_ONLY)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ED25519_ONLY.supported_schemes()
    }
}
