//! What withdrawing, reissuing and depositing cost an authority: its whole state machine, with a disk of memory.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use florin_core::authority::effect::{Effects, Reply};
use florin_core::authority::input::Input;
use florin_core::bearer::{NoteAsked, Spend, build};
use florin_core::bitmap::Bitmap;
use florin_core::cash::batch::verify_notes;
use florin_core::cash::blind::{BlindedNonce, Nonce, NoteSignature};
use florin_core::cash::mint_keys::MintKeys;
use florin_core::cash::testing::{Asked, Note, Purse, mint};
use florin_core::content::credit_output;
use florin_core::testing::{Cluster, NETWORK_ID, NOW_US, Signer, TestCommittee, to};
use florin_core::{Error, Result, wire};
use florin_node::meter::thread_cpu_ns;
use serde_json::{Value, json};

use super::super::cash_crypto::wrong;
use super::super::cpu::{batch_verification_us, median};
use super::super::progress::Progress;
use super::plain::{Plain, Times};
use super::{round2, rows, wallet};
use crate::output::Output;

const AUTHORITIES: usize = 4;
/// Tiers that the notes of each order are spread over.
const TIERS: usize = 8;
/// What accounts start with, minor units.
const FUNDS: u64 = 1 << 40;

const KINDS: [&str; 3] = ["withdraw", "reissue", "deposit"];

/// Microseconds of CPU of each stage, for one note.
#[derive(Clone, Copy, Default)]
struct Stages {
    /// Beside the shard's thread: signatures of notes and owners, points.
    check: f64,
    /// On it.
    vote: f64,
    settle: f64,
    /// Beside it.
    shares: f64,
}

impl Stages {
    fn total(&self) -> f64 {
        self.check + self.vote + self.settle + self.shares
    }
}

/// What was measured; all medians.
pub struct Cost {
    stages: [Stages; 3],
    /// Our own operations, alone.
    own: Times,
    plain: Times,
    /// An owner's signature.
    owner_us: f64,
}

struct World {
    cluster: Cluster,
    keys: Vec<Arc<MintKeys>>,
    purse: Purse,
    signers: Vec<Signer>,
    notes: usize,
}

/// Measures batches of so many orders with so many notes each.
pub fn measure(orders: usize, notes: usize, runs: usize, out: Output) -> Result<Cost> {
    let committee = TestCommittee { issuer_limit: 1 << 62, ..TestCommittee::new(AUTHORITIES, 1) };
    let mut cluster = Cluster::new(&committee);
    let signers: Vec<Signer> = (1..=orders as u64).map(Signer::new).collect();
    signers.iter().for_each(|signer| cluster.fund(signer.address, FUNDS));
    let purse = cluster.make_cash(TIERS);
    let keys = mint(AUTHORITIES as u32, TIERS);
    let mut world = World { cluster, keys, purse, signers, notes };
    let (mut stages, mut own, mut plain) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new(), Vec::new());
    let mut progress = Progress::new(runs + 1, out);
    // One run more, to warm up, is not counted.
    for run in 0..=runs {
        progress.step(format_args!("run {run} of {runs}: {} notes withdrawn, reissued, deposited", orders * notes));
        let (times, (o, p)) = world.run()?;
        if run > 0 {
            stages.iter_mut().zip(times).for_each(|(all, one)| all.push(one));
            own.push(o);
            plain.push(p);
        }
    }
    let of = |times: &[Times], field: fn(&Times) -> f64| median(&mut times.iter().map(field).collect::<Vec<_>>());
    let all = |times: &[Times]| Times {
        hash: of(times, |t| t.hash),
        decode: of(times, |t| t.decode),
        batch: of(times, |t| t.batch),
        share: of(times, |t| t.share),
    };
    let stage = |all: &Vec<Stages>, field: fn(&Stages) -> f64| median(&mut all.iter().map(field).collect::<Vec<_>>());
    Ok(Cost {
        stages: stages.map(|all| Stages {
            check: stage(&all, |s| s.check),
            vote: stage(&all, |s| s.vote),
            settle: stage(&all, |s| s.settle),
            shares: stage(&all, |s| s.shares),
        }),
        own: all(&own),
        plain: all(&plain),
        owner_us: batch_verification_us((orders * notes) as u64, runs)?,
    })
}

