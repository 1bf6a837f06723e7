//! Opening a data directory: lock, data version, identity, snapshots, log, index, in this order.

use crate::data_version::{DataVersion, NAME};
use crate::error::OpenError;
use crate::files::{Files, OsFiles};
use crate::identity::Identity;
use crate::index::{Index, IndexFault, KeyValue, SledStore};
use crate::indexer::IndexQueue;
use crate::options::{IndexReport, OpenReport, OpenStep, Options, PartitionReport};
use crate::partition::Partition;
use crate::recovery::{Context, Known, Recovered, ReplayError, bring_up_to_date, recover};
use crate::segment;
use crate::segment_files::SegmentFiles;
use crate::shared::{INDEX_DIR, Parts, REBUILD_INDEX, Shared};
use crate::snapshot::{self, Catalogue};
use crate::storage::{Owner, Storage};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

pub(crate) const LOCK: &str = "lock";
const RESERVE: &str = "reserve";

/// Where the index comes from: opened as it is, or created anew.
type IndexOpener<'a> = dyn Fn(bool) -> Result<Arc<dyn KeyValue>, IndexFault> + 'a;

pub(crate) fn open(dir: &Path, options: Options) -> Result<(Storage, OpenReport), OpenError> {
    let io = |operation| move |error| OpenError::io(operation, dir.display(), error);
    fs::create_dir_all(dir).map_err(io("create"))?;
    let absolute = dir.canonicalize().map_err(io("open"))?;
    if let Some(parent) = absolute.parent() {
        fs::File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(io("sync"))?;
    }
    let lock = lock(dir)?;
    let index_dir = dir.join(INDEX_DIR);
    let cache_bytes = options.index_cache_bytes;
    let open_index = |anew: bool| -> Result<Arc<dyn KeyValue>, IndexFault> {
        if anew && index_dir.exists() {
            fs::remove_dir_all(&index_dir).map_err(|error| {
                IndexFault::Damage(format!("it cannot be removed for a rebuild: {error}"))
            })?;
        }
        Ok(Arc::new(SledStore::open(&index_dir, cache_bytes)?))
    };
    let mut salt = [0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut salt))
        .map_err(|error| OpenError::io("read", "/dev/urandom", error))?;
    let files = Arc::new(OsFiles::new(dir));
    open_with(files, &open_index, options, Some(lock), salt)
}

#[cfg(feature = "simulation")]
pub(crate) fn open_simulated(
    files: &crate::files::SimFiles,
    index: &crate::index::SimIndex,
    options: Options,
) -> Result<(Storage, OpenReport), OpenError> {
    let open_index = |anew: bool| -> Result<Arc<dyn KeyValue>, IndexFault> {
        if anew {
            index.clear();
        }
        Ok(Arc::new(index.clone()))
    };
    open_with(
        Arc::new(files.clone()),
        &open_index,
        options,
        None,
        *b"simulated salt 1",
    )
}

/// Takes the directory's lock, which the operating system gives back when the process ends, however it ends.
fn lock(dir: &Path) -> Result<fs::File, OpenError> {
    let path = dir.join(LOCK);
    let io = |error| OpenError::io("lock", path.display(), error);
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message; it is held either way.
            let _ = file.read_to_string(&mut holder);
            return Err(OpenError::Locked {
                path: path.display().to_string(),
                holder: holder.trim().parse().ok(),
            });
        }
        Err(fs::TryLockError::Error(error)) => return Err(io(error)),
    }
    // Always as long, so that it is written over: on a full disk, a file that was cut may find no room again.
    write!(file, "{:<10}", std::process::id()).map_err(io)?;
    Ok(file)
}

