//! The registry of networks: who administers which network id, with what flags. Ids are never given twice.

use super::{Caller, Module};
use crate::authority::state::State;
use crate::content::check_address;
use crate::error::{Code, Error, Result};
use crate::limits::{ID_MAX, LISTENERS_MAX, METADATA_BYTES_MAX};
use crate::ordered::book::Book;
use crate::ordered::step::{Object, Step, object_key};
use crate::wire::{self, input, network_command::Kind, output};

/// The module `registry`.
pub struct Registry;

/// Key of a network.
pub fn network_key(network_id: u64) -> Vec<u8> {
    object_key(Object::Network, &[&network_id.to_be_bytes()])
}

impl Module for Registry {
    fn name(&self) -> &'static str {
        "registry"
    }

    fn check_input(&self, _: &input::Kind) -> Result<()> {
        Ok(())
    }

    fn check_output(&self, kind: &output::Kind) -> Result<u64> {
        let output::Kind::Network(command) = kind else { return Ok(0) };
        if command.network_id == 0 || command.network_id > ID_MAX {
            return Err(Error::expected(Code::Int63, "network id", "1 to 2^63 - 1", command.network_id));
        }
        let metadata = match &command.kind {
            Some(Kind::Register(register)) => {
                if register.listeners.len() > LISTENERS_MAX {
                    let expected = format!("at most {LISTENERS_MAX}");
                    return Err(Error::expected(Code::Limit, "listeners", expected, register.listeners.len()));
                }
                for listener in &register.listeners {
                    check_address("listener's address", listener)?;
                }
                &register.metadata
            }
            Some(Kind::Metadata(metadata)) => &metadata.metadata,
            Some(Kind::Offer(offer)) => {
                if !offer.admin.is_empty() {
                    check_address("new admin's address", &offer.admin)?;
                }
                return Ok(0);
            }
            Some(Kind::Accept(_) | Kind::Remove(_)) => return Ok(0),
            None => return Err(Error::new(Code::BadContent, "the network command has no kind that is known")),
        };
        if metadata.len() > METADATA_BYTES_MAX {
            let expected = format!("at most {METADATA_BYTES_MAX}");
            return Err(Error::expected(Code::Limit, "bytes of metadata", expected, metadata.len()));
        }
        Ok(0)
    }

    fn apply_input(&self, _: &input::Kind, _: u64, _: &Caller, _: &mut Step<'_>) -> Result<()> {
        Ok(())
    }

    fn apply_output(&self, kind: &output::Kind, _: u32, caller: &Caller, step: &mut Step<'_>) -> Result<()> {
        let output::Kind::Network(command) = kind else { return Ok(()) };
        let key = network_key(command.network_id);
        let known: Option<wire::NetworkRecord> = step.get(&key)?;
        let own = caller.account.as_bytes();
        if let Some(Kind::Register(register)) = &command.kind {
            if known.is_some() || command.network_id == caller.network_id {
                let message = format!("network {} is, or was, registered", command.network_id);
                return Err(Error::new(Code::NetworkExists, message));
            }
            let record = wire::NetworkRecord {
                admin: bytes::Bytes::copy_from_slice(own),
                flags: register.flags,
                metadata: register.metadata.clone(),
                listeners: register.listeners.clone(),
                ..Default::default()
            };
            step.put(key, &record);
            return Ok(());
        }
        let mut record = known.filter(|r| !r.removed).ok_or_else(|| {
            Error::new(Code::UnknownNetwork, format!("network {} is not registered", command.network_id))
        })?;
        let accepts = matches!(command.kind, Some(Kind::Accept(_)));
        let (what, who) = match accepts {
            true => ("offered admin of the network", &record.offered),
            false => ("admin of the network", &record.admin),
        };
        if who[..] != own[..] {
            return Err(Error::expected(Code::NotAdmin, what, hex::encode(who), hex::encode(own)));
        }
        match &command.kind {
            Some(Kind::Metadata(metadata)) => record.metadata = metadata.metadata.clone(),
            Some(Kind::Offer(offer)) => record.offered = offer.admin.clone(),
            Some(Kind::Accept(_)) => record.admin = std::mem::take(&mut record.offered),
            Some(Kind::Remove(_)) if record.actors > 0 => {
                return Err(Error::expected(Code::NetworkInUse, "actors of the network", 0, record.actors));
            }
            Some(Kind::Remove(_)) => record = wire::NetworkRecord { removed: true, ..Default::default() },
            Some(Kind::Register(_)) | None => {}
        }
        step.put(key, &record);
        Ok(())
    }

    fn held(&self, _: &dyn State) -> Result<i128> {
        Ok(0)
    }

    fn booked(&self, _: &Book) -> i128 {
        0
    }
}
