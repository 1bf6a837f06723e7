//! What can be wrong with a hunt's definition. All of it is found, not only the
//! first fault, and the same on every replica.

use super::{Clue, HuntDefinition};
use crate::limits::{CLUES_MAX, HINTS_PER_CLUE_MAX, ID_BYTES_MAX, TREASURES_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionFault {
    /// Where, such as `clues[3].requires[0]`.
    pub path: String,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl fmt::Display for DefinitionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl HuntDefinition {
    /// Everything that is wrong with it, in the order of its parts; a hunt is
    /// created only when there is nothing.
    #[must_use]
    pub fn faults(&self) -> Vec<DefinitionFault> {
        let mut faults = Faults(Vec::new());
        if self.clues.is_empty() {
            faults.add("clues", "at least one clue is needed");
        }
        faults.limit("clues", self.clues.len(), CLUES_MAX);
        faults.limit("treasures", self.treasures.len(), TREASURES_MAX);
        // The search for circles below is for definitions of a sensible size.
        if !faults.0.is_empty() {
            return faults.0;
        }
        let indexes = faults.ids("clues", self.clues.iter().map(|clue| clue.id.as_str()));
        for (position, clue) in self.clues.iter().enumerate() {
            faults.clue(position, clue, &indexes);
        }
        faults.unreachable(&self.clues, &indexes);
        faults.ids(
            "treasures",
            self.treasures.iter().map(|treasure| treasure.id.as_str()),
        );
        for (position, treasure) in self.treasures.iter().enumerate() {
            let path = format!("treasures[{position}]");
            if treasure.limit == 0 {
                faults.add(
                    format!("{path}.limit"),
                    "at least one player must be able to win it",
                );
            }
            faults.requires(&path, None, &treasure.requires, &indexes);
        }
        faults.times(self);
        faults.0
    }
}

struct Faults(Vec<DefinitionFault>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(DefinitionFault {
            path: path.into(),
            message: message.into(),
        });
    }

    fn limit(&mut self, path: &str, actual: usize, max: usize) {
        if actual > max {
            self.add(
                path,
                format!("{actual} are too many, at most {max} are possible"),
            );
        }
    }

    /// Checks the ids of a list, and returns where each stands first.
    fn ids<'a>(
        &mut self,
        list: &str,
        ids: impl Iterator<Item = &'a str>,
    ) -> BTreeMap<&'a str, usize> {
        let mut first = BTreeMap::new();
        for (position, id) in ids.enumerate() {
            let path = format!("{list}[{position}].id");
            if id.is_empty() {
                self.add(path, "an id is needed");
                continue;
            }
            if id.len() > ID_BYTES_MAX {
                let len = id.len();
                self.add(
                    path.as_str(),
                    format!("{len} bytes are too many, at most {ID_BYTES_MAX} are possible"),
                );
            }
            if id.chars().any(char::is_control) {
                self.add(path.as_str(), "control characters are not possible");
            }
            if let Some(earlier) = first.get(id) {
                self.add(
                    path,
                    format!("`{id}` is the id of {list}[{earlier}] already"),
                );
            } else {
                first.insert(id, position);
            }
        }
        first
    }

    fn clue(&mut self, position: usize, clue: &Clue, indexes: &BTreeMap<&str, usize>) {
        let path = format!("clues[{position}]");
        self.requires(&path, Some(&clue.id), &clue.requires, indexes);
        if clue.answer_hashes.is_empty() {
            self.add(format!("{path}.answers"), "at least one answer is needed");
        }
        self.limit(
            &format!("{path}.hints"),
            clue.hints.len(),
            HINTS_PER_CLUE_MAX,
        );
        self.ids(
            &format!("{path}.hints"),
            clue.hints.iter().map(|hint| hint.id.as_str()),
        );
    }

    fn requires(
        &mut self,
        path: &str,
        own: Option<&str>,
        requires: &[String],
        indexes: &BTreeMap<&str, usize>,
    ) {
        let mut seen = BTreeSet::new();
        for (position, required) in requires.iter().enumerate() {
            let path = format!("{path}.requires[{position}]");
            if own == Some(required) {
                self.add(path, "a clue cannot require itself");
            } else if !indexes.contains_key(required.as_str()) {
                self.add(path, format!("there is no clue `{required}`"));
            } else if !seen.insert(required) {
                self.add(path, format!("`{required}` is required already"));
            }
        }
    }

    fn times(&mut self, definition: &HuntDefinition) {
        let times = [
            ("starts_at", definition.starts_at),
            ("ends_at", definition.ends_at),
        ];
        for (path, time) in times {
            if time.is_some_and(|time| time.nanos >= 1_000_000_000) {
                self.add(path, "nanoseconds must be below 1,000,000,000");
            }
        }
        if let (Some(starts_at), Some(ends_at)) = (definition.starts_at, definition.ends_at)
            && ends_at <= starts_at
        {
            self.add("ends_at", "must be later than starts_at");
        }
    }

    /// Names the circles of clues that require each other, and what no player
    /// can get to because of them or of an unknown clue.
    fn unreachable(&mut self, clues: &[Clue], indexes: &BTreeMap<&str, usize>) {
        let requires: Vec<Vec<usize>> = clues
            .iter()
            .map(|clue| {
                let known = clue
                    .requires
                    .iter()
                    .filter_map(|id| indexes.get(id.as_str()));
                known.copied().collect()
            })
            .collect();
        let circles = circles(&requires);
        let mut in_circle = vec![false; clues.len()];
        for circle in &circles {
            for &clue in circle {
                in_circle[clue] = true;
            }
            let names: Vec<_> = circle
                .iter()
                .map(|&clue| format!("`{}`", clues[clue].id))
                .collect();
            self.add(
                format!("clues[{}].requires", circle[0]),
                format!(
                    "{} require each other, so that none can be attempted",
                    names.join(", ")
                ),
            );
        }
        let blocked: Vec<bool> = (0..clues.len())
            .map(|clue| {
                in_circle[clue]
                    || requires[clue].contains(&clue)
                    || requires[clue].len() < clues[clue].requires.len()
            })
            .collect();
        let reached = reached(&requires, &blocked);
        for (position, clue) in clues.iter().enumerate() {
            if reached[position] || blocked[position] {
                continue;
            }
            let names: Vec<_> = requires[position]
                .iter()
                .filter(|&&required| !reached[required])
                .map(|&required| format!("`{}`", clues[required].id))
                .collect();
            self.add(
                format!("clues[{position}]"),
                format!(
                    "`{}` cannot be reached, for it requires {}",
                    clue.id,
                    names.join(", ")
                ),
            );
        }
    }
}

