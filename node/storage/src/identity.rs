//! Who this data directory belongs to.

use crate::error::{FatalError, IdentityError, OpenError};
use crate::files::{Files, read_small, replace};
use crate::limits::IDENTITY_BYTES_MAX;
use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) const NAME: &str = "identity";
const MAGIC: [u8; 8] = *b"hl-node\x01";

/// The node's identity, in a checksummed file of its own: the index, which can be rebuilt, is no place for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Id of the cluster; empty until the cluster has been formed.
    pub cluster_id: String,
    /// Name of the cluster, as configured.
    pub cluster_name: String,
    /// This node's id in the cluster.
    pub node_id: u64,
    /// Minted when the directory was first used; tells a copied or emptied directory from this one.
    pub node_uuid: String,
    /// The members as last known; opaque to storage.
    pub members: Bytes,
}

impl Identity {
    pub(crate) fn load(files: &dyn Files) -> Result<Option<Self>, OpenError> {
        let path = || files.path(NAME).display().to_string();
        let bytes = read_small(files, NAME, IDENTITY_BYTES_MAX)
            .map_err(|error| OpenError::io("read", path(), error))?;
        let Some(bytes) = bytes else { return Ok(None) };
        match Self::decode(&bytes) {
            Some(identity) => Ok(Some(identity)),
            None => Err(OpenError::Damaged {
                file: path(),
                position: 0,
                what: "the node's identity does not match its checksum".to_owned(),
            }),
        }
    }

    /// Replaces the saved identity by this one, unless it is another node's.
    pub(crate) fn save(
        &self,
        files: &dyn Files,
        saved: Option<&Identity>,
    ) -> Result<(), IdentityError> {
        if let Some(saved) = saved {
            let foreign =
                |field, found: &dyn ToString, asked: &dyn ToString| IdentityError::Foreign {
                    field,
                    found: found.to_string(),
                    asked: asked.to_string(),
                };
            if saved.node_id != self.node_id {
                return Err(foreign("node", &saved.node_id, &self.node_id));
            }
            if saved.node_uuid != self.node_uuid {
                return Err(foreign("node uuid", &saved.node_uuid, &self.node_uuid));
            }
            if !saved.cluster_id.is_empty() && saved.cluster_id != self.cluster_id {
                return Err(foreign("cluster", &saved.cluster_id, &self.cluster_id));
            }
        }
        let bytes = self.encode();
        if bytes.len() > IDENTITY_BYTES_MAX {
            return Err(IdentityError::TooLarge {
                size_bytes: bytes.len(),
                limit_bytes: IDENTITY_BYTES_MAX,
            });
        }
        replace(files, "", NAME, &bytes)
            .map_err(|error| FatalError::io("write", files.path(NAME).display(), error).into())
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        out.put_u64_le(self.node_id);
        let fields = [
            self.cluster_id.as_bytes(),
            self.cluster_name.as_bytes(),
            self.node_uuid.as_bytes(),
            &self.members[..],
        ];
        for field in fields {
            out.put_u64_le(field.len() as u64);
            out.put_slice(field);
        }
        let crc = crc32c::crc32c(&out);
        out.put_u32_le(crc);
        out.freeze()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, mut crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc.try_get_u32_le().ok()? != crc32c::crc32c(body) {
            return None;
        }
        let mut rest = body.strip_prefix(&MAGIC)?;
        let node_id = rest.try_get_u64_le().ok()?;
        let mut field = || {
            let length = usize::try_from(rest.try_get_u64_le().ok()?).ok()?;
            let (field, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(field.to_vec())
        };
        let cluster_id = String::from_utf8(field()?).ok()?;
        let cluster_name = String::from_utf8(field()?).ok()?;
        let node_uuid = String::from_utf8(field()?).ok()?;
        let members = Bytes::from(field()?);
        rest.is_empty().then_some(Self {
            cluster_id,
            cluster_name,
            node_id,
            node_uuid,
            members,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_round_trip_and_every_flipped_bit_is_noticed() {
        let identity = Identity {
            cluster_id: "c-1".to_owned(),
            cluster_name: "spring hunt".to_owned(),
            node_id: 3,
            node_uuid: "0190-77".to_owned(),
            members: Bytes::from_static(b"1,2,3"),
        };
        let bytes = identity.encode();
        assert_eq!(Identity::decode(&bytes), Some(identity));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Identity::decode(&changed), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Identity::decode(&bytes[..length]), None, "length {length}");
        }
    }
}
