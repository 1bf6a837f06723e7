//! The services of one node.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use huntlog_client::proto;
use huntlog_client::proto::append_stream_response::Result as InBand;
use huntlog_client::proto::subscribe_request::Start;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use super::Shared;
use super::state::{Failure, Fault, failure};

type Answers<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct Service {
    pub shared: Arc<Shared>,
    pub index: usize,
}

fn status(failure: &Failure) -> Status {
    let mut metadata: HashMap<String, String> = failure
        .metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    let disposition = if failure.not_applied {
        "NOT_APPLIED"
    } else {
        "UNKNOWN"
    };
    metadata.insert("disposition".to_owned(), disposition.to_owned());
    let mut details = ErrorDetails::new();
    details.set_error_info(failure.reason, "huntlog", metadata);
    if failure.retry_after.is_some() {
        details.set_retry_info(failure.retry_after);
    }
    Status::with_error_details(failure.code, failure.reason, details)
}

fn in_band(failure: Failure) -> InBand {
    let disposition = if failure.not_applied {
        proto::Disposition::NotApplied
    } else {
        proto::Disposition::Unknown
    };
    InBand::Failure(proto::Failure {
        code: failure.code as i32,
        message: failure.reason.to_owned(),
        reason: failure.reason.to_owned(),
        disposition: disposition.into(),
        retry_after: failure
            .retry_after
            .map(|delay| delay.try_into().expect("short")),
        metadata: failure
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        field_violations: Vec::new(),
    })
}

impl Service {
    fn no_leader() -> Failure {
        failure(Code::Unavailable, "NO_LEADER", true)
    }

