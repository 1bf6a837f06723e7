//! Golden scripts: `tests/scripts/*`, one file per subject. A script says what
//! a cluster is told; below `---` stands what the machine answered. Regenerate
//! on purpose with `UPDATE_GOLDENFILES=1 cargo test -p huntlog-machine`.
//!
//! Every script also guards I7: when it ends, its log is replayed by a new
//! machine, and its state written to a snapshot and read back, and all must be
//! the same.
//!
//! | command | meaning |
//! |---|---|
//! | `define NAME [title=] [players=] [starts=MS] [ends=MS]` | starts a definition |
//! | `clue DEF ID [answer=] [points=] [attempts=] [requires=a,b] [hints=id:cost,...]` | adds a clue |
//! | `treasure DEF ID [limit=] [points=] [requires=a,b]` | adds a treasure |
//! | `faults DEF` | prints what is wrong with it |
//! | `at MS` | the stamp of the entries that follow |
//! | `open SESSION [nonce=]` | an entry that opens a session |
//! | `append SESSION [seq=] [epoch=] [expect=HUNT:REVISION] EVENT...` | an entry with a batch; `seq` and `epoch` default to the next and the latest |
//! | `level [N]` | an entry that raises the feature level; without N, the one in force |
//! | `tick MS`, `blank` | an entry without commands; one of Raft's own |
//! | `begin`, `commit` | gather what lies between into one entry |
//! | `hunt`, `player`, `scoreboard`, `session`, `sessions`, `hunts`, `history`, `due`, `digest` | queries |
//!
//! An EVENT is quoted words: `"HUNT create DEF"`, `"HUNT open"`, `"HUNT
//! register PLAYER"`, `"HUNT attempt PLAYER CLUE ANSWER..."`, `"HUNT claim PLAYER
//! TREASURE"`, `"HUNT hint PLAYER CLUE HINT"`, `"HUNT custom PLAYER TEXT"`, `"HUNT announce
//! CLUE TEXT"` (`-` for no clue), ...

use crate::support::{Replica, attempt, claim, create, event, register};
use crate::text;
use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use huntlog_machine::{
    Batch, Clue, EncodedCommand, Event, EventKind, EventOutcome, ExpectedRevision, Hint,
    HuntDefinition, Limits, Machine, ScoreboardRow, Timestamp, Treasure, answer_hash, derived_salt,
    encode_batch, encode_open_session, encode_raise_level, history,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

test_each_file::test_each_path! { in "node/machine/tests/scripts" as scripts => run }

fn run(path: &Path) {
    let mut runner = Runner {
        replica: Replica::with_limits(small_limits()),
        ..Runner::default()
    };
    goldenscript::run(&mut runner, path).expect("a sound script");
}

/// Small enough for scripts to reach.
fn small_limits() -> Limits {
    Limits {
        max_sessions: 3,
        session_idle_ms: 60_000,
        evictable_idle_ms: 20_000,
        results_per_session: 3,
        ..Limits::default()
    }
}

struct Runner {
    replica: Replica,
    definitions: BTreeMap<String, HuntDefinition>,
    stamp_ms: u64,
    /// Commands between `begin` and `commit`.
    gathered: Option<Vec<EncodedCommand>>,
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            replica: Replica::new(),
            definitions: BTreeMap::new(),
            stamp_ms: 1_000,
            gathered: None,
        }
    }
}

type Outcome<T> = Result<T, Box<dyn Error>>;

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome<String> {
        let mut args = command.consume_args();
        let output = self.command(&command.name, &mut args)?;
        args.reject_next()?;
        Ok(output)
    }

    fn end_script(&mut self) -> Outcome<()> {
        let limits = self.replica.machine.limits().clone();
        let mut again = Machine::new(0, limits.clone());
        self.replica.replay_into(&mut again);
        let view = self.replica.machine.view();
        assert_eq!(again.state_hash(), view.state_hash(), "I7");
        let mut snapshot = Vec::new();
        view.write_to(&mut snapshot)?;
        let restored = Machine::restore(snapshot.as_slice(), limits)?;
        assert_eq!(restored.state_hash(), view.state_hash(), "I7");
        Ok(())
    }
}

