//! I8: a treasure limited to n is won by exactly min(n, claimants) players, in
//! log order.
//!
//! Source: DESIGN I8. For a limit of 1 it is a register that is set once, the
//! agreement and validity of consensus.

use std::collections::BTreeSet;

use super::index::{Index, Operation, Treasure, violation};
use super::{Invariant, Violation};
use crate::history::{Claim, Who};

pub(super) fn check(
    index: &Index<'_>,
    violations: &mut Vec<Violation>,
    insufficient: &mut Vec<String>,
) {
    for (name, treasure) in &index.treasures {
        let answers: Vec<Answer<'_>> = treasure.whos.iter().filter_map(Answer::new).collect();
        let limit = limit(treasure);
        agreement(name, &answers, violations);
        enough(name, treasure, limit, &answers, violations);
        in_log_order(name, treasure, violations);
        for answer in &answers {
            winners_in_log_order(name, treasure, answer, violations);
        }
        let last_claim = treasure.claims.iter().filter_map(Operation::ok).max();
        let last = answers
            .iter()
            .filter(|answer| last_claim.is_none_or(|claim| answer.operation.invoked > claim));
        match last.max_by_key(|answer| answer.operation.invoked) {
            Some(last) => told(name, treasure, limit, last, violations),
            None => insufficient.push(format!(
                "nobody asks who has won {name} after the last claim was answered"
            )),
        }
    }
}

/// How many can win.
fn limit(treasure: &Treasure<'_>) -> usize {
    let limit = treasure.claims.iter().find_map(|claim| claim.op.limit);
    usize::try_from(limit.unwrap_or(1)).unwrap_or(usize::MAX)
}

/// An answer to who has won.
struct Answer<'a> {
    operation: &'a Operation<'a, Who>,
    ok: u64,
    winners: &'a [String],
}

impl<'a> Answer<'a> {
    fn new(operation: &'a Operation<'a, Who>) -> Option<Self> {
        Some(Self {
            operation,
            ok: operation.ok()?,
            winners: operation.op.winners.as_deref()?,
        })
    }
}