fn open_with(
    files: Arc<dyn Files>,
    open_index: &IndexOpener<'_>,
    options: Options,
    lock: Option<fs::File>,
    fresh_salt: [u8; 16],
) -> Result<(Storage, OpenReport), OpenError> {
    let started = Instant::now();
    for dir in [segment::DIR, snapshot::DIR] {
        files
            .create_dir(dir)
            .map_err(|error| OpenError::io("create", files.path(dir).display(), error))?;
    }
    // A kill between a rename and its sync leaves a name that can be seen and is not durable yet: nobody may build on
    // it before it is.
    for dir in ["", segment::DIR, snapshot::DIR] {
        files
            .sync_dir(dir)
            .map_err(|error| OpenError::io("sync", files.path(dir).display(), error))?;
    }
    // Now that their old names are gone for good, and before a disk that is full is written to.
    if let Err(error) = files.resume_removing() {
        tracing::warn!(%error, "files that were removed before this start keep their space");
    }
    let io = |operation, name: &str| {
        let file = files.path(name).display().to_string();
        move |error| OpenError::io(operation, file, error)
    };
    let found = DataVersion::load(&*files, options.data_version_max)?;
    let identity = Identity::load(&*files)?;
    let has_segments = files
        .list(segment::DIR)
        .map_err(io("list", segment::DIR))?
        .iter()
        .any(|name| segment::number_of(name).is_some());
    let version = match found {
        Some(version) => version,
        None if identity.is_some() || has_segments => {
            return Err(OpenError::Damaged {
                file: files.path(NAME).display().to_string(),
                position: 0,
                what: "the data version is missing, though the directory was in use".to_owned(),
            });
        }
        None => {
            let version = DataVersion::fresh(fresh_salt);
            version.save(&*files).map_err(io("write", NAME))?;
            version
        }
    };
    let catalogue = Catalogue::open(&*files)?;

    let context = Context {
        files: &files,
        salt: version.salt,
        options: &options,
    };
    let recovered = recover_with_reserve(
        &context,
        Known {
            in_use: version.in_use || identity.is_some(),
            identified: identity.is_some(),
        },
    )?;
    let version = if version.in_use {
        version
    } else {
        let in_use = DataVersion {
            in_use: true,
            ..version
        };
        in_use.save(&*files).map_err(io("write", NAME))?;
        in_use
    };

    let (index, index_report) = open_and_replay(&context, open_index, &recovered)?;
    // The index's directory may be new.
    files
        .sync_dir("")
        .map_err(|error| OpenError::io("sync", files.path("").display(), error))?;
    let Recovered {
        engine,
        cut,
        frames_rewritten,
        fresh,
        log_bytes,
        ..
    } = recovered;

    let fault = |fault: IndexFault| OpenError::Index {
        path: files.path(INDEX_DIR).display().to_string(),
        reason: fault.reason(),
    };
    let mut partitions = BTreeMap::new();
    let mut claims = BTreeMap::new();
    let mut reports = Vec::new();
    for (id, state) in engine.states() {
        let mut claimed = index.claims(*id).map_err(fault)?;
        claimed.cut_below(
            state
                .history
                .first()
                .map_or(state.live().start, |range| range.start),
        );
        let committed = index.committed(*id).map_err(fault)?;
        // The index is written after the log, so it cannot know more; if it seems to, it knows nothing.
        let committed = committed.filter(|id| {
            state.purged.is_some_and(|purged| id.index <= purged.index)
                || state.id_at(id.index) == Some(*id)
        });
        reports.push(PartitionReport {
            partition: *id,
            history: state.history.clone(),
            records: claimed.to_vec(),
        });
        let partition = Partition::recovered(*id, state.clone(), committed, claimed.clone());
        partitions.insert(*id, Arc::new(partition));
        claims.insert(*id, claimed);
    }
    let report = OpenReport {
        fresh,
        cut,
        frames_rewritten,
        index: index_report,
        segments: engine.closed().len() + 1,
        log_bytes,
        partitions: reports,
        took: started.elapsed(),
    };
    let threaded = lock.is_some();
    let shared = Shared::new(Parts {
        segments: SegmentFiles::new(files.clone(), version.salt),
        files: files.clone(),
        options: options.clone(),
        engine,
        index,
        index_queue: IndexQueue::new(claims),
        partitions,
        catalogue,
        identity,
        version,
        threaded,
    });
    Ok((Storage::from_owner(Owner::start(shared, lock)?), report))
}

