//! Which faults a run has: named profiles, and parts of a run that can be left out one by one.

use serde::{Deserialize, Serialize};

use crate::Options;

/// A mix of faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// A little of everything that happens to a network of good machines.
    #[default]
    Mixed,
    /// No faults: attackers and cheats are all that is wrong.
    Calm,
    /// 20 to 30 % of messages lost, 30 to 50 % duplicated, delays of all sizes: nothing arrives in order.
    Lossy,
    /// Mixed, with authorities that are heard and don't hear or the other way round, and pairs that can't talk.
    Partitions,
    /// Mixed, with disks that fail syncs, fill up, and tear and flip what is not synced.
    Disks,
    /// Mixed, with clocks that jump.
    Clocks,
    /// Mixed, with crashes at every point of input and output.
    Crashes,
    /// All faults at once.
    All,
}

impl Profile {
    /// All there are.
    pub const ALL: [Profile; 8] = [
        Profile::Mixed,
        Profile::Calm,
        Profile::Lossy,
        Profile::Partitions,
        Profile::Disks,
        Profile::Clocks,
        Profile::Crashes,
        Profile::All,
    ];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Mixed => "mixed",
            Profile::Calm => "calm",
            Profile::Lossy => "lossy",
            Profile::Partitions => "partitions",
            Profile::Disks => "disks",
            Profile::Clocks => "clocks",
            Profile::Crashes => "crashes",
            Profile::All => "all",
        }
    }

    fn has(self, part: Part) -> bool {
        use Part::*;
        match part {
            Loss | Duplicates | Delays | Cuts | Isolation | SlowSyncs | Crashes | WrongClocks | EngineStalls => {
                self != Profile::Calm
            }
            HeavyLoss | Disorder => matches!(self, Profile::Lossy | Profile::All),
            OneWayCuts | SplitPairs => matches!(self, Profile::Partitions | Profile::All),
            FailedSyncs | FullDisks | TornWrites => matches!(self, Profile::Disks | Profile::All),
            ClockJumps => matches!(self, Profile::Clocks | Profile::All),
            CrashPoints => matches!(self, Profile::Crashes | Profile::All),
            Liars | DoubleSigners | Replays | OldChains | NoteThieves | NoteForgers => true,
            Calls | Recoveries | Cash | Channels | Pbtx | Roots => true,
        }
    }
}

/// Something that a run may be without.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Messages get lost.
    Loss,
    /// As many as the profile `lossy` loses and duplicates.
    HeavyLoss,
    /// Messages arrive twice.
    Duplicates,
    /// Messages are late now and then.
    Delays,
    /// All messages take so differently long that hardly two arrive in order.
    Disorder,
    /// One authority is cut off from everybody for a while.
    Cuts,
    /// The same, in one direction.
    OneWayCuts,
    /// Two authorities can't talk to each other, while both talk to the rest.
    SplitPairs,
    /// The one that has settled an order alone is cut off.
    Isolation,
    /// Syncs take long.
    SlowSyncs,
    /// Syncs fail.
    FailedSyncs,
    /// Disks have no room for a while.
    FullDisks,
    /// A crash tears, flips or swaps what is not synced.
    TornWrites,
    /// Shards, logs and authorities lose power.
    Crashes,
    /// And do so at every point of input and output.
    CrashPoints,
    /// f clocks are days off, all others a little, and drift.
    WrongClocks,
    /// Clocks jump.
    ClockJumps,
    /// The ordering engine stalls, and orders units twice.
    EngineStalls,
    /// f authorities lie.
    Liars,
    /// Wallets and actors that sign two orders for a seqnum.
    DoubleSigners,
    /// Who sends old requests again, bent.
    Replays,
    /// Who puts old transactions into new batches.
    OldChains,
    /// Who spends notes twice.
    NoteThieves,
    /// Who forges notes.
    NoteForgers,
    /// Operations of the log: contracts.
    Calls,
    /// Wallets that lock their accounts and free them by the log.
    Recoveries,
    /// Notes.
    Cash,
    /// Channels.
    Channels,
    /// Networks of PBTX, their admins and actors.
    Pbtx,
    /// Senders who sign the roots of their batches together, a worker of theirs that lies, and who makes up keys.
    Roots,
}

impl Part {
    /// All there are: first what takes most away.
    pub const ALL: [Part; 30] = [
        Part::Roots,
        Part::Pbtx,
        Part::Channels,
        Part::Cash,
        Part::Recoveries,
        Part::Calls,
        Part::Liars,
        Part::DoubleSigners,
        Part::Replays,
        Part::OldChains,
        Part::NoteThieves,
        Part::NoteForgers,
        Part::CrashPoints,
        Part::Crashes,
        Part::FailedSyncs,
        Part::FullDisks,
        Part::TornWrites,
        Part::SlowSyncs,
        Part::Cuts,
        Part::OneWayCuts,
        Part::SplitPairs,
        Part::Isolation,
        Part::HeavyLoss,
        Part::Loss,
        Part::Duplicates,
        Part::Delays,
        Part::Disorder,
        Part::ClockJumps,
        Part::WrongClocks,
        Part::EngineStalls,
    ];
}

impl Options {
    /// Whether a run has this: its profile does, and it is not left out.
    pub fn has(&self, part: Part) -> bool {
        self.profile.has(part) && !self.off.contains(&part)
    }

    /// The run of a seed in a soak: committees of 4, 7 and 10 and all profiles take turns.
    pub fn varied(seed: u64) -> Self {
        // Which seeds have channels repeats every four: profiles shift by one after each round of them.
        const AUTHORITIES: [u32; 5] = [4, 4, 7, 4, 10];
        let profile = Profile::ALL[((seed + seed / 8) % 8) as usize];
        let authorities = AUTHORITIES[(seed % AUTHORITIES.len() as u64) as usize];
        let shards = 1 + (seed / 2 % 4) as u32;
        Options { profile, authorities, shards, ..Options::new(seed) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_part_can_be_left_out_and_is_in_all() {
        let distinct: BTreeSet<Part> = Part::ALL.into_iter().collect();
        assert_eq!(distinct.len(), Part::ALL.len());
        for part in Part::ALL {
            let mut options = Options { profile: Profile::All, ..Options::new(1) };
            assert!(options.has(part), "{part:?}");
            options.off.insert(part);
            assert!(!options.has(part), "{part:?}");
        }
    }

    #[test]
    fn a_soak_meets_every_profile_with_every_size() {
        let met: BTreeSet<(Profile, u32)> = (1..=60).map(Options::varied).map(|o| (o.profile, o.authorities)).collect();
        assert_eq!(met.len(), 8 * 3);
    }
}
