//! Questions to the ordered log: at each authority the process of shard 0 answers them.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::committee::Committee;
use florin_core::merkle::Hash;
use florin_core::ordered::session::{check, header_hash, verify};
use florin_core::wire;
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use tonic::transport::Channel;

use crate::network::Network;
use crate::wallet::{agree_on, retry};

/// The shard whose process has the log.
const LOG: u32 = 0;

/// A session whose signatures and units have been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// What the quorum signed.
    pub header: wire::SessionHeader,
    /// Hash of the header.
    pub hash: Hash,
    /// Indices of the authorities that signed.
    pub signers: Vec<u32>,
    /// Its units.
    pub units: Vec<wire::OrderedUnit>,
}

impl Network {
    /// What each authority says became of an order.
    pub async fn order_status(&self, actor: u64, seqnum: u32) -> Vec<Result<wire::OrderStatus>> {
        let network_id = self.committee().network.id;
        let request = wire::OrderStatusRequest { network_id, actor, seqnum, ..Default::default() };
        let shard = self.committee().shard_of(network_id, actor);
        self.ask_all(shard, move |mut client| {
            let request = request.clone();
            async move { client.order_status(request).await }
        })
        .await
    }

    /// How far each authority's log is.
    pub async fn log_status(&self) -> Vec<Result<wire::LogStatus>> {
        self.ask_all(LOG, move |mut client| async move { client.log(wire::LogStatusRequest {}).await }).await
    }

    /// The keys of e-cash, or how far their generation is, as each authority says.
    pub async fn cash_keys_status(&self) -> Vec<Result<wire::CashKeysReply>> {
        self.ask_all(LOG, move |mut client| async move { client.cash_keys(wire::CashKeysRequest {}).await }).await
    }

    /// The log's time: `f + 1` authorities, so an honest one, are at least there. Milliseconds since 1970.
    /// Errors: `QUORUM_UNREACHABLE`.
    pub async fn log_time(&self) -> Result<u64> {
        let replies = self.log_status().await;
        crate::wallet::need(self.committee(), &replies, self.committee().validity())?;
        let mut times: Vec<u64> = replies.iter().flatten().map(|r| r.time_ms).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        Ok(times[self.committee().validity() - 1])
    }

    /// A contract, say `f + 1` authorities, and how many of them. Its time is what one of them says.
    /// Errors: `QUORUM_UNREACHABLE`, `UNDECIDED`.
    pub async fn contract(&self, id: &Hash) -> Result<(wire::ContractReply, usize)> {
        let request = wire::ContractRequest { contract: Bytes::copy_from_slice(id) };
        retry(|| async {
            let request = request.clone();
            let replies = self.ask_all(LOG, move |mut client| {
                let request = request.clone();
                async move { client.contract(request).await }
            });
            let key = |r: &wire::ContractReply| {
                let fund = r.fund.clone().unwrap_or_default();
                (r.state, r.preimage.clone(), prost::Message::encode_to_vec(&fund))
            };
            agree_on(self.committee(), &replies.await, "the contract", key)
        })
        .await
    }

    /// A channel, which `f + 1` authorities say it is, `None` if there is none, and a log time at which an honest one says so.
    /// `after`: session and unit of the log that they must have applied. Errors: `QUORUM_UNREACHABLE`; `UNDECIDED`, also while
    /// they are not so far.
    pub async fn channel(&self, id: &Hash, after: Option<(u64, u32)>) -> Result<(Option<wire::ChannelRecord>, u64)> {
        let request = wire::ChannelRequest { channel: Bytes::copy_from_slice(id) };
        retry(|| async {
            let request = request.clone();
            let replies = self.ask_all(LOG, move |mut client| {
                let request = request.clone();
                async move { client.channel(request).await }
            });
            agree_on_channel(self.committee(), replies.await, after)
        })
        .await
    }

    /// Ids of an address's channels, each of which at least one honest authority knows: `f + 1` say it.
    /// Errors: `QUORUM_UNREACHABLE`.
    pub async fn channels(&self, address: &Address) -> Result<Vec<Hash>> {
        let validity = self.committee().validity();
        let mut known: BTreeMap<Hash, usize> = BTreeMap::new();
        let replies = self.ask_all(LOG, {
            let address = Bytes::copy_from_slice(address.as_bytes());
            move |client| pages(client, address.clone())
        });
        let replies = replies.await;
        crate::wallet::need(self.committee(), &replies, validity)?;
        for ids in replies.into_iter().flatten() {
            ids.into_iter().for_each(|id| *known.entry(id).or_default() += 1);
        }
        Ok(known.into_iter().filter(|(_, count)| *count >= validity).map(|(id, _)| id).collect())
    }

