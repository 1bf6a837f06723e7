//! The connections to a cluster's nodes, and the calls over them that are
//! answered once.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use huntlog_proto::CLUSTER_ID_HEADER;
use huntlog_proto::v1::admin_service_client::AdminServiceClient;
use huntlog_proto::v1::event_service_client::EventServiceClient;
use huntlog_proto::v1::hunt_service_client::HuntServiceClient;
use huntlog_proto::v1::{GetStatusRequest, GetStatusResponse, PartitionStatus, Role};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::backoff::Backoff;
use crate::dialer::Way;
use crate::directory::Directory;
use crate::error::{CallError, ConfigError, Disposition, Reason, Refusal};
use crate::limits;
use crate::options::ClientOptions;
use crate::status::{is_transient, refusal_of_status, transport_refusal};

/// The response header in which a node that is not the leader names it.
pub(crate) const LEADER_HEADER: &str = "huntlog-leader";

/// The leader's address, in a refusal's metadata.
pub(crate) const LEADER_KEY: &str = "leader_address";

/// The reason of a node that knows the leader but cannot reach it.
const LEADER_UNREACHABLE: &str = "UNREACHABLE";

/// Pings an otherwise silent connection that carries calls, and gives it up
/// when they are not answered: a stream has no deadline of its own.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) options: ClientOptions,
    started: Instant,
    /// Its id, as the first node that named one said.
    id: OnceLock<String>,
    /// Set once a node has been asked for it, before anything else.
    introduced: OnceCell<()>,
    directory: Mutex<Directory>,
    /// One for each node, shared by all calls but the append streams.
    channels: Mutex<HashMap<Arc<str>, Channel>>,
    seed: AtomicU64,
}

/// One attempt of a call.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    channel: Channel,
    timeout: Duration,
    cluster_id: Option<AsciiMetadataValue>,
}

impl Attempt {
    /// `message` with the attempt's deadline, for this cluster only.
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        if let Some(id) = &self.cluster_id {
            request.metadata_mut().insert(CLUSTER_ID_HEADER, id.clone());
        }
        request
    }

    pub(crate) fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES)
    }

    pub(crate) fn hunts(&self) -> HuntServiceClient<Channel> {
        HuntServiceClient::new(self.channel.clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES)
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES)
    }
}

/// Whether a call may be made again after an attempt of unknown fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Making it twice is making it once.
    Idempotent,
    /// Only after an attempt that certainly had no effect.
    OnlyIfNotApplied,
}

