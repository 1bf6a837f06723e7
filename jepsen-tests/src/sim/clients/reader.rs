//! A reader: of any node, linearizable or stale.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_client::Client;
use huntlog_client::proto::{Consistency, GetHuntRequest, ReadRequest, Stale, consistency::Level};
use parking_lot::Mutex;

use super::kept::read_all_kept;
use super::{
    Phase, Place, Places, Program, SETUP_EVENTS, Shared, TIMEOUT, claim_key, earliest_kept,
    entry_of, log_key, only,
};
use crate::history::{Op, Read, StaleRead, Who};
use crate::sim::random::Random;
use huntlog_client::proto::effect::Effect;

pub(in crate::sim) struct Reader {
    pub(in crate::sim) serial: u64,
    pub(in crate::sim) keys: u64,
    pub(in crate::sim) claims: u64,
    pub(in crate::sim) pace: Duration,
    /// It gives a node up after this. Who has little asks more of them while some
    /// can not answer, and a deposed leader among them.
    pub(in crate::sim) patience: Duration,
    pub(in crate::sim) disk: Mutex<Disk>,
}

pub(in crate::sim) struct Disk {
    random: Random,
    places: Places,
    /// Where keys begin of which the beginning is kept no more.
    starts: Places,
    /// Keys read whole once everything was healed and quiet.
    finished: u64,
}

impl Disk {
    pub(in crate::sim) fn new(random: Random) -> Self {
        Self {
            random,
            places: Places::new(),
            starts: Places::new(),
            finished: 0,
        }
    }
}

impl Program for Reader {
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while shared.phase() != Phase::Draining {
                let key = log_key(self.disk.lock().random.below(self.keys));
                let stale = self.disk.lock().random.one_in(4);
                self.read(&shared, ip, &key, stale, None).await;
                if self.claims > 0 && self.disk.lock().random.one_in(4) {
                    self.who(&shared, ip).await;
                }
                shared.pause(self.pace).await;
            }
        })
    }

    fn done(&self, _: Phase) -> bool {
        true
    }

    fn name(&self) -> String {
        format!("reader {}", self.serial)
    }
}

impl Reader {
    /// Reads a key from a node, any if none is named.
    async fn read(
        &self,
        shared: &Shared,
        ip: IpAddr,
        key: &str,
        stale: bool,
        whole: Option<u64>,
    ) -> bool {
        let (client, node, place, given_up) = {
            let mut disk = self.disk.lock();
            let members = shared.members.lock().clone();
            // Where something is broken there is more to be seen.
            let hit = shared.hit.load(Ordering::Relaxed);
            let look_there = members.contains(&hit) && disk.random.one_in(2);
            let node = match whole {
                Some(node) => node,
                None if look_there => hit,
                None => *disk.random.pick(&members),
            };
            let known = disk.places.get(key).copied().unwrap_or_default();
            let from_the_start = whole.is_some() || disk.random.one_in(8);
            let given_up = from_the_start && disk.starts.contains_key(key);
            let place = match from_the_start {
                true => disk.starts.get(key).copied().unwrap_or_default(),
                false => known,
            };
            let patience = match whole {
                Some(_) => TIMEOUT,
                None => self.patience,
            };
            let client = shared.connect_for(patience, ip, Some(node), &mut disk.random);
            (client, node, place, given_up)
        };
        let mut recording = shared.recorder.client();
        let op = move |key: &str, entries: Option<Vec<(u64, u64)>>, end| {
            let key = key.to_owned();
            if stale {
                Op::StaleRead(StaleRead {
                    key,
                    from: place.entries,
                    min_offset: place.entries,
                    node: Some(node),
                    entries,
                    end,
                })
            } else {
                Op::Read(Read {
                    key,
                    from: place.entries,
                    node: Some(node),
                    given_up,
                    entries,
                    end,
                })
            }
        };
        let level = if stale {
            Level::Stale(Stale {
                min_offset: place.offset,
            })
        } else {
            Level::Linearizable(())
        };
        let invoked = recording.invoke(op(key, None, None));
        let mut reader = client.read(ReadRequest {
            from_offset: place.offset,
            filter: only(key),
            consistency: Some(Consistency { level: Some(level) }),
            ..ReadRequest::default()
        });
        let mut entries = Vec::new();
        loop {
            match reader.next_page().await {
                Ok(Some(page)) => entries.extend(shared.entries_of(&page)),
                Ok(None) => break,
                Err(error) => {
                    shared.judge_call(&error);
                    let earliest = earliest_kept(&error);
                    if earliest.is_some() {
                        shared.note_given_up(&error);
                    }
                    invoked.info(error);
                    if let Some(earliest) = earliest {
                        self.start_again(shared, &client, key, earliest).await;
                    }
                    return false;
                }
            }
        }
        let end = place.entries + entries.len() as u64;
        let offset = reader.next_offset();
        {
            let mut coverage = shared.coverage.lock();
            *(if stale {
                &mut coverage.stale_reads
            } else {
                &mut coverage.reads
            }) += 1;
        }
        invoked.ok(op(key, Some(entries), Some(end)));
        let place = Place {
            offset,
            entries: end,
        };
        self.disk.lock().places.insert(key.to_owned(), place);
        true
    }