    /// The bridge and the embedded primary, with the balance of an address there. Errors: as of [`Network::contract`].
    pub async fn primary(&self, address: &[u8]) -> Result<(wire::PrimaryReply, usize)> {
        let all = u64::MAX;
        let address = Bytes::copy_from_slice(address);
        let request = wire::PrimaryRequest { address, deposits_from: all, redeems_from: all };
        retry(|| async {
            let request = request.clone();
            let replies = self.ask_all(LOG, move |mut client| {
                let request = request.clone();
                async move { client.primary(request).await }
            });
            let key = |r: &wire::PrimaryReply| (r.redeems, r.deposits, r.total_funds, r.balance);
            agree_on(self.committee(), &replies.await, "the primary", key)
        })
        .await
    }

    /// A network of the registry; `None` if it was never registered. Errors: as of [`Network::contract`].
    pub async fn registered(&self, network_id: u64) -> Result<(Option<wire::NetworkRecord>, usize)> {
        let request = wire::NetworkRequest { network_id };
        let agreed = retry(|| async {
            let replies = self.ask_all(LOG, move |mut client| async move { client.network(request).await });
            let key = |r: &wire::NetworkReply| prost::Message::encode_to_vec(r);
            agree_on(self.committee(), &replies.await, "the network", key)
        })
        .await?;
        Ok((agreed.0.network, agreed.1))
    }

    /// Sessions from `from` on, at most `limit` of them, each checked: signatures of a quorum, all its units, and that
    /// it follows the one before. They come from one authority, which need not be believed. Errors: `UNREACHABLE` and others, those
    /// of the last authority that was asked in vain.
    pub async fn sessions(&self, from: u64, limit: u32) -> Result<Vec<Session>> {
        let mut last = Error::new(Code::QuorumUnreachable, "no authority was asked");
        let mut best: Vec<Session> = Vec::new();
        let mut answered = false;
        for authority in 0..self.committee().size() {
            match self.sessions_of(authority, from, limit).await {
                Ok(sessions) => {
                    answered = true;
                    if sessions.len() > best.len() {
                        best = sessions;
                    }
                    if best.len() == limit as usize {
                        break;
                    }
                }
                Err(e) => last = e,
            }
        }
        if answered { Ok(best) } else { Err(last) }
    }

    async fn sessions_of(&self, authority: usize, from: u64, limit: u32) -> Result<Vec<Session>> {
        let mut client = self.authority(authority, LOG);
        let mut sessions: Vec<Session> = Vec::new();
        while sessions.len() < limit as usize {
            let request =
                wire::SessionsRequest { from: from + sessions.len() as u64, limit: limit - sessions.len() as u32 };
            let reply = client.sessions(request).await.map_err(from_status)?.into_inner();
            if reply.sessions.is_empty() {
                break;
            }
            for signed in reply.sessions {
                let number = from + sessions.len() as u64;
                let found = signed.header.as_ref().map(|h| h.session);
                if found != Some(number) {
                    let found = format!("{found:?}");
                    return Err(Error::expected(Code::BadSession, "number of the session", number, found));
                }
                // Before anything is fetched that its header asks for.
                check(self.committee(), &signed)?;
                let units = self.units(authority, &signed).await?;
                let header = verify(self.committee(), &signed, &units)?;
                let expected = sessions.last().map_or(header.previous.to_vec(), |s| s.hash.to_vec());
                if header.previous[..] != expected[..] {
                    let (expected, found) = (hex::encode(expected), hex::encode(&header.previous));
                    return Err(Error::expected(Code::BadSession, "header before the session", expected, found));
                }
                let signers = signed.signatures.iter().map(|s| s.authority).collect();
                sessions.push(Session { hash: header_hash(&header), header, signers, units });
            }
        }
        sessions.truncate(limit as usize);
        Ok(sessions)
    }

    /// All units that the header counts, as this authority has them.
    async fn units(&self, authority: usize, signed: &wire::SignedSession) -> Result<Vec<wire::OrderedUnit>> {
        let Some(header) = &signed.header else { return Ok(Vec::new()) };
        let mut client = self.authority(authority, LOG);
        let mut units: Vec<wire::OrderedUnit> = Vec::new();
        while units.len() < header.units as usize {
            let request = wire::UnitsRequest { session: header.session, from: units.len() as u32 };
            let reply = client.units(request).await.map_err(from_status)?.into_inner();
            if reply.units.is_empty() {
                break;
            }
            units.extend(reply.units);
        }
        Ok(units)
    }
}

