//! The ordered log and its modules: contracts, channels, networks, the primary, and any units.
//!
//! Whatever happens, two authorities with the same units come to the same state, the audit finds nothing, and what an order that
//! failed was debited is given back.

use bytes::Bytes;
use florin_core::channel::voucher::{self, Voucher};
use florin_core::channel::{channel_id, rules};
use florin_core::keys::Curve;
use florin_core::merkle::{Hash, Tree};
use florin_core::ordered::modules::contracts::contract_id;
use florin_core::registration::sign_registration;
use florin_core::testing::{Actor, secret};
use florin_core::wire::{self, input, network_command, output};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cursor::Cursor;
use crate::worlds::ledger::{Ledger, START};
use crate::worlds::shard::SHARD;

/// Steps of one input.
pub(super) const STEPS: usize = 24;

/// What a module's target adds to an order.
type Pieces<'a> = (&'a mut Vec<wire::Input>, &'a mut Vec<output::Kind>);

/// Runs orders of four accounts, with time, repetitions and junk between them; `piece` makes inputs and outputs and is told the ids of
/// orders that were applied.
fn orders(bytes: &[u8], mut piece: impl FnMut(&mut Cursor<'_>, &Ledger, usize, Pieces<'_>, &[Hash])) -> Ledger {
    let mut cursor = Cursor::new(bytes);
    let mut ledger = Ledger::new();
    let mut ids: Vec<Hash> = Vec::new();
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        match cursor.byte() {
            0 => {
                let now = ledger.time().saturating_add(u64::from(cursor.byte()) * 500);
                ledger.clocks(now);
            }
            1 => {
                // One clock alone, perhaps a liar's.
                let clock = cursor.time(ledger.time());
                ledger.items(cursor.below(4) as u32, clock, Vec::new());
            }
            2 if !ledger.units.is_empty() => {
                let (creator, data) = ledger.units[cursor.below(ledger.units.len())].clone();
                let objects = ledger.objects();
                let has_clock = wire::UnitData::decode(&data[..]).is_ok_and(|unit| unit.clock_ms != 0);
                ledger.unit(creator, &data);
                assert!(has_clock || ledger.objects() == objects, "what was applied is applied again");
            }
            3 => {
                let data = cursor.long();
                ledger.unit(cursor.below(4) as u32, &data);
            }
            _ => {
                let signer = cursor.below(ledger.signers.len());
                let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
                for _ in 0..1 + cursor.below(3) {
                    piece(&mut cursor, &ledger, signer, (&mut inputs, &mut outputs), &ids);
                }
                let before = ledger.objects();
                if let Some((id, code)) = ledger.call(signer, inputs, outputs) {
                    ids.push(id);
                    let held = |letter| move |(key, _): &(&Vec<u8>, &Bytes)| key[0] == letter;
                    let after = ledger.objects();
                    for letter in *b"clnkp" {
                        let same = before.iter().filter(held(letter)).eq(after.iter().filter(held(letter)));
                        assert!(
                            code == 0 || same,
                            "an order that failed with {code} has changed objects {}",
                            letter as char
                        );
                    }
                }
            }
        }
    }
    ledger.check();
    ledger
}

fn id_of(cursor: &mut Cursor<'_>, ids: &[Hash], of: impl Fn(&Hash, u32) -> Hash) -> Bytes {
    match ids.len() {
        0 => Bytes::copy_from_slice(&[cursor.byte(); 32]),
        some => {
            let (id, output) = (ids[some - 1 - cursor.below(some)], cursor.byte() as u32 % 3);
            Bytes::copy_from_slice(&of(&id, output))
        }
    }
}

fn any_output(cursor: &mut Cursor<'_>) -> Option<output::Kind> {
    wire::Output::decode(Bytes::copy_from_slice(cursor.short())).ok()?.kind
}

