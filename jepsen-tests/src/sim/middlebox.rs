//! Somebody in the middle of a connection who sends requests again, or late.
//!
//! The order and the wholeness of one stream are TCP's and HTTP/2's promise, and
//! are not touched: what repeats there is what a client sends again over another
//! connection, while the bytes of the first are late ([`super::net::Net::sever`]).
//! Between requests there is no order: a vote, an append or an opening can arrive
//! twice, or seconds after whoever sent it has given it up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client, server};
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::io::DuplexStream;

use super::net::Socket;
use super::random::Random;

/// What a request may hold that is kept to be sent again.
const KEPT_BYTES_MAX: usize = 1 << 20;
const WINDOW_BYTES: u32 = 16 << 20;
const LATE: std::ops::Range<Duration> = Duration::from_millis(5)..Duration::from_secs(4);

/// What is done to requests, by chance in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mischief {
    /// Sent once more, later; the second answer is nobody's.
    pub(super) repeat_per_mille: u64,
    /// Held back.
    pub(super) delay_per_mille: u64,
    /// Swallowed.
    pub(super) lose_per_mille: u64,
}

/// What has been done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) repeated: u64,
    pub(super) delayed: u64,
    pub(super) lost: u64,
}

/// The middle of every connection that one machine makes.
#[derive(Clone)]
pub(super) struct Middlebox(Arc<Mutex<State>>);

struct State {
    random: Random,
    mischief: Mischief,
    done: Done,
}

/// What becomes of one request.
struct Fate {
    lost: bool,
    delay: Option<Duration>,
    again: Option<Duration>,
}

impl Middlebox {
    pub(super) fn new(random: Random, mischief: Mischief) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            mischief,
            done: Done::default(),
        })))
    }

    pub(super) fn done(&self) -> Done {
        self.0.lock().done
    }

    fn fate(&self) -> Fate {
        let state = &mut *self.0.lock();
        let Mischief {
            repeat_per_mille,
            delay_per_mille,
            lose_per_mille,
        } = state.mischief;
        let lost = state.random.per_mille(lose_per_mille);
        let mut late = |chance| {
            let late = state.random.per_mille(chance);
            late.then(|| state.random.within(&LATE))
        };
        let fate = Fate {
            lost,
            delay: late(delay_per_mille),
            again: late(repeat_per_mille),
        };
        state.done.lost += u64::from(fate.lost);
        state.done.delayed += u64::from(fate.delay.is_some());
        state.done.repeated += u64::from(fate.again.is_some());
        fate
    }

    /// A connection through it, over `socket`. Must be called within the runtime
    /// of the machine that dials.
    pub(super) fn stand_between(&self, socket: Socket) -> DuplexStream {
        let (near, ours) = tokio::io::duplex(64 << 10);
        let middle = self.clone();
        tokio::spawn(async move {
            if let Err(error) = middle.forward(ours, socket).await {
                tracing::debug!(%error, "a connection through the middle ended");
            }
        });
        near
    }

    async fn forward(self, near: DuplexStream, far: Socket) -> Result<(), h2::Error> {
        let (requests, connection) = client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake::<_, Bytes>(far)
            .await?;
        let mut incoming = server::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake::<_, Bytes>(near)
            .await?;
        let mut far_end = tokio::spawn(connection);
        loop {
            tokio::select! {
                // Its end is the end of the near side too.
                ended = &mut far_end => return ended.unwrap_or(Ok(())),
                accepted = incoming.accept() => match accepted {
                    Some(Ok((request, respond))) => {
                        tokio::spawn(self.clone().pass(request, respond, requests.clone()));
                    }
                    Some(Err(error)) => return Err(error),
                    None => {
                        far_end.abort();
                        return Ok(());
                    }
                },
            }
        }
    }

    async fn pass(
        self,
        request: Request<RecvStream>,
        mut respond: server::SendResponse<Bytes>,
        requests: client::SendRequest<Bytes>,
    ) {
        let path = request.uri().path().to_owned();
        let (parts, body) = request.into_parts();
        let head = Request::from_parts(parts, ());
        let passed = if is_stream(&path) {
            pass_stream(head, body, &mut respond, requests).await
        } else {
            self.pass_once(head, body, &mut respond, requests).await
        };
        if passed.is_err() {
            respond.send_reset(h2::Reason::CANCEL);
        }
    }

    async fn pass_once(
        &self,
        head: Request<()>,
        body: RecvStream,
        respond: &mut server::SendResponse<Bytes>,
        requests: client::SendRequest<Bytes>,
    ) -> Result<(), h2::Error> {
        let body = collect(body).await?;
        let fate = self.fate();
        if let Some(again) = fate.again {
            let (head, body, requests) = (head.clone(), body.clone(), requests.clone());
            tokio::spawn(async move {
                tokio::time::sleep(again).await;
                // Whatever it answers, nobody asked.
                if let Ok(answer) = send(head, body, requests).await {
                    let _ = collect(answer.into_body()).await;
                }
            });
        }
        if fate.lost {
            return std::future::pending().await;
        }
        if let Some(delay) = fate.delay {
            tokio::time::sleep(delay).await;
        }
        let answer = send(head, body, requests).await?;
        answer_with(answer, respond).await
    }
}

/// Whether a call goes on after its first message.
fn is_stream(path: &str) -> bool {
    [
        "/AppendStream",
        "/InstallSnapshot",
        "/Read",
        "/Subscribe",
        "/Watch",
    ]
    .iter()
    .any(|name| path.ends_with(name))
}

async fn pass_stream(
    head: Request<()>,
    body: RecvStream,
    respond: &mut server::SendResponse<Bytes>,
    requests: client::SendRequest<Bytes>,
) -> Result<(), h2::Error> {
    let (answer, to) = requests.ready().await?.send_request(head, false)?;
    let up = pump(body, to);
    let down = async { answer_with(answer.await?, respond).await };
    // A call can be answered before all of it was sent.
    tokio::select! {
        biased;
        answered = down => answered,
        Err(error) = up => Err(error),
    }
}

async fn send(
    head: Request<()>,
    body: Bytes,
    requests: client::SendRequest<Bytes>,
) -> Result<Response<RecvStream>, h2::Error> {
    let (answer, mut to) = requests.ready().await?.send_request(head, false)?;
    to.send_data(body, true)?;
    answer.await
}

async fn answer_with(
    answer: Response<RecvStream>,
    respond: &mut server::SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (parts, body) = answer.into_parts();
    let ended = body.is_end_stream();
    let to = respond.send_response(Response::from_parts(parts, ()), ended)?;
    if ended {
        return Ok(());
    }
    pump(body, to).await
}

/// Passes on what comes, at the pace of whoever takes it.
async fn pump(mut from: RecvStream, mut to: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(bytes) = from.data().await {
        let bytes = bytes?;
        let count = bytes.len();
        to.send_data(bytes, false)?;
        from.flow_control().release_capacity(count)?;
    }
    match from.trailers().await? {
        Some(trailers) => to.send_trailers(trailers),
        None => to.send_data(Bytes::new(), true),
    }
}

/// The whole of a small body.
async fn collect(mut body: RecvStream) -> Result<Bytes, h2::Error> {
    let mut whole = Vec::new();
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        body.flow_control().release_capacity(bytes.len())?;
        if whole.len() + bytes.len() > KEPT_BYTES_MAX {
            return Err(h2::Reason::INTERNAL_ERROR.into());
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.into())
}
