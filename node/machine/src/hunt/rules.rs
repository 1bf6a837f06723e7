//! A hunt's definition with its names resolved.

use crate::{DefinitionFault, HuntDefinition};
use std::collections::BTreeMap;

/// Indexes into a definition's clues.
pub(crate) type ClueIndex = usize;

/// A definition without faults, and its clues as a graph.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) definition: HuntDefinition,
    clues: BTreeMap<Box<str>, ClueIndex>,
    treasures: BTreeMap<Box<str>, usize>,
    /// Of each clue: the clues it requires.
    requires: Vec<Box<[ClueIndex]>>,
    /// Of each clue: the clues that require it.
    required_by: Vec<Vec<ClueIndex>>,
    /// Of each treasure: the clues it requires.
    treasure_requires: Vec<Box<[ClueIndex]>>,
}

impl Rules {
    pub(crate) fn new(definition: HuntDefinition) -> Result<Self, Vec<DefinitionFault>> {
        let faults = definition.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let index = |ids: &mut dyn Iterator<Item = &String>| {
            ids.enumerate()
                .map(|(position, id)| (Box::from(id.as_str()), position))
                .collect::<BTreeMap<Box<str>, usize>>()
        };
        let clues = index(&mut definition.clues.iter().map(|clue| &clue.id));
        let treasures = index(&mut definition.treasures.iter().map(|treasure| &treasure.id));
        let resolve = |ids: &[String]| ids.iter().map(|id| clues[id.as_str()]).collect();
        let requires: Vec<Box<[ClueIndex]>> = definition
            .clues
            .iter()
            .map(|clue| resolve(&clue.requires))
            .collect();
        let treasure_requires = definition
            .treasures
            .iter()
            .map(|treasure| resolve(&treasure.requires))
            .collect();
        let mut required_by = vec![Vec::new(); requires.len()];
        for (clue, required) in requires.iter().enumerate() {
            for &required in required {
                required_by[required].push(clue);
            }
        }
        Ok(Self {
            clues,
            treasures,
            requires,
            required_by,
            treasure_requires,
            definition,
        })
    }

    pub(crate) fn clue(&self, id: &str) -> Option<ClueIndex> {
        self.clues.get(id).copied()
    }

    pub(crate) fn treasure(&self, id: &str) -> Option<usize> {
        self.treasures.get(id).copied()
    }

    /// The clues that a clue requires.
    pub(crate) fn requires(&self, clue: ClueIndex) -> &[ClueIndex] {
        &self.requires[clue]
    }

    /// The clues that require a clue, in the order of the definition.
    pub(crate) fn required_by(&self, clue: ClueIndex) -> &[ClueIndex] {
        &self.required_by[clue]
    }

    /// The clues that a treasure requires.
    pub(crate) fn treasure_requires(&self, treasure: usize) -> &[ClueIndex] {
        &self.treasure_requires[treasure]
    }
}
