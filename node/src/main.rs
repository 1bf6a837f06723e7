//! The huntlog-node binary: `huntlog_node::cli` says what it can do.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use huntlog_node::cli::{CheckArgs, Cli, Command, ExitStatus, InspectArgs, RunArgs};
use huntlog_node::server::{Node, NodeError};
use huntlog_node::telemetry::{Metrics, init_logs};
use tokio::signal::unix::{SignalKind, signal};

/// Most of what a node allocates is freed by another thread, and out of order, of
/// which glibc's heap gets slow: `PERFORMANCE.md` has both figures.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long what still runs in the background may keep the process from ending.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitStatus {
    match Cli::parse().command {
        Command::Check(arguments) => check(&arguments),
        Command::Inspect(arguments) => inspect(&arguments),
        Command::Run(arguments) => run(&arguments),
    }
}

fn check(arguments: &CheckArgs) -> ExitStatus {
    let mut out = std::io::stdout().lock();
    // A closed pipe is no fault of the files.
    arguments.check(&mut out).unwrap_or(ExitStatus::Environment)
}

fn inspect(arguments: &InspectArgs) -> ExitStatus {
    let mut out = std::io::stdout().lock();
    match arguments.inspect(&mut out) {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            ExitStatus::Environment
        }
    }
}

fn complain(message: &dyn std::fmt::Display) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr(), "huntlog-node: {message}");
}

fn run(arguments: &RunArgs) -> ExitStatus {
    let loaded = match arguments.load() {
        Ok(loaded) => loaded,
        Err(faults) => {
            for fault in &faults.0 {
                complain(fault);
            }
            return ExitStatus::Configuration;
        }
    };
    let config = loaded.config;
    let metrics = Arc::new(Metrics::new(
        env!("CARGO_PKG_VERSION"),
        config.node.id,
        &config.cluster.name,
    ));
    if let Err(error) = init_logs(&config.log, &metrics.node) {
        complain(&error);
        return ExitStatus::Configuration;
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads to run on");
            return ExitStatus::Environment;
        }
    };
    raise_file_limit();
    let status = runtime.block_on(async move {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            node = config.node.id,
            cluster = config.cluster.name,
            client = %config.listen.client,
            peer = %config.listen.peer,
            admin = %config.listen.admin,
            data_dir = %config.node.data_dir.display(),
            "starting"
        );
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be awaited");
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be awaited");
        let started = tokio::select! {
            started = Node::start(config, metrics) => started,
            _ = terminate.recv() => return ExitStatus::Success,
            _ = interrupt.recv() => return ExitStatus::Success,
        };
        let mut node = match started {
            Ok(node) => node,
            Err(error) => return give_up(&error),
        };
        let failure = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            error = node.failed() => Some(error),
        };
        match failure {
            None => {
                tracing::info!("told to stop");
                node.shutdown().await;
                ExitStatus::Success
            }
            // Nothing is handed over and nobody is told: what was acknowledged
            // is on disk, and the next start goes by that.
            Some(error) => give_up(&error),
        }
    });
    // A disk that hangs must not keep a failed process from ending.
    runtime.shutdown_timeout(EXIT_PATIENCE);
    status
}

/// Lets the process open as many files as its hard limit says: every client is
/// one, and running out of them would stop the log.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn give_up(error: &NodeError) -> ExitStatus {
    tracing::error!(%error, "the node stops");
    match error {
        NodeError::Bind(_) | NodeError::Listen(_) | NodeError::DataDir(_) => {
            ExitStatus::Environment
        }
        NodeError::Open(huntlog_storage::OpenError::Locked { .. }) => ExitStatus::Environment,
        NodeError::Partition(error) if error.is_lasting() => ExitStatus::Data,
        NodeError::Open(_)
        | NodeError::Identity(_)
        | NodeError::Formation(_)
        | NodeError::Stale(_)
        | NodeError::Removed(_)
        | NodeError::Apply { .. }
        | NodeError::Differs(_)
        | NodeError::Contradicted(_) => ExitStatus::Data,
        NodeError::Partition(_)
        | NodeError::Storage(_)
        | NodeError::Raft { .. }
        | NodeError::Panicked(_) => ExitStatus::Failure,
    }
}
