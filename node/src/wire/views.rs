//! The state of hunts, players and sessions, as it is answered.

use huntlog_machine::{
    ClueStats, Hunt, PlayerRef, PlayerStatus, ScoreboardRow, SessionInfo, TreasureStats,
};
use huntlog_proto::v1;

use super::definition::definition_to_proto;
use super::faults::{Faults, InvalidRequest};
use super::time::{timestamp_of_ms, timestamp_to_proto};

/// Checks the hunt that a question is about.
///
/// # Errors
/// When it is no id.
pub fn hunt_id(hunt: &str) -> Result<(), InvalidRequest> {
    let mut faults = Faults::default();
    faults.id(hunt, "hunt");
    faults.finish(())
}

/// Checks the hunt and the player that a question is about.
///
/// # Errors
/// When one is no id.
pub fn player_id(hunt: &str, player: &str) -> Result<(), InvalidRequest> {
    let mut faults = Faults::default();
    faults.id(hunt, "hunt");
    faults.id(player, "player");
    faults.finish(())
}

/// A hunt with everything that is known of it.
pub fn hunt_to_proto(hunt: &Hunt) -> v1::Hunt {
    v1::Hunt {
        id: hunt.id().to_owned(),
        state: hunt.state().number().into(),
        definition: Some(definition_to_proto(hunt.definition())),
        revision: hunt.revision(),
        players: hunt.player_count(),
        clues: hunt.clue_stats().map(clue_stats_to_proto).collect(),
        treasures: hunt.treasure_stats().map(treasure_stats_to_proto).collect(),
    }
}

/// A hunt in a list.
pub fn summary_to_proto(hunt: &Hunt) -> v1::HuntSummary {
    v1::HuntSummary {
        id: hunt.id().to_owned(),
        title: hunt.definition().title.clone(),
        state: hunt.state().number().into(),
        revision: hunt.revision(),
        players: hunt.player_count(),
    }
}

/// How a clue has fared.
pub fn clue_stats_to_proto(stats: ClueStats<'_>) -> v1::ClueStats {
    v1::ClueStats {
        clue: stats.clue.to_owned(),
        attempts: stats.attempts,
        solves: stats.solves,
    }
}

fn treasure_stats_to_proto(stats: TreasureStats<'_>) -> v1::TreasureStats {
    v1::TreasureStats {
        treasure: stats.treasure.to_owned(),
        limit: stats.limit,
        winners: owned(stats.winners.into_iter()),
    }
}

/// A player of a hunt.
pub fn player_to_proto(player: PlayerRef<'_>) -> v1::Player {
    let status = match player.status() {
        PlayerStatus::Active => v1::PlayerStatus::Active,
        PlayerStatus::Withdrawn => v1::PlayerStatus::Withdrawn,
        PlayerStatus::Disqualified => v1::PlayerStatus::Disqualified,
    };
    v1::Player {
        id: player.id().to_owned(),
        display_name: player.display_name().to_owned(),
        status: status.into(),
        row: player.row().as_ref().map(row_to_proto),
        solved_clues: owned(player.solved_clues()),
        open_clues: owned(player.open_clues()),
        treasures: owned(player.treasures()),
    }
}

/// A player's place on the scoreboard.
pub fn row_to_proto(row: &ScoreboardRow<'_>) -> v1::ScoreboardRow {
    v1::ScoreboardRow {
        rank: row.rank,
        player: row.player.to_owned(),
        points: row.points,
        solved: row.solved,
        last_solve_offset: row.last_solve.map(|solve| solve.offset),
        last_solve_at: row.last_solve.map(|solve| timestamp_of_ms(solve.time_ms)),
        last_solve_occurred_at: row
            .last_solve
            .and_then(|solve| solve.occurred_at)
            .map(timestamp_to_proto),
    }
}

/// A session.
pub fn session_to_proto(session: &SessionInfo<'_>) -> v1::SessionInfo {
    let idle = timestamp_of_ms(session.idle_ms);
    v1::SessionInfo {
        session: session.name.to_owned(),
        epoch: session.epoch,
        last_sequence: session.last_sequence,
        idle: Some(prost_types::Duration {
            seconds: idle.seconds,
            nanos: idle.nanos,
        }),
    }
}

fn owned<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.map(str::to_owned).collect()
}