impl Cluster {
    pub(crate) fn new(
        endpoints: impl IntoIterator<Item = impl AsRef<str>>,
        options: ClientOptions,
    ) -> Result<Self, ConfigError> {
        let addresses = endpoints
            .into_iter()
            .map(|endpoint| parse_address(endpoint.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            return Err(ConfigError::NoEndpoint);
        }
        check(&options)?;
        let seed = options.seed.unwrap_or_else(rand::random);
        Ok(Self {
            directory: Mutex::new(Directory::new(addresses, options.follow_leader)),
            channels: Mutex::default(),
            id: OnceLock::new(),
            introduced: OnceCell::new(),
            started: Instant::now(),
            seed: AtomicU64::new(seed),
            options,
        })
    }

    /// Time since the client was made.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The clock's reading at `moment`.
    pub(crate) fn at(&self, moment: Duration) -> Instant {
        self.started + moment
    }

    /// A seed that no other part of this client has.
    pub(crate) fn next_seed(&self) -> u64 {
        // The odd step walks through all 2^64 values.
        self.seed
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn target(&self) -> Arc<str> {
        let now = self.now();
        self.directory().choose(now)
    }

    pub(crate) fn failed(&self, address: &str) {
        let now = self.now();
        self.directory().failed(address, now);
    }

    pub(crate) fn pass_over(&self, address: &str) {
        self.directory().pass_over(address);
    }

    pub(crate) fn succeeded(&self, address: &str) {
        self.directory().succeeded(address);
    }

    pub(crate) fn addresses(&self) -> Vec<Arc<str>> {
        self.directory().addresses()
    }

    pub(crate) fn note_leader(&self, address: &str) {
        if let Ok(address) = parse_address(address) {
            let now = self.now();
            self.directory().note_leader(&address, now);
        }
    }

    /// Keeps up with who the members are for as long as the cluster is used: in
    /// the end none may be left of those it was made with.
    pub(crate) async fn follow_members(cluster: Weak<Self>) {
        let mut pause = limits::MEMBERS_INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            let Some(cluster) = cluster.upgrade() else {
                return;
            };
            pause = match cluster.ask_for_members().await {
                true => limits::MEMBERS_INTERVAL,
                // While one node after another is gone, so may be the rest soon.
                false => limits::UNAVAILABLE_BACKOFF_MAX,
            };
        }
    }

    /// Asks one node who the members are; after one that does not answer, the
    /// next is asked.
    async fn ask_for_members(&self) -> bool {
        let limit = self.options.connect_timeout;
        let address = self.target();
        match tokio::time::timeout(limit, self.status_of(&address, limit)).await {
            Ok(Ok(answer)) => match self.learn_members(&address, answer) {
                Ok(true) => return true,
                // What it knows may be old.
                Ok(false) => self.pass_over(&address),
                Err(_) => {}
            },
            Ok(Err(status)) => self.judge_failure(&address, &self.refusal_of(&address, &status)),
            // It may only be slow, which is no reason to leave it alone.
            Err(_) => self.pass_over(&address),
        }
        false
    }

    /// What a node says of itself.
    async fn status_of(
        &self,
        address: &Arc<str>,
        limit: Duration,
    ) -> Result<GetStatusResponse, Status> {
        let attempt = self.attempt(address, limit);
        let request = attempt.request(GetStatusRequest {});
        Ok(attempt.admin().get_status(request).await?.into_inner())
    }

    /// Asks all nodes at once who leads. The newest term that one of them knows
    /// counts, as soon as most of its voters have answered: a leader is elected by a
    /// majority, so any other one has a node that knows of its term (Raft, section 5.2).
    /// `None` if they know of none in that term, or do not answer.
    pub(crate) async fn ask_who_leads(&self) -> Option<Arc<str>> {
        let addresses = self.addresses();
        let limit = limits::STREAM_DOUBT;
        let asked = addresses.iter().map(|address| async move {
            let status = self.status_of(address, limit).await.ok()?;
            self.check_id(address, &status.cluster_id).ok()?;
            let partition = self.options.partition;
            let of = |p: &PartitionStatus| p.partition == partition;
            let view = status.partitions.into_iter().find(of)?;
            Some((Arc::clone(address), view))
        });
        let asked = asked.map(|answer| tokio::time::timeout(limit, answer));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut views = Vec::new();
        while let Some(answer) = asked.next().await {
            views.extend(answer.ok().flatten());
            if most_voters_answered(&views) {
                break;
            }
        }
        let newest = views.iter().map(|(_, view)| view.term).max()?;
        let mut of_newest = views.iter().filter(|(_, view)| view.term == newest);
        let leader = of_newest.find_map(|(_, view)| {
            let mut members = view.members.iter();
            members.find(|member| member.node_id == view.leader_id)
        })?;
        parse_address(&leader.client_address).ok()
    }

    /// The cluster's id, for a request's header; `None` until a node has named
    /// one.
    pub(crate) fn id_header(&self) -> Option<AsciiMetadataValue> {
        self.id.get()?.parse().ok()
    }

    /// Asks a node which cluster it belongs to, before this client sends anything
    /// else to any: what comes then is meant for that cluster alone. A node that
    /// belongs to none, since it waits for one, is asked no further.
    pub(crate) async fn introduce(
        &self,
        address: &Arc<str>,
        timeout: Duration,
    ) -> Result<(), Status> {
        if self.id.get().is_some() {
            return Ok(());
        }
        let ask = async || {
            let answer = self.status_of(address, timeout).await?;
            // The first one can not be of another cluster, and if it was not the
            // first, what follows is refused.
            let _ = self.learn_members(address, answer);
            Ok(())
        };
        self.introduced.get_or_try_init(ask).await.map(drop)
    }

    /// Whether anything but an introduction may have been sent.
    fn is_introduced(&self) -> bool {
        self.id.get().is_some() || self.introduced.initialized()
    }

    /// Refuses what a node of another cluster says.
    fn check_id(&self, address: &str, named: &str) -> Result<(), Box<Refusal>> {
        if named.is_empty() {
            return Ok(());
        }
        let own = self.id.get_or_init(|| named.to_owned());
        if own == named {
            return Ok(());
        }
        let now = self.now();
        self.directory().note_foreign(address, now);
        tracing::warn!(
            node = address,
            theirs = named,
            ours = own,
            "a node of another cluster is among the endpoints; it is not used"
        );
        Err(Box::new(Refusal {
            code: Code::FailedPrecondition,
            reason: Reason::WrongCluster,
            message: format!(
                "{address} belongs to cluster {named}, and this client works with cluster {own}, \
                 which the first node that answered named; correct the endpoints"
            ),
            ..transport_refusal("")
        }))
    }

    /// Refuses an answer with these headers if it is of another cluster.
    pub(crate) fn check_headers(
        &self,
        address: &str,
        headers: &MetadataMap,
    ) -> Result<(), Box<Refusal>> {
        let named = headers
            .get(CLUSTER_ID_HEADER)
            .and_then(|id| id.to_str().ok());
        self.check_id(address, named.unwrap_or_default())
    }

    /// Why a node did not do what it was asked.
    pub(crate) fn refusal_of(&self, address: &str, status: &Status) -> Refusal {
        let refusal = refusal_of_status(status);
        match self.check_headers(address, status.metadata()) {
            Ok(()) => refusal,
            Err(foreign) => Refusal {
                disposition: refusal.disposition,
                ..*foreign
            },
        }
    }

    /// Whether no node of this cluster is left to be asked after this refusal.
    pub(crate) fn is_final(&self, refusal: &Refusal) -> bool {
        refusal.reason == Reason::WrongCluster && self.directory().foreigners().1
    }

    /// The refusal that a caller is told when there is no time for more, with
    /// whom this client did not turn to.
    pub(crate) fn last_word(&self, mut refusal: Refusal) -> Arc<Refusal> {
        let (foreign, _) = self.directory().foreigners();
        if refusal.reason != Reason::WrongCluster && !foreign.is_empty() {
            let foreign = foreign.join(", ");
            let left = format!("; not used, since they belong to another cluster: {foreign}");
            refusal.message.push_str(&left);
        }
        Arc::new(refusal)
    }

    /// Learns who the members are; whether the node is in touch with a leader.
    fn learn_members(
        &self,
        address: &str,
        status: GetStatusResponse,
    ) -> Result<bool, Box<Refusal>> {
        self.check_id(address, &status.cluster_id)?;
        let mut partitions = status.partitions.into_iter();
        // A node that belongs to no cluster knows of nobody.
        let Some(status) = partitions.find(|p| p.partition == self.options.partition) else {
            return Ok(false);
        };
        let members: Vec<String> = status
            .members
            .iter()
            .filter_map(|member| parse_address(&member.client_address).ok())
            .map(|address| address.to_string())
            .collect();
        if !members.is_empty() {
            let leads = status.ready && status.role() == Role::Leader;
            self.directory().learn_members(&members, leads);
        }
        Ok(status.ready)
    }

    pub(crate) fn note_headers(&self, headers: &MetadataMap) {
        if let Some(leader) = headers.get(LEADER_HEADER).and_then(|v| v.to_str().ok()) {
            self.note_leader(leader);
        }
    }

    /// Learns from a refusal where the leader is, or that it is not there.
    pub(crate) fn note_refusal(&self, address: &str, refusal: &Refusal) {
        self.pass_over(address);
        let reachable = refusal.reason.as_str() != LEADER_UNREACHABLE;
        if let Some(leader) = refusal.metadata.get(LEADER_KEY).filter(|_| reachable) {
            self.note_leader(leader);
        }
    }

    pub(crate) fn way(&self, address: &str) -> Way {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .expect("addresses are checked when they are taken in")
            .connect_timeout(self.options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        Way {
            endpoint,
            dialer: self.options.dialer.clone(),
        }
    }

    pub(crate) fn attempt(&self, address: &Arc<str>, timeout: Duration) -> Attempt {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if !channels.contains_key(address) {
            let directory = self.directory();
            channels.retain(|address, _| directory.knows(address));
        }
        let channel = channels
            .entry(Arc::clone(address))
            .or_insert_with(|| self.way(address).connect_lazy())
            .clone();
        Attempt {
            channel,
            timeout,
            cluster_id: self.id_header(),
        }
    }

    /// Makes a call until it is answered for good or `timeout` has passed,
    /// each attempt at the leader if it is known, else at the next node.
    pub(crate) async fn call<T, F>(
        &self,
        timeout: Duration,
        repeat: Repeat,
        make: impl Fn(Attempt) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = self.now() + timeout;
        let mut backoff = self.backoff();
        let mut attempts = 0;
        let mut last_reason = None;
        loop {
            attempts += 1;
            let remaining = deadline.saturating_sub(self.now());
            let limit = remaining.min(self.options.answer_timeout);
            let address = self.target();
            let made = async {
                self.introduce(&address, limit).await?;
                make(self.attempt(&address, limit)).await
            };
            let mut refusal = match tokio::time::timeout(limit, made).await {
                Ok(Ok(response)) => match self.check_headers(&address, response.metadata()) {
                    Ok(()) => {
                        self.succeeded(&address);
                        self.note_headers(response.metadata());
                        return Ok(response.into_inner());
                    }
                    Err(foreign) => *foreign,
                },
                Ok(Err(status)) => self.refusal_of(&address, &status),
                Err(_) => {
                    self.failed(&address);
                    transport_refusal(format!("{address} did not answer in time"))
                }
            };
            if !self.is_introduced() {
                refusal.disposition = Disposition::NotApplied;
            }
            self.judge_failure(&address, &refusal);
            let repeatable =
                repeat == Repeat::Idempotent || refusal.disposition == Disposition::NotApplied;
            if !is_transient(&refusal) || !repeatable || self.is_final(&refusal) {
                let refusal = after(last_reason.as_ref(), refusal);
                return Err(CallError::Refused(Arc::new(refusal)));
            }
            let delay = backoff.next(refusal.retry_after);
            if self.now() + delay >= deadline {
                let refusal = after(last_reason.as_ref(), refusal);
                return Err(CallError::Unavailable {
                    timeout,
                    attempts,
                    last: self.last_word(refusal),
                });
            }
            tracing::debug!(node = %address, %refusal, ?delay, attempts, "a call goes again");
            if refusal.has_reason() && refusal.reason != Reason::WrongCluster {
                last_reason = Some(refusal);
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Remembers what a failed attempt says about the node.
    pub(crate) fn judge_failure(&self, address: &str, refusal: &Refusal) {
        if refusal.reason == Reason::WrongCluster {
            // It is known as such already, and says nothing of this cluster.
        } else if !refusal.has_reason() && refusal.code == Code::Unavailable {
            self.failed(address);
        } else if is_transient(refusal) {
            self.note_refusal(address, refusal);
        } else {
            self.succeeded(address);
        }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(
            limits::BACKOFF_MIN,
            limits::UNAVAILABLE_BACKOFF_MAX,
            self.next_seed(),
        )
    }
}

/// The last attempt's refusal. The deadline may just have cut that attempt off; then the
/// one `before` it says more.
fn after(before: Option<&Refusal>, mut refusal: Refusal) -> Refusal {
    if let Some(before) = before.filter(|_| !refusal.has_reason()) {
        let words = format!("; an attempt before it was answered: {before}");
        refusal.message.push_str(&words);
    }
    refusal
}

/// `host:port`, with or without `http://` before it.
fn parse_address(endpoint: &str) -> Result<Arc<str>, ConfigError> {
    let invalid = || ConfigError::InvalidEndpoint {
        endpoint: endpoint.to_owned(),
    };
    let address = endpoint.trim().trim_start_matches("http://");
    let authority: http::uri::Authority = address.parse().map_err(|_| invalid())?;
    if authority.port_u16().is_none() || authority.host().is_empty() || address.contains('@') {
        return Err(invalid());
    }
    Ok(address.into())
}

fn check(options: &ClientOptions) -> Result<(), ConfigError> {
    let invalid = |option, actual, needed| ConfigError::InvalidOption {
        option,
        actual,
        needed,
    };
    if options.connections == 0 {
        return Err(invalid("connections", 0, "at least 1 is needed"));
    }
    for (name, value) in [
        ("timeout (in ms)", options.timeout),
        ("connect_timeout (in ms)", options.connect_timeout),
        ("answer_timeout (in ms)", options.answer_timeout),
    ] {
        if value.is_zero() || value > limits::TIMEOUT {
            let needed = "it must be above 0 and at most 30 minutes";
            return Err(invalid(name, value.as_millis(), needed));
        }
    }
    if options.max_buffered_bytes < limits::BATCH_BYTES * 2
        || options.max_buffered_bytes > u32::MAX as usize
    {
        let needed = "it must be between 8 MiB and 4 GiB";
        let actual = options.max_buffered_bytes as u128;
        return Err(invalid("max_buffered_bytes", actual, needed));
    }
    Ok(())
}

/// Whether more than half of the voters that one of the newest term names are among
/// those that have answered.
fn most_voters_answered(views: &[(Arc<str>, PartitionStatus)]) -> bool {
    let newest = views.iter().map(|(_, view)| view.term).max();
    let mut of_newest = views.iter().filter(|(_, view)| Some(view.term) == newest);
    of_newest.any(|(_, view)| {
        let voters = view.members.iter().filter(|member| member.voter);
        let voters: Vec<_> = voters
            .filter_map(|voter| parse_address(&voter.client_address).ok())
            .collect();
        let has_answered = |voter: &&Arc<str>| views.iter().any(|(address, _)| address == *voter);
        voters.iter().filter(has_answered).count() > voters.len() / 2
    })
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
