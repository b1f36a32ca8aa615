//! Catching up with the log: sessions that a quorum has signed, from peers, without an engine.

use std::sync::Arc;
use std::time::Duration;

use florin_core::limits::{SESSION_BYTES_MAX, UNIT_BYTES_MAX};
use florin_core::ordered::input::Input;
use florin_core::ordered::session;
use florin_core::wire::{OrderedUnit, SessionsRequest, SignedSession, UnitsRequest};
use florin_core::{Code, Error, Result};
use florin_rpc::errors::from_status;
use florin_rpc::services::authority_service_client::AuthorityServiceClient;
use tonic::transport::Channel;
use tracing::{debug, info};

use crate::log::LogShell;

/// How long a peer may take for one answer.
const REMOTE: Duration = Duration::from_secs(5);
/// Sessions fetched at a time.
const SESSIONS: u32 = 32;

/// Takes what a quorum has signed from peers.
pub struct CatchUp {
    /// The log.
    pub shell: Arc<LogShell>,
    /// The peers.
    pub clients: Vec<AuthorityServiceClient<Channel>>,
}

impl CatchUp {
    /// Until no peer has more. Errors are faults of this authority; a peer's are its own.
    pub async fn run(self) -> Result<()> {
        let before = self.position()?;
        for client in &self.clients {
            loop {
                match self.fetch(client.clone()).await? {
                    Fetched::More => {}
                    Fetched::Nothing => break,
                    Fetched::Failed(e) => {
                        debug!("signed sessions of a peer: {e}");
                        break;
                    }
                }
            }
        }
        let now = self.position()?;
        if now.0 > before.0 {
            info!(from = before.0, to = now.0, "caught up with signed sessions");
        }
        Ok(())
    }

    /// The open session, and how many are signed.
    fn position(&self) -> Result<(u64, u64)> {
        Ok((self.shell.log().book(self.shell.store())?.session, session::signed_sessions(self.shell.store())?))
    }

    /// Takes the next signed sessions of one peer.
    async fn fetch(&self, mut client: AuthorityServiceClient<Channel>) -> Result<Fetched> {
        let (open, signed) = self.position()?;
        let request = SessionsRequest { from: signed, limit: SESSIONS };
        let sessions = match remote(client.sessions(request)).await {
            Ok(reply) => reply.sessions,
            Err(e) => return Ok(Fetched::Failed(e)),
        };
        for (number, signed) in (signed..).zip(sessions) {
            if signed.header.as_ref().is_none_or(|h| h.session != number) {
                let e = Error::expected(Code::BadSession, "session", number, "another");
                return Ok(Fetched::Failed(e));
            }
            // One that is closed here lacks only signatures.
            let units = match number < open {
                true => Vec::new(),
                false => match self.units(&mut client, &signed).await {
                    Ok(units) => units,
                    Err(e) => return Ok(Fetched::Failed(e)),
                },
            };
            for (position, unit) in units.into_iter().enumerate() {
                let (creator, data) = (unit.creator, unit.data);
                let input = Input::Unit { session: number, position: position as u32, creator, round: 0, data };
                self.shell.feed(input).await?;
            }
            match self.shell.handle(Input::Close(signed)).await {
                Ok(_) => {}
                Err(e) if e.is_own_fault() || e.code == Code::SessionMismatch => return Err(e),
                // The engine was quicker, or the peer lied about signatures.
                Err(e) => return Ok(Fetched::Failed(e)),
            }
        }
        let now = self.position()?;
        Ok(if now > (open, signed) { Fetched::More } else { Fetched::Nothing })
    }

    /// The units of a session, checked. Errors: the peer's.
    async fn units(
        &self,
        client: &mut AuthorityServiceClient<Channel>,
        signed: &SignedSession,
    ) -> Result<Vec<OrderedUnit>> {
        let committee = self.shell.log().committee();
        let header = session::check(committee, signed)?;
        let (mut units, mut bytes) = (Vec::new(), 0);
        while units.len() < header.units as usize {
            let request = UnitsRequest { session: header.session, from: units.len() as u32 };
            let page = remote(client.units(request)).await?.units;
            bytes += page.iter().map(|unit| unit.data.len() as u64).sum::<u64>();
            if page.is_empty() || page.iter().any(|u| u.data.len() > UNIT_BYTES_MAX) || bytes > SESSION_BYTES_MAX {
                return Err(Error::expected(Code::BadSession, "units", header.units, "none, or too much"));
            }
            units.extend(page);
        }
        session::verify(committee, signed, &units)?;
        Ok(units)
    }
}

/// What a peer had.
enum Fetched {
    More,
    Nothing,
    Failed(Error),
}

/// A peer's answer. Whatever code it gives, its error is its own and no fault of this authority.
pub async fn remote<T>(
    call: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T> {
    match tokio::time::timeout(REMOTE, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(Error::new(Code::Unreachable, from_status(status).to_string())),
        Err(_) => Err(Error::new(Code::Timeout, "a peer does not answer")),
    }
}