/// Of two answers the shorter is the longer's beginning, and later ones are not
/// shorter.
fn agreement(name: &str, answers: &[Answer<'_>], violations: &mut Vec<Violation>) {
    let Some(longest) = answers.iter().max_by_key(|answer| answer.winners.len()) else {
        return;
    };
    for answer in answers {
        if !longest.winners.starts_with(answer.winners) {
            let what = format!(
                "{name} was won by {:?} and by {:?}",
                longest.winners, answer.winners
            );
            violations.push(violation(Invariant::I8, [longest.ok, answer.ok], what));
        }
        let later = answers.iter().find(|later| {
            later.operation.invoked > answer.ok && later.winners.len() < answer.winners.len()
        });
        if let Some(later) = later {
            let what = format!(
                "{name} had {} winners and later {}",
                answer.winners.len(),
                later.winners.len()
            );
            violations.push(violation(Invariant::I6, [answer.ok, later.ok], what));
        }
    }
}

/// At every moment as many have won as could, and none twice.
fn enough(
    name: &str,
    treasure: &Treasure<'_>,
    limit: usize,
    answers: &[Answer<'_>],
    violations: &mut Vec<Violation>,
) {
    for answer in answers {
        let won = answer.winners.len();
        let distinct: BTreeSet<&String> = answer.winners.iter().collect();
        if won > limit || distinct.len() < won {
            let what = format!(
                "{name}, limited to {limit}, was won by {:?}",
                answer.winners
            );
            violations.push(violation(Invariant::I8, [answer.ok], what));
        }
        let answered: Vec<u64> = treasure
            .claims
            .iter()
            .filter_map(Operation::ok)
            .filter(|ok| *ok < answer.operation.invoked)
            .collect();
        if won < limit.min(answered.len()) {
            let what = format!(
                "{name}, limited to {limit}, had {won} winners after {} claims were answered",
                answered.len()
            );
            let events = answered.iter().copied().take(limit).chain([answer.ok]);
            violations.push(violation(Invariant::I8, events, what));
        }
        for winner in answer.winners {
            claimed(name, treasure, winner, answer, violations);
        }
    }
}

/// A winner has claimed, and was not told that the claim had failed.
fn claimed(
    name: &str,
    treasure: &Treasure<'_>,
    winner: &str,
    answer: &Answer<'_>,
    violations: &mut Vec<Violation>,
) {
    let claims = || {
        treasure
            .claims
            .iter()
            .filter(|claim| claim.op.player == winner && claim.invoked < answer.ok)
    };
    if claims().all(|claim| claim.failed().is_some()) {
        let what = format!("{name} was won by {winner:?}, whose claims all had failed");
        let events = claims().flat_map(Operation::events).chain([answer.ok]);
        violations.push(violation(Invariant::I10, events, what));
    }
}

/// A claim made after another was answered does not win where that one lost.
fn in_log_order(name: &str, treasure: &Treasure<'_>, violations: &mut Vec<Violation>) {
    let won = |claim: &&Operation<'_, Claim>| claim.op.won == Some(true);
    let lost = |claim: &&Operation<'_, Claim>| claim.op.won == Some(false);
    let Some(first_lost) = treasure
        .claims
        .iter()
        .filter(lost)
        .min_by_key(|claim| claim.ok())
    else {
        return;
    };
    for claim in treasure.claims.iter().filter(won) {
        if Some(claim.invoked) > first_lost.ok() {
            let what = format!(
                "{:?} won {name} with a claim made after {:?} had lost",
                claim.op.player, first_lost.op.player
            );
            let events = first_lost.events().into_iter().chain(claim.events());
            violations.push(violation(Invariant::I8, events, what));
        }
    }
}

/// Who won with a claim that was answered before another was made is named first.
fn winners_in_log_order(
    name: &str,
    treasure: &Treasure<'_>,
    answer: &Answer<'_>,
    violations: &mut Vec<Violation>,
) {
    let claims = |player: &str| -> Vec<&Operation<'_, Claim>> {
        let claims = treasure.claims.iter();
        claims.filter(|claim| claim.op.player == player).collect()
    };
    for (position, after) in answer.winners.iter().enumerate() {
        let Some(ended) = claims(after).into_iter().filter_map(Operation::ok).min() else {
            continue;
        };
        for before in &answer.winners[..position] {
            let invoked = claims(before).iter().map(|claim| claim.invoked).min();
            if let Some(invoked) = invoked.filter(|invoked| *invoked > ended) {
                let what = format!(
                    "{before:?} is named before {after:?} among the winners of {name}, and claimed after that one had won"
                );
                let events = [ended, invoked, answer.ok];
                violations.push(violation(Invariant::I8, events, what));
            }
        }
    }
}

/// What claimants were told is what the last answer says.
fn told(
    name: &str,
    treasure: &Treasure<'_>,
    limit: usize,
    last: &Answer<'_>,
    violations: &mut Vec<Violation>,
) {
    for claim in &treasure.claims {
        let (Some(ok), Some(won)) = (claim.ok(), claim.op.won) else {
            continue;
        };
        let player = &claim.op.player;
        let is_winner = last.winners.contains(player);
        let full = last.winners.len() == limit;
        if won != is_winner || (!won && !full) {
            let what = format!(
                "{player:?} was told to have {} {name}, limited to {limit}, which was won by {:?}",
                if won { "won" } else { "lost" },
                last.winners
            );
            violations.push(violation(Invariant::I8, [claim.invoked, ok, last.ok], what));
        }
        if claim.op.winner.is_some() && claim.op.winner.as_ref() != last.winners.first() {
            let what = format!(
                "{player:?} was told that {:?} had won {name}, which was won by {:?}",
                claim.op.winner, last.winners
            );
            violations.push(violation(Invariant::I8, [claim.invoked, ok, last.ok], what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Invariant::{I6, I8, I10};
    use super::super::script::{assert_insufficient, assert_valid, assert_violates};

    #[test]
    fn two_winners_of_one_treasure() {
        assert_violates(
            I8,
            "0 > claim t ann
             1 > claim t bob
             0 ok claim t ann won
             1 ok claim t bob won
             2 > who t
             2 ok who t = ann",
        );
        assert_violates(
            I8,
            "0 > claim t ann
             1 > claim t bob
             2 > who t
             2 ok who t = ann bob",
        );
    }

    #[test]
    fn answers_that_disagree() {
        assert_violates(
            I8,
            "0 > claim t ann
             1 > claim t bob
             2 > who t
             2 ok who t = ann
             2 > who t
             2 ok who t = bob",
        );
        assert_violates(
            I6,
            "0 > claim t ann
             2 > who t
             2 ok who t = ann
             2 > who t
             2 ok who t =",
        );
    }

    #[test]
    fn nobody_wins_though_somebody_claimed() {
        assert_violates(
            I8,
            "0 > claim t ann
             0 ok claim t ann lost
             2 > who t
             2 ok who t =",
        );
        assert_violates(
            I8,
            "0 > claim t ann limit=2
             0 ok claim t ann limit=2 won
             1 > claim t bob limit=2
             1 ok claim t bob limit=2 lost
             2 > who t
             2 ok who t = ann",
        );
    }

    #[test]
    fn the_later_claim_wins() {
        assert_violates(
            I8,
            "0 > claim t ann
             0 ok claim t ann lost
             1 > claim t bob
             1 ok claim t bob won
             2 > who t
             2 ok who t = bob",
        );
    }

    #[test]
    fn winners_in_another_order_than_their_claims() {
        assert_violates(
            I8,
            "0 > claim t ann limit=2
             0 ok claim t ann limit=2 won
             1 > claim t bob limit=2
             1 ok claim t bob limit=2 won
             2 > who t
             2 ok who t = bob ann",
        );
    }

    #[test]
    fn a_winner_who_did_not_claim_or_whose_claim_failed() {
        assert_violates(
            I10,
            "2 > who t
             2 ok who t = ann",
        );
        assert_violates(
            I10,
            "0 > claim t ann
             0 fail claim t ann
             2 > who t
             2 ok who t = ann",
        );
    }

    #[test]
    fn claims_that_nobody_asks_about_have_no_verdict() {
        assert_insufficient(
            "0 > claim t ann
             0 ok claim t ann won",
            "nobody asks who has won t",
        );
    }

    #[test]
    fn a_claim_of_unknown_fate_may_win() {
        assert_valid(
            "0 > claim t ann
             0 info claim t ann
             1 > claim t bob
             1 ok claim t bob lost
             2 > who t
             2 ok who t = ann",
        );
    }
}
