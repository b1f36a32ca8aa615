//! What wallets do with shared objects: contracts whose two parties race at the expiry, the primary, networks, and
//! calls that fail.

use bytes::Bytes;
use florin_core::address::Address;
use florin_core::permission::Permission;
use florin_core::registration::sign_registration;
use florin_core::wire::{self, input, network_command, output};
use sha2::{Digest, Sha256};

use crate::client::{Purse, Wish, payee};
use crate::world::{Deal, LOG_RATE, World};

fn bytes(address: &Address) -> Bytes {
    Bytes::copy_from_slice(address.as_bytes())
}

fn credit(address: &Address, amount: u64) -> output::Kind {
    output::Kind::Credit(wire::Credit { address: bytes(address), amount })
}

/// The preimage of a contract: any secret that both parties know.
fn preimage(hash_of: &[u8]) -> [u8; 32] {
    Sha256::digest([b"preimage", hash_of].concat()).into()
}

/// Something to do with shared objects, and what the account is debited for it, minor units.
pub fn wish(world: &mut World, purse: &Purse, available: i128) -> Option<(Wish, u64)> {
    if world.rng.chance(550)
        && let Some(wish) = race(world, &purse.address)
    {
        return Some((wish, 0));
    }
    let most = u64::try_from(available).unwrap_or(0).min(300);
    let amount = world.rng.below(most + 1);
    let other = payee(world);
    let call = match world.rng.below(10) {
        0..5 if amount > 0 => {
            // Mostly it ends within seconds; now and then it is over before it is ordered.
            let life = world.rng.between(500, 6_000) * LOG_RATE;
            let late = world.rng.chance(100);
            let expiry_ms = if late { world.true_ms() - 60_000 } else { world.true_ms() + life };
            let secret = world.rng.bytes();
            let fund = wire::ContractFund {
                amount,
                hash: Bytes::copy_from_slice(&Sha256::digest(preimage(&secret))),
                expiry_ms,
                receiver: bytes(&other),
                sender: bytes(&purse.address),
            };
            world.secrets.insert(fund.hash.clone(), preimage(&secret));
            let tip = amount / 10;
            let outputs = match tip {
                0 => vec![output::Kind::ContractFund(fund)],
                _ => vec![
                    credit(&other, tip),
                    output::Kind::ContractFund(wire::ContractFund { amount: amount - tip, ..fund }),
                ],
            };
            (vec![], outputs, amount)
        }
        5..7 if amount > 0 => {
            let redeem = wire::PrimaryRedeem { amount, address: bytes(&purse.address) };
            (vec![], vec![output::Kind::PrimaryRedeem(redeem)], amount)
        }
        7..9 => {
            // Often more than there is on the primary.
            let deposit = wire::PrimaryDeposit { amount: world.rng.between(1, 60), address: bytes(&other) };
            let tip = amount / 20;
            let mut outputs = vec![output::Kind::PrimaryDeposit(deposit)];
            outputs.extend((tip > 0).then(|| credit(&other, tip)));
            (vec![], outputs, tip)
        }
        _ if world.rng.chance(400) => (vec![], vec![meddle(world)?], 0),
        _ => (vec![], vec![network(world, &other)], 0),
    };
    Some((Wish::Call(call.0, call.1), call.2))
}

/// A command for one of a few networks, whoever it belongs to.
fn network(world: &mut World, other: &Address) -> output::Kind {
    let kind = match world.rng.below(5) {
        0 | 1 => network_command::Kind::Register(wire::NetworkRegister { flags: 1, ..Default::default() }),
        2 => network_command::Kind::Offer(wire::NetworkOffer { admin: bytes(other) }),
        3 => network_command::Kind::Accept(wire::NetworkAccept {}),
        _ => network_command::Kind::Remove(wire::NetworkRemove {}),
    };
    output::Kind::Network(wire::NetworkCommand { network_id: world.rng.between(1, 6), kind: Some(kind) })
}