impl Runner {
    fn command(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        match name {
            "define" | "clue" | "treasure" | "faults" => self.definition(name, args),
            "at" => {
                self.stamp_ms = positional(args)?.parse()?;
                Ok(String::new())
            }
            "begin" => {
                self.gathered = Some(Vec::new());
                Ok(String::new())
            }
            "commit" => {
                let commands = self.gathered.take().ok_or("nothing has begun")?;
                Ok(self.entry(&commands))
            }
            "tick" => {
                self.stamp_ms = positional(args)?.parse()?;
                Ok(self.entry(&[]))
            }
            "blank" => {
                self.replica.blank();
                Ok(format!("entry {}\n", self.replica.log.len() - 1))
            }
            "open" => {
                let session = positional(args)?;
                let nonce = args.take_key("nonce").unwrap_or("nonce-of-first-opening");
                Ok(self.submit(encode_open_session(session, nonce.as_bytes())))
            }
            "level" => {
                let Some(level) = args.next_pos() else {
                    return Ok(format!("level {}\n", self.replica.machine.level()));
                };
                Ok(self.submit(encode_raise_level(level.parse()?)))
            }
            "append" => {
                let batch = self.batch(args)?;
                Ok(self.submit(encode_batch(&batch)))
            }
            _ => self.query(name, args),
        }
    }

    fn submit(&mut self, command: EncodedCommand) -> String {
        match &mut self.gathered {
            None => self.entry(&[command]),
            Some(gathered) => {
                gathered.push(command);
                String::new()
            }
        }
    }

    fn entry(&mut self, commands: &[EncodedCommand]) -> String {
        let entry = self.replica.entry(self.stamp_ms, commands);
        let applied = match self.replica.apply_entry(entry) {
            Ok(applied) => applied,
            Err(error) => return format!("not applied: {error}\n"),
        };
        let mut out = format!(
            "entry {} time={} first_offset={} accepted={}\n",
            applied.log_id.index, applied.time_ms, applied.first_offset, applied.accepted
        );
        let logged = self.replica.log.last().expect("just applied");
        let entry = logged.entry.as_ref().expect("just applied");
        let committed: Vec<_> = history::events(entry, &logged.record)
            .expect("sound")
            .map(|event| event.expect("sound"))
            .collect();
        for event in &committed {
            if event.origin == history::Origin::Clock {
                writeln!(out, "  {}", text::committed(event)).expect("a String takes all");
            }
        }
        for result in &applied.results {
            for line in text::result(result) {
                writeln!(out, "  {line}").expect("a String takes all");
            }
        }
        self.check_history(&applied, &committed);
        out
    }

