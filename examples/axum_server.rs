//! A runtime inside your own axum server: one page from a template that reloads when it is saved, beside the routes that
//! Flyloft brings along.
//!
//!     cargo run --example axum_server              then edit examples/assets/programme.html while it runs
//!     cargo run --example axum_server -- --once    asks for the page once and exits

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use flyloft::{Asset, ContentHash, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the handlers share.
struct App {
    assets: Runtime,
    /// The template as it was parsed last, and the content that it was parsed from.
    programme: Mutex<Option<(ContentHash, Arc<Template>)>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/assets");
    let store = concat!(env!("CARGO_MANIFEST_DIR"), "/target/flyloft/axum_server");
    let assets = Runtime::builder().directory(root).store(store).watch(true).start().await?;

    let app = Arc::new(App { assets: assets.clone(), programme: Mutex::default() });
    let router = Router::new()
        // Beside the assets, so that what the page names is found beside it.
        .route("/a/programme", get(programme))
        .with_state(app)
        // Everything else: /a/<path>, /events, /status, /metrics and the page that shows them.
        .merge(flyloft::serve::router(assets.clone()));

    let once = std::env::args().any(|argument| argument == "--once");
    let listener = tokio::net::TcpListener::bind(if once { "127.0.0.1:0" } else { "127.0.0.1:7071" }).await?;
    let address = listener.local_addr()?;
    println!("http://{address}/a/programme");
    if once {
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        println!("{}", ask(address).await?);
        server.abort();
    } else {
        let stop = async { drop(tokio::signal::ctrl_c().await) };
        axum::serve(listener, router).with_graceful_shutdown(stop).await?;
    }
    assets.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// The page. The template and the cues are read through one snapshot: both are of the same save, whatever is being
/// published meanwhile.
async fn programme(State(app): State<Arc<App>>) -> Result<Html<String>, (StatusCode, String)> {
    let failed = |error: flyloft::Error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let snapshot = app.assets.snapshot();
    let source = snapshot.load("programme.html").await.map_err(failed)?;
    let cues = snapshot.load("data/cues.json").await.map_err(failed)?;

    let cues: serde_json::Value = serde_json::from_slice(&cues).unwrap_or_default();
    let items = cues["cues"].as_array().into_iter().flatten();
    let items: String = items.map(|cue| format!("    <li>{}</li>\n", escaped(&cue["at"]))).collect();
    let template = app.template(&source);
    Ok(Html(template.render(|name| match name {
        "cues" => items.clone(),
        "generation" => snapshot.generation().to_string(),
        other => escaped(&cues[other]),
    })))
}

impl App {
    /// Parses the template when its content is new, and only then.
    fn template(&self, source: &Asset) -> Arc<Template> {
        let mut kept = self.programme.lock().unwrap();
        match &*kept {
            Some((hash, template)) if *hash == source.hash() => Arc::clone(template),
            _ => {
                let template = Arc::new(Template::parse(&String::from_utf8_lossy(source)));
                *kept = Some((source.hash(), Arc::clone(&template)));
                template
            }
        }
    }
}

/// Text with `{{names}}` in it. A real program takes a template engine.
struct Template {
    /// Each piece of text, and the name that follows it.
    parts: Vec<(String, String)>,
    rest: String,
}

impl Template {
    fn parse(mut text: &str) -> Self {
        let mut parts = Vec::new();
        while let Some((before, after)) = text.split_once("{{") {
            let Some((name, rest)) = after.split_once("}}") else { break };
            parts.push((before.to_owned(), name.trim().to_owned()));
            text = rest;
        }
        Self { parts, rest: text.to_owned() }
    }

    fn render(&self, value: impl Fn(&str) -> String) -> String {
        let parts = self.parts.iter().map(|(text, name)| text.clone() + &value(name));
        parts.collect::<String>() + &self.rest
    }
}

fn escaped(value: &serde_json::Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// What a browser would do.
async fn ask(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    connection.write_all(b"GET /a/programme HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
