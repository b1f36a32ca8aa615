//! The door of a shard: who hands in much that comes to nothing waits.
//!
//! To refuse an order costs the shard about what it costs to vote for it, and its sender nothing: without a bound one host
//! could take the whole time of the thread that all others' orders wait for, with bad signatures over and over. So each
//! host has room for a few of the largest batches. An order that is voted for gives its place back at once, one that
//! is refused after a while, one after the other: a host whose orders are good is never held up, another waits here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use florin_core::limits::{ORDERS_PER_BATCH_MAX, REFUSED_ORDER_MS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Orders that a request counts for beside its own: one order alone costs as much as many in a batch.
const REQUEST: usize = 64;
/// Orders of one host that are in hand, or were refused lately, at one shard; more wait.
const ROOM: usize = 4 * (REQUEST + ORDERS_PER_BATCH_MAX);
/// For how long a refused order keeps its place, after those refused before it.
const REFUSED: Duration = Duration::from_millis(REFUSED_ORDER_MS);
/// Hosts that may be known before those that owe nothing are forgotten.
const KNOWN: usize = 1_024;

/// Of all shards of a process.
#[derive(Default)]
pub struct Door(Mutex<HashMap<(IpAddr, u32), Arc<Host>>>);

struct Host {
    room: Arc<Semaphore>,
    /// When the last of its refused orders gives its place back.
    level: Mutex<Instant>,
}

/// Places of the orders of one request. Dropped, they count as refused: whoever does not wait for the answer has caused
/// the work all the same.
pub struct Places {
    host: Arc<Host>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Door {
    fn host(&self, key: (IpAddr, u32)) -> Arc<Host> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= KNOWN {
            hosts.retain(|_, host| Arc::strong_count(host) > 1 || host.room.available_permits() < ROOM);
        }
        let new = || Arc::new(Host { room: Arc::new(Semaphore::new(ROOM)), level: Mutex::new(Instant::now()) });
        hosts.entry(key).or_insert_with(new).clone()
    }

    /// Waits until a host has room for so many orders.
    pub async fn enter(&self, host: IpAddr, shard: u32, orders: usize) -> Places {
        let host = self.host((host, shard));
        let places = u32::try_from(REQUEST + orders.clamp(1, ORDERS_PER_BATCH_MAX)).unwrap_or(u32::MAX);
        // It is never closed.
        let permit = host.room.clone().acquire_many_owned(places).await.ok();
        Places { host, permit }
    }
}

impl Places {
    /// Gives the places back, those of `refused` orders later.
    pub fn leave(mut self, refused: usize) {
        self.give_back(refused);
    }

    fn give_back(&mut self, refused: usize) {
        let Some(mut permit) = self.permit.take() else { return };
        let refused = refused.min(permit.num_permits().saturating_sub(REQUEST));
        let Some(kept) = permit.split(REQUEST + refused).filter(|_| refused > 0) else { return };
        let until = {
            let mut level = self.host.level.lock().unwrap_or_else(PoisonError::into_inner);
            *level = (*level).max(Instant::now()) + REFUSED * refused as u32;
            *level
        };
        // Requests that are dropped as the process ends have no runtime any more, and nobody waits.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let host = self.host.clone();
        runtime.spawn(async move {
            sleep_until(until).await;
            drop((kept, host));
        });
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.give_back(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_waits_and_nobody_else() {
        let door = Door::default();
        let batch = ORDERS_PER_BATCH_MAX;
        for _ in 0..100 {
            door.enter(ONE, 0, batch).now_or_never().expect("good orders are never held up").leave(0);
        }
        // Left without an answer, and refused.
        drop(door.enter(ONE, 0, batch).await);
        for _ in 0..3 {
            door.enter(ONE, 0, batch).now_or_never().expect("there is room").leave(batch);
        }
        assert!(door.enter(ONE, 0, 1).now_or_never().is_none());
        assert!(door.enter(ONE, 1, 1).now_or_never().is_some() && door.enter(OTHER, 0, batch).now_or_never().is_some());
        let began = Instant::now();
        door.enter(ONE, 0, 1).await.leave(0);
        assert_eq!(began.elapsed().as_secs(), (REFUSED * batch as u32).as_secs());
        // From then on it does no better than its orders are refused.
        let began = Instant::now();
        for _ in 0..6 {
            door.enter(ONE, 0, batch).await.leave(batch);
        }
        assert!(began.elapsed() >= REFUSED * 5 * batch as u32);
    }

    #[tokio::test(start_paused = true)]
    async fn orders_one_by_one_count_for_what_they_cost() {
        let door = Door::default();
        let began = Instant::now();
        for _ in 0..256 {
            door.enter(ONE, 0, 1).await.leave(1);
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "there is room");
        for _ in 0..10 {
            door.enter(ONE, 0, 1).await.leave(1);
        }
        assert_eq!(began.elapsed(), REFUSED * 10);
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_owe_nothing_are_forgotten() {
        let door = Door::default();
        door.enter(ONE, 0, 1).await.leave(1);
        for number in 0..3 * KNOWN as u32 {
            door.enter(IpAddr::V4(number.into()), 1, 1).await.leave(0);
        }
        let hosts = door.0.lock().unwrap();
        assert!(hosts.len() <= KNOWN && hosts.contains_key(&(ONE, 0)));
    }
}