impl World {
    /// All three kinds of orders, one after the other, and each operation alone.
    fn run(&mut self) -> Result<([Stages; 3], (Times, Times))> {
        let (orders, asked) = self.withdrawals();
        let (withdraw, notes) = self.settle(&orders, &asked)?;
        let operations = self.operations(&notes.concat())?;
        let (orders, asked) = self.reissues(&notes);
        let (reissue, notes) = self.settle(&orders, &asked)?;
        let orders = self.deposits(&notes);
        let (deposit, _) = self.settle(&orders, &[])?;
        Ok(([withdraw, reissue, deposit], operations))
    }

    fn tiers(&self) -> Vec<u32> {
        (0..self.notes).map(|i| (i % TIERS) as u32).collect()
    }

    fn withdrawals(&mut self) -> (Vec<Bytes>, Vec<Vec<Asked>>) {
        let tiers = self.tiers();
        let asked: Vec<_> = (0..self.signers.len()).map(|_| self.purse.ask(&tiers)).collect();
        (self.signers.iter_mut().zip(&asked).map(|(signer, asked)| signer.withdraw(asked)).collect(), asked)
    }

    fn reissues(&mut self, notes: &[Vec<Note>]) -> (Vec<Bytes>, Vec<Vec<Asked>>) {
        let tiers = self.tiers();
        let asked: Vec<_> = notes.iter().map(|_| self.purse.ask(&tiers)).collect();
        (
            notes
                .iter()
                .zip(&asked)
                .map(|(notes, asked)| {
                    let tiers = asked.iter().map(|asked| asked.tier);
                    reissue(NETWORK_ID, notes, tiers.zip(wallet::blind(asked)))
                })
                .collect(),
            asked,
        )
    }

    fn deposits(&self, notes: &[Vec<Note>]) -> Vec<Bytes> {
        let deposit = |(notes, signer): (&Vec<Note>, &Signer)| {
            let worth = notes.iter().map(|note| 1 << note.tier).sum();
            build(NETWORK_ID, &spends(notes), vec![credit_output(&to(signer.address, worth))], "", None)
        };
        notes.iter().zip(&self.signers).map(deposit).collect()
    }

    /// Runs a batch through a quorum, of which the first is measured; the notes that it makes, by order.
    fn settle(&mut self, orders: &[Bytes], asked: &[Vec<Asked>]) -> Result<(Stages, Vec<Vec<Note>>)> {
        let per = |from: u64, to: u64| (to - from) as f64 / 1e3 / (orders.len() * self.notes) as f64;
        let mut stages = Stages::default();
        let mut votes = Vec::new();
        for i in 0..AUTHORITIES {
            let node = &mut self.cluster.nodes[i][0];
            let start = thread_cpu_ns();
            let checks = node.authority.check_notes(NOW_US, orders, &node.state)?;
            let checked = thread_cpu_ns();
            let effects = node.step(Input::Vote { orders: orders.to_vec(), checks })?;
            if i == 0 {
                (stages.check, stages.vote) = (per(start, checked), per(checked, thread_cpu_ns()));
            }
            votes.push(vote(effects)?);
        }
        let certificate = self.cluster.certificate(orders, votes);
        let settled = Bitmap::full(orders.len());
        let mut answers: Vec<Vec<(u32, Vec<Bytes>)>> = vec![Vec::new(); orders.len()];
        for i in 0..AUTHORITIES {
            let node = &mut self.cluster.nodes[i][0];
            let input = Input::Settle { certificate: certificate.clone(), orders: orders.to_vec() };
            let start = thread_cpu_ns();
            node.step(input)?;
            let stepped = thread_cpu_ns();
            let shares = node.authority.note_shares(orders, &settled)?;
            if i == 0 {
                (stages.settle, stages.shares) = (per(start, stepped), per(stepped, thread_cpu_ns()));
            }
            shares.into_iter().for_each(|of| answers[of.index as usize].push((i as u32, of.shares)));
        }
        let notes = asked
            .iter()
            .zip(&answers)
            .map(|(asked, answers)| wallet::make(&self.keys[0], asked, &wallet::blind(asked), answers));
        Ok((stages, notes.collect::<Result<_>>()?))
    }

