//! How a wallet reaches a worker.

use std::time::Duration;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::limits::{CERTIFICATES_BYTES_MAX, MESSAGE_BYTES_MAX};
use florin_core::wire;
use florin_core::wire::distil_reply::Kind as Says;
use florin_core::wire::distil_request::Kind as Say;
use florin_core::{Code, Error, Result};
use florin_rpc::client::{Limits, connect_lazy, plain};
use florin_rpc::errors::from_status;
use florin_rpc::services::worker_service_client::WorkerServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// A worker's URL and the way to it.
#[derive(Clone)]
pub struct WorkerClient {
    client: WorkerServiceClient<Channel>,
    patience: Duration,
}

impl WorkerClient {
    /// `http://127.0.0.1:PORT` (loopback only) or `https://KEY@HOST:PORT`, the key in hex. Connects when
    /// needed; must be called in a tokio runtime. Errors: `BAD_CONFIG`.
    pub fn new(url: &str, patience: Duration) -> Result<WorkerClient> {
        let limits = Limits { request: patience, ..Limits::default() };
        let url = url.trim_end_matches('/');
        let channel = if let Some(address) = url.strip_prefix("http://") {
            plain(address, limits)?
        } else {
            let secure = url.strip_prefix("https://").and_then(|rest| rest.split_once('@'));
            let pinned =
                secure.and_then(|(key, address)| Some((<[u8; 32]>::try_from(hex::decode(key).ok()?).ok()?, address)));
            let Some((key, address)) = pinned.filter(|(_, address)| address.contains(':')) else {
                let expected = "http://127.0.0.1:PORT or https://KEY@HOST:PORT, the key 64 hex digits";
                return Err(Error::expected(Code::BadConfig, "URL of the worker", expected, format!("{url:?}")));
            };
            connect_lazy(address, key, None, limits)
        };
        let bytes = MESSAGE_BYTES_MAX + CERTIFICATES_BYTES_MAX;
        let client = WorkerServiceClient::new(channel).max_decoding_message_size(bytes);
        Ok(WorkerClient { client, patience })
    }

    /// Hands in orders and waits for what became of them. Nothing in the answer is verified yet.
    /// Errors: `UNREACHABLE`, `TIMEOUT`, `BUSY`; `DECODE` if there is not one outcome for each order.
    pub async fn submit(&self, orders: Vec<Bytes>) -> Result<Vec<Result<wire::Receipt>>> {
        let count = orders.len();
        let reply = self.client.clone().submit(wire::SubmitRequest { orders }).await.map_err(from_status)?;
        let outcomes = reply.into_inner().outcomes;
        if outcomes.len() != count {
            return Err(Error::expected(Code::Decode, "outcomes from the worker", count, outcomes.len()));
        }
        Ok(outcomes.into_iter().map(outcome).collect())
    }

    /// Hands in an order of the account with this address, and stays to sign the root of its batch: `sign` checks what the worker proposes,
    /// once or not at all. Waits for what became of the order; nothing in that is verified yet. Errors: those of `sign`, after which
    /// nothing more is said to this worker; `UNREACHABLE`, `TIMEOUT`, `DECODE`; `NOT_SERVED` by a worker that asks nobody.
    pub async fn distil(
        &self,
        order: Bytes,
        address: &Address,
        sign: impl FnOnce(&wire::RootProposal) -> Result<wire::RootShare>,
    ) -> Result<Result<wire::Receipt>> {
        let late = |_| Error::new(Code::Timeout, format!("the worker gave no outcome within {:?}", self.patience));
        tokio::time::timeout(self.patience, self.distil_patiently(order, address, sign)).await.map_err(late)?
    }

    async fn distil_patiently(
        &self,
        order: Bytes,
        address: &Address,
        sign: impl FnOnce(&wire::RootProposal) -> Result<wire::RootShare>,
    ) -> Result<Result<wire::Receipt>> {
        // It says two things at most, so there is always room.
        let (say, said) = mpsc::channel(2);
        let tell = |kind| {
            let gone = |_| Error::new(Code::Unreachable, "the worker has closed the stream");
            say.try_send(wire::DistilRequest { kind: Some(kind) }).map_err(gone)
        };
        let address = Bytes::copy_from_slice(address.as_bytes());
        tell(Say::Order(wire::DistilOrder { order, address }))?;
        let answer = self.client.clone().distil(ReceiverStream::new(said)).await.map_err(from_status)?;
        let mut answers = answer.into_inner();
        let mut sign = Some(sign);
        loop {
            let Some(wire::DistilReply { kind }) = answers.message().await.map_err(from_status)? else {
                return Err(Error::new(Code::Unreachable, "the worker ends without an outcome"));
            };
            match kind {
                Some(Says::Outcome(said)) => return Ok(outcome(said)),
                Some(Says::Proposal(proposal)) => match sign.take() {
                    Some(sign) => tell(Say::Share(sign(&proposal)?))?,
                    None => return Err(Error::new(Code::Decode, "the worker proposes a second root")),
                },
                None => return Err(Error::new(Code::Decode, "the worker says something unknown")),
            }
        }
    }
}

fn outcome(outcome: wire::Outcome) -> Result<wire::Receipt> {
    match (outcome.receipt, outcome.error) {
        (Some(receipt), None) => Ok(receipt),
        (_, Some(e)) => {
            let code = Code::from_number(e.code).unwrap_or(Code::Decode);
            Err(Error { code, message: e.message, pending_order: e.pending_order })
        }
        (None, None) => Err(Error::new(Code::Decode, "the worker gives neither a receipt nor an error")),
    }
}
