//! Opening a session.

use huntlog_machine::{EncodedCommand, encode_reopen_session};
use huntlog_proto::v1;

use super::faults::{Faults, InvalidRequest};
use crate::limits;

/// The command of a request to open a session.
///
/// # Errors
/// When the name or the nonce is not valid.
pub fn open_session_command(
    request: &v1::OpenSessionRequest,
) -> Result<EncodedCommand, InvalidRequest> {
    let mut faults = Faults::default();
    faults.id(&request.session, "session");
    let (min, max) = (
        limits::SESSION_NONCE_BYTES_MIN,
        limits::SESSION_NONCE_BYTES_MAX,
    );
    if !(min..=max).contains(&request.nonce.len()) {
        faults.add(
            "nonce",
            format!(
                "{} bytes are given, {min} to {max} are needed; make it at random, and keep it when the request is retried",
                request.nonce.len()
            ),
        );
    }
    faults.finish(())?;
    let v1::OpenSessionRequest { session, nonce, .. } = request;
    Ok(encode_reopen_session(session, nonce, request.epoch))
}

/// The answer to a session that is open.
pub fn open_session_response(
    partition: u32,
    epoch: u64,
    last_sequence: u64,
    fresh: bool,
) -> v1::OpenSessionResponse {
    v1::OpenSessionResponse {
        partition,
        epoch,
        last_sequence,
        fresh,
    }
}

#[cfg(test)]
mod tests {
    use huntlog_machine::CommandRef;

    use super::*;

    fn request(session: &str, nonce_bytes: usize) -> v1::OpenSessionRequest {
        v1::OpenSessionRequest {
            partition: 0,
            session: session.to_owned(),
            nonce: vec![7; nonce_bytes].into(),
            epoch: 0,
        }
    }

    #[test]
    fn a_valid_request_becomes_its_command() {
        let request = v1::OpenSessionRequest {
            epoch: 41,
            ..request("game-1", 16)
        };
        let command = open_session_command(&request).expect("valid");
        match CommandRef::decode(command.bytes()) {
            Ok(CommandRef::OpenSession { name, nonce, epoch }) => {
                assert_eq!((name, nonce, epoch), ("game-1", &[7; 16][..], 41));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_fault_is_named() {
        let error = open_session_command(&request("", 7)).expect_err("both are wrong");
        let paths: Vec<_> = error.0.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["session", "nonce"]);
        assert!(open_session_command(&request("s", 65)).is_err());
        assert!(open_session_command(&request("s", 8)).is_ok());
        assert!(open_session_command(&request("s", 64)).is_ok());
    }
}
