//! A subscriber: it keeps on its disk how far it is, and goes on from there
//! after a crash, at whatever node answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use huntlog_client::Start;
use parking_lot::Mutex;

use super::{Phase, Program, Shared, earliest_kept, only};
use crate::history::{Op, Poll};
use crate::sim::random::Random;

pub(in crate::sim) struct Subscriber {
    pub(in crate::sim) serial: u64,
    pub(in crate::sim) key: String,
    pub(in crate::sim) disk: Mutex<Disk>,
}

pub(in crate::sim) struct Disk {
    random: Random,
    next_offset: u64,
    /// How often it had to go on behind something that was given up.
    gaps: u64,
    /// Where the log ended when nothing was appended any more.
    end_offset: Option<u64>,
}

impl Disk {
    pub(in crate::sim) fn new(random: Random) -> Self {
        Self {
            random,
            next_offset: 0,
            gaps: 0,
            end_offset: None,
        }
    }
}

impl Subscriber {
    pub(in crate::sim) fn drain_to(&self, end_offset: u64) {
        self.disk.lock().end_offset = Some(end_offset);
    }
}

impl Program for Subscriber {
    fn run(self: Arc<Self>, shared: Shared, ip: IpAddr) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let (client, mut from) = {
                let mut disk = self.disk.lock();
                let client = shared.connect(ip, None, &mut disk.random);
                (client, disk.next_offset)
            };
            let op = |entries| {
                let gaps = self.disk.lock().gaps;
                Op::Poll(Poll {
                    key: self.key.clone(),
                    sub: format!("s{}.{gaps}", self.serial),
                    entries,
                })
            };
            let mut recording = shared.recorder.client();
            let mut subscription = client.subscribe(Start::Offset(from), only(&self.key));
            loop {
                let invoked = recording.invoke(op(None));
                match subscription.next_page().await {
                    Ok(page) => {
                        let entries = shared.entries_of(&page);
                        from = subscription.next_offset().unwrap_or(from);
                        // The program writes both at once.
                        self.disk.lock().next_offset = from;
                        shared.coverage.lock().polls += 1;
                        invoked.ok(op(Some(entries)));
                    }
                    Err(error) => {
                        shared.judge_call(&error);
                        if let Some(earliest) = earliest_kept(&error) {
                            from = earliest;
                            let mut disk = self.disk.lock();
                            disk.next_offset = from;
                            disk.gaps += 1;
                            shared.note_given_up(&error);
                        }
                        invoked.info(error);
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        subscription = client.subscribe(Start::Offset(from), only(&self.key));
                    }
                }
            }
        })
    }

    fn done(&self, phase: Phase) -> bool {
        let disk = self.disk.lock();
        phase != Phase::Draining || disk.end_offset.is_some_and(|end| disk.next_offset >= end)
    }

    fn name(&self) -> String {
        format!("subscriber {} to {}", self.serial, self.key)
    }
}