/// Which clues can be got to, none of the blocked ones being (Kahn).
fn reached(requires: &[Vec<usize>], blocked: &[bool]) -> Vec<bool> {
    let required_by = reversed(requires);
    let mut missing: Vec<usize> = requires.iter().map(Vec::len).collect();
    let mut reached = vec![false; requires.len()];
    let mut ready: Vec<usize> = (0..requires.len())
        .filter(|&clue| missing[clue] == 0 && !blocked[clue])
        .collect();
    while let Some(clue) = ready.pop() {
        reached[clue] = true;
        for &next in &required_by[clue] {
            missing[next] -= 1;
            if missing[next] == 0 && !blocked[next] {
                ready.push(next);
            }
        }
    }
    reached
}

fn reversed(requires: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut required_by = vec![Vec::new(); requires.len()];
    for (clue, required) in requires.iter().enumerate() {
        for &required in required {
            required_by[required].push(clue);
        }
    }
    required_by
}

/// The strongly connected components of more than one clue (Kosaraju), each in
/// the order of the definition.
fn circles(requires: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let required_by = reversed(requires);
    let mut seen = vec![false; requires.len()];
    let mut order = Vec::with_capacity(requires.len());
    for start in 0..requires.len() {
        visit(requires, start, &mut seen, &mut order);
    }
    seen.fill(false);
    let mut circles = Vec::new();
    for &start in order.iter().rev() {
        let mut component = Vec::new();
        visit(&required_by, start, &mut seen, &mut component);
        if component.len() > 1 {
            component.sort_unstable();
            circles.push(component);
        }
    }
    circles.sort_unstable();
    circles
}

/// Depth first, without recursion: a chain of clues may be long. Appends what
/// it finds when it leaves it.
fn visit(edges: &[Vec<usize>], start: usize, seen: &mut [bool], left: &mut Vec<usize>) {
    if std::mem::replace(&mut seen[start], true) {
        return;
    }
    let mut path = vec![(start, 0)];
    while let Some((node, next)) = path.last_mut() {
        if let Some(&to) = edges[*node].get(*next) {
            *next += 1;
            if !std::mem::replace(&mut seen[to], true) {
                path.push((to, 0));
            }
        } else {
            left.push(*node);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many clues as there may be, each after the next one in the list.
    fn chain() -> HuntDefinition {
        let clue = |position: usize| Clue {
            id: format!("c{position}"),
            requires: vec![format!("c{}", position + 1)],
            answer_hashes: vec![[0; 32]],
            ..Clue::default()
        };
        let mut clues: Vec<_> = (0..CLUES_MAX).map(clue).collect();
        clues[CLUES_MAX - 1].requires.clear();
        HuntDefinition {
            clues,
            ..HuntDefinition::default()
        }
    }

    #[test]
    fn the_longest_chain_is_sound() {
        assert_eq!(chain().faults(), []);
    }

    #[test]
    fn the_longest_circle_is_found() {
        let mut definition = chain();
        definition.clues[CLUES_MAX - 1].requires = vec!["c1".into()];
        let faults = definition.faults();
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["clues[1].requires", "clues[0]"]);
    }

    #[test]
    fn everything_has_a_limit() {
        let mut definition = chain();
        definition.clues.push(Clue::default());
        let faults = definition.faults();
        assert_eq!(faults.len(), 1);
        assert_eq!(
            faults[0].to_string(),
            "clues: 4097 are too many, at most 4096 are possible"
        );
        let mut definition = chain();
        definition.clues.truncate(1);
        definition.clues[0].requires.clear();
        definition.clues[0].id = "x".repeat(ID_BYTES_MAX + 1);
        let hint = |position: usize| crate::Hint {
            id: position.to_string(),
            cost: 1,
        };
        definition.clues[0].hints = (0..=HINTS_PER_CLUE_MAX).map(hint).collect();
        let paths: Vec<_> = definition
            .faults()
            .into_iter()
            .map(|fault| fault.path)
            .collect();
        assert_eq!(paths, ["clues[0].id", "clues[0].hints"]);
    }
}
