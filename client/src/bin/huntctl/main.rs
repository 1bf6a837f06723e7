//! huntctl: the command line tool of huntlog.

mod args;
mod bench;
mod command;
mod document;
mod failure;
mod ledger;
mod monitor;
mod output;
mod pace;
mod play;
mod progress;
mod recording;
mod replay;
mod run;
mod time;
mod verify;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use huntlog_client::{Client, ClientOptions};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use args::{Arguments, ClusterCommand, Command, MemberCommand, NodeCommand};
use failure::Failure;

/// The node's: a load of many sessions allocates as a node does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a request may take when `--timeout` does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The same for each batch of a replay or a play, which is to outlast restarts
/// of the whole cluster.
const RUN_TIMEOUT: Duration = Duration::from_mins(5);

/// The same for what waits until a new node has caught up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_mins(30);

/// A change of the members waits for disks and for nodes that may be dead.
const CHANGE_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<ExitCode> {
    let (arguments, endpoints_given) = Arguments::parse_with_endpoints_given();
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(run(arguments, endpoints_given));
    // Nothing that still runs in the background matters now.
    runtime.shutdown_background();
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                // If standard error is closed, there is nobody to tell.
                let _ = writeln!(std::io::stderr(), "huntctl: {failure}");
            }
            failure.exit_code()
        }
    })
}

/// What the client library does about failures is told on request only, as in
/// `HUNTLOG_LOG=huntlog_client=debug`.
fn log_to_stderr() {
    if let Ok(filter) = EnvFilter::try_from_env("HUNTLOG_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
}

async fn run(arguments: Arguments, endpoints_given: bool) -> Result<(), Failure> {
    let default = match arguments.command {
        Command::Replay(_) | Command::Play(_) => RUN_TIMEOUT,
        Command::Member(MemberCommand::Promote { .. } | MemberCommand::Replace { .. }) => {
            CATCH_UP_TIMEOUT
        }
        _ => TIMEOUT,
    };
    let mut options = ClientOptions {
        timeout: arguments.timeout.unwrap_or(default),
        ..ClientOptions::default()
    };
    if matches!(
        arguments.command,
        Command::Member(_) | Command::Cluster(ClusterCommand::Init { .. })
    ) {
        options.answer_timeout = CHANGE_ANSWER_TIMEOUT;
    }
    let format = arguments.output;
    if let Command::Bench(bench) = arguments.command {
        let endpoints = arguments.endpoints;
        let work = bench::run(endpoints, endpoints_given, options, format, bench);
        return interruptible(work).await;
    }
    let client = Client::connect(&arguments.endpoints, options.clone())?;
    match arguments.command {
        Command::Event(command) => command::event::run(&client, format, command).await,
        Command::Hunt(command) => command::hunt::run(&client, format, command).await,
        Command::Player(command) => command::player::run(&client, format, command).await,
        Command::Session(command) => command::session::run(&client, format, command).await,
        Command::Cluster(command) => {
            command::cluster::run(&client, &options, format, command).await
        }
        Command::Member(command) => {
            interruptible(command::member::run(&client, format, command)).await
        }
        Command::Leader(command) => command::leader::run(&client, format, command).await,
        Command::Node(command) => {
            let (node, undo) = match command {
                NodeCommand::Drain { node } => (node, false),
                NodeCommand::Undrain { node } => (node, true),
            };
            let node = node.unwrap_or_else(|| arguments.endpoints[0].clone());
            command::node::run(&node, undo, &options, format).await
        }
        Command::Snapshot { node } => {
            let node = node.unwrap_or_else(|| arguments.endpoints[0].clone());
            command::snapshot::run(&node, &options, format).await
        }
        Command::Replay(replay) => interruptible(replay::run(&client, format, replay)).await,
        Command::Play(play) => interruptible(play::run(&client, format, play)).await,
        Command::Bench(_) => unreachable!("it connects by itself"),
        Command::Verify { ledger } => verify::run(&client, &options, format, &ledger).await,
    }
}

/// Stops at Ctrl-C or SIGTERM with a message, after cleaning up; what was
/// submitted is seen through by the sessions when the same command runs again.
async fn interruptible(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Failure::io("listening for SIGTERM"))?;
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::Other("interrupted".to_owned())),
        _ = terminate.recv() => Err(Failure::Other("terminated".to_owned())),
    }
}
