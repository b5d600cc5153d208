//! What a response carries: nothing, bytes as they lie in memory, or a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The body of a response. That of a resident asset is not boxed, and its bytes are those of the asset.
pub(super) enum Reply {
    Empty,
    /// Not empty.
    Whole(Bytes),
    Other(axum::body::Body),
}

impl From<Bytes> for Reply {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(bytes) }
    }
}

impl From<axum::body::Body> for Reply {
    fn from(body: axum::body::Body) -> Self {
        Self::Other(body)
    }
}

impl From<Reply> for axum::body::Body {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Empty => Self::empty(),
            Reply::Whole(bytes) => bytes.into(),
            Reply::Other(body) => body,
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Other(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(_) => false,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Other(body) => body.size_hint(),
        }
    }
}