/// Units of any bytes, and of items that are cut, joined and changed.
pub fn log_units(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut ledger = Ledger::new();
    let mut real: Vec<Bytes> = Vec::new();
    let fund = florin_core::testing::Signer::new(900).call(vec![], vec![credit(&ledger, 1, 5)]);
    real.push(ledger.certify(&[fund]).encode_to_vec().into());
    let (bodies, network) = (SHARD.certified.clone(), SHARD.actors.clone());
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        let creator = cursor.below(5) as u32;
        let mut unit = wire::UnitData { clock_ms: cursor.time(START), items: Vec::new() };
        for _ in 0..cursor.below(4) {
            let item = match cursor.byte() % 6 {
                0 => cursor.long(),
                1 => real[0].clone(),
                2 => {
                    let mut changed = real[0].to_vec();
                    let at = usize::from(u16::from_le_bytes([cursor.byte(), cursor.byte()])) % changed.len();
                    changed[at] ^= cursor.byte();
                    changed.into()
                }
                3 => {
                    let (network_id, actor) = *cursor.pick(&network);
                    let seqnum = cursor.byte().into();
                    let report = wire::RecoveryReport { network_id, actor, seqnum, order_id: Bytes::new() };
                    wire::Item { kind: Some(wire::item::Kind::Report(report)) }.encode_to_vec().into()
                }
                4 => {
                    let report = wire::NoteReport { nonce: cursor.pick(&SHARD.nonces).clone(), ..Default::default() };
                    wire::Item { kind: Some(wire::item::Kind::NoteReport(report)) }.encode_to_vec().into()
                }
                _ => {
                    // What the committee has really certified, with a place or two changed.
                    let (certificate, orders) = cursor.pick(&bodies).clone();
                    let decoded =
                        orders.into_iter().map(|o| florin_core::envelope::Order::decode(o).expect("certified"));
                    let bodies: Vec<Bytes> = decoded.map(|o| o.body).collect();
                    let mut indices: Vec<u32> = (0..bodies.len() as u32).collect();
                    if cursor.flag() {
                        indices[0] = cursor.byte().into();
                    }
                    let certificate = Some(certificate);
                    let orders = wire::CertifiedOrders { certificate, indices, bodies, proof: vec![] };
                    wire::Item { kind: Some(wire::item::Kind::Orders(orders)) }.encode_to_vec().into()
                }
            };
            unit.items.push(item);
        }
        let data = if cursor.flag() { unit.encode_to_vec().into() } else { cursor.long() };
        ledger.unit(creator, &data);
    }
    ledger.check();
}

pub(super) fn credit(ledger: &Ledger, to: usize, amount: u64) -> output::Kind {
    output::Kind::Credit(wire::Credit { address: ledger.address(to), amount })
}

/// Hash-locked contracts: claimed once with the secret in time, or taken back after it.
pub fn log_contracts(bytes: &[u8]) {
    let ledger = orders(bytes, |cursor, ledger, _, (inputs, outputs), ids| {
        let preimage: &[u8] = *cursor.pick(&[b"one", b"two"]);
        match cursor.byte() % 8 {
            0..=2 => outputs.push(output::Kind::ContractFund(wire::ContractFund {
                amount: cursor.amount(),
                hash: Bytes::copy_from_slice(&Sha256::digest(preimage)),
                expiry_ms: cursor.time(ledger.time()),
                receiver: ledger.address(cursor.below(4)),
                sender: ledger.address(cursor.below(4)),
            })),
            3 | 4 => {
                let contract = id_of(cursor, ids, contract_id);
                let claim = wire::ContractClaim { contract, preimage: Bytes::copy_from_slice(preimage) };
                inputs.push(wire::Input { amount: cursor.amount(), kind: Some(input::Kind::ContractClaim(claim)) });
            }
            5 => {
                let contract = id_of(cursor, ids, contract_id);
                let refund = wire::ContractRefund { contract };
                inputs.push(wire::Input { amount: cursor.amount(), kind: Some(input::Kind::ContractRefund(refund)) });
            }
            6 => outputs.push(credit(ledger, cursor.below(4), cursor.amount())),
            _ => outputs.extend(any_output(cursor)),
        }
    });
    assert!(ledger.book().contracts >= 0);
}

