//! Players.

use huntlog_client::{Client, event, proto};
use serde_json::json;

use super::append_one;
use super::hunt::as_of;
use crate::args::PlayerCommand;
use crate::document::short_name;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::time::format_time_if;

pub async fn run(client: &Client, format: Format, command: PlayerCommand) -> Result<(), Failure> {
    let submitted = match command {
        PlayerCommand::Get { hunt, player } => return get(client, format, hunt, player).await,
        PlayerCommand::Register { hunt, player, name } => {
            event::player_registered(&hunt, &player, &name)
        }
        PlayerCommand::Withdraw { hunt, player } => event::player_withdrawn(&hunt, &player),
        PlayerCommand::Disqualify {
            hunt,
            player,
            reason,
        } => event::player_disqualified(&hunt, &player, &reason),
    };
    append_one(client, format, vec![submitted], Vec::new()).await
}

async fn get(client: &Client, format: Format, hunt: String, player: String) -> Result<(), Failure> {
    let request = proto::GetPlayerRequest {
        partition: client.partition(),
        hunt,
        player,
        consistency: None,
    };
    let answer = client.player(request).await?;
    let player = answer.player.unwrap_or_default();
    let status = short_name(player.status().as_str_name(), "PLAYER_STATUS_");
    let row = player.row.unwrap_or_default();
    if format == Format::Json {
        return output::json(&json!({
            "player": player.id,
            "display_name": player.display_name,
            "status": status,
            "rank": row.rank,
            "points": row.points,
            "solved": row.solved,
            "last_solve_offset": row.last_solve_offset,
            "last_solve_at": format_time_if(row.last_solve_at.as_ref()),
            "solved_clues": player.solved_clues,
            "open_clues": player.open_clues,
            "treasures": player.treasures,
            "as_of": as_of(answer.as_of.as_ref()),
        }));
    }
    let rows = [
        ("player", player.id),
        ("name", player.display_name),
        ("status", status),
        ("rank", row.rank.to_string()),
        ("points", row.points.to_string()),
        ("solved", player.solved_clues.join(", ")),
        ("open", player.open_clues.join(", ")),
        ("treasures", player.treasures.join(", ")),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    output::table(&["FIELD", "VALUE"], rows)
}
