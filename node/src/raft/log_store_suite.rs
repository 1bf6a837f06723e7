//! openraft's own log store suite on ours, over real files.
//!
//! The suite feeds its state machine entries out of order, which the machine
//! refuses by contract, so the state machine beside our log store is a small
//! one of this test's own.

use std::io;
use std::sync::{Arc, Mutex};

use futures::{Stream, TryStreamExt as _};
use huntlog_storage::{Options, Storage};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::SnapshotOf;
use openraft::{OptionalSend, StorageError};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::{LogId, Payload, Response, SnapshotMeta, StoredMembership, TypeConfig};

#[derive(Clone, Default)]
struct Positions(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl Positions {
    fn meta(&self) -> SnapshotMeta {
        let state = self.0.lock().unwrap();
        SnapshotMeta {
            last_log_id: state.applied,
            last_membership: state.membership.clone(),
        }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Positions {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, ()>> {
        let meta = self.meta();
        self.0.lock().unwrap().snapshot = Some(meta.clone());
        Ok(SnapshotOf::<TypeConfig, ()> { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Positions {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let meta = self.meta();
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut state = self.0.lock().unwrap();
            state.applied = Some(entry.log_id);
            if let Payload::Membership(membership) = entry.payload {
                state.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            drop(state);
            if let Some(responder) = responder {
                responder.send(Response(None));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.applied = meta.last_log_id;
        state.membership = meta.last_membership.clone();
        state.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, ()>>> {
        let meta = self.0.lock().unwrap().snapshot.clone();
        Ok(meta.map(|meta| SnapshotOf::<TypeConfig, ()> { meta, snapshot: () }))
    }
}

/// Closes the storage before its directory goes.
struct Guard {
    storage: Option<Storage>,
    _dir: TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(storage) = self.storage.take() {
            storage.close().expect("the storage has not failed");
        }
    }
}

struct Files;

impl StoreBuilder<TypeConfig, LogStore, Positions, Guard> for Files {
    async fn build(&self) -> Result<(Guard, LogStore, Positions), StorageError<TypeConfig>> {
        let dir = TempDir::new().expect("a temporary directory");
        let (storage, _) =
            Storage::open(dir.path(), Options::default()).expect("a fresh directory");
        let log_store = LogStore::new(storage.partition(0));
        let guard = Guard {
            storage: Some(storage),
            _dir: dir,
        };
        Ok((guard, log_store, Positions::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_store_passes_openrafts_suite() {
    Suite::test_all(Files).await.expect("the suite passes");
}
