//! The dimensions: one grows, the others stay where the base point has them.

use clap::ValueEnum;

use super::Args;
use super::point::Point;

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Dimension {
    /// Accounts of one shard, any of which pays any other
    Accounts,
    /// Accounts of one shard, of which the same ten thousand pay each other
    Idle,
    /// Shards of the authority, payments to anybody
    Shards,
    /// Share of the payments that go to another shard
    Cross,
    /// Authorities of the committee
    Committee,
    /// Orders of a batch
    Batch,
    /// Transfers settled before
    History,
}

/// Shards of the authority while the share of payments between them grows.
const CROSS_SHARDS: u32 = 4;

/// Accounts that pay and are paid while others are idle.
const ACTIVE: u64 = 10_000;

/// A dimension as it is measured.
pub struct Plan {
    /// What is measured, with its place on the axis; a point of several windows has several.
    pub points: Vec<(f64, Point)>,
    /// Index of the row that others are compared with.
    pub base: usize,
    /// Index of the row with a bar, and the largest ratio that is asked for.
    pub bar: Option<(usize, f64)>,
}

impl Dimension {
    /// In the order of the report.
    pub const ALL: [Dimension; 7] = [
        Dimension::Accounts,
        Dimension::Idle,
        Dimension::Shards,
        Dimension::Cross,
        Dimension::Committee,
        Dimension::Batch,
        Dimension::History,
    ];

    /// Its name, as options have it.
    pub fn name(self) -> &'static str {
        match self {
            Dimension::Accounts => "accounts",
            Dimension::Idle => "idle",
            Dimension::Shards => "shards",
            Dimension::Cross => "cross",
            Dimension::Committee => "committee",
            Dimension::Batch => "batch",
            Dimension::History => "history",
        }
    }

    /// What its axis says.
    pub fn axis(self) -> &'static str {
        match self {
            Dimension::Accounts => "accounts, all active",
            Dimension::Idle => "accounts, 10 k active",
            Dimension::Shards => "shards",
            Dimension::Cross => "% to another shard",
            Dimension::Committee => "authorities",
            Dimension::Batch => "orders of a batch",
            Dimension::History => "transfers settled before",
        }
    }

    /// Whether its axis is logarithmic.
    pub fn is_logarithmic(self) -> bool {
        matches!(self, Dimension::Accounts | Dimension::Idle | Dimension::Committee | Dimension::Batch)
    }

    /// The points up to the limits of the options.
    pub fn plan(self, args: &Args) -> Plan {
        let base = args.base();
        let up_to = |values: &[u64], most: u64| -> Vec<u64> { values.iter().copied().filter(|v| *v <= most).collect() };
        let points = |values: Vec<u64>, point: &dyn Fn(u64) -> Point| -> Vec<(f64, Point)> {
            values.into_iter().map(|value| (value as f64, point(value))).collect()
        };
        match self {
            Dimension::Accounts | Dimension::Idle => {
                // What is flushed is merged once in a million transfers: fewer would not show it.
                let rounds = if args.quick { base.rounds } else { 12 };
                let values = up_to(&[10_000, 100_000, 1_000_000, 3_000_000, 10_000_000], args.max_accounts);
                let active = if self == Dimension::Idle { ACTIVE } else { base.active };
                let points = points(values, &|accounts| Point { accounts, active, rounds, ..base.clone() });
                let bar = points.iter().position(|(at, _)| *at == 1e7).map(|at| (at, 1.2));
                Plan { points, base: 0, bar }
            }
            Dimension::Shards => {
                let values = up_to(&[1, 2, 4, 8], u64::from(args.max_shards));
                let points = points(values, &|shards| Point { shards: shards as u32, ..base.clone() });
                Plan { points, base: 0, bar: None }
            }
            Dimension::Cross => {
                let shards = CROSS_SHARDS.min(args.max_shards);
                let point = |percent| Point { shards, cross_percent: Some(percent as u32), ..base.clone() };
                Plan { points: points(vec![0, 25, 50, 75, 100], &point), base: 0, bar: Some((4, 1.25)) }
            }
            Dimension::Committee => {
                let values = up_to(&[4, 7, 10, 20, 40, 70, 100], args.max_committee as u64);
                let points = points(values, &|n| Point { authorities: n as usize, ..base.clone() });
                let bar = points.iter().position(|(at, _)| *at == 20.0).map(|at| (at, 1.15));
                Plan { points, base: 0, bar }
            }
            Dimension::Batch => {
                let values = up_to(&[1, 4, 16, 64, 256, 1_000, 4_096], args.max_batch as u64);
                let of = |batch: u64| {
                    // Small batches cost so much more that fewer of them say as much.
                    let payments = base.payments.min((batch as usize * 20).max(5_000));
                    Point { batch: batch as usize, payments, ..base.clone() }
                };
                let points = points(values, &of);
                let like_base = points.iter().position(|(at, _)| *at == base.batch as f64);
                Plan { base: like_base.unwrap_or(points.len() - 1), points, bar: None }
            }
            Dimension::History => {
                let window = (base.payments * base.rounds) as u64;
                let windows = (args.max_history / window).max(1) as usize + 1;
                Plan { points: vec![(0.0, Point { windows, ..base })], base: 0, bar: None }
            }
        }
    }
}
