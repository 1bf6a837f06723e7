//! A node's /metrics: asked for, read, and subtracted.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The most an answer may have.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A node's metrics at one moment, summed up over their labels.
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    values: HashMap<String, f64>,
    /// Of each histogram, the observations at or below a bound; the bounds as
    /// bits, which order as the numbers do above zero.
    buckets: HashMap<String, BTreeMap<u64, f64>>,
}

impl Exposition {
    /// Asks the node whose admin port is at `address`.
    pub async fn fetch(address: &str) -> Result<Self, String> {
        match tokio::time::timeout(PATIENCE, get(address, "/metrics")).await {
            Ok(Ok((200, text))) => Ok(Self::parse(&text)),
            Ok(Ok((status, _))) => Err(format!("{address} answers {status}")),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address} does not answer within 5 s")),
        }
    }

    fn parse(text: &str) -> Self {
        let mut exposition = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Ok(value) = value.parse::<f64>() else {
                continue;
            };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let Some(histogram) = name.strip_suffix("_bucket") else {
                *exposition.values.entry(name.to_owned()).or_default() += value;
                continue;
            };
            let bound = labels.split("le=\"").nth(1);
            let bound = bound.and_then(|rest| rest.split('"').next()?.parse::<f64>().ok());
            if let Some(bound) = bound {
                let buckets = exposition.buckets.entry(histogram.to_owned()).or_default();
                *buckets.entry(bound.to_bits()).or_default() += value;
            }
        }
        exposition
    }

    /// A gauge, a counter, or a histogram's sum or count; 0 when there is none.
    pub fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or_default()
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let less = |value: &f64, before: Option<&f64>| value - before.copied().unwrap_or_default();
        let values = self.values.iter();
        let buckets = self.buckets.iter();
        Self {
            values: values
                .map(|(name, value)| (name.clone(), less(value, before.values.get(name))))
                .collect(),
            buckets: buckets
                .map(|(name, bounds)| {
                    let before = before.buckets.get(name);
                    let bounds = bounds.iter().map(|(bound, count)| {
                        let before = before.and_then(|bounds| bounds.get(bound));
                        (*bound, less(count, before))
                    });
                    (name.clone(), bounds.collect())
                })
                .collect(),
        }
    }

    /// The sum with another node's.
    pub fn add(&mut self, other: &Self) {
        for (name, value) in &other.values {
            *self.values.entry(name.clone()).or_default() += value;
        }
        for (name, bounds) in &other.buckets {
            let buckets = self.buckets.entry(name.clone()).or_default();
            for (bound, count) in bounds {
                *buckets.entry(*bound).or_default() += count;
            }
        }
    }

    /// The mean of a histogram's observations.
    pub fn mean(&self, histogram: &str) -> Option<f64> {
        let count = self.value(&format!("{histogram}_count"));
        (count > 0.0).then(|| self.value(&format!("{histogram}_sum")) / count)
    }

    /// A quantile, as far as the buckets tell: spread evenly within one.
    pub fn quantile(&self, histogram: &str, quantile: f64) -> Option<f64> {
        let buckets = self.buckets.get(histogram)?;
        let total = *buckets.values().next_back()?;
        let wanted = total * quantile;
        let (mut bound_below, mut count_below) = (0.0, 0.0);
        for (bound, count) in buckets {
            let bound = f64::from_bits(*bound);
            if *count >= wanted && total > 0.0 {
                if bound.is_infinite() {
                    return Some(bound_below);
                }
                let share = (wanted - count_below) / (count - count_below);
                return Some(bound_below + (bound - bound_below) * share);
            }
            (bound_below, count_below) = (bound, *count);
        }
        None
    }
}

/// Whether the node whose admin port is at `address` says that it serves.
pub async fn is_ready(address: &str) -> bool {
    let asked = tokio::time::timeout(PATIENCE, get(address, "/readyz")).await;
    matches!(asked, Ok(Ok((200, _))))
}

/// A status and a body. HTTP/1.0: the answer then ends with the connection.
async fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    limited.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok((status, body.to_owned())),
        _ => Err(std::io::Error::other("it does not answer in HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# TYPE a counter\na_total 5.0\n# EOF\n";
    const AFTER: &str = "\
a_total{partition=\"0\"} 7.0
a_total{partition=\"1\"} 2.5
h_sum{partition=\"0\"} 1.5
h_count{partition=\"0\"} 10
h_bucket{le=\"0.1\",partition=\"0\"} 5
h_bucket{le=\"0.2\",partition=\"0\"} 9
h_bucket{le=\"+Inf\",partition=\"0\"} 10
";

    #[test]
    fn labels_are_summed_up_and_what_was_before_is_taken_off() {
        let added = Exposition::parse(AFTER).since(&Exposition::parse(BEFORE));
        assert_eq!(added.value("a_total"), 4.5);
        assert_eq!(added.value("b"), 0.0);
        let mut both = added.clone();
        both.add(&added);
        assert_eq!(both.value("a_total"), 9.0);
        assert_eq!(both.mean("h"), Some(0.15));
        assert_eq!(both.mean("g"), None);
    }

    #[test]
    fn quantiles_are_spread_evenly_within_a_bucket() {
        let metrics = Exposition::parse(AFTER);
        let near = |quantile, expected: f64| {
            let actual = metrics.quantile("h", quantile).expect("observations");
            assert!((actual - expected).abs() < 1e-9, "{actual}");
        };
        near(0.25, 0.05);
        near(0.7, 0.15);
        // Above the last bound there is nothing to go by.
        near(0.99, 0.2);
        assert_eq!(metrics.since(&metrics).quantile("h", 0.5), None);
        assert_eq!(metrics.quantile("g", 0.5), None);
    }
}