/// Payment channels in the log.
pub fn log_channels(bytes: &[u8]) {
    let ledger = orders(bytes, |cursor, ledger, signer, (inputs, outputs), ids| {
        let channel = id_of(cursor, ids, |id, output| channel_id(ledger.committee.id(), id, output));
        outputs.push(match cursor.byte() % 10 {
            0 | 1 => {
                let (opener, other) = (cursor.below(4), cursor.below(4));
                let keys = |cursor: &mut Cursor<'_>, of: usize| match cursor.byte() % 4 {
                    0 => Bytes::new(),
                    1 => ledger.signers[(of + 1) % 4].permission.encode(),
                    _ => ledger.signers[of].permission.encode(),
                };
                output::Kind::ChannelOpen(wire::ChannelOpen {
                    opener: ledger.address(opener),
                    other: ledger.address(other),
                    opener_permission: keys(cursor, opener),
                    other_permission: keys(cursor, other),
                    delay_ms: 1_000 * u64::from(cursor.byte()),
                    two_way: cursor.flag(),
                    amount: cursor.amount(),
                })
            }
            2 => {
                let (side, amount) = (cursor.byte() as u32 % 3, cursor.amount());
                output::Kind::ChannelDeposit(wire::ChannelDeposit { channel, side, amount })
            }
            3 => {
                let permission = ledger.signers[signer].permission.encode();
                output::Kind::ChannelKeys(wire::ChannelKeys { channel, permission })
            }
            4 | 5 => {
                let redemptions = (0..cursor.below(3)).map(|_| redemption(cursor, ledger, &channel, signer)).collect();
                let claims = (0..cursor.below(3)).map(|_| claim(cursor, ledger, &channel)).collect();
                output::Kind::ChannelRedeem(wire::ChannelRedeem { redemptions, claims })
            }
            6 => output::Kind::ChannelLeave(wire::ChannelLeave { channel, amount: cursor.amount() }),
            7 => output::Kind::ChannelSettle(wire::ChannelSettle { channel }),
            8 => output::Kind::ChannelCollect(wire::ChannelCollect { channel }),
            _ => {
                let permit = cursor.flag().then(|| {
                    let terms = wire::WithdrawPermit {
                        channel: channel.clone(),
                        side: cursor.below(2) as u32,
                        withdrawn: cursor.amount(),
                        not_after_ms: cursor.time(ledger.time()),
                    };
                    voucher::sign_withdraw(&terms, &[&ledger.signers[cursor.below(4)].keys[0]])
                });
                let redemptions = (0..cursor.below(2)).map(|_| redemption(cursor, ledger, &channel, signer)).collect();
                let withdraw = wire::ChannelWithdraw { channel, redemptions, permit };
                inputs
                    .push(wire::Input { amount: cursor.amount(), kind: Some(input::Kind::ChannelWithdraw(withdraw)) });
                credit(ledger, signer, cursor.amount())
            }
        });
    });
    // What every channel holds is somebody's.
    for (key, value) in ledger.objects() {
        if key[0] == b'l' {
            let record = wire::ChannelRecord::decode(value).expect("the log's own record");
            let shares = rules::shares(&record).map(i128::from);
            assert_eq!(shares[0] + shares[1], rules::held(&record), "{record:?}");
            assert!(!record.collected || rules::held(&record) == 0);
        }
    }
}

fn caps(ledger: &Ledger) -> (Vec<wire::VirtualCap>, Tree) {
    let cap = |number: u8| wire::VirtualCap {
        id: Bytes::from(vec![number; 32]),
        permission: ledger.signers[0].permission.encode(),
        cap: 50,
        not_after_ms: START + 60_000 * u64::from(number),
    };
    let caps: Vec<wire::VirtualCap> = (1..=2).map(cap).collect();
    let tree = Tree::new(&caps.iter().map(voucher::virtual_leaf).collect::<Vec<_>>());
    (caps, tree)
}

fn redemption(cursor: &mut Cursor<'_>, ledger: &Ledger, channel: &Bytes, signer: usize) -> wire::Redemption {
    let mut terms = wire::Voucher {
        channel: channel.clone(),
        payer: u32::from(cursor.flag()),
        lane: u32::from(cursor.byte() % 4),
        nonce: cursor.byte().into(),
        amount: cursor.amount(),
        ..Default::default()
    };
    match cursor.byte() % 6 {
        0 => terms.secret_hash = Bytes::copy_from_slice(&Sha256::digest(b"one")),
        1 => terms.not_after_ms = cursor.time(ledger.time()),
        2 => terms.not_before_ms = cursor.time(ledger.time()),
        3 => terms.merges = vec![wire::LaneMerge { lane: cursor.byte().into(), nonce: cursor.byte().into() }],
        4 => {
            let root = Bytes::copy_from_slice(&caps(ledger).1.root());
            terms.virtuals = Some(wire::VirtualSet { root, count: 2 });
        }
        _ => {}
    }
    let by = cursor.below(4);
    let made = Voucher::sign(terms, u32::from(cursor.flag()), &[&ledger.signers[by].keys[0]]);
    let watch = (cursor.byte() == 0xff).then(|| {
        let watcher = ledger.address(signer);
        let permit = wire::WatchPermit { channel: channel.clone(), side: cursor.below(2) as u32, watcher };
        voucher::sign_watch(&permit, &[&ledger.signers[by].keys[0]])
    });
    let secret = if cursor.flag() { Bytes::from_static(b"one") } else { Bytes::new() };
    wire::Redemption { voucher: Some(made.signed()), secret, watch }
}