/// Somebody does in a PBTX network what its admin alone may, or registers an actor there, under an id that may be taken.
fn meddle(world: &mut World) -> Option<output::Kind> {
    if world.pbtx.networks.is_empty() {
        return None;
    }
    let at = world.rng.index(world.pbtx.networks.len());
    let net = world.pbtx.networks[at].clone();
    let actor = if world.rng.chance(700) { net.actors[0] } else { world.rng.between(200, 203) };
    let World { pbtx, rng, .. } = world;
    let kind = match rng.below(6) {
        0 => network_command::Kind::Register(wire::NetworkRegister { flags: net.flags, ..Default::default() }),
        1 => network_command::Kind::RemoveActor(actor),
        2 => network_command::Kind::Actor(pbtx.permission(rng, actor)),
        _ => {
            let permission = pbtx.permission(rng, actor);
            let keys = Permission::decode_actor(&permission).ok()?.keys;
            let signature = sign_registration(&permission, pbtx.secret(&keys.first()?.0)?);
            let signature = Bytes::copy_from_slice(signature.as_bytes());
            network_command::Kind::Open(wire::ActorOpen { permission, signature })
        }
    };
    // Its admin comes first: who is first with an id has it.
    let known = world.checks.log.registry().networks.get(net.id).is_some();
    known.then_some(output::Kind::Network(wire::NetworkCommand { network_id: net.id, kind: Some(kind) }))
}

/// A party goes for a contract, mostly around its expiry, and now and then with a preimage that is wrong.
fn race(world: &mut World, own: &Address) -> Option<Wish> {
    let now = world.true_ms();
    // Receivers claim whenever they think of it, senders try from shortly before the expiry.
    let due = |d: &&Deal| d.receiver == *own || now + 500 * LOG_RATE >= d.expiry_ms;
    // Mostly one that is open; now and then one that is over, or was never funded.
    let blind = world.rng.chance(100);
    let party = |d: &&Deal| d.sender == *own || d.receiver == *own;
    let open = |d: &&Deal| blind || world.checks.log.is_open(&d.id);
    let all: Vec<&Deal> = world.deals.iter().filter(party).filter(due).filter(open).collect();
    if all.is_empty() {
        return None;
    }
    let deal = all[world.rng.index(all.len())].clone();
    if deal.sender == *own && (deal.receiver != *own || world.rng.chance(500)) {
        return Some(refund(&deal));
    }
    let mut preimage = deal.preimage;
    if world.rng.chance(150) {
        preimage[0] ^= 1;
    }
    let contract = Bytes::copy_from_slice(&deal.id);
    let claim = wire::ContractClaim { contract, preimage: Bytes::copy_from_slice(&preimage) };
    let input = wire::Input { amount: deal.amount, kind: Some(input::Kind::ContractClaim(claim)) };
    Some(Wish::Call(vec![input], vec![credit(own, deal.amount)]))
}

/// Takes a contract's money back.
pub fn refund(deal: &Deal) -> Wish {
    let refund = wire::ContractRefund { contract: Bytes::copy_from_slice(&deal.id) };
    let input = wire::Input { amount: deal.amount, kind: Some(input::Kind::ContractRefund(refund)) };
    Wish::Call(vec![input], vec![credit(&deal.sender, deal.amount)])
}

/// An open contract that this address funded and whose time is over.
pub fn expired(world: &World, own: &Address) -> Option<Deal> {
    let over =
        |d: &&Deal| d.sender == *own && world.checks.log.is_open(&d.id) && world.checks.log.time_ms() >= d.expiry_ms;
    world.deals.iter().find(over).cloned()
}

/// Tells both parties of the contracts that a signed order funds.
pub fn note_contracts(world: &mut World, order_id: &[u8; 32], outputs: &[output::Kind]) {
    for (i, output) in outputs.iter().enumerate() {
        if let output::Kind::ContractFund(fund) = output
            && let (Ok(sender), Ok(receiver)) = (Address::from_slice(&fund.sender), Address::from_slice(&fund.receiver))
            && let Some(preimage) = world.secrets.get(&fund.hash).copied()
        {
            let id = florin_core::ordered::modules::contracts::contract_id(order_id, i as u32);
            let (amount, expiry_ms) = (fund.amount, fund.expiry_ms);
            world.deals.push(Deal { id, amount, expiry_ms, preimage, sender, receiver });
        }
    }
}
