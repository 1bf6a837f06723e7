//! Where other machines reach a node: a host and a port.

use std::{fmt, net::IpAddr, str::FromStr};

/// `host:port`, where the host is a DNS name, an IPv4 address, or an IPv6
/// address in brackets. The port is not 0, and the host is no wildcard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why a text is no [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No colon before a port.
    #[error("the port is missing")]
    NoPort,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Not a host name and not an IP address.
    #[error("the host is neither a name nor an IP address; IPv6 goes in brackets")]
    Host,
    /// 0.0.0.0 or [::].
    #[error("a wildcard is where a node listens, not where it is reached")]
    Wildcard,
}

impl Address {
    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as an IP address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether it is known, without asking a resolver, to stay on one machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        let port = match port.parse::<u16>() {
            // `parse` takes a leading plus sign, addresses do not.
            Ok(number) if number != 0 && !port.starts_with('+') => number,
            _ => return Err(AddressError::Port),
        };
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let (host, ip) = match bracketed {
            Some(inner) => match inner.parse() {
                Ok(ip @ IpAddr::V6(_)) => (inner, Some(ip)),
                _ => return Err(AddressError::Host),
            },
            None if is_host_name(host) => (host, host.parse().ok()),
            None => return Err(AddressError::Host),
        };
        if ip.is_some_and(|ip| ip.is_unspecified()) {
            return Err(AddressError::Wildcard);
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

/// A host name by RFC 1123 (which every IPv4 address is as well). Underscores
/// are taken because container platforms use them.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    host.len() <= 253 && host.split('.').all(label) && (!numeric || host.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, AddressError> {
        text.parse::<Address>().map(|address| address.to_string())
    }

    #[test]
    fn hosts_and_addresses_round_trip() {
        for text in [
            "node1.hunt.example:7651",
            "10.0.0.1:1",
            "[2001:db8::1]:65535",
            "huntlog_1:7651",
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
        assert_eq!(parse("Node1:7651").as_deref(), Ok("node1:7651"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parse("node1"), Err(AddressError::NoPort));
        for port in ["node1:", "node1:0", "node1:65536", "node1:+5", "node1:http"] {
            assert_eq!(parse(port), Err(AddressError::Port), "{port}");
        }
        for host in [
            ":7651",
            "::1:7651",
            "[::1:7651",
            "[node1]:7651",
            "a b:7651",
            "-a:7651",
            "1.2.3:7651",
            "http://node1:7651",
        ] {
            assert_eq!(parse(host), Err(AddressError::Host), "{host}");
        }
        for wildcard in ["0.0.0.0:7651", "[::]:7651"] {
            assert_eq!(parse(wildcard), Err(AddressError::Wildcard), "{wildcard}");
        }
    }
}