    /// Finds out which of the key's entries is the first from `earliest` on: what
    /// was before is kept no more.
    async fn start_again(&self, shared: &Shared, client: &Client, key: &str, earliest: u64) {
        let mut reader = client.read(ReadRequest {
            from_offset: earliest,
            filter: only(key),
            ..ReadRequest::default()
        });
        let first = loop {
            match reader.next_page().await {
                Ok(Some(page)) => {
                    if let Some((entries, _)) = page.iter().find_map(entry_of) {
                        break entries;
                    }
                }
                // All of it is gone: how many there were the hunt tells, once nothing
                // is appended any more.
                Ok(None) if shared.phase() == Phase::Draining => {
                    let asked = GetHuntRequest {
                        hunt: key.to_owned(),
                        ..GetHuntRequest::default()
                    };
                    let answer = client.hunt(asked).await;
                    let Some(hunt) = answer.ok().and_then(|answer| answer.hunt) else {
                        return;
                    };
                    break hunt.revision.saturating_sub(SETUP_EVENTS);
                }
                // It is tried again.
                Ok(None) | Err(_) => return,
            }
        };
        let start = Place {
            offset: earliest,
            entries: first,
        };
        let mut disk = self.disk.lock();
        disk.starts.insert(key.to_owned(), start);
        disk.places.insert(key.to_owned(), start);
    }

    async fn who(&self, shared: &Shared, ip: IpAddr) -> bool {
        let (client, key) = {
            let mut disk = self.disk.lock();
            let members = shared.members.lock().clone();
            let node = *disk.random.pick(&members);
            let key = claim_key(disk.random.below(self.claims));
            (shared.connect(ip, Some(node), &mut disk.random), key)
        };
        self.winners(shared, &client, &key).await
    }

    async fn winners(&self, shared: &Shared, client: &Client, key: &str) -> bool {
        let mut recording = shared.recorder.client();
        let op = |winners| {
            Op::Who(Who {
                key: key.to_owned(),
                winners,
            })
        };
        let invoked = recording.invoke(op(None));
        let mut reader = client.read(ReadRequest {
            filter: only(key),
            ..ReadRequest::default()
        });
        let mut winners = Vec::new();
        loop {
            match reader.next_page().await {
                Ok(Some(page)) => winners.extend(page.into_iter().filter_map(|event| {
                    let won = |effect: &huntlog_client::proto::Effect| {
                        matches!(effect.effect, Some(Effect::TreasureWon(_)))
                    };
                    let won = event.effects.iter().any(won);
                    won.then(|| event.event.map(|event| event.player).unwrap_or_default())
                })),
                Ok(None) => break,
                Err(error) => {
                    shared.judge_call(&error);
                    invoked.info(error);
                    return false;
                }
            }
        }
        invoked.ok(op(Some(winners)));
        true
    }

    /// Reads everything that is kept, and every key whole, from each of `members`,
    /// once nothing is appended any more.
    pub(in crate::sim) async fn finish(
        self: Arc<Self>,
        shared: Shared,
        ip: IpAddr,
        members: Vec<u64>,
    ) {
        self.disk.lock().finished = 0;
        for node in &members {
            let client = shared.connect(ip, Some(*node), &mut self.disk.lock().random);
            read_all_kept(&shared, &client, *node).await;
        }
        for index in 0..self.keys {
            for node in &members {
                let key = log_key(index);
                while !self.read(&shared, ip, &key, false, Some(*node)).await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            self.disk.lock().finished += 1;
        }
        let client = {
            let mut disk = self.disk.lock();
            shared.connect(ip, None, &mut disk.random)
        };
        for index in 0..self.claims {
            while !self.winners(&shared, &client, &claim_key(index)).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.disk.lock().finished += 1;
        }
    }

    pub(in crate::sim) fn finished(&self) -> bool {
        self.disk.lock().finished == self.keys + self.claims
    }
}
