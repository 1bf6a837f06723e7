//! Files in memory that lose, tear and reorder whatever was not synced.
//!
//! The model is meaner than ext4: after a power cut each 512-byte sector of each write since the file's last sync is on
//! the disk or not, independently, in any file; each change of a directory since its last sync happened or not,
//! independently. After a failed sync the written bytes stay readable, later syncs succeed, and the bytes are lost in
//! the next power cut all the same, as Linux does it.

use super::{File, Files};
use crate::options::DiskSpace;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

const SECTOR_BYTES: usize = 512;

/// How a simulated machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; what it wrote is in the page cache and stays.
    Process,
    /// The power goes; what was not synced is lost, torn and reordered.
    Power,
}

/// A simulated disk; clones are handles to the same one.
#[derive(Clone)]
pub struct SimFiles {
    disk: Arc<Mutex<Disk>>,
}

struct Disk {
    random: Random,
    /// Names as the running system sees them.
    names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Names as they would be found after a power cut.
    durable_names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Changes of names since their directory was synced, oldest first.
    pending_names: Vec<(String, Option<Arc<Mutex<Content>>>)>,
    /// Every operation that changes something counts; at this count the machine goes down.
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    /// The sync at which an error is answered.
    syncs: u64,
    fail_sync_at: Option<u64>,
    syncs_failed: u64,
    /// The changing operation that is answered with this errno.
    fail_at: Option<(u64, i32)>,
    ignore_syncs: bool,
    capacity: Option<u64>,
    /// Handles of an earlier life of the machine no longer work.
    life: u64,
}

#[derive(Default, Clone)]
struct Content {
    /// What a reader sees.
    cached: Vec<u8>,
    /// What the platter holds.
    durable: Vec<u8>,
    /// Writes and size changes since the last successful sync.
    pending: Vec<Change>,
    /// Changes whose sync failed: readable, and never written by a later sync.
    dropped: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Size(usize),
}

impl SimFiles {
    /// An empty disk; everything random follows from the seed.
    pub fn new(seed: u64) -> Self {
        Self {
            disk: Arc::new(Mutex::new(Disk {
                random: Random(seed ^ 0x9e37_79b9_7f4a_7c15),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending_names: Vec::new(),
                operations: 0,
                crash_at: None,
                crashed: false,
                syncs: 0,
                fail_sync_at: None,
                syncs_failed: 0,
                fail_at: None,
                ignore_syncs: false,
                capacity: None,
                life: 0,
            })),
        }
    }

    /// A disk of its own with the same content, all of it durable.
    pub fn fork(&self, seed: u64) -> Self {
        let disk = self.disk.lock();
        Self::holding(seed, &disk.names, |content| &content.cached)
    }

    /// A disk of its own with what a power cut now can not take from this one.
    pub fn fork_durable(&self, seed: u64) -> Self {
        let disk = self.disk.lock();
        Self::holding(seed, &disk.durable_names, |content| &content.durable)
    }

    fn holding(
        seed: u64,
        names: &BTreeMap<String, Arc<Mutex<Content>>>,
        bytes: impl Fn(&Content) -> &Vec<u8>,
    ) -> Self {
        let copy = Self::new(seed);
        let mut to = copy.disk.lock();
        for (name, content) in names {
            let bytes = bytes(&content.lock()).clone();
            let content = Content {
                cached: bytes.clone(),
                durable: bytes,
                ..Content::default()
            };
            let content = Arc::new(Mutex::new(content));
            to.names.insert(name.clone(), content.clone());
            to.durable_names.insert(name.clone(), content);
        }
        drop(to);
        copy
    }

    /// Takes the machine down when `after` more changing operations have been done; the last one is done in part.
    pub fn crash_after(&self, after: u64) {
        let mut disk = self.disk.lock();
        disk.crash_at = Some(disk.operations + after);
    }

    /// Answers the sync after `after` more syncs with an error.
    pub fn fail_sync_after(&self, after: u64) {
        let mut disk = self.disk.lock();
        disk.fail_sync_at = Some(disk.syncs + after);
    }