/// Recovers the log; if the disk is full, with the space that was set aside for this.
fn recover_with_reserve(context: &Context<'_>, known: Known) -> Result<Recovered, OpenError> {
    let files = &**context.files;
    let is_full = |error: &OpenError| matches!(error, OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
    let recovered = match recover(context, known) {
        Err(error) if is_full(&error) && files.open(RESERVE).is_ok() => {
            tracing::error!(
                "the disk is full; starting with the space set aside for this; make room"
            );
            let freed = files.remove(RESERVE).and_then(|()| files.sync_dir(""));
            freed.map_err(|error| OpenError::io("remove", files.path(RESERVE).display(), error))?;
            return recover(context, known);
        }
        recovered => recovered?,
    };
    let bytes = context.options.reserve_bytes;
    if bytes > 0 && files.open(RESERVE).is_err() {
        let set_aside = files.create(RESERVE).and_then(|file| {
            file.reserve(bytes)?;
            file.sync()?;
            files.sync_dir("")
        });
        if let Err(error) = set_aside {
            tracing::warn!(%error, bytes, "no space could be set aside for starting on a full disk; make room");
            // Gives back what part of it there is.
            files.remove(RESERVE).ok();
        }
    }
    Ok(recovered)
}

/// Opens the index and brings it up to date; if it is damaged in any way, builds it anew.
fn open_and_replay(
    context: &Context<'_>,
    open_index: &IndexOpener<'_>,
    recovered: &Recovered,
) -> Result<(Index, IndexReport), OpenError> {
    let files = &**context.files;
    let closed: Vec<(u64, u64, u64)> = recovered
        .engine
        .closed()
        .iter()
        .map(|segment| (segment.number, segment.end, segment.footer.entries()))
        .collect();
    let failed = |fault: IndexFault| OpenError::Index {
        path: files.path(INDEX_DIR).display().to_string(),
        reason: fault.reason(),
    };
    let marked = files.open(REBUILD_INDEX).is_ok();
    let mut anew = marked.then(|| "a lookup found it damaged".to_owned());
    loop {
        let step = if anew.is_some() {
            OpenStep::Rebuild
        } else {
            OpenStep::Replay
        };
        let fault = match open_index(anew.is_some()) {
            Ok(store) => {
                let index = Index::new(store);
                let empty = index.cursor() == Ok(None);
                match bring_up_to_date(context, &index, &closed, &recovered.first_batch, step) {
                    Ok(replayed) => {
                        if marked {
                            index.sync().map_err(failed)?;
                            let removed = files
                                .remove(REBUILD_INDEX)
                                .and_then(|()| files.sync_dir(""));
                            removed.map_err(|error| {
                                OpenError::io("remove", files.path(REBUILD_INDEX).display(), error)
                            })?;
                        }
                        let frames = replayed.frames;
                        let reason = anew.or_else(|| {
                            (empty && !closed.is_empty()).then(|| "it was empty".to_owned())
                        });
                        return Ok((
                            index,
                            match reason {
                                Some(reason) => IndexReport::Rebuilt { reason, frames },
                                None => IndexReport::Replayed { frames },
                            },
                        ));
                    }
                    Err(ReplayError::Log(error)) => return Err(error),
                    Err(ReplayError::Index(fault)) => fault,
                }
            }
            Err(fault) => fault,
        };
        if anew.is_some() {
            return Err(failed(fault));
        }
        let reason = fault.reason();
        tracing::error!(
            reason,
            "the index is damaged; building it anew from the segments"
        );
        anew = Some(reason);
    }
}
