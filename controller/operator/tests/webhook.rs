//! The webhook over TLS, without an API server: what it answers, to whom, and how long it waits.
#![allow(
    clippy::needless_pass_by_value,
    reason = "json! reads better without &"
)]

use std::{
    convert::Infallible, fs, future::ready, net::SocketAddr, path::Path, sync::Arc, time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use headgate_operator::{
    admission::{Certificates, Config, serve},
    fleet::Fleet,
};
use http_body_util::{BodyExt as _, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request,
    body::{Bytes, Frame},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Longer than anything is waited for there.
const LONG: Duration = Duration::from_secs(20);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("there are random numbers");
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("the key is new");
        Self {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes a certificate as cert-manager's mounted Secret holds it.
    fn issue(&self, folder: &Path) {
        let key = KeyPair::generate().expect("there are random numbers");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("it is ASCII");
        let certificate = params.signed_by(&key, &self.issuer).expect("both are new");
        fs::write(folder.join("tls.key"), key.serialize_pem()).expect("the folder is ours");
        fs::write(folder.join("tls.crt"), certificate.pem()).expect("the folder is ours");
    }

    fn connector(&self, protocols: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .expect("it is an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

struct Served {
    address: SocketAddr,
    authority: Authority,
    folder: TempDir,
    /// Dropping it is the word to stop.
    stop: oneshot::Sender<()>,
    /// Has ended when it has stopped.
    served: JoinHandle<()>,
}

impl Served {
    fn start() -> Self {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        authority.issue(folder.path());
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let config = Config {
            listen: address,
            namespace: String::new(),
            names: Vec::new(),
            certificates: Certificates::Files(folder.path().to_owned()),
        };
        let nowhere = "http://127.0.0.1:1".parse().expect("it is a URL");
        let client = kube::Client::try_from(kube::Config::new(nowhere)).expect("no TLS is asked");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            let fleet = watch::Sender::new(Arc::new(Fleet::default()));
            let leads = watch::Sender::new(false);
            let stopped = async { stopped.await.unwrap_or_default() };
            let served = serve(
                client,
                config,
                fleet.subscribe(),
                leads.subscribe(),
                stopped,
            );
            served.await.expect("the port is free");
        });
        Self {
            address,
            authority,
            folder,
            stop,
            served,
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_by(&[]).await
    }

    /// A connection for one of these protocols.
    async fn connect_by(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let name = ServerName::try_from("localhost").expect("it is a name");
        let deadline = Instant::now() + LONG;
        let stream = loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        let connected = timeout(
            LONG,
            self.authority.connector(protocols).connect(name, stream),
        )
        .await;
        connected
            .expect("it is served soon")
            .expect("the authority is known")
    }

    /// Status and body of the answer to a POST.
    async fn post(&self, body: &[u8]) -> (u16, String) {
        let mut stream = self.connect().await;
        let head = format!(
            "POST /validate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(head.as_bytes())
            .await
            .expect("it reads heads");
        // One that is too large is refused before it was read.
        let _ = stream.write_all(body).await;
        answer(&mut stream).await
    }
}

async fn answer(stream: &mut TlsStream<TcpStream>) -> (u16, String) {
    let mut bytes = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut bytes)).await;
    read.expect("the connection is closed").ok();
    let text = String::from_utf8(bytes).expect("answers are text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_default(), body.to_owned())
}

fn review(operation: &str, object: Value, old: Value) -> Vec<u8> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "kind": {"group": "headgate.dev", "version": "v1alpha1", "kind": "XdpPolicy"},
            "operation": operation,
            "object": object,
            "oldObject": old,
        },
    });
    review.to_string().into_bytes()
}

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
        "metadata": {"name": "p", "uid": "1", "managedFields": [{"manager": "kubectl"}]},
        "spec": spec,
        "status": {"observedGeneration": -1},
    })
}

async fn answered(served: &Served, review: &[u8]) -> Value {
    let (status, body) = served.post(review).await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("an AdmissionReview");
    assert_eq!(answer["response"]["uid"], "u");
    answer["response"].clone()
}

