//! The committee's keys of e-cash: what enough authorities say, checked.

use bytes::Bytes;
use florin_core::cash::dkg::PublicKeys;
use florin_core::cash::mint_keys::MintKeys;
use florin_core::committee::Committee;
use florin_core::{Code, Error, Result, wire};

use crate::network::Network;
use crate::wallet::{agree_on, retry};

/// The shard whose process has the log, where keys are made.
const LOG: u32 = 0;

/// The keys in use, encoded, as `f + 1` authorities give them. Errors: `QUORUM_UNREACHABLE`, `UNDECIDED`; `CASH_NOT_READY` if
/// there are none.
pub async fn fetch(network: &Network) -> Result<Bytes> {
    let keys = retry(|| async move {
        let ask = |mut client: Client| async move { client.cash_keys(wire::CashKeysRequest {}).await };
        let replies = network.ask_all(LOG, ask).await;
        agree_on(network.committee(), &replies, "the keys of e-cash", |reply| reply.keys.clone())
    });
    let keys = keys.await?.0.keys;
    if keys.is_empty() {
        return Err(none_yet());
    }
    Ok(keys)
}

type Client = florin_rpc::services::authority_service_client::AuthorityServiceClient<tonic::transport::Channel>;

pub(super) fn none_yet() -> Error {
    Error::new(Code::CashNotReady, "the committee has no keys of e-cash yet")
}

/// Keys, ready to verify. Errors: `DECODE`, `NON_CANONICAL`, `BAD_CONTENT`, `BAD_KEY`; `BAD_KEY` for another committee's size.
pub fn decode(keys: &[u8], committee: &Committee) -> Result<MintKeys> {
    let keys = MintKeys::new(PublicKeys::decode(keys)?, None)?;
    let shares = keys.shared(0).map_or(0, |shared| shared.shares().len());
    if shares != committee.size() {
        return Err(Error::expected(Code::BadKey, "shares of the keys of e-cash", committee.size(), shares));
    }
    Ok(keys)
}