/// No authority alone is believed: neither what the channel is, nor what time it is, nor how far the log.
fn agree_on_channel(
    committee: &Committee,
    replies: Vec<Result<wire::ChannelReply>>,
    after: Option<(u64, u32)>,
) -> Result<(Option<wire::ChannelRecord>, u64)> {
    let validity = committee.validity();
    crate::wallet::need(committee, &replies, validity)?;
    let passed = |r: &wire::ChannelReply| after.is_none_or(|place| (r.session, r.units) > place);
    let there: Vec<_> = replies.into_iter().map(|r| r.ok().filter(passed).ok_or_else(behind)).collect();
    if there.iter().flatten().count() < validity {
        return Err(behind());
    }
    let key = |r: &wire::ChannelReply| {
        let record = r.channel.clone().unwrap_or_default();
        (record.revision, prost::Message::encode_to_vec(&record))
    };
    let record = agree_on(committee, &there, "the channel", key)?.0.channel;
    // The time of those who say this of the channel: by a later one it may be another, and a lock be redeemed that looks as if it were over.
    let agreed = |r: &&wire::ChannelReply| r.channel == record;
    let mut times: Vec<u64> = there.iter().flatten().filter(agreed).map(|r| r.time_ms).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    let time_ms = *times.get(validity - 1).ok_or_else(behind)?;
    Ok((record, time_ms))
}

fn behind() -> Error {
    Error::new(Code::Undecided, "too few authorities have applied the order yet")
}

/// All ids of an address's channels that one authority lists.
async fn pages(
    mut client: AuthorityServiceClient<Channel>,
    address: Bytes,
) -> std::result::Result<tonic::Response<Vec<Hash>>, tonic::Status> {
    let (mut ids, mut after) = (Vec::new(), Bytes::new());
    loop {
        let request = wire::ChannelsRequest { address: address.clone(), after: after.clone(), limit: 256 };
        let reply = client.channels(request).await?.into_inner();
        ids.extend(reply.channels.iter().filter_map(|c| Hash::try_from(&c.channel[..]).ok()));
        // Pages go forward, whatever an authority says.
        if reply.next.is_empty() || reply.next <= after {
            return Ok(tonic::Response::new(ids));
        }
        after = reply.next;
    }
}

#[cfg(test)]
mod tests {
    use florin_core::testing::TestCommittee;

    use super::*;

    fn says(revision: u64, time_ms: u64, units: u32) -> Result<wire::ChannelReply> {
        let channel = Some(wire::ChannelRecord { revision, ..Default::default() });
        Ok(wire::ChannelReply { channel, time_ms, session: 3, units })
    }

    fn agreed(replies: Vec<Result<wire::ChannelReply>>, after: Option<(u64, u32)>) -> Result<(u64, u64)> {
        let (committee, _) = TestCommittee::new(4, 1).build();
        agree_on_channel(&committee, replies, after).map(|(record, time)| (record.unwrap_or_default().revision, time))
    }

    #[test]
    fn one_liar_moves_neither_the_time_nor_the_channel_nor_the_log() {
        let lie = || says(9, u64::MAX, u32::MAX);
        assert_eq!(agreed(vec![lie(), says(4, 50, 7), says(4, 60, 7), says(4, 40, 6)], None).unwrap(), (4, 50));
        // The liar says the same of the channel, so it is among those that agree.
        assert_eq!(agreed(vec![says(4, u64::MAX, 7), says(4, 50, 7), behind_by_far()], None).unwrap(), (4, 50));
        // Two that lag agree as well; the later record counts.
        let two_lag = || vec![says(3, 30, 5), says(3, 30, 5), says(4, 50, 7), says(4, 60, 8)];
        assert_eq!(agreed(two_lag(), None).unwrap(), (4, 50));
        assert_eq!(agreed(two_lag(), Some((3, 6))).unwrap(), (4, 50));
        for after in [(3, 7), (3, 8), (4, 0)] {
            assert_eq!(agreed(two_lag(), Some(after)).unwrap_err().code, Code::Undecided);
        }
        // The time of those who are further is not that of what the others say.
        let spread = vec![says(3, 30, 5), says(3, 35, 5), says(4, 50, 7), says(5, 60, 8)];
        assert_eq!(agreed(spread, None).unwrap(), (3, 30));
        let three = vec![lie(), says(3, 30, 5), says(3, 30, 5), says(4, 50, 7)];
        assert_eq!(agreed(three, Some((3, 6))).unwrap_err().code, Code::Undecided);
        let alone = vec![says(4, 50, 7), behind_by_far(), behind_by_far(), behind_by_far()];
        assert_eq!(agreed(alone, None).unwrap_err().code, Code::QuorumUnreachable);
    }

    fn behind_by_far() -> Result<wire::ChannelReply> {
        Err(Error::new(Code::Unreachable, "away"))
    }
}