    /// A response that tells who leads, from a node that does not.
    fn respond<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        if let Some(leader) = self.shared.state().leader
            && leader != self.index
        {
            let address = self.shared.addresses[leader].to_string();
            let address = address.parse().expect("ASCII");
            response.metadata_mut().insert("huntlog-leader", address);
        }
        response
    }

    async fn wait(&self, ready: impl Fn(&super::State) -> bool) {
        let mut changes = self.shared.changed.subscribe();
        while !ready(&self.shared.state()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

enum Next {
    Answer(proto::AppendStreamResponse),
    Nothing,
    Break,
}

impl Service {
    fn take(&self, batch: &proto::Batch) -> Next {
        let mut state = self.shared.state();
        *state.received.entry(self.index).or_default() += 1;
        let unanswered = state.unanswered.entry(batch.session.clone()).or_default();
        *unanswered += 1;
        state.unanswered_max = (*unanswered).max(state.unanswered_max);
        state.unanswered_total_max = state.unanswered_total().max(state.unanswered_total_max);
        let answer = |result| {
            Next::Answer(proto::AppendStreamResponse {
                session: batch.session.clone(),
                epoch: batch.epoch,
                sequence: batch.sequence,
                result: Some(result),
            })
        };
        if state.leader.is_none() {
            return answer(in_band(Self::no_leader()));
        }
        let next = match state.next_fault() {
            None => {
                let result = state.append(batch);
                answer(result.map_or_else(in_band, InBand::Appended))
            }
            Some(Fault::LoseRequest) => Next::Break,
            Some(Fault::LoseAnswer) => {
                let _ = state.append(batch);
                Next::Break
            }
            Some(Fault::Silence) => {
                let _ = state.append(batch);
                Next::Nothing
            }
            Some(Fault::Refuse { failure, applied }) => {
                if applied {
                    let _ = state.append(batch);
                }
                answer(in_band(failure))
            }
        };
        if matches!(next, Next::Break) {
            state.unanswered.clear();
        }
        next
    }

    fn count_answer(&self, session: &str) {
        let mut state = self.shared.state();
        if let Some(unanswered) = state.unanswered.get_mut(session) {
            *unanswered = unanswered.saturating_sub(1);
        }
    }

    async fn serve_appends(
        self,
        mut requests: Streaming<proto::AppendRequest>,
        answers: mpsc::Sender<Result<proto::AppendStreamResponse, Status>>,
    ) {
        let (held_sender, mut held) = mpsc::unbounded_channel();
        let answering = self.clone();
        let forward = answers.clone();
        tokio::spawn(async move {
            while let Some(answer) = held.recv().await {
                answering.wait(|state| !state.hold).await;
                let answer: proto::AppendStreamResponse = answer;
                answering.count_answer(&answer.session);
                if forward.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        while let Ok(Some(request)) = requests.message().await {
            let batch = request.batch.unwrap_or_default();
            let next = self.take(&batch);
            self.shared.touch();
            match next {
                Next::Answer(answer) => drop(held_sender.send(answer)),
                Next::Nothing => {}
                Next::Break => {
                    let _ = answers.send(Err(Status::unavailable("broken"))).await;
                    return;
                }
            }
        }
    }

    /// Sends the log from an offset on, to the end or for ever.
    async fn send_log<T>(
        self,
        mut from: u64,
        most: u64,
        filter: proto::Filter,
        follow: bool,
        page: impl Fn(Vec<proto::CommittedEvent>, u64, u64) -> T,
        sender: mpsc::Sender<Result<T, Status>>,
    ) {
        let matches = |event: &proto::CommittedEvent| {
            let event = event.event.as_ref().expect("set");
            filter.hunts.is_empty() || filter.hunts.contains(&event.hunt)
        };
        let mut sent = 0;
        loop {
            let (log, break_after) = {
                let state = self.shared.state();
                (state.log_of(self.index), state.break_reads_after)
            };
            let end = log.len() as u64;
            let first = usize::try_from(from).expect("small");
            for chunk in log.get(first..).unwrap_or_default().chunks(7) {
                let left = usize::try_from(most.saturating_sub(sent as u64)).unwrap_or(usize::MAX);
                let events: Vec<_> = chunk
                    .iter()
                    .filter(|e| matches(e))
                    .take(left)
                    .cloned()
                    .collect();
                sent += events.len();
                from = match events.last() {
                    Some(last) if events.len() == left => last.offset + 1,
                    _ => chunk.last().map_or(from, |event| event.offset + 1),
                };
                if sender.send(Ok(page(events, from, end))).await.is_err() {
                    return;
                }
                if break_after.is_some_and(|after| sent >= after) {
                    let _ = sender.send(Err(Status::unavailable("broken"))).await;
                    return;
                }
                if sent as u64 >= most {
                    return;
                }
            }
            if !follow {
                return;
            }
            if sender.send(Ok(page(Vec::new(), from, end))).await.is_err() {
                return;
            }
            self.wait(|state| state.log.len() as u64 > from).await;
        }
    }
}

#[tonic::async_trait]
impl proto::event_service_server::EventService for Service {
    async fn open_session(
        &self,
        request: Request<proto::OpenSessionRequest>,
    ) -> Result<Response<proto::OpenSessionResponse>, Status> {
        let request = request.into_inner();
        if request.session.len() > 128 {
            return Err(status(&failure(Code::InvalidArgument, "INVALID", true)));
        }
        if self.shared.state().leader.is_none() {
            return Err(status(&Self::no_leader()));
        }
        let opened = self.shared.state().open(&request);
        let opened = opened.map_err(|refused| status(&refused))?;
        self.shared.touch();
        Ok(self.respond(opened))
    }

    async fn append(
        &self,
        _: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        Err(Status::unimplemented("the library streams"))
    }

    type AppendStreamStream = Answers<proto::AppendStreamResponse>;

    async fn append_stream(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Result<Response<Self::AppendStreamStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        self.shared.state().unanswered.clear();
        tokio::spawn(self.clone().serve_appends(request.into_inner(), sender));
        Ok(self.respond(Box::pin(ReceiverStream::new(receiver))))
    }

    type ReadStream = Answers<proto::ReadResponse>;

    async fn read(
        &self,
        request: Request<proto::ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let end = self.shared.state().log.len() as u64;
        if request.from_offset > end {
            return Err(status(&failure(Code::OutOfRange, "OUT_OF_RANGE", true)));
        }
        let (sender, receiver) = mpsc::channel(4);
        let most = if request.max_events == 0 {
            u64::MAX
        } else {
            request.max_events
        };
        let page = |events, next_offset, end_offset| proto::ReadResponse {
            partition: 0,
            events,
            next_offset,
            end_offset,
            staleness: None,
        };
        let filter = request.filter.unwrap_or_default();
        let service = self.clone();
        tokio::spawn(service.send_log(request.from_offset, most, filter, false, page, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type SubscribeStream = Answers<proto::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<proto::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let request = request.into_inner();
        let end = self.shared.state().log.len() as u64;
        let from = match request.start {
            Some(Start::FromOffset(offset)) => offset,
            _ => end,
        };
        let (sender, receiver) = mpsc::channel(4);
        let page = |events, next_offset, _| proto::SubscribeResponse {
            partition: 0,
            events,
            next_offset,
        };
        let filter = request.filter.unwrap_or_default();
        let service = self.clone();
        tokio::spawn(service.send_log(from, u64::MAX, filter, true, page, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

#[tonic::async_trait]
impl proto::hunt_service_server::HuntService for Service {
    async fn get_hunt(
        &self,
        request: Request<proto::GetHuntRequest>,
    ) -> Result<Response<proto::GetHuntResponse>, Status> {
        let id = request.into_inner().hunt;
        let state = self.shared.state();
        let hunt = state.hunts.get(&id);
        let hunt = hunt.ok_or_else(|| status(&failure(Code::NotFound, "NOT_FOUND", true)))?;
        Ok(Response::new(proto::GetHuntResponse {
            hunt: Some(proto::Hunt {
                id,
                state: proto::HuntState::Draft.into(),
                definition: Some(hunt.definition.clone()),
                revision: hunt.revision,
                players: hunt.players.len() as u64,
                ..Default::default()
            }),
            as_of: None,
        }))
    }

    async fn list_hunts(
        &self,
        request: Request<proto::ListHuntsRequest>,
    ) -> Result<Response<proto::ListHuntsResponse>, Status> {
        // Pages of one, so that paging is exercised.
        let after = request.into_inner().page_token;
        let state = self.shared.state();
        let mut hunts = state.hunts.iter().filter(|(id, _)| **id > after);
        let first = hunts.next().map(|(id, hunt)| proto::HuntSummary {
            id: id.clone(),
            title: hunt.definition.title.clone(),
            revision: hunt.revision,
            ..Default::default()
        });
        let next = hunts.next().and(first.as_ref());
        Ok(Response::new(proto::ListHuntsResponse {
            next_page_token: next.map(|hunt| hunt.id.clone()).unwrap_or_default(),
            hunts: first.into_iter().collect(),
            as_of: None,
        }))
    }

    async fn get_player(
        &self,
        _: Request<proto::GetPlayerRequest>,
    ) -> Result<Response<proto::GetPlayerResponse>, Status> {
        Err(status(&failure(Code::NotFound, "NOT_FOUND", true)))
    }

    async fn get_scoreboard(
        &self,
        request: Request<proto::GetScoreboardRequest>,
    ) -> Result<Response<proto::GetScoreboardResponse>, Status> {
        let request = request.into_inner();
        let state = self.shared.state();
        let hunt = state.hunts.get(&request.hunt);
        let hunt = hunt.ok_or_else(|| status(&failure(Code::NotFound, "NOT_FOUND", true)))?;
        let mut players: Vec<_> = hunt.players.iter().collect();
        players.sort_by_key(|(_, player)| {
            let last = player.solved.values().max().copied();
            (std::cmp::Reverse(player.solved.len()), last)
        });
        // Pages of ten at most, for the same reason.
        let skip = usize::try_from(request.skip).expect("small");
        let size = request.page_size.min(10) as usize;
        let rows = players.iter().enumerate().skip(skip).take(size);
        let rows = rows.map(|(index, (id, player))| proto::ScoreboardRow {
            rank: index as u64 + 1,
            player: (*id).clone(),
            points: player.solved.len() as u64,
            solved: u32::try_from(player.solved.len()).expect("small"),
            last_solve_offset: player.solved.values().max().copied(),
            ..Default::default()
        });
        Ok(Response::new(proto::GetScoreboardResponse {
            rows: rows.collect(),
            total: players.len() as u64,
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl proto::admin_service_server::AdminService for Service {
    async fn get_status(
        &self,
        _: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::GetStatusResponse>, Status> {
        let state = self.shared.state();
        let members = self.shared.addresses.iter().zip(1..);
        let members = members.map(|(address, node_id)| proto::Member {
            node_id,
            client_address: address.to_string(),
            voter: true,
            ..Default::default()
        });
        let leads = state.leader == Some(self.index);
        let role = if leads {
            proto::Role::Leader
        } else {
            proto::Role::Follower
        };
        let partition = proto::PartitionStatus {
            role: role.into(),
            leader_id: state.leader.map_or(0, |leader| leader as u64 + 1),
            ready: true,
            members: members.collect(),
            end_offset: state.log.len() as u64,
            digest: vec![u8::try_from(state.log.len() % 251).expect("below 251"); 32].into(),
            digest_log_index: state.log_index(),
            ..Default::default()
        };
        Ok(Response::new(proto::GetStatusResponse {
            node_id: self.index as u64 + 1,
            node_uuid: format!("{:032x}", self.index + 1),
            partitions: vec![partition],
            ..Default::default()
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderResponse>, Status> {
        let to = request.into_inner().to_node_id.max(1);
        self.shared.state().leader = Some(usize::try_from(to).expect("small") - 1);
        Ok(Response::new(proto::TransferLeaderResponse {
            leader_id: to,
            term: 2,
        }))
    }

    async fn take_snapshot(
        &self,
        _: Request<proto::TakeSnapshotRequest>,
    ) -> Result<Response<proto::TakeSnapshotResponse>, Status> {
        Ok(Response::new(proto::TakeSnapshotResponse {
            log_index: self.shared.state().log_index(),
            size_bytes: 1,
        }))
    }

    async fn list_sessions(
        &self,
        _: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        Ok(Response::new(proto::ListSessionsResponse {
            sessions: self.shared.state().sessions().collect(),
            next_page_token: String::new(),
        }))
    }

    async fn init_cluster(
        &self,
        _: Request<proto::InitClusterRequest>,
    ) -> Result<Response<proto::InitClusterResponse>, Status> {
        Err(unscripted())
    }

    async fn list_members(
        &self,
        _: Request<proto::ListMembersRequest>,
    ) -> Result<Response<proto::ListMembersResponse>, Status> {
        Err(unscripted())
    }

    async fn add_member(
        &self,
        _: Request<proto::AddMemberRequest>,
    ) -> Result<Response<proto::AddMemberResponse>, Status> {
        Err(unscripted())
    }

    async fn promote_member(
        &self,
        _: Request<proto::PromoteMemberRequest>,
    ) -> Result<Response<proto::PromoteMemberResponse>, Status> {
        Err(unscripted())
    }

    async fn drain_node(
        &self,
        _: Request<proto::DrainNodeRequest>,
    ) -> Result<Response<proto::DrainNodeResponse>, Status> {
        Err(unscripted())
    }

    async fn finalize_upgrade(
        &self,
        _: Request<proto::FinalizeUpgradeRequest>,
    ) -> Result<Response<proto::FinalizeUpgradeResponse>, Status> {
        Err(unscripted())
    }

    async fn remove_member(
        &self,
        _: Request<proto::RemoveMemberRequest>,
    ) -> Result<Response<proto::RemoveMemberResponse>, Status> {
        Err(unscripted())
    }
}

/// What the scripted cluster does not do: members are changed in real ones.
fn unscripted() -> Status {
    Status::unimplemented("the scripted cluster has the members it has")
}
