//! Playing a recorded hunt: every guess in the file's order, every outcome
//! compared with the verdict.
//!
//! **Order.** The log's order is the file's, whatever `--sessions` is, because
//! the order of solves across teams decides ranks. The batches are split into
//! one contiguous share for each session; within a session they are pipelined,
//! and a session's share begins once its predecessor's is acknowledged.
//!
//! **Exactly once, over crashes of this program too.** The sessions' names
//! follow from the file, the hunt and the flags, and a batch's number from its
//! place. Run again, the same command opens the sessions (which fences a former
//! process still running), learns from each how far it had come, reads those
//! outcomes back from the log, and submits the rest. The hunt is created in the
//! first batch on condition that it has no event, so that a replay with other
//! flags, or into a hunt of someone else's, stops there.

mod judge;
mod plan;

use std::collections::HashMap;

use huntlog_client::{Appended, Client, Producer, proto};
use serde_json::{Value, json};

use crate::args::ReplayArguments;
use crate::failure::Failure;
use crate::ledger::{AcknowledgedBatch, fingerprint};
use crate::output::{self, Format};
use crate::recording::Recording;
use crate::run::{Batch, Run, summary_lines};
use judge::{Judge, Observed};
use plan::{Part, Plan};

pub async fn run(
    client: &Client,
    format: Format,
    arguments: ReplayArguments,
) -> Result<(), Failure> {
    let name = arguments.file.display();
    let recording = Recording::read(&arguments.file)
        .map_err(|error| Failure::Usage(format!("{name}: {error}")))?;
    let plan = Plan::new(&recording, &arguments);
    let total = recording.guesses.len() as u64;
    let run = Run::new(client, &arguments.hunt, total, &arguments.run, "replay")?;
    let mut judge = Judge::new(&recording);

    // All are opened before anything is submitted: a former process that is
    // still running can then submit nothing more under any of them.
    let mut producers = Vec::new();
    for index in 0..plan.sessions() {
        producers.push(client.session(&plan.session(index)).await?);
    }
    recover(client, &run, &plan, &producers, &mut judge).await?;
    for (index, producer) in producers.iter().enumerate() {
        submit_share(&run, &plan, index, producer, &mut judge).await?;
    }
    for producer in producers {
        producer.close().await?;
    }
    report(format, &arguments.hunt, run.finish()?, &judge)
}

async fn submit_share(
    run: &Run,
    plan: &Plan<'_>,
    session: usize,
    producer: &Producer,
    judge: &mut Judge<'_>,
) -> Result<(), Failure> {
    let applied = usize::try_from(producer.last_sequence()).unwrap_or(usize::MAX);
    let mut batches = plan.share(session, applied).peekable();
    let mut done = |(_, part): &(usize, Part), appended: &Appended| {
        let outcomes = appended.outcomes.as_deref().ok_or_else(|| {
            let why = "the cluster no longer keeps a batch's outcomes; run the same command again to read them from the log";
            Failure::Refused(why.to_owned())
        })?;
        judge.take(part, outcomes.iter().map(Observed::of))
    };
    // Whether the hunt can be created decides whether anything else is sent.
    if let Some(first) = batches.next_if(|batch| session == 0 && batch.sequence == 1) {
        let created = run.drive(producer, [first], &mut done).await;
        created.map_err(|failure| match failure {
            Failure::Conflict(why) => already_there(plan.hunt(), &why),
            other => other,
        })?;
    }
    run.drive(producer, batches, &mut done).await
}

fn already_there(hunt: &str, why: &str) -> Failure {
    Failure::Conflict(format!(
        "hunt {hunt} exists already, and a replay can only be taken up again with the same file and flags ({why})"
    ))
}

/// Takes the outcomes of what an earlier process got applied from the log.
async fn recover(
    client: &Client,
    run: &Run,
    plan: &Plan<'_>,
    producers: &[Producer],
    judge: &mut Judge<'_>,
) -> Result<(), Failure> {
    if producers
        .iter()
        .all(|producer| producer.last_sequence() == 0)
    {
        return Ok(());
    }
    let mut applied = read_applied(client, plan.hunt(), producers).await?;
    for (session, producer) in producers.iter().enumerate() {
        let last = producer.last_sequence();
        let mut sequences = applied.keys().filter(|(of, _)| *of == session);
        if sequences.any(|(_, sequence)| *sequence > last) {
            return Err(Failure::Refused(format!(
                "the cluster has forgotten session {}; this replay cannot be taken up again, choose another --hunt",
                producer.session()
            )));
        }
        let already = plan.share(session, 0);
        for batch in already.take_while(|batch| batch.sequence <= last) {
            let events = applied.remove(&(session, batch.sequence));
            recover_batch(
                run,
                plan,
                producer,
                &batch,
                &events.unwrap_or_default(),
                judge,
            )?;
        }
    }
    Ok(())
}

