//! Reading `cluster.initial_members`.

use super::{
    Address, Member,
    fault::{Hint, Origin, Problem},
    layers::{Located, Raw},
    schema,
    validate::{Validator, wrong_type},
};
use crate::limits;

const PATH: &str = "cluster.initial_members";

/// A member as far as it could be read.
struct Candidate {
    label: String,
    id: Option<Located<u64>>,
    peer_address: Option<Located<Address>>,
    client_address: Option<Located<Address>>,
}

/// Every member, in the order of the list; None when one could not be read.
pub(super) fn read(
    validator: &mut Validator<'_>,
    list: &Located<Raw>,
    items: &[Located<Raw>],
) -> Option<Vec<Member>> {
    let candidates: Vec<_> = items
        .iter()
        .enumerate()
        .map(|(index, item)| candidate(validator, format!("{PATH}[{index}]"), item))
        .collect();
    check_count(validator, &list.origin, items.len());
    check_ids(validator, &candidates);
    check_addresses(validator, &candidates);
    candidates
        .into_iter()
        .map(|candidate| {
            Some(Member {
                id: candidate.id?.value,
                peer_address: candidate.peer_address?.value,
                client_address: candidate.client_address?.value,
            })
        })
        .collect()
}

fn candidate(validator: &mut Validator<'_>, label: String, item: &Located<Raw>) -> Candidate {
    let mut candidate = Candidate {
        id: None,
        peer_address: None,
        client_address: None,
        label,
    };
    let label = candidate.label.clone();
    let Raw::Table(entries) = &item.value else {
        let problem = wrong_type(&label, "a table", &item.value);
        validator.fault(item.origin.clone(), problem);
        return candidate;
    };
    for (name, value) in entries {
        let key = format!("{label}.{}", name.value);
        match name.value.as_str() {
            "id" => candidate.id = validator.number(&key, value, 1, i64::MAX as u64),
            "peer_address" => candidate.peer_address = address(validator, &key, value),
            "client_address" => candidate.client_address = address(validator, &key, value),
            unknown => {
                let fields = schema::MEMBER_FIELDS.into_iter();
                let hint = match schema::closest(unknown, fields) {
                    Some(field) => Hint::DidYouMean(format!("{label}.{field}")),
                    None => Hint::Known(schema::MEMBER_FIELDS.join(", ")),
                };
                let problem = Problem::UnknownKey { key, hint };
                validator.fault(name.origin.clone(), problem);
            }
        }
    }
    for field in schema::MEMBER_FIELDS {
        if !entries.iter().any(|(name, _)| name.value == field) {
            let problem = Problem::Missing {
                key: format!("{label}.{field}"),
                hint: "every member needs an id, a peer_address and a client_address",
            };
            validator.fault(item.origin.clone(), problem);
        }
    }
    candidate
}

fn address(
    validator: &mut Validator<'_>,
    key: &str,
    raw: &Located<Raw>,
) -> Option<Located<Address>> {
    let text = validator.string(key, raw, "write host:port")?;
    match text.value.parse() {
        Ok(value) => Some(Located {
            value,
            origin: text.origin,
        }),
        Err(reason) => {
            let problem = Problem::InvalidAddress {
                key: key.to_owned(),
                actual: text.value,
                reason,
            };
            validator.fault(text.origin, problem);
            None
        }
    }
}

fn check_count(validator: &mut Validator<'_>, origin: &Origin, members: usize) {
    let problem = match members {
        0 => Problem::Empty {
            key: PATH.to_owned(),
            hint: "list every node that forms the cluster, this one included, or leave the key out to wait for a cluster",
        },
        1 => Problem::SingleVoter,
        members if members > limits::VOTERS_MAX => Problem::TooManyMembers { members },
        members if members % 2 == 0 => Problem::EvenVoters { members },
        _ => return,
    };
    validator.fault(origin.clone(), problem);
}

fn check_ids(validator: &mut Validator<'_>, candidates: &[Candidate]) {
    for (index, candidate) in candidates.iter().enumerate() {
        let Some(id) = &candidate.id else { continue };
        let same = |other: &&Candidate| other.id.as_ref().is_some_and(|o| o.value == id.value);
        if let Some(other) = candidates[..index].iter().find(same) {
            let problem = Problem::SameMemberId {
                key: format!("{}.id", candidate.label),
                other: format!("{}.id", other.label),
                id: id.value,
            };
            validator.fault(id.origin.clone(), problem);
        }
    }
}

fn check_addresses(validator: &mut Validator<'_>, candidates: &[Candidate]) {
    let mut seen: Vec<(String, &Address)> = Vec::new();
    for candidate in candidates {
        for (field, address) in [
            ("peer_address", &candidate.peer_address),
            ("client_address", &candidate.client_address),
        ] {
            let Some(address) = address else { continue };
            let key = format!("{}.{field}", candidate.label);
            if let Some((other, _)) = seen.iter().find(|(_, seen)| **seen == address.value) {
                let problem = Problem::SameAddress {
                    key,
                    other: other.clone(),
                    address: address.value.to_string(),
                };
                validator.fault(address.origin.clone(), problem);
            } else {
                seen.push((key, &address.value));
            }
        }
    }
}
