//! The HTTP face over a real socket, asked by a client that does nothing it is not told to.
#![cfg(feature = "serve")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use common::Tree;
use common::http::{Server, head, noise, tag};
use flyloft::Runtime;
use flyloft::serve::Listener;
use serde_json::Value;

const CSS: &[u8] = b"body { color: teal }\n";

fn site() -> Tree {
    let tree = Tree::new();
    tree.write("index.html", b"<h1>top</h1>");
    tree.write("css/site.css", CSS);
    tree.write("docs/index.html", b"<h1>docs</h1>");
    tree.write("a b/ä.txt", b"umlaut");
    tree
}

#[test]
fn an_asset_comes_with_its_hash_length_type_and_generation() {
    let server = Server::of(&site());
    // Cold, then from memory: the same answer.
    for _ in 0..2 {
        let answer = server.get("/a/css/site.css");
        assert_eq!((answer.status, answer.body.as_slice()), (200, CSS));
        assert_eq!(answer.header("etag"), tag(CSS));
        assert_eq!(answer.header("content-length"), CSS.len().to_string());
        assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
        assert_eq!(answer.header("x-flyloft-generation"), "1");
        assert_eq!((answer.header("cache-control"), answer.header("accept-ranges")), ("no-cache", "bytes"));
    }
    assert_eq!(server.get("/a/a%20b/%C3%A4.txt").text(), "umlaut");
}

#[test]
fn a_head_tells_the_length_and_loads_nothing() {
    let server = Server::of(&site());
    let answer = server.ask("HEAD", "/a/css/site.css", &[]);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!((answer.header("content-length"), answer.header("etag")), ("21", tag(CSS).as_str()));
    assert_eq!(server.resident(), 0);
    assert_eq!(server.ask("HEAD", "/a/nope", &[]).status, 404);
}

#[test]
fn a_client_that_has_the_content_is_told_so() {
    let server = Server::of(&site());
    let same = tag(CSS);
    for value in [same.clone(), format!("W/{same}"), "*".into(), format!("\"x\", {same}")] {
        for method in ["GET", "HEAD"] {
            let answer = server.ask(method, "/a/css/site.css", &[("If-None-Match", &value)]);
            assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (304, 0, same.as_str()), "{value}");
        }
    }
    assert_eq!(server.ask("GET", "/a/css/site.css", &[("If-None-Match", "\"x\"")]).status, 200);
    server.ask("GET", "/a/css/site.css", &[("If-Match", "\"x\"")]).refused(412, "another content");
    assert_eq!(server.ask("GET", "/a/css/site.css", &[("If-Match", &same)]).status, 200);
}

#[test]
fn a_range_is_cut_out_whether_resident_or_not() {
    let tree = site();
    let content = noise(300_000);
    tree.write("noise.bin", &content);
    let server = Server::of(&tree);
    let check = |range: &str, expected: std::ops::Range<usize>| {
        let answer = server.ask("GET", "/a/noise.bin", &[("Range", range)]);
        assert_eq!((answer.status, answer.body == content[expected.clone()]), (206, true), "{range}");
        let shown = format!("bytes {}-{}/300000", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), shown);
        assert_eq!(answer.header("content-length"), expected.len().to_string());
    };
    let all = || {
        check("bytes=0-0", 0..1);
        check("bytes=70000-199999", 70_000..200_000);
        check("bytes=299990-", 299_990..300_000);
        check("bytes=-5", 299_995..300_000);
        check("bytes=5-999999999", 5..300_000);
        let beyond = server.ask("GET", "/a/noise.bin", &[("Range", "bytes=300000-")]);
        assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */300000"));
        let several = server.ask("GET", "/a/noise.bin", &[("Range", "bytes=0-1,5-6")]);
        assert_eq!((several.status, several.body.len()), (200, 300_000));
    };
    let ranged = || {
        check("bytes=0-0", 0..1);
        check("bytes=70000-199999", 70_000..200_000);
    };
    // A range alone makes nothing resident.
    ranged();
    assert_eq!(server.resident(), 0);
    all();
    assert_eq!(server.resident(), 1);
    all();
}

#[test]
fn a_range_of_another_content_is_the_whole_of_this_one() {
    let server = Server::of(&site());
    let ask = |tag: &str| server.ask("GET", "/a/css/site.css", &[("Range", "bytes=0-3"), ("If-Range", tag)]);
    assert_eq!(ask(&tag(CSS)).status, 206);
    assert_eq!(ask("\"x\"").body, CSS);
    assert_eq!(ask(&format!("W/{}", tag(CSS))).status, 200);
    assert_eq!(server.ask("HEAD", "/a/css/site.css", &[("Range", "bytes=0-3")]).status, 200);
}

#[test]
fn an_empty_asset_has_no_range() {
    let tree = site();
    tree.write("empty.txt", b"");
    let server = Server::of(&tree);
    let answer = server.get("/a/empty.txt");
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, "0", 0));
    assert_eq!(server.ask("GET", "/a/empty.txt", &[("Range", "bytes=0-")]).status, 416);
}

