//! A server for tests that answers what a test tells it to, byte for byte.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The request line and headers.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) at: Instant,
    pub(super) connection: usize,
}

impl Seen {
    pub(super) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(super) fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What to do about a request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// These bytes, and the connection stays.
    Bytes(Vec<u8>),
    /// These bytes, and then nothing, with the connection open.
    Stall(Vec<u8>),
    /// These bytes over and over.
    Endless(Vec<u8>, Vec<u8>),
    /// The connection is reset.
    Reset,
    /// The connection is closed.
    Close,
}

/// A complete answer; `headers` end with a line break each.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes())
}

/// An answer without a body.
pub(super) fn status(status: &str) -> Reply {
    answer(status, "", "")
}

/// The delivered of the world.
pub(super) fn no_content() -> Reply {
    Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
}

pub(super) struct Server {
    pub(super) url: reqwest::Url,
    pub(super) requests: mpsc::UnboundedReceiver<Seen>,
}

type Script = Arc<Mutex<dyn FnMut(&Seen) -> Reply + Send>>;

impl Server {
    /// Serves until the test ends; `script` is asked for each request.
    pub(super) async fn start(script: impl FnMut(&Seen) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/push", listener.local_addr().unwrap()).parse().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let script: Script = Arc::new(Mutex::new(script));
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, connection, Arc::clone(&script), sender.clone()));
            }
        });
        Self { url, requests }
    }

    /// Serves `replies`, and 204 from then on.
    pub(super) async fn replying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies: std::collections::VecDeque<Reply> = replies.into_iter().collect();
        Self::start(move |_| replies.pop_front().unwrap_or_else(no_content)).await
    }

    pub(super) async fn next(&mut self) -> Seen {
        self.requests.recv().await.unwrap()
    }
}

async fn serve(mut stream: TcpStream, connection: usize, script: Script, seen: mpsc::UnboundedSender<Seen>) {
    while let Some(request) = read_request(&mut stream, connection).await {
        let reply = (script.lock().unwrap())(&request);
        drop(seen.send(request));
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await.unwrap(),
            Reply::Stall(bytes) => {
                stream.write_all(&bytes).await.unwrap();
                std::future::pending::<()>().await;
            }
            Reply::Endless(head, chunk) => {
                stream.write_all(&head).await.unwrap();
                while stream.write_all(&chunk).await.is_ok() {}
                return;
            }
            Reply::Reset => return stream.set_zero_linger().unwrap(),
            Reply::Close => return,
        }
    }
}

async fn read_request(stream: &mut TcpStream, connection: usize) -> Option<Seen> {
    let mut bytes = Vec::new();
    let head_len = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let mut seen = Seen { head, body: bytes.split_off(head_len), at: Instant::now(), connection };
    let length: usize = seen.header("content-length").unwrap_or("0").parse().unwrap();
    while seen.body.len() < length {
        if stream.read_buf(&mut seen.body).await.ok()? == 0 {
            return None;
        }
    }
    seen.at = Instant::now();
    Some(seen)
}