    /// Takes back what was to happen after so many operations or syncs. A disk whose
    /// power has gone stays without.
    pub fn disarm(&self) {
        let mut disk = self.disk.lock();
        disk.crash_at = None;
        disk.fail_sync_at = None;
        disk.fail_at = None;
    }

    /// Syncs so far that were answered with an error because [`fail_sync_after`](Self::fail_sync_after) said so.
    pub fn syncs_failed(&self) -> u64 {
        self.disk.lock().syncs_failed
    }

    /// Answers the changing operation after `after` more with an errno, once: a write of which a part may be done, a
    /// sync, the creation, renaming, removal or resizing of a file, the sync of a directory.
    pub fn fail_operation_after(&self, after: u64, errno: i32) {
        let mut disk = self.disk.lock();
        disk.fail_at = Some((disk.operations + after, errno));
    }

    /// Whether an operation is still to fail.
    pub fn failure_is_pending(&self) -> bool {
        self.disk.lock().fail_at.is_some()
    }

    /// A disk that lies: syncs return at once and write nothing. For proving that a test can fail.
    pub fn ignore_syncs(&self, ignore: bool) {
        self.disk.lock().ignore_syncs = ignore;
    }

    /// Limits what all files together can hold, in bytes; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().capacity = bytes;
    }

    /// Whether the machine is down.
    pub fn crashed(&self) -> bool {
        self.disk.lock().crashed
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// Takes the machine down, if it is still up, and starts it again. Open handles stop working.
    pub fn restart(&self, crash: Crash) {
        let mut disk = self.disk.lock();
        match crash {
            Crash::Power => disk.cut_power(),
            Crash::Process => disk.forget_dropped(),
        }
        disk.crashed = false;
        disk.crash_at = None;
        disk.fail_sync_at = None;
        disk.fail_at = None;
        disk.life += 1;
    }

    /// Names of all files.
    pub fn names(&self) -> Vec<String> {
        self.disk.lock().names.keys().cloned().collect()
    }

    /// A file's bytes as a reader sees them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.disk
            .lock()
            .names
            .get(name)
            .map(|content| content.lock().cached.clone())
    }

    /// What a sync of this file would have to write now, in bytes; the size alone counts for nothing.
    pub fn unsynced_bytes(&self, name: &str) -> usize {
        let disk = self.disk.lock();
        let content = disk.names.get(name).map(|content| content.lock());
        let pending = content.iter().flat_map(|content| &content.pending);
        pending
            .map(|change| match change {
                Change::Write { bytes, .. } => bytes.len(),
                Change::Size(_) => 0,
            })
            .sum()
    }

    /// Changes a file behind everyone's back, durably: bit rot, or an operator's mistake. One that is not there is
    /// made.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk.lock();
        let content = disk.names.entry(name.to_owned()).or_default().clone();
        disk.durable_names.insert(name.to_owned(), content.clone());
        let mut content = content.lock();
        let mut bytes = content.cached.clone();
        change(&mut bytes);
        *content = Content {
            cached: bytes.clone(),
            durable: bytes,
            ..Content::default()
        };
    }

    /// Removes a file behind everyone's back, durably.
    pub fn tamper_remove(&self, name: &str) {
        let mut disk = self.disk.lock();
        disk.names.remove(name);
        disk.durable_names.remove(name);
        disk.pending_names.retain(|(pending, _)| pending != name);
    }
}

impl std::fmt::Debug for SimFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimFiles").finish_non_exhaustive()
    }
}