type Applied = HashMap<(usize, u64), Vec<proto::CommittedEvent>>;

/// What is in the log of the hunt from these sessions, by session and batch.
async fn read_applied(
    client: &Client,
    hunt: &str,
    producers: &[Producer],
) -> Result<Applied, Failure> {
    let sessions: HashMap<&str, usize> = producers
        .iter()
        .enumerate()
        .map(|(index, producer)| (producer.session(), index))
        .collect();
    let mut applied = Applied::new();
    let mut reader = client.read(proto::ReadRequest {
        filter: Some(proto::Filter {
            hunts: vec![hunt.to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    });
    while let Some(event) = reader.next().await? {
        if let Some(&session) = sessions.get(event.session.as_str()) {
            let batch = applied.entry((session, event.sequence)).or_default();
            batch.push(event);
        }
    }
    Ok(applied)
}

fn recover_batch(
    run: &Run,
    plan: &Plan<'_>,
    producer: &Producer,
    batch: &Batch<(usize, Part)>,
    applied: &[proto::CommittedEvent],
    judge: &mut Judge<'_>,
) -> Result<(), Failure> {
    let (place, part) = &batch.tag;
    if *part == Part::Setup && *place == 0 && applied.is_empty() {
        let why = "an earlier run of this command was refused for that reason";
        return Err(already_there(plan.hunt(), why));
    }
    // Accepted events are in the log in the batch's order; those that are not
    // there were rejected.
    let mut in_log = applied.iter().peekable();
    let mut accepted = Vec::new();
    let mut observed = Vec::new();
    for planned in &batch.events {
        let print = fingerprint(planned);
        let found = in_log.next_if(|committed| {
            committed.event.as_ref().map(fingerprint).as_ref() == Some(&print)
        });
        observed.push(found.map_or(Observed::Rejected(None), |event| {
            accepted.push((event.offset, print));
            Observed::of_effects(&event.effects)
        }));
    }
    if in_log.next().is_some() {
        return Err(Failure::Refused(format!(
            "session {}, batch {}: the log has other events than this file",
            producer.session(),
            batch.sequence
        )));
    }
    let guesses = plan.guesses_of(part);
    run.recovered(
        guesses,
        AcknowledgedBatch {
            session: producer.session().to_owned(),
            sequence: batch.sequence,
            log_index: applied.first().map_or(0, |event| event.log_index),
            events: batch.events.len(),
            accepted,
            outcomes_known: true,
            duplicate: false,
            attempts: 0,
            sent_ns: 0,
            acked_ns: 0,
        },
    )?;
    judge.take(part, observed.into_iter())
}

fn report(
    format: Format,
    hunt: &str,
    mut summary: Value,
    judge: &Judge<'_>,
) -> Result<(), Failure> {
    let guesses = judge.guesses();
    match format {
        Format::Json => {
            summary["hunt"] = json!(hunt);
            summary["guesses"] = json!(guesses);
            summary["agreements"] = json!(judge.agreements());
            summary["disagreements"] = json!(judge.disagreements());
            summary["rejected_as_already_solved"] = json!(judge.already_solved());
            summary["first_disagreements"] = json!(judge.told());
            output::json(&summary)?;
        }
        Format::Table => {
            output::line(&format!(
                "hunt {}: {} of {guesses} guesses agree with their verdicts, {} disagree",
                output::printable(hunt),
                judge.agreements(),
                judge.disagreements()
            ))?;
            for told in judge.told() {
                output::line(&format!(
                    "  line {}: {} at {}: {} is judged {}, the cluster says {}",
                    told["line"],
                    told["team"],
                    told["puzzle"],
                    told["guess"],
                    told["verdict"].as_str().unwrap_or_default(),
                    told["outcome"].as_str().unwrap_or_default()
                ))?;
            }
            for line in summary_lines(&summary) {
                output::line(&line)?;
            }
        }
    }
    if judge.agreements() < guesses {
        let amiss = guesses - judge.agreements();
        let why = format!("{amiss} of {guesses} guesses do not agree with their verdicts");
        return Err(Failure::Refused(why));
    }
    Ok(())
}
