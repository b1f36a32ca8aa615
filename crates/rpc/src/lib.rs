//! Florin's gRPC services and the authenticated transport under them.
//!
//! Every server has one ed25519 transport key, and everyone who connects knows it beforehand (from the
//! committee file): no certificate authority, no host name and no clock takes part in who is who.

mod budget;
pub mod client;
pub mod errors;
pub mod server;
pub mod tls;

use std::time::Duration;

use florin_core::limits;

/// Clients and servers of `proto/florin.proto`, generated.
#[allow(missing_docs, clippy::all)]
pub mod services {
    // The generated code looks for it here.
    use florin_core;

    include!("generated/florin.v1.rs");
}

/// The encoded `FileDescriptorSet` of `proto/`, with imports.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

/// HTTP/2 window of one request, bytes: a whole message, so that a large batch needs no extra round trip.
const STREAM_WINDOW: u32 = limits::MESSAGE_BYTES_MAX as u32;
/// HTTP/2 windows of a server, of a request and of a connection, bytes: what it may have to hold of a connection that sends faster
/// than its requests are looked at. There may be thousands.
const SERVER_WINDOW: u32 = 1 << 20;
/// HTTP/2 window of one connection, bytes.
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW;
/// Both sides ask for a sign of life this often, and close when none comes for as long.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Bytes of headers and trailers a client takes. An error may carry a whole order body, in base64.
const REPLY_HEADERS_MAX: u32 = 128 * 1024;
/// Bytes of headers a server takes.
const REQUEST_HEADERS_MAX: u32 = 16 * 1024;

const _: () = assert!(
    (REPLY_HEADERS_MAX as usize) > limits::BODY_BYTES_MAX * 4 / 3 + 3 * errors::MESSAGE_MAX + 4_096,
    "the largest error fits into the headers that a client takes"
);
