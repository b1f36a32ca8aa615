//! Channel managers: wallets with journals, over a real log, whose vouchers are late, repeated and forged.

use std::collections::VecDeque;

use bytes::Bytes;
use florin_core::channel::manager::{
    self, Conditions, Create, Effect, EndId, Incoming, Input, Issue, Manager, Now, Reply, Reserve, Use,
};
use florin_core::channel::voucher::Voucher;
use florin_core::testing::Signer;
use florin_core::{Result, wire};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cursor::Cursor;
use crate::worlds::chain::{Chain, Keys};

/// Steps of one input.
pub(super) const STEPS: usize = 48;
const SECRET: &[u8] = &[5; 32];

/// What a manager of one account has to know.
pub(super) fn config(signer: &Signer) -> manager::Config {
    let accounts = [(signer.address, signer.permission.encode())].into();
    let committee_id = *Chain::default().ledger.committee.id();
    manager::Config { committee_id, accounts, policy: manager::Policy::default() }
}

/// Both clocks.
pub(super) fn now(chain: &Chain, clock_ms: u64) -> Now {
    Now { log_ms: chain.ledger.time(), clock_ms }
}

/// Some vouchers that were signed by anybody, a true one or a changed one.
fn some_voucher(cursor: &mut Cursor<'_>, pool: &[wire::SignedVoucher], keys: &Signer) -> Option<wire::SignedVoucher> {
    if pool.is_empty() {
        return None;
    }
    let mut found = cursor.pick(pool).clone();
    match cursor.byte() {
        // A liar signs something else, with its own keys.
        1 => {
            let mut terms = wire::Voucher::decode(&found.voucher[..]).ok()?;
            match cursor.byte() % 6 {
                0 => terms.amount = cursor.amount(),
                1 => terms.nonce = cursor.byte().into(),
                2 => terms.lane = cursor.byte().into(),
                3 => terms.not_after_ms = cursor.number(),
                4 => terms.secret_hash = Bytes::from(vec![cursor.byte(); 32]),
                _ => terms.merges = vec![wire::LaneMerge { lane: cursor.byte().into(), nonce: cursor.byte().into() }],
            }
            found = Voucher::sign(terms, found.signer, &[&keys.keys[0]]).signed();
        }
        2 => found.signer ^= 1,
        3 => found.signatures.clear(),
        4 => found = wire::SignedVoucher::decode(cursor.long()).unwrap_or(found),
        _ => {}
    }
    Some(found)
}

/// An input of a manager, from what there is.
pub(super) fn manager_input(
    cursor: &mut Cursor<'_>,
    ends: &[EndId],
    log_ms: u64,
    pool: &[wire::SignedVoucher],
    keys: (&Signer, &Signer),
) -> Option<Input> {
    let what = cursor.byte() % 24;
    if what == 0 || ends.is_empty() {
        let (own, other) = keys;
        let to_permission = if cursor.flag() { other.permission.encode() } else { Bytes::new() };
        let key = Bytes::from(vec![cursor.byte()]);
        let (amount, delay_ms) = (cursor.amount(), 1_000 * u64::from(cursor.byte()));
        let (from, to, two_way) = (own.address, other.address, cursor.flag());
        return Some(Input::Create(Create { key, from, to, to_permission, amount, delay_ms, two_way }));
    }
    let end = *cursor.pick(ends);
    let lane = u32::from(cursor.byte() % 4);
    let incoming = |cursor: &mut Cursor<'_>| {
        let voucher = some_voucher(cursor, pool, keys.1)?;
        let secret = if cursor.flag() { Bytes::from_static(SECRET) } else { Bytes::new() };
        Some(Incoming { end, voucher, secret, proof: Bytes::new(), min_delta: cursor.byte().into() })
    };
    Some(match what {
        1 => Input::AddFunds { end, key: Bytes::from(vec![cursor.byte()]), amount: cursor.amount() },
        2 => Input::Cancel(cursor.byte().into()),
        3 => {
            let usage = *cursor.pick(&[Use::Named, Use::Pool, Use::Lane(lane)]);
            let (key, amount) = (Bytes::copy_from_slice(cursor.take(1)), cursor.amount());
            Input::Reserve(Reserve { end, key, amount, usage, off_chain_only: cursor.flag() })
        }
        4 => Input::Release { end, reservation: cursor.byte().into() },
        5 => Input::ReleaseAmount { end, amount: cursor.amount() },
        6 => Input::AllocateLane(end),
        7..=9 => {
            let conditions = match cursor.byte() % 4 {
                1 => Conditions {
                    secret_hash: Some(Sha256::digest(SECRET).into()),
                    not_before_ms: 0,
                    not_after_ms: log_ms + 60_000 * u64::from(cursor.byte()),
                },
                2 => Conditions { not_before_ms: cursor.time(log_ms), ..Default::default() },
                3 => Conditions { not_after_ms: cursor.time(log_ms), ..Default::default() },
                _ => Conditions::default(),
            };
            Input::VoucherCreate(Issue { end, lane, amount: cursor.amount(), conditions })
        }
        10 => Input::LockPaid { end, lane, secret: Bytes::from_static(SECRET) },
        11 => Input::LockCancel { end, lane },
        12..=14 => Input::VoucherAdd(incoming(cursor)?),
        15 => Input::VoucherAddMany((0..cursor.below(4)).filter_map(|_| incoming(cursor)).collect()),
        16 => Input::Secret { end, lane, secret: Bytes::from_static(SECRET) },
        17 => Input::VoucherSubmit { voucher: incoming(cursor)? },
        18 => Input::SubmitAll(end),
        19 => Input::Settle(end),
        20 => Input::Collect(end),
        21 => {
            if cursor.flag() {
                Input::Keys(end)
            } else {
                Input::Leave { end, amount: cursor.amount() }
            }
        }
        22 => Input::Withdraw { end, amount: cursor.amount(), permit: None },
        _ => Input::Permit { end, withdrawn: cursor.amount(), not_after_ms: cursor.time(log_ms) },
    })
}