fn claim(cursor: &mut Cursor<'_>, ledger: &Ledger, channel: &Bytes) -> wire::VirtualClaim {
    let (caps, tree) = caps(ledger);
    let index = cursor.below(2);
    let amount = wire::VirtualAmount { id: caps[index].id.clone(), amount: cursor.amount() };
    wire::VirtualClaim {
        channel: channel.clone(),
        payer: u32::from(cursor.flag()),
        lane: u32::from(cursor.byte() % 4),
        cap: Some(caps[index].clone()),
        index: index as u32,
        path: tree.path(index).iter().map(|h| Bytes::copy_from_slice(h)).collect(),
        amount: Some(voucher::sign_virtual(&amount, &[&ledger.signers[cursor.below(2)].keys[0]])),
        watch: None,
    }
}

/// Networks, their admins and actors.
pub fn log_registry(bytes: &[u8]) {
    use network_command::Kind as K;
    orders(bytes, |cursor, ledger, _, (_, outputs), ids| {
        let network_id = 500 + cursor.byte() as u64 % 3;
        let actor_id = 1 + cursor.byte() as u64 % 3;
        let curve = *cursor.pick(&[Curve::K1, Curve::R1, Curve::Ed25519]);
        let actor = Actor::new(network_id, actor_id, curve);
        let kind = match cursor.byte() % 16 {
            0 | 1 => K::Register(wire::NetworkRegister {
                flags: u32::from(cursor.byte() & 15),
                metadata: Bytes::copy_from_slice(cursor.short()),
                listeners: (0..cursor.below(3)).map(|i| ledger.address(i)).collect(),
                open: cursor.flag(),
            }),
            2 => K::Metadata(wire::NetworkMetadata { metadata: Bytes::copy_from_slice(cursor.short()) }),
            3 => K::Offer(wire::NetworkOffer { admin: ledger.address(cursor.below(4)) }),
            4 => K::Accept(wire::NetworkAccept {}),
            5 => K::Remove(wire::NetworkRemove {}),
            6 => K::Update(wire::NetworkUpdate {
                flags: u32::from(cursor.byte() & 15),
                listeners: (0..cursor.below(3)).map(|i| ledger.address(3 - i)).collect(),
                open: cursor.flag(),
            }),
            7 => K::Precheck(wire::Precheck {
                types: (0..cursor.below(3))
                    .map(|i| wire::TypeRange { first: i as u32, last: cursor.byte().into() })
                    .collect(),
                content_max: cursor.byte().into(),
                actors: (0..cursor.below(4) as u64).collect(),
            }),
            8 | 9 => K::Actor(actor.permission.encode()),
            10 | 11 => {
                let permission = actor.permission.encode();
                let key = if cursor.byte() == 0xff { secret(curve, 99) } else { secret(curve, actor_id) };
                let signature = Bytes::copy_from_slice(sign_registration(&permission, &key).as_bytes());
                K::Open(wire::ActorOpen { permission, signature })
            }
            12 => K::RemoveActor(actor_id),
            13 => K::FreezeActor(wire::ActorFreeze { actor: actor_id, frozen: cursor.flag() }),
            14 => K::Prune(wire::HistoryPrune { before_us: cursor.number(), max_rows: cursor.byte().into() }),
            _ => {
                let order_id = ids.last().map_or(Bytes::from(vec![0; 32]), |id| Bytes::copy_from_slice(id));
                K::Admit(wire::ActorAdmit { actor: actor_id, order_id })
            }
        };
        outputs.push(output::Kind::Network(wire::NetworkCommand { network_id, kind: Some(kind) }));
    });
}

/// The embedded primary: what is redeemed there can be deposited again, once.
pub fn log_primary(bytes: &[u8]) {
    let ledger = orders(bytes, |cursor, ledger, _, (_, outputs), _| {
        let (address, amount) = (ledger.address(cursor.below(4)), cursor.amount());
        outputs.push(match cursor.byte() % 4 {
            0 | 1 => output::Kind::PrimaryRedeem(wire::PrimaryRedeem { amount, address }),
            2 => output::Kind::PrimaryDeposit(wire::PrimaryDeposit { amount, address }),
            _ => credit(ledger, cursor.below(4), amount),
        });
    });
    assert!(ledger.book().primary >= 0);
    for (key, value) in ledger.objects().iter().filter(|(key, _)| key[0] == b'p' && key.len() > 1) {
        let balance = wire::PrimaryBalance::decode(value.clone()).expect("the log's own record");
        assert!(i128::from(balance.amount) <= ledger.book().primary, "{}", hex::encode(key));
    }
}
