//! What became of events and batches.

use huntlog_machine::{BatchOutcome, Effect, EventOutcome};
use huntlog_proto::v1;

use super::time::timestamp_of_ms;

/// The answer to a batch that is part of the log, whether by this request or by
/// an earlier one; `None`: so long ago that its outcomes are not kept any more.
pub fn append_response(
    partition: u32,
    session: String,
    sequence: u64,
    duplicate: bool,
    outcome: Option<&BatchOutcome>,
) -> v1::AppendResponse {
    let outcomes: Vec<_> = outcome
        .into_iter()
        .flat_map(BatchOutcome::iter)
        .map(outcome_to_proto)
        .collect();
    v1::AppendResponse {
        partition,
        session,
        sequence,
        duplicate,
        outcomes_dropped: outcomes.is_empty(),
        outcomes,
        log_index: outcome.map_or(0, |outcome| outcome.log_index),
        committed_at: outcome.map(|outcome| timestamp_of_ms(outcome.time_ms)),
    }
}

/// What the machine decided about one event.
pub fn outcome_to_proto(outcome: EventOutcome<'_>) -> v1::EventOutcome {
    use v1::event_outcome::Outcome;
    let outcome = match outcome {
        EventOutcome::Accepted {
            offset,
            revision,
            effects,
        } => Outcome::Accepted(v1::Accepted {
            offset,
            revision,
            effects: effects.map(effect_to_proto).collect(),
        }),
        EventOutcome::Rejected(reason) => Outcome::Rejected(v1::Rejected {
            reason: reason.number().into(),
        }),
    };
    v1::EventOutcome {
        outcome: Some(outcome),
    }
}

/// What followed from an accepted event.
pub fn effect_to_proto(effect: Effect<'_>) -> v1::Effect {
    use v1::effect::Effect as Wire;
    let effect = match effect {
        Effect::AnswerWrong { clue } => Wire::AnswerWrong(v1::AnswerWrong {
            clue: clue.to_owned(),
        }),
        Effect::ClueSolved { clue, rank, points } => Wire::ClueSolved(v1::ClueSolved {
            clue: clue.to_owned(),
            rank,
            points,
        }),
        Effect::ClueUnlocked { clue } => Wire::ClueUnlocked(v1::ClueUnlocked {
            clue: clue.to_owned(),
        }),
        Effect::TreasureWon {
            treasure,
            rank,
            points,
        } => Wire::TreasureWon(v1::TreasureWon {
            treasure: treasure.to_owned(),
            rank,
            points,
        }),
        Effect::HuntWon { rank } => Wire::HuntWon(v1::HuntWon { rank }),
        Effect::HuntStateChanged { from, to } => Wire::HuntStateChanged(v1::HuntStateChanged {
            from_state: from.number().into(),
            to_state: to.number().into(),
        }),
        Effect::HintRevealed { clue, hint, cost } => Wire::HintRevealed(v1::HintRevealed {
            clue: clue.to_owned(),
            hint: hint.to_owned(),
            cost,
        }),
    };
    v1::Effect {
        effect: Some(effect),
    }
}

#[cfg(test)]
mod tests {
    use huntlog_machine::{EventType, HuntState, PlayerStatus, RejectReason};

    use super::*;

    /// The contract's names of every number from 1 on, without their prefix.
    fn names<E>(prefix: &str, name: impl Fn(&E) -> &'static str) -> Vec<String>
    where
        E: TryFrom<i32>,
    {
        (1..)
            .map_while(|number| E::try_from(number).ok())
            .map(|value| {
                let name = name(&value);
                name.strip_prefix(prefix)
                    .unwrap_or_else(|| panic!("{name} begins with {prefix}"))
                    .to_owned()
            })
            .collect()
    }

    /// Numbers count up from 1, as those of the contract do.
    fn assert_in_order(numbers: impl Iterator<Item = u8>) {
        for (position, number) in numbers.enumerate() {
            assert_eq!(usize::from(number), position + 1);
        }
    }

    #[test]
    fn reject_reasons_have_the_contracts_numbers() {
        let wire = names("REJECT_REASON_", v1::RejectReason::as_str_name);
        let ours: Vec<_> = RejectReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(wire, ours);
        assert_in_order(RejectReason::ALL.into_iter().map(RejectReason::number));
    }

    #[test]
    fn hunt_states_have_the_contracts_numbers() {
        let wire = names("HUNT_STATE_", v1::HuntState::as_str_name);
        let ours: Vec<_> = HuntState::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(wire, ours);
        assert_in_order(HuntState::ALL.into_iter().map(HuntState::number));
    }

    #[test]
    fn event_types_have_the_contracts_numbers() {
        let wire = names("EVENT_TYPE_", v1::EventType::as_str_name);
        let ours: Vec<_> = EventType::ALL.iter().map(|t| t.name()).collect();
        let upper_snake = |camel: &str| {
            let mut name = String::new();
            for (position, character) in camel.chars().enumerate() {
                if position > 0 && character.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(character.to_ascii_uppercase());
            }
            name
        };
        assert_eq!(wire, ours.into_iter().map(upper_snake).collect::<Vec<_>>());
        assert_in_order(EventType::ALL.into_iter().map(EventType::number));
    }

    #[test]
    fn player_statuses_have_the_contracts_numbers() {
        let wire = names("PLAYER_STATUS_", v1::PlayerStatus::as_str_name);
        assert_eq!(wire, ["ACTIVE", "WITHDRAWN", "DISQUALIFIED"]);
        assert_eq!(PlayerStatus::Active as i32, v1::PlayerStatus::Active as i32);
        assert_eq!(
            PlayerStatus::Withdrawn as i32,
            v1::PlayerStatus::Withdrawn as i32
        );
        assert_eq!(
            PlayerStatus::Disqualified as i32,
            v1::PlayerStatus::Disqualified as i32
        );
    }
}
