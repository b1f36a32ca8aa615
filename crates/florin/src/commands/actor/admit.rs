//! Frees an actor: some authorities have voted for its next transaction, and since then a permission, a freeze or a precheck
//! has changed, so that the others refuse it and these refuse any other.
//!
//! What is admitted needs no signature any more, so one authority's word that it holds a transaction is not enough: f + 1
//! say it, or the admin names it, who has it from the actor.

use std::collections::BTreeMap;

use bytes::Bytes;
use florin_client::pbtx::{actor_replies, actor_state};
use florin_core::envelope::{Authority, Order, encode_envelope, order_id};
use florin_core::wire::{self, network_command::Kind};
use florin_core::{Code, Error, Result};

use super::run_commands;
use crate::commands::network::IdArgs;
use crate::commands::pbtx::{exit, pushed};
use crate::commands::wallet::block_on;
use crate::output::Output;

/// Has the admin admit the transaction that holds the actor's next seqnum, and hands it in again.
pub fn run(id: &IdArgs, actor: u64, sha256: Option<&str>, out: Output) -> Result<()> {
    let network_id = id.network_id;
    let committee = id.call.place.committee()?;
    let network = id.call.place.network(&committee);
    let body = block_on(async {
        let (state, _) = actor_state(&network, network_id, actor).await?;
        let mut held: BTreeMap<[u8; 32], (Bytes, usize)> = BTreeMap::new();
        for reply in actor_replies(&network, network_id, actor).await.into_iter().flatten() {
            let next = |p: &&wire::PendingOrder| p.seqnum.checked_sub(1) == Some(state.seqnum);
            if let Some(pending) = reply.pending.iter().find(next) {
                held.entry(order_id(&pending.body)).or_insert((pending.body.clone(), 0)).1 += 1;
            }
        }
        choose(held, committee.validity(), actor, sha256)
    })?;
    let order_id = Bytes::copy_from_slice(&order_id(&body));
    let admit = Kind::Admit(wire::ActorAdmit { actor, order_id: order_id.clone() });
    run_commands(id, vec![(actor, admit)], Box::new(move |reply| reply.admitted == order_id), out)?;
    // Nobody looks at signatures of what is admitted.
    let cosignors = Order::decode_body(body.clone())?.cosignors.len();
    let orders = [Order::decode(encode_envelope(&body, &vec![Authority::default(); 1 + cosignors]))?];
    let outcomes = block_on(pushed(&network, &id.call.way, id.call.place.timeout(), &orders))?;
    exit(&orders, &outcomes, out);
    Ok(())
}

fn choose(held: BTreeMap<[u8; 32], (Bytes, usize)>, enough: usize, actor: u64, sha256: Option<&str>) -> Result<Bytes> {
    let shown = |(id, (_, votes)): (&[u8; 32], &(Bytes, usize))| format!("{} ({votes} votes)", hex::encode(id));
    let all = held.iter().map(shown).collect::<Vec<_>>().join(", ");
    let wanted = |id: &[u8; 32], votes: usize| match sha256 {
        Some(text) => text.eq_ignore_ascii_case(&hex::encode(id)),
        None => votes >= enough,
    };
    let mut found = held.into_iter().filter(|(id, (_, votes))| wanted(id, *votes)).map(|(_, (body, _))| body);
    match (found.next(), found.next()) {
        (Some(body), None) => Ok(body),
        (None, _) if all.is_empty() => {
            let message = format!("no authority has voted for a transaction of actor {actor} that waits");
            Err(Error::new(Code::UnknownActor, message))
        }
        _ => {
            let what = format!(
                "transaction of actor {actor} with votes of {enough}, or its sha256 as you have it from the actor"
            );
            Err(Error::expected(Code::Usage, &what, "one", all))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_authority_alone_makes_nobody_admit_anything() {
        let bodies = [Bytes::from_static(b"true"), Bytes::from_static(b"false")];
        let held = |votes: [usize; 2]| {
            let both = bodies.iter().zip(votes).filter(|(_, votes)| *votes > 0);
            both.map(|(body, votes)| (order_id(body), (body.clone(), votes))).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(choose(held([2, 1]), 2, 1, None).unwrap(), bodies[0]);
        for votes in [[1, 1], [0, 1], [2, 2]] {
            assert_eq!(choose(held(votes), 2, 1, None).unwrap_err().code, Code::Usage);
        }
        let named = hex::encode(order_id(&bodies[0]));
        assert_eq!(choose(held([1, 1]), 2, 1, Some(&named)).unwrap(), bodies[0]);
        assert_eq!(choose(held([0, 0]), 2, 1, Some(&named)).unwrap_err().code, Code::UnknownActor);
    }
}