#[tokio::test]
async fn reviews_are_answered() {
    let served = Served::start();
    let good = review("CREATE", policy(json!({})), Value::Null);
    assert_eq!(
        answered(&served, &good).await,
        json!({"uid": "u", "allowed": true})
    );

    let bad = policy(json!({"priority": 1001, "rulez": []}));
    let refused = answered(&served, &review("CREATE", bad.clone(), Value::Null)).await;
    assert_eq!(refused["allowed"], false, "{refused:#}");
    let status = &refused["status"];
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(422), &json!("Invalid"))
    );
    let causes = status["details"]["causes"].as_array().expect("causes");
    let fields: Vec<&Value> = causes.iter().map(|cause| &cause["field"]).collect();
    assert_eq!(fields, ["spec.rulez", "spec.priority"], "{status:#}");
    for cause in causes {
        let (field, message) = (
            &cause["field"],
            cause["message"].as_str().unwrap_or_default(),
        );
        let line = format!("{}: {message}", field.as_str().unwrap_or_default());
        assert!(
            status["message"]
                .as_str()
                .unwrap_or_default()
                .contains(&line),
            "{status:#}"
        );
        assert!(message.contains("; "), "no remedy: {message}");
    }

    let same = review("UPDATE", bad.clone(), bad.clone());
    assert_eq!(answered(&served, &same).await["allowed"], true);
    let mut leaving = bad.clone();
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let leaving = review("UPDATE", leaving, policy(json!({})));
    assert_eq!(answered(&served, &leaving).await["allowed"], true);
    for operation in ["DELETE", "CONNECT", ""] {
        let review = review(operation, bad.clone(), Value::Null);
        assert_eq!(
            answered(&served, &review).await["allowed"],
            true,
            "{operation}"
        );
    }
    let mut other: Value = serde_json::from_slice(&good).expect("it is JSON");
    other["request"]["kind"]["group"] = json!("example.org");
    let other = answered(&served, other.to_string().as_bytes()).await;
    assert_eq!(other["allowed"], true);
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_the_reason() {
    let served = Served::start();
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let metadata = json!({"metadata": 7, "spec": {}});
    for (body, words) in [
        (&b""[..], "no AdmissionReview"),
        (b"\xFF\xFE\x00", "no AdmissionReview"),
        (b"7", "no AdmissionReview"),
        (
            b"{\"kind\": \"Pod\", \"apiVersion\": \"v1\"}",
            "\"Pod\" of \"v1\"",
        ),
        (
            b"{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1beta1\"}",
            "admission.k8s.io/v1beta1",
        ),
        (
            b"{\"kind\": \"AdmissionReview\", \"apiVersion\": \"admission.k8s.io/v1\"}",
            "has no request",
        ),
        (&deep, "no AdmissionReview"),
    ] {
        let (status, said) = served.post(body).await;
        assert_eq!(status, 400, "{said}");
        assert!(said.contains(words), "{said}");
    }
    // In a review, whatever the object is.
    for object in [
        json!(7),
        json!([]),
        json!({}),
        json!({"metadata": null}),
        metadata,
    ] {
        let refused = answered(&served, &review("CREATE", object, json!("old"))).await;
        assert_eq!(refused["allowed"], false, "{refused:#}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let served = Served::start();
    let (status, said) = served.post(&vec![b' '; (3 << 20) + 1]).await;
    assert_eq!(status, 413, "{said}");
    let mut stream = served.connect().await;
    let chunked = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(chunked).await.expect("it reads heads");
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    for _ in 0..49 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let (status, said) = answer(&mut stream).await;
    assert_eq!(status, 413, "{said}");
}

#[tokio::test]
async fn who_is_slow_is_not_waited_for() {
    let served = Served::start();
    let started = Instant::now();
    // No handshake, no head, half a body: all at one time.
    let mut silent = loop {
        if let Ok(stream) = TcpStream::connect(served.address).await {
            break stream;
        }
    };
    let no_handshake = async {
        let mut buffer = Vec::new();
        silent.read_to_end(&mut buffer).await.ok();
    };
    let mut idle = served.connect().await;
    let no_head = answer(&mut idle);
    let mut half = served.connect().await;
    let head = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{";
    half.write_all(head).await.expect("it reads heads");
    let half_a_body = answer(&mut half);
    let all = async { tokio::join!(no_handshake, no_head, half_a_body) };
    let ((), _, (status, said)) = timeout(LONG, all).await.expect("all are closed");
    assert_eq!(status, 408, "{said}");
    println!("all three were closed after {:?}", started.elapsed());
    assert_eq!(served.post(b"7").await.0, 400, "others are answered");
}

#[tokio::test]
async fn a_new_certificate_leaves_connections_alone() {
    let served = Served::start();
    let mut before = served.connect().await;
    let shown = |stream: &TlsStream<TcpStream>| {
        let certificates = stream.get_ref().1.peer_certificates();
        certificates.expect("the server has one")[0].clone()
    };
    let old = shown(&before);
    let get = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    before.write_all(get).await.expect("it stands");
    served.authority.issue(served.folder.path());
    let deadline = Instant::now() + LONG;
    while shown(&served.connect().await) == old {
        assert!(Instant::now() < deadline, "the new one is not served");
        before.write_all(get).await.expect("it stands");
        sleep(Duration::from_millis(500)).await;
    }
    let last = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    before.write_all(last).await.expect("it stands");
    let (status, _) = answer(&mut before).await;
    assert_eq!(status, 200);
}

/// A request, and an answer after which the connection stands.
async fn get(stream: &mut TlsStream<TcpStream>) -> std::io::Result<()> {
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer[..read]);
    let is_whole = answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok");
    is_whole
        .then_some(())
        .ok_or_else(|| std::io::Error::other(answer))
}

/// The head of a POST of one byte more than `7`, which it begins with.
const HALF: &[u8] =
    b"POST /validate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n7";

/// The client's end of a connection that takes requests beside each other, as an API server's does.
type Http2 = SendRequest<UnsyncBoxBody<Bytes, Infallible>>;

async fn connect_http2(served: &Served) -> Http2 {
    let stream = served.connect_by(&[b"h2"]).await;
    let io = TokioIo::new(stream);
    let connected = http2::handshake(TokioExecutor::new(), io).await;
    let (client, connection) = connected.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    client
}

async fn asked(client: &mut Http2, method: &str, body: UnsyncBoxBody<Bytes, Infallible>) -> u16 {
    let path = if method == "GET" {
        "readyz"
    } else {
        "validate"
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("https://localhost/{path}"))
        .body(body)
        .expect("it is a request");
    let answer = client.send_request(request).await.expect("it stands");
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await;
    assert!(!body.expect("it stands").to_bytes().is_empty());
    status
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    // As many as are let in.
    const MOST: usize = 256;
    let served = Served::start();
    let mut standing = Vec::new();
    for _ in 0..MOST {
        let mut client = connect_http2(&served).await;
        assert_eq!(
            asked(&mut client, "GET", Empty::new().boxed_unsync()).await,
            200
        );
        standing.push(client);
    }
    // The one that has been there for longest has something under way.
    let (finish, finished) = oneshot::channel::<()>();
    let parts = stream::iter(["7", " "]).then({
        let finished = finished.map(|_| ()).boxed().shared();
        move |part| {
            let ready = if part == "7" {
                ready(()).boxed()
            } else {
                finished.clone().boxed()
            };
            ready.map(move |()| Ok(Frame::data(Bytes::from_static(part.as_bytes()))))
        }
    });
    let mut busy = standing.remove(0);
    let body = StreamBody::new(parts).boxed_unsync();
    let answered = tokio::spawn(async move { asked(&mut busy, "POST", body).await });
    // It has come when another, sent later, was answered.
    let last = standing.last_mut().expect("there are many");
    assert_eq!(asked(last, "GET", Empty::new().boxed_unsync()).await, 200);

    let began = Instant::now();
    let room = timeout(Duration::from_secs(4), served.post(b"7")).await;
    println!(
        "with all places taken, an answer took {:?}",
        began.elapsed()
    );
    assert_eq!(room.expect("room is made").0, 400);
    assert!(
        standing[0].ready().await.is_err(),
        "the longest idle is closed"
    );
    let stand = standing.iter().filter(|client| !client.is_closed()).count();
    assert!(stand > MOST - 8, "{stand} still stand");
    drop(finish);
    let answered = timeout(LONG, answered).await.expect("it is answered");
    assert_eq!(answered.expect("it stands"), 400);
}

#[tokio::test]
async fn what_is_under_way_is_answered_at_the_end() {
    let served = Served::start();
    let mut idle = served.connect().await;
    get(&mut idle).await.expect("it is answered");
    let mut busy = served.connect().await;
    busy.write_all(HALF).await.expect("it reads heads");
    // It is under way when another, sent later, was answered.
    get(&mut idle).await.expect("it is answered");
    drop(served.stop);

    let mut nothing = Vec::new();
    let closed = timeout(LONG, idle.read_to_end(&mut nothing)).await;
    assert!(closed.is_ok(), "an idle connection is closed");
    let refused = TcpStream::connect(served.address).await;
    assert!(refused.is_err(), "nobody listens any more");
    assert!(
        !served.served.is_finished(),
        "it waits for what is under way"
    );
    busy.write_all(b" ").await.expect("it stands");
    assert_eq!(answer(&mut busy).await.0, 400);
    timeout(LONG, served.served)
        .await
        .expect("it ends")
        .expect("it does not panic");
}