#[test]
fn what_is_not_there_or_escapes_is_one_line() {
    let server = Server::of(&site());
    server.get("/a/nope.txt").refused(404, "'nope.txt' is not in generation 1");
    server.get("/a/docs/nope/").refused(404, "docs/nope/index.html");
    server.get("/nope").refused(404, "/a/");
    for path in ["/a/../secret", "/a/%2e%2e/secret", "/a/x/..%2f..%2fsecret", "/a//etc/passwd", "/a/%00", "/a/%ff"] {
        server.get(path).refused(400, "is not an asset path");
    }
    assert_eq!(server.ask("POST", "/a/css/site.css", &[("Content-Length", "0")]).status, 405);
}

#[test]
fn a_folder_is_its_index() {
    let server = Server::of(&site());
    assert_eq!(server.get("/a/").text(), "<h1>top</h1>");
    assert_eq!(server.get("/a/docs/").text(), "<h1>docs</h1>");
    let redirect = server.get("/a/docs");
    assert_eq!((redirect.status, redirect.header("location")), (307, "./docs/"));
    server.get("/a/css").refused(404, "'css'");
}

#[test]
fn an_asset_larger_than_the_budget_is_streamed_within_it() {
    let tree = Tree::new();
    let content = noise(20 << 20);
    tree.write("large.bin", &content);
    let budget = 8 << 20;
    let server = Server::start(Runtime::builder().bundle(tree.packed()).budget_bytes(budget));
    let whole = server.get("/a/large.bin");
    assert_eq!((whole.status, whole.header("content-length"), whole.body == content), (200, "20971520", true));
    let part = server.ask("GET", "/a/large.bin", &[("Range", "bytes=5000000-15000000")]);
    assert_eq!((part.status, part.body == content[5_000_000..=15_000_000]), (206, true));
    let stats = server.runtime.stats();
    assert!(stats.budget.peak <= budget, "{:?}", stats.budget);
    assert_eq!(stats.resident, 0);
}

#[test]
fn one_response_is_of_one_generation() {
    let tree = Tree::new();
    let (old, mut new) = (noise(12 << 20), noise(12 << 20));
    new.reverse();
    tree.write("large.bin", &old);
    tree.write("small.txt", b"old");
    let server = Server::start(tree.builder().budget_bytes(16 << 20).watch(true));
    let mut events = server.runtime.events();
    // More than the buffers between hold: the server is still sending when the tree changes.
    let mut connection = server.connect();
    connection.write_all(b"GET /a/large.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut reader = BufReader::new(connection);
    let answer = head(&mut reader);
    tree.replace("large.bin", &new);
    server.published(&mut events);
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    assert_eq!((answer.header("etag"), answer.header("x-flyloft-generation")), (tag(&old).as_str(), "1"));
    assert!(body == old, "{} bytes came", body.len());
    let after = server.get("/a/large.bin");
    assert_eq!((after.header("etag"), after.body == new), (tag(&new).as_str(), true));
    assert_eq!(server.get("/a/small.txt").header("x-flyloft-generation"), "2");
}

#[test]
fn events_are_told_as_they_happen_and_end_when_the_server_stops() {
    let tree = site();
    let mut server = Server::start(tree.builder().budget_bytes(16 << 20).watch(true));
    let mut connection = server.connect();
    connection.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut reader = BufReader::new(connection);
    let answer = head(&mut reader);
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    tree.replace("css/site.css", b"body { color: plum }\n");
    let mut lines = reader.lines().map(|line| line.unwrap());
    assert!(lines.any(|line| line == "event: published"));
    let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
    let event: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (&event["type"], &event["generation"], &event["changed_total"]),
        (&"published".into(), &2.into(), &1.into())
    );
    assert_eq!(event["changed"][0]["path"], "css/site.css");
    server.runtime.kill("predictor").unwrap();
    assert!(lines.any(|line| line == "event: actor_restarted"));
    server.stop();
    assert_eq!(lines.last().as_deref(), Some(""), "it ends like a whole response");
}

#[test]
fn an_idle_connection_does_not_keep_the_server_from_stopping() {
    let mut server = Server::of(&site());
    let idle = server.connect();
    assert_eq!(server.get("/a/").status, 200);
    server.stop();
    drop(idle);
}