impl Disk {
    /// Counts a changing operation; the error once the machine is down. `Ok(true)`: this one is done in part only.
    fn operate(&mut self, life: u64) -> io::Result<bool> {
        self.alive(life)?;
        self.operations += 1;
        if self.crash_at.is_some_and(|at| self.operations >= at) {
            self.crashed = true;
            return Ok(true);
        }
        match self.fail_at {
            Some((at, errno)) if self.operations > at => {
                self.fail_at = None;
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(false),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .map(|content| content.lock().cached.len() as u64)
            .sum()
    }

    /// Whether a file can grow by so much.
    fn has_room(&self, growth: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if growth > 0 && self.used_bytes() + growth > capacity => Err(
                io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"),
            ),
            _ => Ok(()),
        }
    }

    fn alive(&self, life: u64) -> io::Result<()> {
        if self.crashed || life != self.life {
            return Err(down());
        }
        Ok(())
    }

    /// Pages whose write failed are clean to the kernel, so that it may drop them at any time.
    fn forget_dropped(&mut self) {
        let Disk { names, random, .. } = self;
        for content in names.values() {
            let mut content = content.lock();
            if content.dropped.is_empty() || random.one_in(2) {
                continue;
            }
            let mut bytes = content.durable.clone();
            for change in &content.pending {
                change.apply(&mut bytes);
            }
            content.cached = bytes;
            content.dropped.clear();
        }
    }

    fn cut_power(&mut self) {
        // Any subset of the directory changes may have reached the disk; those of one name in their order.
        let mut names = std::mem::take(&mut self.durable_names);
        for (name, content) in std::mem::take(&mut self.pending_names) {
            if self.random.one_in(2) {
                match content {
                    Some(content) => names.insert(name, content),
                    None => names.remove(&name),
                };
            }
        }
        // One content may be found under two names after a torn rename.
        let mut done: Vec<Arc<Mutex<Content>>> = Vec::new();
        for content in names.values() {
            if done.iter().any(|other| Arc::ptr_eq(other, content)) {
                continue;
            }
            done.push(content.clone());
            let mut content = content.lock();
            let Content {
                mut durable,
                pending,
                dropped,
                ..
            } = std::mem::take(&mut *content);
            for change in dropped {
                if self.random.one_in(4) {
                    self.random.apply_torn(&mut durable, change);
                }
            }
            for change in pending {
                self.random.apply_torn(&mut durable, change);
            }
            *content = Content {
                cached: durable.clone(),
                durable,
                ..Content::default()
            };
        }
        self.durable_names.clone_from(&names);
        self.names = names;
    }
}

fn down() -> io::Error {
    io::Error::other("the simulated machine is down")
}

/// Whether the whole machine is down, as opposed to one operation that failed.
fn is_down(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write {
                position,
                bytes: new,
            } => {
                let end = position + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*position..end].copy_from_slice(new);
            }
            Change::Size(size) => bytes.resize(*size, 0),
        }
    }
}

/// SplitMix64: small, seeded, and the same for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// Applies what happens to have reached the disk: all, nothing, or some of the sectors.
    fn apply_torn(&mut self, durable: &mut Vec<u8>, change: Change) {
        match self.next() % 4 {
            0 => {}
            1 => change.apply(durable),
            _ => match change {
                Change::Size(_) => {
                    if self.one_in(2) {
                        change.apply(durable);
                    }
                }
                Change::Write { position, bytes } => {
                    let end = position + bytes.len();
                    let mut at = position;
                    while at < end {
                        let sector_end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                        let stop = sector_end.min(end);
                        if self.one_in(2) {
                            let part = bytes[at - position..stop - position].to_vec();
                            Change::Write {
                                position: at,
                                bytes: part,
                            }
                            .apply(durable);
                        }
                        at = stop;
                    }
                }
            },
        }
    }
}

struct SimFile {
    disk: Arc<Mutex<Disk>>,
    content: Arc<Mutex<Content>>,
    life: u64,
}

impl SimFiles {
    fn handle(&self, disk: &Disk, content: Arc<Mutex<Content>>) -> Arc<dyn File> {
        Arc::new(SimFile {
            disk: self.disk.clone(),
            content,
            life: disk.life,
        })
    }

    fn rename_at(&self, from: &str, to: Option<&str>) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let life = disk.life;
        let partly = disk.operate(life)?;
        if !disk.names.contains_key(from) {
            return Err(not_found(from));
        }
        if partly {
            return Err(down());
        }
        let content = disk.names.remove(from);
        disk.pending_names.push((from.to_owned(), None));
        if let Some(to) = to {
            disk.pending_names.push((to.to_owned(), content.clone()));
            disk.names
                .insert(to.to_owned(), content.ok_or_else(|| not_found(from))?);
        }
        Ok(())
    }
}

