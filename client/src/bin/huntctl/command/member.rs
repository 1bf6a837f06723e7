//! Who belongs to the cluster, and changing that.

use std::io::Write;
use std::time::Duration;

use huntlog_client::{CallError, Client, Reason, proto};
use serde_json::{Value, json};

use crate::args::{MemberCommand, NewNode};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::progress;

/// How often the progress of a learner is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Refusals that `--force` overrides.
const FORCEABLE: [&str; 2] = ["QUORUM_AT_RISK", "NODE_SILENT"];

pub async fn run(client: &Client, format: Format, command: MemberCommand) -> Result<(), Failure> {
    match command {
        MemberCommand::List => list(client, format).await,
        MemberCommand::Add { node } => {
            let id = node.id;
            let answer = add(client, node).await?;
            let (is, was) = ("is a learner", "was a member already");
            done(format, id, answer.already_done, [is, was])
        }
        MemberCommand::Promote { id, force } => {
            let answer = promote(client, id, force).await?;
            let (is, was) = ("is a voter", "was a voter already");
            done(format, id, answer.already_done, [is, was])
        }
        MemberCommand::Remove { id, force } => {
            let answer = remove(client, id, force).await?;
            let (is, was) = ("is removed", "had been removed already");
            done(format, id, answer.already_done, [is, was])
        }
        MemberCommand::Replace { old, node } => {
            let new = node.id;
            add(client, node).await?;
            promote(client, new, false).await?;
            let answer = remove(client, old, false).await?;
            let is = format!("has taken the place of node {old}");
            let was = format!("had taken the place of node {old} already");
            done(format, new, answer.already_done, [&is, &was])
        }
    }
}

/// Says what has become of a node: `words` are for now and for before.
fn done(format: Format, id: u64, already: bool, words: [&str; 2]) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(&json!({"node_id": id, "already_done": already})),
        Format::Table => output::line(&format!("node {id} {}", words[usize::from(already)])),
    }
}

async fn add(client: &Client, node: NewNode) -> Result<proto::AddMemberResponse, Failure> {
    let address = proto::NodeAddress {
        node_id: node.id,
        peer_address: node.peer_address,
        client_address: node.client_address,
    };
    let answer = client.add_member(address).await.map_err(failure)?;
    output::warn(&answer.warnings);
    Ok(answer)
}

/// Promotes a learner, showing on a terminal how far it has caught up.
async fn promote(
    client: &Client,
    id: u64,
    force: bool,
) -> Result<proto::PromoteMemberResponse, Failure> {
    let watched = async {
        let bar = progress::bar(0, "catching up");
        loop {
            if let Ok(list) = client.members().await {
                let learner = list.members.iter().find(|member| member.node_id == id);
                bar.set_length(list.last_log_index);
                bar.set_position(learner.and_then(|m| m.matched_log_index).unwrap_or(0));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let promoted = forceable(force, |force| client.promote_member(id, force));
    tokio::select! {
        answer = promoted => answer,
        () = watched => unreachable!("it goes on for as long as it is polled"),
    }
}

async fn remove(
    client: &Client,
    id: u64,
    force: bool,
) -> Result<proto::RemoveMemberResponse, Failure> {
    forceable(force, |force| client.remove_member(id, force)).await
}

/// Makes a change, and makes it by force, if that is wanted, only once it has
/// been refused: what is at risk is said first.
async fn forceable<T, F>(force: bool, change: impl Fn(bool) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, CallError>>,
{
    match change(false).await {
        Err(CallError::Refused(refusal))
            if force && FORCEABLE.contains(&refusal.reason.as_str()) =>
        {
            // If standard error is closed, there is nobody to tell.
            let _ = writeln!(
                std::io::stderr(),
                "huntctl: forced in spite of this: {refusal}"
            );
            change(true).await.map_err(failure)
        }
        answer => answer.map_err(failure),
    }
}

/// What may yet come into force is no refusal.
fn failure(error: CallError) -> Failure {
    match &error {
        CallError::Refused(refusal) if refusal.reason == Reason::ChangeUnfinished => {
            Failure::Unavailable(error.to_string())
        }
        _ => error.into(),
    }
}

async fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let list = client.members().await?;
    if format == Format::Json {
        return output::json(&json!({
            "leader_id": list.leader_id,
            "last_log_index": list.last_log_index,
            "change_in_progress": list.change_in_progress,
            "retired_node_ids": list.retired_node_ids,
            "members": list.members.iter().map(member_json).collect::<Vec<_>>(),
        }));
    }
    let columns = [
        "NODE#",
        "ROLE",
        "DRAINED",
        "PEER ADDRESS",
        "CLIENT ADDRESS",
        "LAG#",
        "LAST CONTACT#",
        "UUID",
    ];
    output::table(&columns, list.members.iter().map(|m| row(&list, m)))?;
    if list.change_in_progress {
        output::line("a change is in progress")?;
    }
    if !list.retired_node_ids.is_empty() {
        let ids: Vec<String> = list.retired_node_ids.iter().map(u64::to_string).collect();
        output::line(&format!("ids of removed nodes: {}", ids.join(", ")))?;
    }
    Ok(())
}

fn role(list: &proto::ListMembersResponse, member: &proto::Member) -> &'static str {
    match member.voter {
        true if member.node_id == list.leader_id => "leader",
        true => "voter",
        false => "learner",
    }
}

fn contact_ms(member: &proto::Member) -> Option<u128> {
    let since = Duration::try_from(member.since_contact?).ok()?;
    Some(since.as_millis())
}

fn row(list: &proto::ListMembersResponse, member: &proto::Member) -> Vec<String> {
    let leads = member.node_id == list.leader_id;
    let lag = member
        .matched_log_index
        .map(|matched| list.last_log_index.saturating_sub(matched));
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    vec![
        member.node_id.to_string(),
        role(list, member).to_owned(),
        output::yes_or_no(member.draining),
        member.peer_address.clone(),
        member.client_address.clone(),
        text(lag.filter(|_| !leads).map(|lag| lag.to_string())),
        text(
            contact_ms(member)
                .filter(|_| !leads)
                .map(|ms| format!("{ms} ms")),
        ),
        member.node_uuid.clone(),
    ]
}

pub fn member_json(member: &proto::Member) -> Value {
    json!({
        "node_id": member.node_id,
        "node_uuid": member.node_uuid,
        "client_address": member.client_address,
        "peer_address": member.peer_address,
        "voter": member.voter,
        "draining": member.draining,
        "matched_log_index": member.matched_log_index,
        "since_contact_ms": contact_ms(member).map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
    })
}