#[test]
fn events_end_soon_after_the_runtime_is_shut_down_in_a_server_of_somebody_else() {
    let tree = site();
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    executor.block_on(common::within(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let runtime = tree.builder().budget_bytes(16 << 20).start().await.unwrap();
        let app = axum::Router::new().nest("/loft", flyloft::serve::router(runtime.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        let ask = async |path: &str| {
            let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            connection.write_all(request.as_bytes()).await.unwrap();
            connection
        };
        let mut answer = String::new();
        ask("/loft/a/css/site.css").await.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("teal }\n"), "{answer}");
        let mut events = ask("/loft/events").await;
        events.read_u8().await.unwrap();
        runtime.shutdown(Duration::from_secs(5)).await;
        let mut rest = Vec::new();
        events.read_to_end(&mut rest).await.unwrap();
    }));
}

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::of(&site());
    let mut connection = server.connect();
    connection.write_all(b"GET /a/css/site.css HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3).as_slice()).unwrap();
    let mut reader = BufReader::new(connection);
    for _ in 0..3 {
        let answer = head(&mut reader);
        let mut body = vec![0; answer.header("content-length").parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        assert_eq!((answer.status, body.as_slice()), (200, CSS));
    }
}

#[test]
fn status_says_what_runs_and_with_what_figures() {
    let tree = site();
    let server = Server::of(&tree);
    server.get("/a/css/site.css");
    server.get("/a/css/site.css");
    let status = server.json("/status");
    assert_eq!(
        (&status["health"], &status["generation"], &status["assets"]),
        (&"running".into(), &1.into(), &4.into())
    );
    assert_eq!(status["store"], tree.store().to_str().unwrap());
    let actors = status["actors"].as_array().unwrap();
    assert!(actors.iter().any(|actor| actor["name"] == "io_dispatcher" && actor["state"] == "up"), "{actors:?}");
    assert_eq!(status["stats"]["metrics"]["hits"], 1);
    assert_eq!(status["stats"]["budget"]["total"], 16 << 20);
}

#[test]
fn every_metric_says_what_it_is_before_its_samples() {
    let server = Server::of(&site());
    server.get("/a/css/site.css");
    let memory = server.json("/memory");
    assert!(memory["budget_bytes"].as_u64() > Some(0) && memory["stages"]["cached"].is_u64(), "{memory}");
    assert!(server.get("/report").text().starts_with("throughput"));
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let mut family = String::new();
    let mut families = std::collections::BTreeSet::new();
    for line in answer.text().lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} stands twice");
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let kind = typed.strip_prefix(&family).unwrap().trim();
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            assert_eq!(family.ends_with("_total"), kind == "counter", "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family) && value.parse::<f64>().is_ok(), "{line}");
        }
    }
    for wanted in ["flyloft_hits_total", "flyloft_load_latency_seconds", "flyloft_charged_bytes", "flyloft_actor_up"] {
        assert!(families.contains(wanted), "{wanted}");
    }
    assert!(answer.text().contains("flyloft_load_latency_seconds{quantile=\"0.99\"} "));
    assert!(answer.text().contains("flyloft_requests_open{priority=\"critical\"} 0\n"));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let server = Server::of(&site());
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.text().replace("http://www.w3.org/2000/svg", "");
    assert!(
        !text.contains("http:") && !text.contains("https:") && !text.contains("//cdn") && !text.contains("@import")
    );
    assert!(text.contains("EventSource(\"events\")"));
}

#[test]
fn the_tree_is_listed_a_page_at_a_time() {
    let server = Server::of(&site());
    let names = |listing: &Value| -> Vec<String> {
        let entries = listing["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let top = server.json("/tree");
    assert_eq!(names(&top), ["a b", "css", "docs", "index.html"]);
    assert_eq!((&top["generation"], &top["more"], &top["entries"][1]["bytes"]), (&1.into(), &Value::Null, &21.into()));
    let first = server.json("/tree?limit=3");
    assert_eq!((names(&first).len(), &first["more"]), (3, &"docs".into()));
    assert_eq!(names(&server.json("/tree?limit=3&after=docs")), ["index.html"]);
    assert_eq!(names(&server.json("/tree?prefix=css")), ["site.css"]);
    assert_eq!(names(&server.json("/tree?search=INDEX")), ["docs/index.html", "index.html"]);
    assert_eq!(server.get("/tree?limit=x").status, 400);
}

#[test]
fn a_corrupt_asset_is_an_error_and_never_bytes() {
    let tree = Tree::new();
    let content = noise(200_000);
    tree.write("noise.bin", &content);
    tree.write("fine.txt", b"fine");
    let bundle = tree.packed();
    let mut bytes = std::fs::read(&bundle).unwrap();
    let place = bytes.windows(64).position(|window| window == &content[..64]).expect("it is stored as it is");
    bytes[place] ^= 1;
    std::fs::write(&bundle, &bytes).unwrap();
    let server = Server::start(Runtime::builder().bundle(&bundle).budget_bytes(16 << 20));
    server.get("/a/noise.bin").refused(500, "corrupt");
    server.ask("GET", "/a/noise.bin", &[("Range", "bytes=0-9")]).refused(500, "corrupt");
    assert_eq!(server.get("/a/fine.txt").text(), "fine");
}

#[test]
fn what_may_work_later_says_when_to_come_back() {
    let server = Server::of(&site());
    server.executor.block_on(server.runtime.shutdown(Duration::from_secs(5)));
    let answer = server.get("/a/css/site.css");
    answer.refused(503, "shut down");
    assert_eq!(answer.header("retry-after"), "1");
}

#[test]
fn a_port_in_use_is_one_line_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = executor.block_on(Listener::bind(&address)).err().unwrap().to_string();
    assert!(error.starts_with(&address) && error.contains("in use") && !error.contains('\n'), "{error}");
}
