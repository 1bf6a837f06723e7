//! Reading history in sequence.

use std::time::Instant;

use futures::future::try_join_all;
use huntlog_client::{Client, proto};
use indicatif::ProgressBar;

use super::recorder::Window;
use crate::failure::Failure;

/// What each reader reads.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    pub from: u64,
    pub events: u64,
    pub stale: bool,
}

impl Range {
    fn request(&self) -> proto::ReadRequest {
        let stale = proto::Stale {
            min_offset: self.from + self.events,
        };
        let level = proto::consistency::Level::Stale(stale);
        proto::ReadRequest {
            from_offset: self.from,
            max_events: self.events,
            consistency: self
                .stale
                .then_some(proto::Consistency { level: Some(level) }),
            ..Default::default()
        }
    }
}

/// Reads all of the range with each of these clients at once. The events read.
pub async fn read_all(clients: &[Client], range: Range, bar: &ProgressBar) -> Result<u64, Failure> {
    let readers = clients.iter().map(async |client| {
        let mut reader = client.read(range.request());
        let mut events = 0;
        while let Some(page) = reader.next_page().await? {
            events += page.len() as u64;
            bar.inc(page.len() as u64);
        }
        if events != range.events {
            let words = format!("{events} events were read of {}", range.events);
            return Err(Failure::Refused(words));
        }
        Ok(events)
    });
    Ok(try_join_all(readers).await?.into_iter().sum())
}

/// Reads the log from its start, again and again, until the window's end. The
/// events read within the window.
pub async fn read_over_and_over(client: Client, window: Window) -> Result<u64, Failure> {
    let mut events = 0;
    loop {
        let mut reader = client.read(proto::ReadRequest::default());
        while let Some(page) = reader.next_page().await? {
            let now = Instant::now();
            if now >= window.end {
                return Ok(events);
            }
            if window.contains(now) {
                events += page.len() as u64;
            }
        }
    }
}