    /// Ours, and the library's own, in the same moment.
    fn operations(&self, notes: &[Note]) -> Result<(Times, Times)> {
        let keys = &self.keys[0];
        let claim =
            |note: &Note| Ok((*keys.tier_key(note.tier).ok_or_else(wrong)?, note.secrets.nonce(), note.signature));
        let claims: Vec<_> = notes.iter().map(claim).collect::<Result<_>>()?;
        let nonces: Vec<Nonce> = claims.iter().map(|(_, nonce, _)| *nonce).collect();
        let encoded: Vec<[u8; 48]> = notes.iter().map(|note| note.signature.to_bytes()).collect();
        let blinded: Vec<BlindedNonce> = notes.iter().map(|note| note.secrets.blinded()).collect();
        let share = keys.share(0).ok_or_else(wrong)?;
        let start = thread_cpu_ns();
        black_box(Nonce::hash_all(&nonces));
        let hashed = thread_cpu_ns();
        let all = encoded.iter().all(|bytes| NoteSignature::parse(bytes).is_ok());
        let decoded = thread_cpu_ns();
        let true_ones = verify_notes(&claims).into_iter().all(|is_note| is_note);
        let verified = thread_cpu_ns();
        for blinded in &blinded {
            black_box(share.sign(blinded).to_bytes());
        }
        let signed = thread_cpu_ns();
        if !all || !true_ones {
            return Err(wrong());
        }
        let us = |from: u64, to: u64| (to - from) as f64 / 1e3 / notes.len() as f64;
        let hash = us(start, hashed);
        let own = Times {
            hash,
            decode: us(hashed, decoded),
            batch: us(decoded, verified) - hash,
            share: us(verified, signed),
        };
        let key = keys.tier_key(0).ok_or_else(wrong)?.to_bytes();
        Ok((own, Plain::new(notes, TIERS, &key, &share.secret())?.measure()?))
    }
}

fn vote(effects: Effects) -> Result<wire::Signed> {
    match effects.reply {
        Reply::Vote(wire::VoteReply { vote: Some(vote), errors }) if errors.is_empty() => Ok(vote),
        Reply::Vote(reply) => Err(reply.errors.first().map_or_else(wrong, |e| {
            Error::new(florin_core::Code::from_number(e.code).unwrap_or(florin_core::Code::Decode), &e.message)
        })),
        _ => Err(wrong()),
    }
}

/// How notes stand in an order that spends them.
pub fn spends(notes: &[Note]) -> Vec<Spend> {
    notes.iter().map(Note::spend).collect()
}

/// An order that makes new notes, of these tiers, of old ones.
pub fn reissue(network_id: u64, notes: &[Note], asked: impl Iterator<Item = (u32, BlindedNonce)>) -> Bytes {
    let output =
        |(tier, blinded)| wire::Output { kind: Some(wire::output::Kind::Note(NoteAsked::request(tier, &blinded))) };
    build(network_id, &spends(notes), asked.map(output).collect(), "", None)
}

impl Cost {
    /// Of a reissued note, microseconds.
    pub fn reissued(&self) -> f64 {
        self.stages[1].total()
    }

