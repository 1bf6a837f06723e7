//! `huntctl bench`: how much a cluster takes, how long it takes, and what it
//! costs.
//!
//! A benchmark runs against a cluster that is there, or against one that it
//! spawns for itself; only a disk is measured without any. Load comes through the
//! client library, as a program's would. What the nodes use, and where their time
//! goes, comes from their own metrics: the difference between the end and the
//! beginning of what is measured.

pub mod args;
mod assertion;
mod check;
mod disk;
mod exposition;
mod failover;
mod figures;
mod history;
mod load;
mod observe;
mod payload;
mod readers;
mod recorder;
mod report;
mod schedule;
mod spawn;
mod subscribers;
mod under_load;

use std::iter;

use huntlog_client::{Client, ClientOptions, Producer, event, proto};

use crate::command::cluster::survey;
use crate::failure::Failure;
use crate::output::Format;
use crate::run::offset;
use args::{BenchCommand, ClusterCommand, CommonArguments};
use observe::Observer;
use report::Report;
use spawn::Spawned;

/// Hunts created, or players registered, with one request.
const CREATED_AT_ONCE: usize = 1_000;

/// How far the admin port is from the client port where nobody says otherwise,
/// as in the sample configurations.
const ADMIN_PORT_DISTANCE: u16 = 2;

/// Where the load goes.
pub struct Target {
    spawned: Option<Spawned>,
    endpoints: Vec<String>,
    options: ClientOptions,
    observer: Observer,
    /// Names this benchmark's sessions and hunts.
    name: String,
}

impl Target {
    async fn prepare(
        endpoints: Vec<String>,
        options: ClientOptions,
        common: &CommonArguments,
    ) -> Result<Self, Failure> {
        let spawned = match common.spawn {
            Some(nodes) => Some(Spawned::start(nodes, common).await?),
            None => None,
        };
        let (endpoints, observer) = match &spawned {
            Some(cluster) => {
                let observer = Observer::of_all(cluster.admin_addresses()).await?;
                (cluster.endpoints(), observer)
            }
            None if common.metrics.is_empty() => {
                let admin = usual_admin_addresses(&endpoints, &options).await?;
                (endpoints, Observer::of_those_that_answer(admin).await)
            }
            None => (endpoints, Observer::of_all(common.metrics.clone()).await?),
        };
        Ok(Self {
            spawned,
            endpoints,
            options,
            observer,
            name: format!("bench-{:08x}", rand::random::<u32>()),
        })
    }

    /// A client with connections of its own.
    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.endpoints, self.options.clone())?)
    }

    /// Hunts for the events, each with so many players, and the offset of the
    /// first.
    async fn create_hunts(&self, count: u32, players: u32) -> Result<(Vec<String>, u64), Failure> {
        let hunts: Vec<String> = (0..count).map(|n| format!("{}-{n}", self.name)).collect();
        let clue = proto::Clue {
            id: "unasked".to_owned(),
            title: "Nobody looks for it".to_owned(),
            points: 1,
            answers: vec!["nowhere".to_owned()],
            ..Default::default()
        };
        let definition = proto::HuntDefinition {
            title: "A benchmark's".to_owned(),
            clues: vec![clue],
            ..Default::default()
        };
        let producer = self
            .client()?
            .session(&format!("{}-hunts", self.name))
            .await?;
        let mut first = None;
        for hunts in hunts.chunks(CREATED_AT_ONCE) {
            let created = hunts
                .iter()
                .map(|hunt| event::hunt_created(hunt, definition.clone()));
            let offsets = append_all(&producer, created.collect()).await?;
            first = first.or_else(|| offsets.first().copied());
        }
        if players > 0 {
            let mut registrations = hunts.iter().flat_map(|hunt| {
                let registered = payload::players(players)
                    .map(move |player| event::player_registered(hunt, &player, &player));
                iter::once(event::hunt_opened(hunt)).chain(registered)
            });
            loop {
                let some: Vec<_> = registrations.by_ref().take(CREATED_AT_ONCE).collect();
                if some.is_empty() {
                    break;
                }
                append_all(&producer, some).await?;
            }
        }
        producer.close().await?;
        Ok((hunts, first.expect("at least one hunt is created")))
    }
}

/// Appends events none of which may be refused; answers their offsets.
async fn append_all(producer: &Producer, events: Vec<proto::Event>) -> Result<Vec<u64>, Failure> {
    let count = events.len();
    let appended = producer.append_batch(events).await?.await?;
    let outcomes = appended.outcomes.unwrap_or_default();
    let offsets: Option<Vec<u64>> = outcomes.iter().map(offset).collect();
    offsets
        .filter(|offsets| offsets.len() == count)
        .ok_or_else(|| {
            let words = "the cluster does not take the benchmark's hunts and players";
            Failure::Refused(words.to_owned())
        })
}

/// Where the members' metrics are, unless their operator chose other ports.
async fn usual_admin_addresses(
    endpoints: &[String],
    options: &ClientOptions,
) -> Result<Vec<String>, Failure> {
    let client = Client::connect(endpoints, options.clone())?;
    let status = client.status().await;
    status.map_err(|error| Failure::from(error).during(&endpoints.join(", ")))?;
    let reports = survey(&client, options).await?;
    let addresses = reports.iter().filter_map(|report| {
        let (host, port) = report.address.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        Some(format!("{host}:{}", port.checked_add(ADMIN_PORT_DISTANCE)?))
    });
    Ok(addresses.collect())
}

pub async fn run(
    endpoints: Vec<String>,
    endpoints_given: bool,
    options: ClientOptions,
    format: Format,
    command: BenchCommand,
) -> Result<(), Failure> {
    let assertions = command.check(endpoints_given)?;
    let report = match &command {
        BenchCommand::Cluster(command) => of_cluster(endpoints, options, command).await?,
        BenchCommand::Disk(bench) => disk::run(bench).await?,
    };
    report.print(format, &command.kinds())?;
    report.judge(&assertions)
}

async fn of_cluster(
    endpoints: Vec<String>,
    mut options: ClientOptions,
    command: &ClusterCommand,
) -> Result<Report, Failure> {
    if let Some(load) = command.load() {
        options.connections = usize::from(load.connections);
        options.max_buffered_bytes = load.buffer_bytes();
    }
    let mut target = Target::prepare(endpoints, options, command.common()).await?;
    match command {
        ClusterCommand::Append(bench) => {
            under_load::run(&target, bench.common.runs, &bench.load, 0, 0).await
        }
        ClusterCommand::E2e(bench) => {
            let (runs, subscribers) = (bench.common.runs, bench.subscribers);
            under_load::run(&target, runs, &bench.load, subscribers, 0).await
        }
        ClusterCommand::Mix(bench) => {
            let (runs, subscribers) = (bench.common.runs, bench.subscribers);
            under_load::run(&target, runs, &bench.load, subscribers, bench.readers).await
        }
        ClusterCommand::Read(bench) => history::read(&target, bench).await,
        ClusterCommand::Failover(bench) => failover::run(&mut target, bench).await,
        ClusterCommand::Restart(bench) => history::restart(&mut target, bench).await,
    }
}
