use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const CLIENT: [u8; 4] = [10, 1, 0, 1];
const NODE: [u8; 4] = [10, 0, 0, 1];

/// A network, and both ends of a connection over it.
fn connected() -> (Net, Socket, Socket) {
    let net = Net::new(Random::new(1, 1), Link::default());
    let port = net.listen(SocketAddr::from((NODE, 7650)));
    let mut dial = net.dial(CLIENT.into(), port.address());
    assert!((&mut dial).now_or_never().is_none());
    net.advance(Duration::from_millis(1));
    net.advance(Duration::from_millis(3));
    let near = dial.now_or_never().expect("it is open").expect("no fault");
    let (far, _) = port.accept().now_or_never().expect("it has arrived");
    (net, near, far)
}

fn pair() -> Pair {
    (CLIENT.into(), NODE.into())
}

fn write(socket: &mut Socket, bytes: &[u8]) -> std::io::Result<()> {
    socket
        .write_all(bytes)
        .now_or_never()
        .expect("there is room")
}

/// What can be read now; none when nothing has come.
fn read(socket: &mut Socket) -> Option<std::io::Result<Vec<u8>>> {
    let mut bytes = vec![0; 16];
    let read = socket.read(&mut bytes).now_or_never()?;
    Some(read.map(|count| {
        bytes.truncate(count);
        bytes
    }))
}

#[test]
fn what_was_sent_arrives_after_its_sender_has_lost_the_connection() {
    let (net, mut near, mut far) = connected();
    let held = net.hold_some(&[pair()], 1_000);
    write(&mut near, b"last words").expect("it does not know");
    net.advance(Duration::from_millis(100));
    assert!(read(&mut far).is_none());

    let late = Duration::from_millis(200)..Duration::from_millis(201);
    assert_eq!(net.sever(&held, &late), BTreeSet::from([NODE.into()]));
    assert!(read(&mut near).expect("it is told").is_err());
    assert!(write(&mut near, b"more").is_err());
    drop(near);
    write(&mut far, b"hello?").expect("it does not know");
    assert!(read(&mut far).is_none());

    net.advance(Duration::from_millis(301));
    assert_eq!(
        read(&mut far).expect("it is due").expect("whole"),
        b"last words"
    );
    assert!(read(&mut far).is_none());
    assert_eq!(net.counts().late, 1);
    net.advance(Duration::from_millis(900));
    assert_eq!(read(&mut far).expect("it is told").expect("an end"), b"");
}

#[test]
fn a_held_connection_with_nothing_under_way_is_reset() {
    let (net, mut near, mut far) = connected();
    let held = net.hold_some(&[pair()], 1_000);
    let late = Duration::from_millis(200)..Duration::from_millis(201);
    assert_eq!(net.sever(&held, &late), BTreeSet::new());
    assert!(read(&mut near).expect("it is told").is_err());
    assert!(read(&mut far).expect("it is told").is_err());
}

#[test]
fn what_two_faults_cut_is_cut_until_both_are_lifted() {
    let (net, mut near, mut far) = connected();
    let first = net.impair(&[pair()], &Effect::Cut);
    let second = net.impair(&[pair()], &Effect::Cut);
    write(&mut near, b"x").expect("there is room");
    net.advance(Duration::from_secs(1));
    net.lift(first);
    net.advance(Duration::from_secs(3));
    assert!(read(&mut far).is_none());
    net.lift(second);
    net.advance(Duration::from_secs(5));
    assert_eq!(
        read(&mut far).expect("it is sent again").expect("whole"),
        b"x"
    );
}
