//! The generation of the keys of e-cash: honest authorities among others who hand in anything, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use florin_core::Result;
use florin_core::cash::dkg::wire::{Complaint, DkgItem, Kind, Verdict};
use florin_core::cash::dkg::{Blob, Blobs, Ceremony, Member, Params, Participant, Phase, PublicKeys};
use florin_core::cash::mint_keys::MintKeys;
use prost::Message;

use crate::cursor::Cursor;

const N: usize = 4;

#[derive(Clone, Default, PartialEq)]
struct Store(BTreeMap<Blob, Bytes>);

impl Blobs for Store {
    fn blob(&self, key: Blob) -> Result<Option<Bytes>> {
        Ok(self.0.get(&key).cloned())
    }
}

struct Run {
    params: Arc<Params>,
    parts: Vec<Participant>,
    ceremony: Ceremony,
    store: Store,
    /// All that was handed in.
    items: Vec<(u32, Bytes)>,
    /// In whose names something was handed in that they have not made.
    liars: BTreeSet<u32>,
    keys: Option<PublicKeys>,
}

impl Run {
    fn new() -> Run {
        let members = (0..N as u32).map(|i| Member { dealer: Some(i), receiver: Some(i) }).collect();
        let params = Arc::new(Params::new([9; 32], 1, 1, 1, members, None).expect("a committee of four"));
        let part = |i| Participant::new(params.clone(), i, [i as u8 + 1; 32], None).expect("a member");
        Run {
            parts: (0..N as u32).map(part).collect(),
            ceremony: Ceremony::new(params.clone()),
            store: Store::default(),
            items: Vec::new(),
            liars: BTreeSet::new(),
            keys: None,
            params,
        }
    }

    fn hand_in(&mut self, creator: u32, item: &Bytes) {
        let before = self.ceremony.encode();
        let record = Ceremony::load(self.params.clone(), &before).expect("its own record");
        match self.ceremony.handle(creator, item, &self.store) {
            Err(e) => {
                assert!(!e.is_own_fault(), "{e}");
                assert_eq!(self.ceremony.encode(), before, "what is refused changes nothing");
            }
            Ok(effects) => {
                assert_eq!(effects.changed, self.ceremony.encode() != before, "it says whether anything changed");
                let mut again = record;
                assert_eq!(
                    again.handle(creator, item, &self.store).as_ref(),
                    Ok(&effects),
                    "the record is all that counts"
                );
                self.store.0.extend(effects.blob);
                self.keys = effects.keys.or(self.keys.take());
            }
        }
        for guilty in self.ceremony.found_out() {
            assert!(self.liars.contains(&guilty), "an honest authority is accused");
        }
    }

    fn own(&self, who: usize) -> Vec<Bytes> {
        self.parts[who].items(&self.ceremony, &self.store).expect("a state in memory")
    }

    fn check(&self) {
        let Some(keys) = &self.keys else { return };
        assert!(self.ceremony.phase() >= Phase::Closed);
        assert_eq!(self.ceremony.keys_hash(), Some(&keys.hash()[..]));
        for (who, part) in (0..).zip(&self.parts).filter(|(who, _)| !self.liars.contains(who)) {
            if let Ok(Some(shares)) = part.shares(&self.ceremony, &self.store) {
                let own = MintKeys::new(keys.clone(), Some(shares));
                assert!(own.is_ok(), "the share of authority {who} is not of the keys");
            }
        }
    }
}

fn change(item: &Bytes, cursor: &mut Cursor<'_>) -> Bytes {
    let mut bytes = item.to_vec();
    match cursor.byte() % 4 {
        0 => {
            let at = usize::from(u16::from_le_bytes([cursor.byte(), cursor.byte()])) % bytes.len();
            bytes[at] ^= cursor.byte();
        }
        1 => bytes.truncate(cursor.byte().into()),
        2 => {
            let Ok(DkgItem { run_id, .. }) = DkgItem::decode(&bytes[..]) else { return item.clone() };
            let complaint =
                Complaint { dealer: cursor.byte().into(), chunk: cursor.byte().into(), ..Default::default() };
            let kind = match cursor.byte() % 4 {
                0 => Kind::GoOn(cursor.byte().into()),
                1 => Kind::Verdict(Verdict { complaints: vec![complaint] }),
                2 => Kind::Late(complaint),
                _ => Kind::Confirm(Bytes::from(vec![cursor.byte(); 32])),
            };
            bytes = DkgItem { run_id, kind: Some(kind) }.encode_to_vec();
        }
        _ => bytes = cursor.long().to_vec(),
    }
    bytes.into()
}

/// A run: no honest authority is found out, every honest share is of the keys, and the record alone decides.
pub fn dkg_run(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let mut run = Run::new();
    for _ in 0..40 {
        if cursor.is_empty() {
            break;
        }
        let (what, who) = (cursor.byte(), cursor.below(N));
        let mut items = run.own(who);
        match what % 8 {
            0..=2 => {
                run.items.extend(items.iter().map(|item| (who as u32, item.clone())));
                for item in items {
                    run.hand_in(who as u32, &item);
                }
            }
            3 => {
                for who in 0..N {
                    for item in run.own(who) {
                        run.items.push((who as u32, item.clone()));
                        run.hand_in(who as u32, &item);
                    }
                }
            }
            4 => {
                if let Some(item) = run.parts[who].go_on(&run.ceremony) {
                    run.hand_in(who as u32, &item);
                }
            }
            5 if !run.items.is_empty() => {
                let (creator, item) = run.items[cursor.below(run.items.len())].clone();
                // In its own name again, or in another's.
                let name = if cursor.flag() { creator } else { who as u32 };
                if name != creator {
                    run.liars.insert(name);
                }
                run.hand_in(name, &item);
            }
            // At most f lie.
            _ if run.liars.is_empty() || run.liars.contains(&(who as u32)) => {
                items.extend(run.items.last().map(|(_, item)| item.clone()));
                if let Some(item) = items.first() {
                    let changed = change(item, &mut cursor);
                    if changed != *item {
                        run.liars.insert(who as u32);
                    }
                    run.hand_in(who as u32, &changed);
                }
            }
            _ => {}
        }
    }
    run.check();
}