impl Files for SimFiles {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        disk.alive(disk.life)?;
        let names = disk.names.keys().filter(|name| parent(name) == dir);
        Ok(names
            .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
            .collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let disk = self.disk.lock();
        disk.alive(disk.life)?;
        let content = disk.names.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.handle(&disk, content.clone()))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        let life = disk.life;
        if disk.operate(life)? {
            return Err(down());
        }
        if let Some(content) = disk.names.get(name).cloned() {
            let mut inner = content.lock();
            inner.cached.clear();
            inner.pending.push(Change::Size(0));
            drop(inner);
            return Ok(self.handle(&disk, content));
        }
        let content = Arc::new(Mutex::new(Content::default()));
        disk.names.insert(name.to_owned(), content.clone());
        disk.pending_names
            .push((name.to_owned(), Some(content.clone())));
        Ok(self.handle(&disk, content))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename_at(from, Some(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.rename_at(name, None)
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let disk = self.disk.lock();
        let total_bytes = disk.capacity.unwrap_or(u64::MAX);
        Ok(DiskSpace {
            free_bytes: total_bytes.saturating_sub(disk.used_bytes()),
            total_bytes,
        })
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let life = disk.life;
        if disk.operate(life)? {
            return Err(down());
        }
        if disk.ignore_syncs {
            return Ok(());
        }
        for (name, content) in std::mem::take(&mut disk.pending_names) {
            if parent(&name) != dir {
                disk.pending_names.push((name, content));
                continue;
            }
            match content {
                Some(content) => disk.durable_names.insert(name, content),
                None => disk.durable_names.remove(&name),
            };
        }
        Ok(())
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.lock().alive(self.life)?;
        let content = self.content.lock();
        let from = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(content.cached.len());
        let read = buffer.len().min(content.cached.len() - from);
        buffer[..read].copy_from_slice(&content.cached[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let done = disk.operate(self.life);
        if done.as_ref().is_err_and(is_down) {
            return done.map(drop);
        }
        let length = match done {
            Ok(false) => bytes.len(),
            _ => usize::try_from(disk.random.next() % (bytes.len() as u64 + 1)).unwrap_or(0),
        };
        let size = self.content.lock().cached.len() as u64;
        disk.has_room((position + length as u64).saturating_sub(size))?;
        let position = usize::try_from(position).map_err(|_| down())?;
        let change = Change::Write {
            position,
            bytes: bytes[..length].to_vec(),
        };
        let mut content = self.content.lock();
        change.apply(&mut content.cached);
        content.pending.push(change);
        if done? { Err(down()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let done = disk.operate(self.life);
        disk.syncs += 1;
        let failed = match done {
            Ok(false) if disk.fail_sync_at.is_some_and(|at| disk.syncs > at) => {
                disk.fail_sync_at = None;
                disk.syncs_failed += 1;
                Some(io::Error::other("simulated EIO"))
            }
            Ok(false) => None,
            // Whether the disk was done when the power went is anyone's guess: the pending writes are torn then.
            Ok(true) => return Err(down()),
            Err(error) if is_down(&error) => return Err(error),
            Err(error) => Some(error),
        };
        let mut content = self.content.lock();
        if let Some(error) = failed {
            let pending = std::mem::take(&mut content.pending);
            content.dropped.extend(pending);
            return Err(error);
        }
        if disk.ignore_syncs {
            return Ok(());
        }
        let pending = std::mem::take(&mut content.pending);
        for change in pending {
            change.apply(&mut content.durable);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.lock().alive(self.life)?;
        Ok(self.content.lock().cached.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.operate(self.life)? {
            return Err(down());
        }
        let before = self.content.lock().cached.len() as u64;
        disk.has_room(size.saturating_sub(before))?;
        let change = Change::Size(usize::try_from(size).map_err(|_| down())?);
        let mut content = self.content.lock();
        change.apply(&mut content.cached);
        content.pending.push(change);
        Ok(())
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        if size <= self.size()? {
            return Ok(());
        }
        self.set_size(size)
    }
}
