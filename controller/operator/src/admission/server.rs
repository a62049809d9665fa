//! HTTP over TLS, bounded in time and in memory.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    certificates::Served,
    connections::{Activity, Connections, Place},
    fleet_index::FleetIndex,
    limits,
    review::review,
};

/// An attempt to accept that fails, for want of file descriptors, would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

const HTTP2: &[u8] = b"h2";

/// Answers for ever, from the moment when there is a certificate.
pub(super) async fn serve(
    listener: TcpListener,
    served: Arc<Served>,
    known: watch::Receiver<Arc<FleetIndex>>,
    connections: &Arc<Connections>,
) -> Infallible {
    served.ready().await;
    let mut config = served.tls();
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = router(known);
    tracing::info!(address = ?listener.local_addr().ok(), "the admission webhook is served");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = connections.place().await;
                tokio::spawn(connection(stream, acceptor.clone(), router.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One connection, until it ends, takes too long, or its place is wanted.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, place: Place) {
    // A small answer is not to wait for more of it.
    let _ = stream.set_nodelay(true);
    let activity = &place.activity;
    let handshake = timeout(limits::HANDSHAKE, acceptor.accept(stream));
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        () = activity.dismissed() => return,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let io = TokioIo::new(stream);
    let service = counted(router, activity);
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits::MOST_STREAMS);
        drive(builder.serve_connection(io, service), activity).await;
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEAD);
        drive(builder.serve_connection(io, service), activity).await;
    }
}

/// Runs a connection to its end, or closes it once nothing happens on it or its place is wanted.
async fn drive(connection: impl GracefulConnection, activity: &Activity) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = activity.wait_for_its_end() => {}
    }
    connection.as_mut().graceful_shutdown();
    let farewell = timeout(limits::FAREWELL, connection.as_mut()).await;
    if farewell.is_err() && activity.is_busy() {
        let _ = timeout(limits::GRACE, connection).await;
    }
}

fn counted(
    router: Router,
    activity: &Arc<Activity>,
) -> impl Service<
    hyper::Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send + use<>,
> + Send
+ use<> {
    let activity = Arc::clone(activity);
    let router = TowerToHyperService::new(router);
    service_fn(move |request| {
        let under_way = activity.start();
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            drop(under_way);
            answer
        }
    })
}

/// What reviews need.
#[derive(Clone)]
struct Reviewer {
    known: watch::Receiver<Arc<FleetIndex>>,
    /// Bytes that bodies may still take.
    room: Arc<Semaphore>,
}

/// What is served.
pub(super) fn router(known: watch::Receiver<Arc<FleetIndex>>) -> Router {
    let reviewer = Reviewer {
        known,
        room: Arc::new(Semaphore::new(limits::MOST_BODIES)),
    };
    Router::new()
        .route("/validate", post(validate))
        .route("/readyz", get(async || "ok"))
        .with_state(reviewer)
}

async fn validate(State(reviewer): State<Reviewer>, request: Request) -> Response {
    let (body, _room) = match timeout(limits::BODY, read(&reviewer.room, request)).await {
        Ok(Ok(read)) => read,
        Ok(Err(refused)) => return refused,
        Err(_) => {
            let seconds = limits::BODY.as_secs();
            let reason =
                format!("the request was not here within {seconds} seconds; send it again");
            return (StatusCode::REQUEST_TIMEOUT, reason).into_response();
        }
    };
    let known = Arc::clone(&reviewer.known.borrow());
    // The largest objects take milliseconds; and a panic ends this answer alone.
    let answer = tokio::task::spawn_blocking(move || review(&body, &known)).await;
    match answer {
        Ok(Ok(answer)) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Ok(Err(refused)) => (StatusCode::BAD_REQUEST, refused.to_string()).into_response(),
        Err(error) => {
            tracing::error!(%error, "a review was not answered");
            let reason = "the check broke off, which is an error of Headgate's; please report it";
            (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response()
        }
    }
}

/// The body, and the room that it takes.
async fn read(
    room: &Arc<Semaphore>,
    request: Request<Body>,
) -> Result<(Bytes, OwnedSemaphorePermit), Response> {
    let too_large = || {
        let most = limits::MOST_BODY >> 20;
        let reason = format!("the body is larger than {most} MiB; no resource is that large");
        (StatusCode::PAYLOAD_TOO_LARGE, reason).into_response()
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let length: usize = length.unwrap_or(limits::MOST_BODY);
    if length > limits::MOST_BODY {
        return Err(too_large());
    }
    let bytes = u32::try_from(length).expect("a body's limit is far below 4 GiB");
    let room = Arc::clone(room).acquire_many_owned(bytes).await;
    let room = room.expect("the semaphore is never closed");
    match Limited::new(request.into_body(), limits::MOST_BODY)
        .collect()
        .await
    {
        Ok(body) => Ok((body.to_bytes(), room)),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => {
            let reason = format!("the body could not be read: {error}; send it again");
            Err((StatusCode::BAD_REQUEST, reason).into_response())
        }
    }
}
