//! Conditions on figures, such as `p99<50ms,rate>100000`.

use super::figures::{Figures, Kind, Unit};

/// Why conditions can not be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    #[error("'{0}' is no condition; write NAME<VALUE, or with <=, >, >=, =, such as p99<50ms")]
    Form(String),
    #[error("this benchmark has no figure '{name}'; it has {known}")]
    Name { name: String, known: String },
    #[error("'{value}' is no value of {name}; give {expected}")]
    Value {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

/// Longer signs first: `<=` is not `<` and a value that begins with `=`.
const SIGNS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::More),
    ("=", Comparison::Equal),
];

#[derive(Debug, Clone, PartialEq)]
struct Assertion {
    words: String,
    name: &'static str,
    unit: Unit,
    comparison: Comparison,
    value: f64,
}

/// What has to hold; nothing by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assertions(Vec<Assertion>);

impl Assertions {
    /// What does not hold, in words; nothing when all does.
    pub fn violated(&self, figures: &Figures) -> Vec<String> {
        let broken = self.0.iter().filter_map(|assertion| {
            let Some(actual) = figures.get(assertion.name) else {
                return Some(format!("{}: it was not measured", assertion.words));
            };
            let holds = match assertion.comparison {
                Comparison::Less => *actual < assertion.value,
                Comparison::AtMost => *actual <= assertion.value,
                Comparison::More => *actual > assertion.value,
                Comparison::AtLeast => *actual >= assertion.value,
                #[expect(clippy::float_cmp, reason = "meant for counts, which are exact")]
                Comparison::Equal => *actual == assertion.value,
            };
            let shown = assertion.unit.show(*actual);
            (!holds).then(|| format!("{}: it is {shown}", assertion.words))
        });
        broken.collect()
    }
}

/// Reads conditions, separated by commas, on figures of these kinds.
pub fn parse_assertions(text: &str, kinds: &[&'static Kind]) -> Result<Assertions, AssertionError> {
    let parsed = text.split(',').map(|words| parse_one(words.trim(), kinds));
    Ok(Assertions(parsed.collect::<Result<_, _>>()?))
}

fn parse_one(words: &str, kinds: &[&'static Kind]) -> Result<Assertion, AssertionError> {
    let split = words.find(['<', '>', '=']).and_then(|at| {
        let (name, rest) = words.split_at(at);
        let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign))?;
        Some((name.trim(), sign.1, rest[sign.0.len()..].trim()))
    });
    let Some((name, comparison, value)) = split.filter(|(name, _, _)| !name.is_empty()) else {
        return Err(AssertionError::Form(words.to_owned()));
    };
    let Some(kind) = kinds.iter().find(|kind| kind.name == name) else {
        let known: Vec<_> = kinds.iter().map(|kind| kind.name).collect();
        return Err(AssertionError::Name {
            name: name.to_owned(),
            known: known.join(", "),
        });
    };
    let (expected, units) = units(kind.unit);
    let value = parse_value(value, units).ok_or_else(|| AssertionError::Value {
        name: kind.name,
        value: value.to_owned(),
        expected,
    })?;
    Ok(Assertion {
        words: words.to_owned(),
        name: kind.name,
        unit: kind.unit,
        comparison,
        value,
    })
}

/// How values of this unit are written, and what each ending is worth.
fn units(unit: Unit) -> (&'static str, &'static [(&'static str, f64)]) {
    match unit {
        Unit::Millis => (
            "a time with its unit: us, ms or s",
            &[("us", 1e-3), ("ms", 1.0), ("s", 1e3)],
        ),
        Unit::Seconds => ("seconds, such as 6s", &[("s", 1.0), ("", 1.0)]),
        Unit::Bytes => (
            "bytes, or with kB, MB or GB",
            &[("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("", 1.0)],
        ),
        Unit::PerSecond | Unit::Count => ("a number", &[("", 1.0)]),
    }
}

fn parse_value(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, ending) = text.split_at(end);
    let (_, worth) = units.iter().find(|(name, _)| *name == ending.trim())?;
    Some(number.parse::<f64>().ok()? * worth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::{APPENDS, NODES};

    fn kinds() -> Vec<&'static Kind> {
        APPENDS.iter().chain(NODES).collect()
    }

    fn violated(text: &str) -> Vec<String> {
        let figures = Figures::from([
            ("rate", 120_000.0),
            ("p99", 49.5),
            ("p99.9", 80.0),
            ("memory", 2e8),
            ("cpu", 6.0),
            ("errors", 0.0),
        ]);
        parse_assertions(text, &kinds())
            .expect(text)
            .violated(&figures)
    }

    #[test]
    fn what_holds_is_silent() {
        for text in [
            "p99<50ms",
            "p99 < 0.05s, rate >= 120000",
            "p99<49501us",
            "p99.9<=80ms,memory<300MB",
            "cpu<=6,cpu<=6s,errors=0",
        ] {
            assert_eq!(violated(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn what_does_not_hold_is_told_with_its_value() {
        assert_eq!(violated("p99<49ms"), ["p99<49ms: it is 49.5 ms"]);
        assert_eq!(
            violated("rate>120000,errors=0,memory<=100MB"),
            [
                "rate>120000: it is 120000 /s",
                "memory<=100MB: it is 200.0 MB"
            ]
        );
        assert_eq!(violated("p50<1s"), ["p50<1s: it was not measured"]);
    }

    #[test]
    fn what_can_not_be_understood_says_why() {
        let error = |text| {
            parse_assertions(text, &kinds())
                .expect_err(text)
                .to_string()
        };
        for text in ["", "p99", "<5ms", "p99<5ms,", "p99~5ms"] {
            assert!(error(text).contains("is no condition"), "{text}");
        }
        assert!(error("p98<5ms").contains("no figure 'p98'; it has rate, mean, p50"));
        for text in ["p99<50", "p99<fast", "p99<", "p99=<5ms", "p99<5kB"] {
            assert!(error(text).contains("us, ms or s"), "{text}");
        }
        assert!(error("rate>1.2.3").contains("give a number"));
        assert!(error("rate>100k").contains("give a number"));
    }
}