/// A wallet with a manager alone.
struct Wallet {
    config: manager::Config,
    manager: Manager,
    keys: Keys,
    journal: Vec<wire::ManagerRecord>,
    effects: VecDeque<Effect>,
}

impl Wallet {
    fn new(signer: &Signer) -> Wallet {
        let config = config(signer);
        let (manager, keys) = (Manager::new(config.clone()), Keys(signer.clone()));
        Wallet { config, manager, keys, journal: Vec::new(), effects: VecDeque::new() }
    }

    fn handle(&mut self, now: Now, input: Input) -> Result<Reply> {
        let before = self.manager.snapshot();
        match self.manager.handle(now, input, &self.keys) {
            Ok(fx) => {
                self.journal.extend(fx.records);
                self.effects.extend(fx.effects);
                Ok(fx.reply)
            }
            Err(e) => {
                assert!(!e.is_own_fault(), "{e}");
                assert_eq!(self.manager.snapshot(), before, "what is refused changes nothing");
                Err(e)
            }
        }
    }

    /// Whoever reads the journal comes to the same, and so does whoever reads what is written anew.
    fn reload(&mut self, now: Now) {
        let loaded = Manager::load(self.config.clone(), &self.journal).expect("its own journal");
        assert_eq!(loaded.snapshot(), self.manager.snapshot(), "the journal is all that counts");
        let written = loaded.snapshot();
        let again = Manager::load(self.config.clone(), &written).expect("its own journal");
        assert_eq!(again.snapshot(), written, "what is written anew is the same");
        self.manager = loaded;
        let fx = self.manager.resume(now);
        self.effects.clear();
        self.journal.extend(fx.records);
        self.effects.extend(fx.effects);
    }

    fn ends(&self) -> Vec<EndId> {
        self.manager.list(None, None, 8)
    }
}

fn vouchers_of(reply: &Reply) -> Option<&wire::SignedVoucher> {
    match reply {
        Reply::Issued { voucher, .. } => voucher.as_ref(),
        _ => None,
    }
}

/// Two managers of one channel or several, over a real log.
pub fn manager(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut chain = Chain::default();
    let signers = [chain.ledger.signers[0].clone(), chain.ledger.signers[1].clone()];
    let mut wallets = [Wallet::new(&signers[0]), Wallet::new(&signers[1])];
    let (mut pool, mut clock) = (Vec::new(), 0);
    for _ in 0..STEPS {
        if cursor.is_empty() {
            break;
        }
        let who = cursor.below(2);
        let at = now(&chain, clock);
        match cursor.byte() % 8 {
            0 => {
                clock += 11_000;
                let later = chain.ledger.time() + 15_000 * u64::from(cursor.byte());
                chain.ledger.clocks(later);
                let at = now(&chain, clock);
                wallets.iter_mut().for_each(|w| drop(w.handle(at, Input::Tick)));
            }
            1 => wallets[who].reload(at),
            2 => {
                // It looks what the log has.
                for end in wallets[1 - who].ends() {
                    if let Some(record) = chain.ledger.channel(&end.channel) {
                        let (record, time_ms) = (Box::new(record), chain.ledger.time());
                        let _ = wallets[who].handle(at, Input::Seen { channel: end.channel, record, time_ms });
                    }
                }
            }
            3 | 4 => {
                for _ in 0..1 + cursor.below(8) {
                    let Some(effect) = wallets[who].effects.pop_front() else { break };
                    let answer = match effect {
                        Effect::Prepare { op, message } => chain.prepare(who, op, message),
                        Effect::Broadcast { op, order } => {
                            let end = wallets[who].manager.operation(op).ok().and_then(|op| op.end);
                            chain.broadcast(who, op, &order, end)
                        }
                        Effect::Event(_) => continue,
                    };
                    let _ = wallets[who].handle(at, answer);
                }
            }
            _ => {
                let ends = wallets[who].ends();
                let keys = (&signers[who], &signers[1 - who]);
                let Some(input) = manager_input(&mut cursor, &ends, at.log_ms, &pool, keys) else { continue };
                if let Ok(reply) = wallets[who].handle(at, input) {
                    pool.extend(vouchers_of(&reply).cloned());
                }
            }
        }
    }
    let at = now(&chain, clock);
    wallets.iter_mut().for_each(|wallet| wallet.reload(at));
    chain.ledger.check();
}
