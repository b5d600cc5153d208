//! Sockets and the HTTP on them. Requests for assets are answered here, without the router's boxes between; all
//! others go through it.
//!
//! Each connection is one task. It reads a request, answers it from memory in the same poll where it can, and hands
//! head and body to the kernel in one vectored write.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::body::Reply;
use super::{Face, asset};

/// How long nothing is accepted after the system refused a connection for want of descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// Serves until `stopping` turns true, and then until every connection has ended.
pub(super) async fn serve(tcp: TcpListener, face: Arc<Face>, router: Router, mut stopping: watch::Receiver<bool>) {
    // Each connection holds a receiver: they have ended when there is none.
    let (open, _) = watch::channel(());
    loop {
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        match accepted {
            Ok((socket, _)) => {
                let (face, router, stopping) = (Arc::clone(&face), router.clone(), stopping.clone());
                let held = open.subscribe();
                tokio::spawn(async move {
                    connection(socket, face, router, stopping).await;
                    drop(held);
                });
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted now");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    drop(tcp);
    open.closed().await;
}

fn is_of_one_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(socket: TcpStream, face: Arc<Face>, router: Router, mut stopping: watch::Receiver<bool>) {
    // A response goes out at once, however small it is.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let _counted = face.traffic.connected();
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let at_once = asset::at_once(&face, &request);
        let (face, router) = (&face, &router);
        async move {
            Ok::<Response<Reply>, Infallible>(match at_once {
                Some(response) => response,
                // In a box, so that what a hit moves around is small.
                None => Box::pin(in_time(face, router, request)).await,
            })
        }
    });
    let mut http = http1::Builder::new();
    http.writev(true);
    let mut served = pin!(http.serve_connection(TokioIo::new(socket), service));
    // The server that is gone is one that stops, too.
    let mut asked_to_stop = pin!(async { drop(stopping.wait_for(|stopping| *stopping).await) });
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => Some(ended),
        () = asked_to_stop.as_mut() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// What has to wait for something.
async fn in_time(
    face: &Arc<Face>,
    router: &TowerToHyperService<Router>,
    request: Request<Incoming>,
) -> Response<Reply> {
    if asset::is_asked_for(request.method(), request.uri()) {
        return asset::respond(face, request.method(), request.uri(), request.headers()).await;
    }
    match router.call(request).await {
        Ok(response) => response.map(Reply::from),
        Err(never) => match never {},
    }
}