    /// Readers see what the appenders were told.
    fn check_history(
        &self,
        applied: &huntlog_machine::Applied,
        committed: &[history::CommittedEvent<'_>],
    ) {
        use huntlog_machine::{BatchResult, CommandResult};
        assert_eq!(committed.len() as u64, applied.accepted);
        let told: Vec<String> = applied
            .results
            .iter()
            .filter_map(|result| match result {
                CommandResult::Batch(BatchResult::Applied(batch)) => Some(batch),
                _ => None,
            })
            .flat_map(|batch| batch.iter())
            .filter(|outcome| matches!(outcome, EventOutcome::Accepted { .. }))
            .map(|outcome| text::outcome(&outcome))
            .collect();
        let read: Vec<String> = committed
            .iter()
            .filter(|event| event.origin != history::Origin::Clock)
            .map(|event| {
                text::outcome(&EventOutcome::Accepted {
                    offset: event.offset,
                    revision: event.revision,
                    effects: event.effects,
                })
            })
            .collect();
        assert_eq!(told, read);
    }

    fn definition(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let id = positional(args)?;
        if name == "define" {
            let definition = HuntDefinition {
                title: args.take_key("title").unwrap_or(id).into(),
                starts_at: millis(args.take_key("starts"))?,
                ends_at: millis(args.take_key("ends"))?,
                max_players: number(args.take_key("players"), 0)?,
                ..HuntDefinition::default()
            };
            self.definitions.insert(id.into(), definition);
            return Ok(String::new());
        }
        let definition = self.definitions.get_mut(id).ok_or("no such definition")?;
        match name {
            "clue" => {
                let clue = positional(args)?;
                let salt = derived_salt(id, clue);
                let answers = args.take_key("answer").map(|answers| answers.split('|'));
                definition.clues.push(Clue {
                    id: clue.into(),
                    requires: list(args.take_key("requires")),
                    points: number(args.take_key("points"), 1)?,
                    answer_hashes: answers
                        .into_iter()
                        .flatten()
                        .map(|answer| answer_hash(&salt, answer))
                        .collect(),
                    answer_salt: Bytes::copy_from_slice(&salt),
                    max_attempts: number(args.take_key("attempts"), 0)?,
                    hints: list(args.take_key("hints"))
                        .iter()
                        .map(|hint| {
                            let (id, cost) = hint.split_once(':').ok_or("a hint is id:cost")?;
                            let cost = cost.parse()?;
                            let id = id.into();
                            Ok(Hint { id, cost })
                        })
                        .collect::<Outcome<_>>()?,
                    ..Clue::default()
                });
                Ok(String::new())
            }
            "treasure" => {
                definition.treasures.push(Treasure {
                    id: positional(args)?.into(),
                    limit: number(args.take_key("limit"), 1)?,
                    points: number(args.take_key("points"), 1)?,
                    requires: list(args.take_key("requires")),
                    ..Treasure::default()
                });
                Ok(String::new())
            }
            _ => Ok(definition
                .faults()
                .iter()
                .fold(String::new(), |out, fault| out + &format!("{fault}\n"))),
        }
    }

    fn batch(&self, args: &mut ArgumentConsumer<'_>) -> Outcome<Batch> {
        let session = positional(args)?;
        let known = self.replica.machine.session(session);
        let expected = match args.take_key("expect") {
            None => Vec::new(),
            Some(expected) => expected
                .split(',')
                .map(|expected| {
                    let (hunt, revision) =
                        expected.split_once(':').ok_or("expect is hunt:revision")?;
                    let revision = match revision {
                        "none" => ExpectedRevision::None,
                        exactly => ExpectedRevision::Exactly(exactly.parse()?),
                    };
                    Ok((hunt.to_owned(), revision))
                })
                .collect::<Outcome<_>>()?,
        };
        let next = known.map_or(1, |session| session.last_sequence + 1);
        let sequence = number(args.take_key("seq"), next)?;
        let epoch = number(
            args.take_key("epoch"),
            known.map_or(0, |session| session.epoch),
        )?;
        let mut events = Vec::new();
        while let Some(event) = args.next_pos() {
            events.push(self.event(event)?);
        }
        Ok(Batch {
            session: session.into(),
            epoch,
            sequence,
            expected,
            events,
        })
    }

    fn event(&self, words: &str) -> Outcome<Event> {
        let words: Vec<_> = words.split(' ').collect();
        let (&hunt, words) = words.split_first().ok_or("an event is needed")?;
        let plain = |kind| Ok(event(hunt, "", kind));
        match *words {
            ["create", definition] => {
                let definition = self
                    .definitions
                    .get(definition)
                    .ok_or("no such definition")?;
                Ok(create(hunt, definition.clone()))
            }
            ["open"] => plain(EventKind::HuntOpened),
            ["start"] => plain(EventKind::HuntStarted),
            ["pause"] => plain(EventKind::HuntPaused),
            ["resume"] => plain(EventKind::HuntResumed),
            ["finish"] => plain(EventKind::HuntFinished),
            ["cancel", reason] => plain(EventKind::HuntCancelled {
                reason: reason.into(),
            }),
            ["register", player] => Ok(register(hunt, player)),
            ["withdraw", player] => Ok(event(hunt, player, EventKind::PlayerWithdrawn)),
            ["disqualify", player, reason] => {
                let reason = reason.into();
                Ok(event(
                    hunt,
                    player,
                    EventKind::PlayerDisqualified { reason },
                ))
            }
            ["attempt", player, clue, ref answer @ ..] => {
                Ok(attempt(hunt, player, clue, &answer.join(" ")))
            }
            ["claim", player, treasure] => Ok(claim(hunt, player, treasure)),
            ["hint", player, clue, hint] => {
                let (clue, hint) = (clue.into(), hint.into());
                Ok(event(hunt, player, EventKind::HintTaken { clue, hint }))
            }
            ["custom", player, ref text @ ..] => {
                let type_name = "note".into();
                let payload = text.join(" ").into_bytes().into();
                Ok(event(
                    hunt,
                    player,
                    EventKind::Custom { type_name, payload },
                ))
            }
            ["announce", clue, ref text @ ..] => plain(EventKind::Announced {
                clue: if clue == "-" { "" } else { clue }.into(),
                text: text.join(" "),
            }),
            _ => Err(format!("unknown event {words:?}").into()),
        }
    }

    fn query(&self, name: &str, args: &mut ArgumentConsumer<'_>) -> Outcome<String> {
        let machine = &self.replica.machine;
        let mut out = String::new();
        match name {
            "hunt" => {
                let hunt = machine.hunt(positional(args)?).ok_or("no such hunt")?;
                writeln!(
                    out,
                    "{} {} revision={} players={} finishers={} entries={:?}",
                    hunt.id(),
                    hunt.state().name(),
                    hunt.revision(),
                    hunt.player_count(),
                    hunt.finishers(),
                    hunt.entries().iter_from(0).collect::<Vec<_>>(),
                )?;
                for clue in hunt.clue_stats() {
                    writeln!(out, "  {} {}/{}", clue.clue, clue.solves, clue.attempts)?;
                }
                for treasure in hunt.treasure_stats() {
                    let (id, limit, winners) =
                        (treasure.treasure, treasure.limit, treasure.winners);
                    writeln!(out, "  {id} {winners:?} of {limit}")?;
                }
            }
            "player" => {
                let (hunt, player) = (positional(args)?, positional(args)?);
                let player = machine.player(hunt, player).ok_or("no such player")?;
                writeln!(
                    out,
                    "{} {:?} {:?} solved={:?} open={:?} attempts={:?} hints={:?} treasures={:?}",
                    player.id(),
                    player.display_name(),
                    player.status(),
                    player.solved_clues().collect::<Vec<_>>(),
                    player.open_clues().collect::<Vec<_>>(),
                    player.attempts().collect::<Vec<_>>(),
                    player.hints().collect::<Vec<_>>(),
                    player.treasures().collect::<Vec<_>>(),
                )?;
                match player.row() {
                    Some(row) => writeln!(out, "  {}", scoreboard_row(&row))?,
                    None => writeln!(out, "  not on the scoreboard")?,
                }
            }
            "scoreboard" => {
                let hunt = positional(args)?;
                let skip = number(args.take_key("skip"), 0)?;
                let limit = number(args.take_key("limit"), 100)?;
                let board = machine
                    .scoreboard(hunt, skip, limit)
                    .ok_or("no such hunt")?;
                for row in &board.rows {
                    writeln!(out, "{}", scoreboard_row(row))?;
                    assert_eq!(machine.rank(hunt, row.player).as_ref(), Some(row));
                }
                writeln!(out, "of {}", board.total)?;
            }
            "hunts" => {
                for hunt in
                    machine.hunts(args.take_key("after"), number(args.take_key("limit"), 9)?)
                {
                    writeln!(out, "{} {}", hunt.id(), hunt.state().name())?;
                }
            }
            "sessions" => {
                for session in
                    machine.sessions(args.take_key("after"), number(args.take_key("limit"), 9)?)
                {
                    writeln!(
                        out,
                        "{} epoch={} last_sequence={} idle={}",
                        session.name, session.epoch, session.last_sequence, session.idle_ms
                    )?;
                }
            }
            "history" => {
                let filter = history::Filter {
                    hunts: list(args.take_key("hunt")),
                    players: list(args.take_key("player")),
                    types: Vec::new(),
                };
                let from = number(args.take_key("from"), 0)?;
                for logged in &self.replica.log {
                    let Some(entry) = &logged.entry else { continue };
                    for event in history::events_from(entry, &logged.record, from, &filter)? {
                        writeln!(out, "{}", text::committed(&event?))?;
                    }
                }
            }
            "due" => writeln!(out, "{:?}", machine.next_due_ms())?,
            "digest" => {
                let check = machine.digest().ok_or("nothing has been applied")?;
                writeln!(out, "index {} digest {}", check.index, check.digest)?;
                writeln!(out, "state {}", machine.state_hash())?;
            }
            _ => return Err(format!("unknown command {name}").into()),
        }
        Ok(out)
    }
}

fn scoreboard_row(row: &ScoreboardRow<'_>) -> String {
    let last = row.last_solve.map_or("never".into(), |solve| {
        format!("@{} t{}", solve.offset, solve.time_ms)
    });
    format!(
        "{}. {} {} points, {} solved, last {last}",
        row.rank, row.player, row.points, row.solved
    )
}

fn positional<'a>(args: &mut ArgumentConsumer<'a>) -> Outcome<&'a str> {
    Ok(args.next_pos().ok_or("an argument is missing")?)
}

fn number<T: std::str::FromStr>(text: Option<&str>, default: T) -> Outcome<T>
where
    T::Err: Error + 'static,
{
    Ok(text.map(str::parse).transpose()?.unwrap_or(default))
}

fn list(text: Option<&str>) -> Vec<String> {
    text.map(|text| text.split(',').map(str::to_owned).collect())
        .unwrap_or_default()
}

fn millis(text: Option<&str>) -> Outcome<Option<Timestamp>> {
    let Some(text) = text else { return Ok(None) };
    let millis: i64 = text.parse()?;
    Ok(Some(Timestamp {
        seconds: millis.div_euclid(1_000),
        nanos: u32::try_from(millis.rem_euclid(1_000))? * 1_000_000,
    }))
}
