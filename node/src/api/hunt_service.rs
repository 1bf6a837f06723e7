//! `HuntService`: the state of hunts.

use std::sync::Arc;

use huntlog_machine::View;
use huntlog_proto::v1;
use huntlog_proto::v1::hunt_service_server::HuntService;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::context::NodeContext;
use super::error::ApiError;
use super::reading::{read_mark, staleness};
use super::status::Operation;
use crate::limits;
use crate::wire::{
    clue_stats_to_proto, consistency_from_proto, cut, hunt_id, hunt_to_proto, page,
    page_size_within, player_id, player_to_proto, row_to_proto, summary_to_proto, timestamp_of_ms,
};

/// Serves `HuntService`.
pub struct HuntApi {
    context: Arc<NodeContext>,
}

impl HuntApi {
    /// Serves it for `context`.
    pub fn new(context: Arc<NodeContext>) -> Self {
        Self { context }
    }

    /// The state that a question may be answered from. It is a view, so that a
    /// long answer does not keep the log from being applied.
    async fn view(
        &self,
        partition: u32,
        consistency: Option<v1::Consistency>,
        call: &Call,
    ) -> Result<(View, v1::AsOf), ApiError> {
        let served = self.context.to_read(partition)?;
        let level = consistency_from_proto(consistency);
        read_mark(served, level, call).await?;
        let staleness = staleness(served, level).await;
        let view = served.partition.replica().machine().view();
        let as_of = v1::AsOf {
            partition: view.partition(),
            offset: view.end_offset(),
            time: Some(timestamp_of_ms(view.time_ms())),
            staleness,
        };
        Ok((view, as_of))
    }

    async fn hunt(
        &self,
        request: v1::GetHuntRequest,
        call: Call,
    ) -> Result<v1::GetHuntResponse, ApiError> {
        hunt_id(&request.hunt)?;
        let (view, as_of) = self
            .view(request.partition, request.consistency, &call)
            .await?;
        let hunt = view
            .hunt(&request.hunt)
            .ok_or(ApiError::HuntUnknown(request.hunt))?;
        Ok(v1::GetHuntResponse {
            hunt: Some(hunt_to_proto(hunt)),
            as_of: Some(as_of),
        })
    }

    async fn hunts(
        &self,
        request: v1::ListHuntsRequest,
        call: Call,
    ) -> Result<v1::ListHuntsResponse, ApiError> {
        let page = page(request.page_size, &request.page_token)?;
        let (view, as_of) = self
            .view(request.partition, request.consistency, &call)
            .await?;
        let hunts = view
            .hunts(page.after.as_deref(), page.size + 1)
            .map(summary_to_proto)
            .collect();
        let (hunts, next_page_token) = cut(hunts, page.size, |hunt| &hunt.id);
        Ok(v1::ListHuntsResponse {
            hunts,
            next_page_token,
            as_of: Some(as_of),
        })
    }

    async fn player(
        &self,
        request: v1::GetPlayerRequest,
        call: Call,
    ) -> Result<v1::GetPlayerResponse, ApiError> {
        player_id(&request.hunt, &request.player)?;
        let (view, as_of) = self
            .view(request.partition, request.consistency, &call)
            .await?;
        let Some(hunt) = view.hunt(&request.hunt) else {
            return Err(ApiError::HuntUnknown(request.hunt));
        };
        let Some(player) = hunt.player(&request.player) else {
            return Err(ApiError::PlayerUnknown {
                hunt: request.hunt,
                player: request.player,
            });
        };
        Ok(v1::GetPlayerResponse {
            player: Some(player_to_proto(player)),
            as_of: Some(as_of),
        })
    }

    async fn scoreboard(
        &self,
        request: v1::GetScoreboardRequest,
        call: Call,
    ) -> Result<v1::GetScoreboardResponse, ApiError> {
        hunt_id(&request.hunt)?;
        let size = page_size_within(request.page_size, limits::SCOREBOARD_ROWS_MAX)?;
        let (view, as_of) = self
            .view(request.partition, request.consistency, &call)
            .await?;
        let hunt = view
            .hunt(&request.hunt)
            .ok_or(ApiError::HuntUnknown(request.hunt))?;
        let scoreboard = hunt.scoreboard(request.skip, size);
        Ok(v1::GetScoreboardResponse {
            rows: scoreboard.rows.iter().map(row_to_proto).collect(),
            total: scoreboard.total,
            clues: hunt.clue_stats().map(clue_stats_to_proto).collect(),
            as_of: Some(as_of),
        })
    }
}

/// An answer, or why there is none.
fn answer<A>(result: Result<A, ApiError>) -> Result<Response<A>, Status> {
    result
        .map(Response::new)
        .map_err(|error| error.into_status(Operation::Read))
}

#[tonic::async_trait]
impl HuntService for HuntApi {
    async fn get_hunt(
        &self,
        request: Request<v1::GetHuntRequest>,
    ) -> Result<Response<v1::GetHuntResponse>, Status> {
        let call = Call::new(request.metadata());
        answer(self.hunt(request.into_inner(), call).await)
    }

    async fn list_hunts(
        &self,
        request: Request<v1::ListHuntsRequest>,
    ) -> Result<Response<v1::ListHuntsResponse>, Status> {
        let call = Call::new(request.metadata());
        answer(self.hunts(request.into_inner(), call).await)
    }

    async fn get_player(
        &self,
        request: Request<v1::GetPlayerRequest>,
    ) -> Result<Response<v1::GetPlayerResponse>, Status> {
        let call = Call::new(request.metadata());
        answer(self.player(request.into_inner(), call).await)
    }

    async fn get_scoreboard(
        &self,
        request: Request<v1::GetScoreboardRequest>,
    ) -> Result<Response<v1::GetScoreboardResponse>, Status> {
        let call = Call::new(request.metadata());
        answer(self.scoreboard(request.into_inner(), call).await)
    }
}
