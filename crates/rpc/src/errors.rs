//! Florin's errors as gRPC statuses and back. The stable code travels in the metadata, so that no
//! program has to read the text; the text is for people with other tools.

use std::error::Error as _;

use florin_core::error::{Code, Error};
use florin_core::limits;
use tonic::metadata::MetadataValue;
use tonic::{Code as Grpc, Status, TimeoutExpired};

/// Metadata with the number of the code.
const CODE: &str = "florin-code";
/// Metadata with [`Error::pending_order`].
const PENDING: &str = "florin-pending-bin";
/// Bytes of a message that travel; a longer one is cut.
pub(crate) const MESSAGE_MAX: usize = 4_096;

/// The status that tells a client this error.
pub fn to_status(error: Error) -> Status {
    let mut text = error.to_string();
    while text.len() > MESSAGE_MAX {
        text.pop();
    }
    let mut status = Status::new(grpc_code(error.code), text);
    let metadata = status.metadata_mut();
    metadata.insert(CODE, MetadataValue::from(error.code as u32));
    if (1..=limits::BODY_BYTES_MAX).contains(&error.pending_order.len()) {
        metadata.insert_bin(PENDING, MetadataValue::from_bytes(&error.pending_order));
    }
    status
}

/// The error that a status tells: the server's own, or else what the transport says, as the nearest code.
pub fn from_status(status: Status) -> Error {
    if let Some(error) = of_server(&status) {
        return error;
    }
    let mut message = status.message().to_owned();
    let mut timed_out = status.code() == Grpc::DeadlineExceeded;
    let mut transport = false;
    let mut source = status.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return error.clone();
        }
        timed_out |= cause.is::<TimeoutExpired>();
        transport = true;
        let text = cause.to_string();
        if !message.contains(&text) {
            message = if message.is_empty() { text } else { format!("{message}: {text}") };
        }
        source = cause.source();
    }
    // A server that gives up at the client's deadline says so only in words.
    timed_out |= status.code() == Grpc::Cancelled && message.contains("Timeout expired");
    // HTTP/2's word for a request over the limit of its connection; the server did not look at it.
    let too_many = status.code() == Grpc::ResourceExhausted || transport && message.contains("refused stream");
    let code = match status.code() {
        _ if timed_out => Code::Timeout,
        _ if too_many => Code::Busy,
        _ if transport => Code::Unreachable,
        Grpc::OutOfRange => Code::Limit,
        Grpc::PermissionDenied | Grpc::Unauthenticated => Code::PeerRefused,
        Grpc::Unimplemented | Grpc::NotFound => Code::NotServed,
        Grpc::InvalidArgument | Grpc::Internal | Grpc::DataLoss => Code::Decode,
        _ => Code::Unreachable,
    };
    Error::new(code, format!("{:?}: {message}", status.code()))
}

/// The error in a status that [`to_status`] made.
fn of_server(status: &Status) -> Option<Error> {
    let number = status.metadata().get(CODE)?.to_str().ok()?.parse().ok()?;
    let code = Code::from_number(number)?;
    let prefix = format!("{} ({number}): ", code.name());
    let text = status.message();
    let pending = status.metadata().get_bin(PENDING).and_then(|value| value.to_bytes().ok());
    Some(Error {
        code,
        message: text.strip_prefix(&prefix).unwrap_or(text).to_owned(),
        pending_order: pending.unwrap_or_default(),
    })
}

fn grpc_code(code: Code) -> Grpc {
    match code {
        Code::PeerRefused => Grpc::PermissionDenied,
        Code::Busy | Code::StorageFull => Grpc::ResourceExhausted,
        Code::Timeout => Grpc::DeadlineExceeded,
        Code::Unreachable | Code::QuorumUnreachable | Code::Undecided => Grpc::Unavailable,
        // Right in itself, but not now or not here: what it needs may still come.
        Code::UnknownNetwork
        | Code::UnknownActor
        | Code::UnknownCosignor
        | Code::WrongShard
        | Code::InsufficientFunds
        | Code::IssuerLimit
        | Code::WrongCommittee
        | Code::WrongEpoch
        | Code::NotFinal
        | Code::OutOfOrder => Grpc::FailedPrecondition,
        other => match other as u32 / 100 {
            3 => Grpc::FailedPrecondition,
            7 => Grpc::Unavailable,
            8 => Grpc::Internal,
            _ => Grpc::InvalidArgument,
        },
    }
}
