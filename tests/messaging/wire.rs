//! What goes over the wire: a relay between client and server that writes down the client's frames, and can stall or cut
//! the connection.

use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes, BytesMut};
use leveret::amqp::Config;
use leveret::codec::method::{basic, channel};
use leveret::codec::{Frame, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::until;

const LARGEST: usize = 1024 * 1024;

/// A relay in front of a server.
#[derive(Debug)]
pub(crate) struct Tap {
    url: String,
    shared: Arc<Shared>,
    _task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    frames: Mutex<Vec<Frame>>,
    /// What the server says is not passed on.
    stalled: watch::Sender<bool>,
    /// Counts the cuts: connections that were made before the last one are gone.
    cuts: watch::Sender<u32>,
    cut_after: Mutex<Option<Cut>>,
    /// Nobody is let in.
    refuses: watch::Sender<bool>,
}

/// Cut when the client has said so many of these, and then let nobody in, or do.
#[derive(Clone, Copy, Debug)]
struct Cut {
    counts: fn(&Frame) -> bool,
    times: usize,
    refuses: bool,
}

impl Tap {
    pub(crate) async fn new(server: &str) -> Self {
        let config = Config::from_url(server).unwrap();
        let (host, port) = (config.hosts[0].host.clone(), config.hosts[0].port.unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let url = match (host.contains(':'), config.hosts[0].port) {
            (true, _) => server.replacen(&format!("[{host}]:{port}"), &here.to_string(), 1),
            (false, _) => server.replacen(&format!("{host}:{port}"), &here.to_string(), 1),
        };
        assert_ne!(url, server, "the tap is not in the URL");
        let shared = Arc::new(Shared {
            frames: Mutex::default(),
            stalled: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
            cut_after: Mutex::new(None),
            refuses: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listener, (host, port), Arc::clone(&shared)));
        Self { url, shared, _task: task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Everything that the client has said so far.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        self.shared.frames.lock().unwrap().clone()
    }

    /// The client's methods that settle deliveries, as class and method id, delivery tag, and the bits for `multiple` and `requeue`.
    pub(crate) fn settlements(&self) -> Vec<Settlement> {
        self.frames().iter().filter_map(Settlement::of).collect()
    }

    /// Waits until the client has settled so many times.
    pub(crate) async fn settled(&self, times: usize) -> Vec<Settlement> {
        until("settlements on the wire", async || self.settlements().len() >= times).await;
        self.settlements()
    }

    pub(crate) fn heartbeats(&self) -> usize {
        self.frames().iter().filter(|frame| **frame == Frame::Heartbeat).count()
    }

    pub(crate) fn publishes(&self) -> usize {
        self.count(is_publish)
    }

    /// How many channels the client has opened, or tried to.
    pub(crate) fn channels(&self) -> usize {
        self.count(is_channel_open)
    }

    fn count(&self, counts: fn(&Frame) -> bool) -> usize {
        self.shared.frames.lock().unwrap().iter().filter(|frame| counts(frame)).count()
    }

    /// What the server says does not reach the client from now on, or does again.
    pub(crate) fn stall(&self, stalled: bool) {
        self.shared.stalled.send_replace(stalled);
    }

    /// The connection is lost without a word.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The connection is lost as soon as the client has published so many messages. The server has read all of them or not.
    pub(crate) fn cut_after(&self, publishes: usize) {
        *self.shared.cut_after.lock().unwrap() = Some(Cut { counts: is_publish, times: publishes, refuses: false });
    }

    /// As [`cut_after`](Self::cut_after), and nobody is let in from then on.
    pub(crate) fn refuse_after(&self, publishes: usize) {
        *self.shared.cut_after.lock().unwrap() = Some(Cut { counts: is_publish, times: publishes, refuses: true });
    }

    /// The connection is lost when the client opens a channel the next time, and it does not hear of an answer.
    pub(crate) fn cut_at_channel(&self) {
        let times = self.channels() + 1;
        *self.shared.cut_after.lock().unwrap() = Some(Cut { counts: is_channel_open, times, refuses: false });
    }

    /// Nobody is let in from now on, or is again.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.shared.refuses.send_replace(refuses);
    }
}

fn is_publish(frame: &Frame) -> bool {
    matches!(frame, Frame::Method(_, Method::Basic(basic::Method::Publish(_))))
}

fn is_channel_open(frame: &Frame) -> bool {
    matches!(frame, Frame::Method(_, Method::Channel(channel::Method::Open(_))))
}

/// A method that settles deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// 60, 80
    Ack { tag: u64, multiple: bool },
    /// 60, 90
    Reject { tag: u64, requeue: bool },
    /// 60, 120
    Nack { tag: u64, multiple: bool, requeue: bool },
}

impl Settlement {
    fn of(frame: &Frame) -> Option<Self> {
        use leveret::codec::method::basic::Method::{Ack, Nack, Reject};
        let Frame::Method(_, Method::Basic(method)) = frame else { return None };
        match method {
            Ack(ack) => Some(Self::Ack { tag: ack.delivery_tag, multiple: ack.multiple }),
            Reject(reject) => Some(Self::Reject { tag: reject.delivery_tag, requeue: reject.requeue }),
            Nack(nack) => Some(Self::Nack { tag: nack.delivery_tag, multiple: nack.multiple, requeue: nack.requeue }),
            _ => None,
        }
    }
}

async fn accept(listener: TcpListener, server: (String, u16), shared: Arc<Shared>) {
    let mut relays = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if *shared.refuses.borrow() {
            continue;
        }
        let (shared, server) = (Arc::clone(&shared), server.clone());
        relays.spawn(async move {
            let mut cuts = shared.cuts.subscribe();
            cuts.mark_unchanged();
            let upstream = TcpStream::connect(server).await.unwrap();
            client.set_nodelay(true).unwrap();
            upstream.set_nodelay(true).unwrap();
            tokio::select! {
                () = relay(client, upstream, &shared) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn relay(client: TcpStream, server: TcpStream, shared: &Shared) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let (mut octets, mut unread, mut header) = (BytesMut::new(), BytesMut::new(), 8);
        while from_client.read_buf(&mut octets).await.unwrap_or(0) > 0 {
            unread.extend_from_slice(&octets);
            if header > 0 && unread.len() >= header {
                unread.advance(header);
                header = 0;
            }
            if header == 0 {
                read(&mut unread, shared);
            }
            let limit = *shared.cut_after.lock().unwrap();
            let reached = |cut: &Cut| {
                let frames = shared.frames.lock().unwrap();
                frames.iter().filter(|frame| (cut.counts)(frame)).count() >= cut.times
            };
            let over = limit.filter(reached);
            if to_server.write_all(&octets).await.is_err() {
                break;
            }
            octets.clear();
            if let Some(Cut { refuses, .. }) = over {
                *shared.cut_after.lock().unwrap() = None;
                shared.refuses.send_replace(refuses);
                return;
            }
        }
        let _ = to_server.shutdown().await;
        // The server may have more to say.
        std::future::pending::<()>().await;
    };
    let down = async {
        let (mut octets, mut stalled) = (BytesMut::new(), shared.stalled.subscribe());
        while from_server.read_buf(&mut octets).await.unwrap_or(0) > 0 {
            stalled.wait_for(|stalled| !stalled).await.unwrap();
            if to_client.write_all(&octets).await.is_err() {
                break;
            }
            octets.clear();
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Takes whole frames off the front.
fn read(unread: &mut BytesMut, shared: &Shared) {
    loop {
        let mut octets = Bytes::copy_from_slice(unread);
        let before = octets.len();
        match Frame::decode(&mut octets, LARGEST).unwrap() {
            Some(frame) => shared.frames.lock().unwrap().push(frame),
            None => return,
        }
        unread.advance(before - octets.len());
    }
}
