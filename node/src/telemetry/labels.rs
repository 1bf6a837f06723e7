//! The values that labels take, where they are few and known.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Declares a label's values.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $( $(#[$value_doc:meta])* $value:ident = $text:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
        pub enum $name { $( $(#[$value_doc])* $value, )* }

        impl $name {
            /// Every value, in the order of their declaration.
            pub const ALL: &[Self] = &[ $( Self::$value, )* ];

            /// As the label spells it.
            pub fn name(self) -> &'static str {
                match self { $( Self::$value => $text, )* }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut LabelValueEncoder<'_>,
            ) -> Result<(), fmt::Error> {
                EncodeLabelValue::encode(&self.name(), encoder)
            }
        }
    };
}
label! {
    /// What became of a batch that was proposed here.
    ProposalResult {
        /// Applied for the first time.
        Applied = "applied",
        /// Applied before; answered with its first result.
        Duplicate = "duplicate",
        /// Refused by its session or an expected revision.
        Refused = "refused",
        /// Not taken: a queue or the in-flight limit is full.
        Overloaded = "overloaded",
        /// Not appended: this node does not lead, starts, or stops.
        NotLeader = "not_leader",
        /// Deadline passed or leadership lost while it was in flight.
        Unknown = "unknown",
    }
}

label! {
    /// What became of a request forwarded to the leader.
    ForwardResult {
        /// The leader answered, be it with an error.
        Answered = "answered",
        /// It could not be sent.
        NotSent = "not_sent",
        /// It was sent, and the answer did not arrive.
        Lost = "lost",
    }
}

label! {
    /// How a snapshot came to be here.
    SnapshotKind {
        /// Taken by this node.
        Built = "built",
        /// Received from the leader and installed.
        Installed = "installed",
        /// Building, receiving or installing it failed.
        Failed = "failed",
    }
}

label! {
    /// Who answers a request, and who sends it.
    Side {
        /// This node answers it.
        Server = "server",
        /// This node sends it to a peer.
        Client = "client",
    }
}
