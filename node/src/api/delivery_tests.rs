use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Semaphore;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;

fn message(next_offset: u64) -> Page {
    let mut page = Page::default();
    page.head.next_offset = next_offset;
    page
}

const SMALL: usize = 100;

#[tokio::test]
async fn messages_arrive_in_order_and_then_the_end() {
    let (delivery, mut stream) = delivery(0);
    let watch = delivery.watch();
    let sending = async {
        for offset in 1..=5 {
            delivery
                .send(message(offset), SMALL, None)
                .await
                .expect("taken");
        }
        watch.finish(Ok(()));
    };
    let taking = async {
        let mut offsets = Vec::new();
        while let Some(item) = stream.next().await {
            offsets.push(item.expect("no failure").head.next_offset);
        }
        offsets
    };
    let ((), offsets) = tokio::join!(sending, taking);
    assert_eq!(offsets, [1, 2, 3, 4, 5]);
    assert!(stream.next().await.is_none());
}

/// I11: no more is prepared than the limit says.
#[tokio::test]
async fn no_more_is_queued_than_the_limits_allow() {
    let (sender, mut stream) = delivery(0);
    for offset in 0..limits::READ_MESSAGES_AHEAD_MAX as u64 {
        let sent = sender.send(message(offset), SMALL, None).now_or_never();
        assert_eq!(sent, Some(Ok(())));
    }
    assert_eq!(sender.send(message(9), SMALL, None).now_or_never(), None);
    stream.next().await.expect("one").expect("no failure");
    assert_eq!(
        sender.send(message(9), SMALL, None).now_or_never(),
        Some(Ok(()))
    );

    let (sender, _stream) = delivery(0);
    let large = limits::READER_BUFFER_BYTES_MAX;
    let first = sender.send(message(1), large + 1, None).now_or_never();
    assert_eq!(first, Some(Ok(())), "one always has room");
    assert_eq!(sender.send(message(2), 1, None).now_or_never(), None);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_told_where_to_resume() {
    let (delivery, mut stream) = delivery(7);
    delivery.send(message(8), SMALL, None).await.expect("room");
    stream.next().await.expect("one").expect("no failure");
    delivery.send(message(9), SMALL, None).await.expect("room");
    delivery.send(message(10), SMALL, None).await.expect("room");
    let started = tokio::time::Instant::now();
    assert_eq!(
        delivery.send(message(11), SMALL, None).await,
        Err(Stopped::Stalled)
    );
    assert_eq!(started.elapsed(), limits::READER_STALL_MAX);
    let status = stream
        .next()
        .await
        .expect("a status")
        .expect_err("disconnected");
    assert_eq!(status.code(), Code::ResourceExhausted);
    let info = status.get_details_error_info().expect("details");
    assert_eq!(
        info.metadata["next_offset"], "8",
        "what was not taken comes again"
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_takes_slowly_is_not_disconnected() {
    let (delivery, mut stream) = delivery(0);
    let sending = async {
        for offset in 1..=5 {
            delivery
                .send(message(offset), SMALL, None)
                .await
                .expect("taken in time");
        }
    };
    let taking = async {
        for _ in 1..=5 {
            tokio::time::sleep(limits::READER_STALL_MAX - Duration::from_millis(1)).await;
            stream.next().await.expect("one").expect("no failure");
        }
    };
    tokio::join!(sending, taking);
}

#[tokio::test(start_paused = true)]
async fn budget_is_held_until_the_next_message_is_asked_for() {
    let budget = Arc::new(Semaphore::new(10));
    let permit = || budget.clone().try_acquire_many_owned(3).expect("enough");
    let (delivery, mut stream) = delivery(0);
    delivery
        .send(message(1), SMALL, Some(permit()))
        .await
        .expect("room");
    delivery
        .send(message(2), SMALL, Some(permit()))
        .await
        .expect("room");
    assert_eq!(budget.available_permits(), 4);
    stream.next().await.expect("one").expect("no failure");
    assert_eq!(budget.available_permits(), 4);
    stream.next().await.expect("one").expect("no failure");
    assert_eq!(budget.available_permits(), 7);
    assert!(stream.next().now_or_never().is_none());
    assert_eq!(budget.available_permits(), 10);

    for offset in 3..=4 {
        delivery
            .send(message(offset), SMALL, Some(permit()))
            .await
            .expect("room");
    }
    assert_eq!(
        delivery.send(message(5), SMALL, None).await,
        Err(Stopped::Stalled)
    );
    assert_eq!(
        budget.available_permits(),
        10,
        "a stalled client holds nothing"
    );
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed() {
    let (delivery, stream) = delivery(0);
    let watch = delivery.watch();
    let abandoned = tokio::spawn(async move { watch.abandoned().await });
    drop(stream);
    abandoned.await.expect("it ends");
    assert_eq!(
        delivery.send(message(1), SMALL, None).await,
        Err(Stopped::Gone)
    );
}

#[tokio::test]
async fn a_delivery_that_is_dropped_fails_the_stream() {
    let (delivery, mut stream) = delivery(0);
    delivery.send(message(1), SMALL, None).await.expect("room");
    drop(delivery);
    assert!(stream.next().await.expect("one").is_ok());
    let status = stream.next().await.expect("a status").expect_err("failed");
    assert_eq!(status.code(), Code::Unavailable);
}

/// I11: a client that takes nothing holds no budget for long, even while its
/// delivery waits to go on.
#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_given_up_while_nothing_is_sent() {
    let budget = Arc::new(Semaphore::new(3));
    let permit = budget.clone().try_acquire_many_owned(3).expect("enough");
    let (delivery, mut stream) = delivery(0);
    assert_eq!(delivery.emptied().await, Ok(()), "there is nothing to take");
    delivery
        .send(message(1), SMALL, Some(permit))
        .await
        .expect("room");
    stream.next().await.expect("one").expect("no failure");
    assert_eq!(budget.available_permits(), 0, "it may not have been sent");
    assert_eq!(delivery.emptied().await, Err(Stopped::Stalled));
    assert_eq!(budget.available_permits(), 3);
}

#[tokio::test]
async fn a_delivery_is_empty_once_the_transport_asks_for_more() {
    let (delivery, mut stream) = delivery(0);
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned();
    delivery
        .send(message(1), SMALL, permit.ok())
        .await
        .expect("room");
    let emptied = delivery.emptied();
    let mut emptied = std::pin::pin!(emptied);
    assert_eq!(emptied.as_mut().now_or_never(), None, "queued");
    stream.next().await.expect("one").expect("no failure");
    assert_eq!(emptied.as_mut().now_or_never(), None, "in hand");
    assert!(stream.next().now_or_never().is_none());
    assert_eq!(emptied.await, Ok(()));
}