    /// (points decoded, notes spent, shares) of a note of each kind, as far as they can't be avoided.
    fn needs(kind: usize) -> (f64, f64, f64) {
        [(1.0, 0.0, 1.0), (2.0, 1.0, 1.0), (1.0, 1.0, 0.0)][kind]
    }

    /// The sum of these, by what one of each takes.
    fn sum(kind: usize, times: &Times) -> f64 {
        let (points, spent, shares) = Cost::needs(kind);
        points * times.decode + spent * (times.hash + times.batch) + shares * times.share
    }

    fn ratio(&self, kind: usize) -> f64 {
        self.stages[kind].total() / Cost::sum(kind, &self.plain)
    }

    /// Name and microseconds by kind: what adds up to the total.
    fn split(&self) -> [(&'static str, [f64; 3]); 6] {
        let each = |of: &dyn Fn(usize) -> f64| std::array::from_fn(of);
        let own = &self.own;
        let owners = |kind| Cost::needs(kind).1 * self.owner_us;
        [
            ("hash to curve", each(&|kind| Cost::needs(kind).1 * own.hash)),
            ("decode, subgroup check", each(&|kind| Cost::needs(kind).0 * own.decode)),
            ("batch verification", each(&|kind| Cost::needs(kind).1 * own.batch)),
            ("signature share", each(&|kind| Cost::needs(kind).2 * own.share)),
            ("owners' signatures", each(&owners)),
            ("orders, state, votes", each(&|kind| self.stages[kind].total() - Cost::sum(kind, own) - owners(kind))),
        ]
    }

    /// For people.
    pub fn text(&self) -> String {
        let us = |values: [f64; 3]| values.map(|value| format!("{value:.1}")).to_vec();
        let by = |of: &dyn Fn(usize) -> f64| std::array::from_fn(of);
        let total = |kind: usize| self.stages[kind].total();
        let mut lines: Vec<(String, Vec<String>)> =
            self.split().into_iter().map(|(name, values)| (format!("  {name}"), us(values))).collect();
        lines.push(("us of CPU a note".into(), us(by(&total))));
        lines.push(("plain calls of the library".into(), us(by(&|kind| Cost::sum(kind, &self.plain)))));
        lines.push(("ratio".into(), (0..3).map(|kind| format!("{:.2}", self.ratio(kind))).collect()));
        lines.push(("notes/s a core".into(), (0..3).map(|kind| format!("{:.0}", 1e6 / total(kind))).collect()));
        let stages = [
            ("before the vote, any thread", by(&|kind| self.stages[kind].check)),
            ("vote, the shard's thread", by(&|kind| self.stages[kind].vote)),
            ("settle, the shard's thread", by(&|kind| self.stages[kind].settle)),
            ("shares, any thread", by(&|kind| self.stages[kind].shares)),
        ];
        lines.extend(stages.map(|(name, values)| (name.into(), us(values))));
        let p = &self.plain;
        format!(
            "{}\n\nplain: hash {:.1}, decode {:.1}, part of the batch {:.1}, product {:.1} us",
            rows(&["an authority, without disk", KINDS[0], KINDS[1], KINDS[2]], lines),
            p.hash,
            p.decode,
            p.batch,
            p.share,
        )
    }

    /// For programs.
    pub fn value(&self) -> Value {
        let kind = |i: usize| {
            let split: serde_json::Map<String, Value> =
                self.split().into_iter().map(|(name, values)| (name.to_owned(), round2(values[i]))).collect();
            let s = &self.stages[i];
            json!({
                "kind": KINDS[i], "cpu_us": round2(s.total()), "ceiling_us": round2(Cost::sum(i, &self.plain)),
                "ratio": round2(self.ratio(i)), "notes_per_s_core": (1e6 / s.total()).round(), "split_us": split,
                "stages_us": {"check": round2(s.check), "vote": round2(s.vote), "settle": round2(s.settle),
                    "shares": round2(s.shares)},
            })
        };
        json!((0..3).map(kind).collect::<Vec<_>>())
    }
}
