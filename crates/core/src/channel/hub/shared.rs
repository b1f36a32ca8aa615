//! What the hub and the machine of virtual channels have in common: entries of their one journal, connections, greetings.

use crate::channel::manager::{self, EndId, Manager};
use crate::error::{Code, Error, Result};
use crate::limits::HUB_LANES_SHOWN_MAX;
use crate::wire::{self, HubLane, hub_entry};

/// A connection with the other side of a channel, as each of the two machines sees it.
#[derive(Debug, Default)]
pub struct Connection {
    /// The one that there is.
    pub number: Option<u64>,
    /// Vouchers were compared since the start.
    pub compared: bool,
}

/// A manager's record, for the journal.
pub fn entry(record: wire::ManagerRecord) -> wire::HubEntry {
    wire::HubEntry { kind: Some(hub_entry::Kind::Channel(record)) }
}

/// The manager of a journal. `STORAGE_CORRUPT` if none could have made it.
pub fn load_manager<'a>(
    config: manager::Config,
    groups: impl IntoIterator<Item = &'a wire::HubGroup>,
) -> Result<Manager> {
    let entries = groups.into_iter().flat_map(|group| &group.entries);
    Manager::load(
        config,
        entries.filter_map(|entry| match &entry.kind {
            Some(hub_entry::Kind::Channel(record)) => Some(record),
            _ => None,
        }),
    )
}

/// That a message is of the channel that its connection is of.
pub fn check_channel(end: &EndId, channel: &[u8]) -> Result<()> {
    if channel != &end.channel[..] {
        let (expected, found) = (hex::encode(end.channel), hex::encode(channel));
        return Err(Error::expected(Code::VoucherChannel, "channel of the message", expected, found));
    }
    Ok(())
}

/// The vouchers that a greeting shows and the own journal does not know, given the newest nonce that it knows of a lane. `LIMIT`.
pub fn unknown(lanes: &[HubLane], mut known: impl FnMut(&HubLane) -> Result<u64>) -> Result<Vec<HubLane>> {
    if lanes.len() > HUB_LANES_SHOWN_MAX {
        let expected = format!("at most {HUB_LANES_SHOWN_MAX}");
        return Err(Error::expected(Code::Limit, "vouchers to compare", expected, lanes.len()));
    }
    let mut unknown = Vec::new();
    for lane in lanes {
        if lane.nonce > known(lane)? {
            unknown.push(*lane);
        }
    }
    Ok(unknown)
}
