//! Assets sent as they are stored, to clients that take Zstandard.
#![cfg(feature = "serve")]

mod common;

use common::Tree;
use common::http::{Answer, Server, noise, tag};
use flyloft::{Error, Runtime};

const ZSTD: (&str, &str) = ("Accept-Encoding", "gzip, deflate, br, zstd");

/// Words that compress to less than half, and differ with `seed`.
fn words(seed: &str, len: usize) -> Vec<u8> {
    let mut random = vec![0; len / 4];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut random);
    let known = ["curtain ", "batten ", "pulley ", "rope ", "loft ", "cue ", "scenery ", "stage\n"];
    let mut text = Vec::with_capacity(2 * len);
    for byte in random {
        text.extend_from_slice(known[byte as usize % 8].as_bytes());
    }
    text.truncate(len);
    assert_eq!(text.len(), len);
    text
}

/// Whole frames, so that no end of them shares a frame with others.
const ONE: usize = 64 << 10;
const SEVERAL: usize = 5 * ONE;

fn site() -> Tree {
    let tree = Tree::new();
    tree.write("one.txt", &words("one", ONE));
    tree.write("several.txt", &words("several", SEVERAL));
    tree.write("noise.bin", &noise(100_000));
    tree.write("a.css", b"a { color: teal }");
    tree.write("b.css", b"b { color: teal }");
    tree
}

fn zstd(server: &Server, method: &str, path: &str, more: &[(&str, &str)]) -> Answer {
    server.ask(method, path, &[&[ZSTD], more].concat())
}

fn decoded(answer: &Answer) -> Vec<u8> {
    zstd::stream::decode_all(answer.body.as_slice()).unwrap()
}

#[test]
fn who_takes_zstandard_gets_the_stored_frames_under_a_tag_of_their_own() {
    let server = Server::of(&site());
    for (path, seed, len) in [("/a/one.txt", "one", ONE), ("/a/several.txt", "several", SEVERAL)] {
        let content = words(seed, len);
        let plain = server.get(path);
        assert_eq!((plain.header("content-encoding"), plain.header("etag")), ("", tag(&content).as_str()));
        // Cold, then from memory: the same answer.
        let stored = zstd(&server, "GET", path, &[]);
        let again = zstd(&server, "GET", path, &[]);
        for answer in [&stored, &again] {
            assert_eq!((answer.status, answer.header("content-encoding")), (200, "zstd"));
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
            assert!(answer.body.len() < len / 2 && decoded(answer) == content, "{path}");
            assert_eq!(answer.header("etag"), stored.header("etag"));
            assert_ne!(answer.header("etag"), plain.header("etag"));
            assert_eq!((answer.header("vary"), plain.header("vary")), ("accept-encoding", "accept-encoding"));
        }
        assert_eq!(server.ask("GET", path, &[("Accept-Encoding", "zstd;q=0, gzip")]).body, content);
    }
}

#[test]
fn a_head_of_the_stored_form_tells_its_length_and_loads_nothing() {
    let server = Server::of(&site());
    let head = zstd(&server, "HEAD", "/a/several.txt", &[]);
    assert_eq!(server.resident(), 0);
    let get = zstd(&server, "GET", "/a/several.txt", &[]);
    let told = zstd(&server, "HEAD", "/a/several.txt", &[]);
    for name in ["etag", "content-length", "content-encoding", "content-type", "vary", "accept-ranges"] {
        assert_eq!((head.header(name), told.header(name)), (get.header(name), get.header(name)), "{name}");
    }
    assert_eq!((head.body.len(), told.body.len()), (0, 0));
}

#[test]
fn a_range_of_the_stored_form_is_of_the_stored_bytes() {
    let server = Server::of(&site());
    let ask = |range: &str, tag: &str| zstd(&server, "GET", "/a/one.txt", &[("Range", range), ("If-Range", tag)]);
    let tag_before = zstd(&server, "HEAD", "/a/one.txt", &[]).header("etag").to_owned();
    let cold = ask("bytes=10-99", &tag_before);
    let whole = zstd(&server, "GET", "/a/one.txt", &[]);
    for part in [cold, ask("bytes=10-99", whole.header("etag"))] {
        assert_eq!((part.status, part.header("content-encoding")), (206, "zstd"));
        assert_eq!(part.header("content-range"), format!("bytes 10-99/{}", whole.body.len()));
        assert_eq!(part.body, whole.body[10..100]);
    }
    let rest = ask("bytes=-20", whole.header("etag"));
    assert_eq!(rest.body, whole.body[whole.body.len() - 20..]);
    let beyond = zstd(&server, "GET", "/a/one.txt", &[("Range", "bytes=65000-")]);
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, format!("bytes */{}", whole.body.len()).as_str())
    );
    // A part of the plain bytes is not continued with stored ones.
    let other = ask("bytes=10-99", &tag(&words("one", ONE)));
    assert_eq!((other.status, &other.body), (200, &whole.body));
}

#[test]
fn a_client_has_one_representation_or_the_other() {
    let server = Server::of(&site());
    let stored = zstd(&server, "GET", "/a/one.txt", &[]).header("etag").to_owned();
    let plain = tag(&words("one", ONE));
    let ask = |tag: &str| zstd(&server, "GET", "/a/one.txt", &[("If-None-Match", tag)]);
    assert_eq!((ask(&stored).status, ask(&stored).header("etag")), (304, stored.as_str()));
    assert_eq!(ask(&stored).header("vary"), "accept-encoding");
    assert_eq!(ask(&plain).status, 200);
    assert_eq!(server.ask("GET", "/a/one.txt", &[("If-None-Match", &stored)]).status, 200);
    assert_eq!(zstd(&server, "GET", "/a/one.txt", &[("If-Match", &stored)]).status, 200);
    zstd(&server, "GET", "/a/one.txt", &[("If-Match", &plain)]).refused(412, "another content");
}

#[test]
fn what_is_stored_otherwise_is_sent_as_it_is() {
    let server = Server::of(&site());
    // Twice: found out, then remembered.
    for _ in 0..2 {
        for (path, content) in [("/a/noise.bin", noise(100_000)), ("/a/a.css", b"a { color: teal }".to_vec())] {
            let answer = zstd(&server, "GET", path, &[]);
            assert_eq!((answer.status, answer.header("content-encoding")), (200, ""), "{path}");
            assert_eq!((answer.header("etag"), answer.header("vary")), (tag(&content).as_str(), "accept-encoding"));
            assert_eq!(answer.body, content);
        }
    }
    zstd(&server, "GET", "/a/nope.txt", &[]).refused(404, "nope.txt");
    zstd(&server, "GET", "/a/%2e%2e/x", &[]).refused(400, "is not an asset path");
}

#[test]
fn a_stored_form_is_charged_what_it_weighs_and_makes_room_for_others() {
    let tree = Tree::new();
    let name = |index: usize| format!("text{index:02}.txt");
    for index in 0..30 {
        tree.write(&name(index), &words(&name(index), 1 << 20));
    }
    let budget = 8 << 20;
    let server = Server::start(Runtime::builder().bundle(tree.packed()).budget_bytes(budget));
    for index in (0..30).chain(0..10) {
        let answer = zstd(&server, "GET", &format!("/a/{}", name(index)), &[]);
        assert_eq!(answer.header("content-encoding"), "zstd");
        assert!(decoded(&answer) == words(&name(index), 1 << 20), "{index}");
    }
    let stats = server.runtime.stats();
    assert!(stats.budget.peak <= budget && stats.metrics.evictions > 0, "{:?}", stats.budget);
    assert!(stats.resident > 4, "as many as fit stay: {}", stats.resident);
}

#[test]
fn a_stored_form_too_large_to_be_resident_is_streamed_as_plain_bytes() {
    let tree = Tree::new();
    let content = words("large", 20 << 20);
    tree.write("large.txt", &content);
    let server = Server::start(Runtime::builder().bundle(tree.packed()).budget_bytes(8 << 20));
    let answer = zstd(&server, "GET", "/a/large.txt", &[]);
    assert_eq!((answer.status, answer.header("content-encoding")), (200, ""));
    assert!(answer.header("etag") == tag(&content) && answer.body == content);
}

#[test]
fn a_reload_ends_the_stored_form_with_the_asset() {
    let tree = site();
    let server = Server::start(tree.builder().budget_bytes(16 << 20).watch(true));
    let mut events = server.runtime.events();
    let before = server.runtime.snapshot();
    let old = zstd(&server, "GET", "/a/one.txt", &[]);
    assert!(server.runtime.snapshot().get_stored("one.txt").is_some());
    tree.replace("one.txt", &words("two", ONE));
    server.published(&mut events);
    assert!(server.runtime.snapshot().get_stored("one.txt").is_none(), "it is of the old content");
    let new = zstd(&server, "GET", "/a/one.txt", &[("If-None-Match", old.header("etag"))]);
    assert_eq!((new.status, new.header("x-flyloft-generation"), decoded(&new) == words("two", ONE)), (200, "2", true));
    // Who holds the old generation still loads from it, and that does not come into the new one.
    let held = server.executor.block_on(before.load_stored("one.txt")).unwrap();
    assert_eq!(&held[..], old.body);
    assert_eq!(server.runtime.snapshot().get_stored("one.txt").as_deref(), Some(new.body.as_slice()));
    tree.remove("one.txt");
    server.published(&mut events);
    assert!(server.runtime.snapshot().get_stored("one.txt").is_none());
    zstd(&server, "GET", "/a/one.txt", &[]).refused(404, "one.txt");
    assert_eq!(&held[..], old.body);
}

#[test]
fn a_stored_form_and_its_asset_are_loaded_side_by_side() {
    let tree = site();
    let runtime = Server::start(tree.builder().budget_bytes(16 << 20).integrity(flyloft::config::Integrity::Content));
    let snapshot = runtime.runtime.snapshot();
    runtime.executor.block_on(common::within(async {
        let (stored, plain) = tokio::join!(snapshot.load_stored("several.txt"), snapshot.load("several.txt"));
        let (stored, plain) = (stored.unwrap(), plain.unwrap());
        assert_eq!(zstd::stream::decode_all(&stored[..]).unwrap(), &plain[..]);
        assert_eq!((stored.path(), stored.id()), (plain.path(), plain.id().stored()));
        let told = snapshot.stored("several.txt").await.unwrap();
        assert_eq!(told, Some((stored.hash(), stored.len() as u64)));
        assert_eq!(snapshot.stored("noise.bin").await.unwrap(), None);
        assert_eq!(snapshot.stored("nope").await.unwrap(), None);
        let refused = snapshot.load_stored("noise.bin").await.unwrap_err();
        assert!(matches!(&refused, Error::NotFound { what, .. } if what.contains("noise.bin as one zstd stream")));
    }));
}

#[test]
fn a_damaged_stored_frame_is_an_error_and_never_bytes() {
    let tree = site();
    let bundle = tree.packed();
    let stored = {
        let server = Server::start(Runtime::builder().bundle(&bundle).budget_bytes(16 << 20));
        zstd(&server, "GET", "/a/one.txt", &[]).body
    };
    let mut bytes = std::fs::read(&bundle).unwrap();
    let place = bytes.windows(64).position(|window| window == &stored[..64]).expect("it is sent as it is stored");
    bytes[place + 40] ^= 1;
    std::fs::write(&bundle, &bytes).unwrap();
    let server = Server::start(Runtime::builder().bundle(&bundle).budget_bytes(16 << 20));
    zstd(&server, "GET", "/a/one.txt", &[]).refused(500, "corrupt");
    server.get("/a/one.txt").refused(500, "corrupt");
    assert_eq!(decoded(&zstd(&server, "GET", "/a/several.txt", &[])), words("several", SEVERAL));
}

#[test]
fn what_goes_over_the_wire_is_counted_by_encoding_and_status() {
    let server = Server::of(&site());
    let stored = zstd(&server, "GET", "/a/one.txt", &[]);
    let plain = server.get("/a/one.txt");
    server.get("/a/nope");
    let text = server.get("/metrics").text().to_owned();
    for line in [
        format!("flyloft_http_asset_bytes_total{{encoding=\"zstd\"}} {}", stored.body.len()),
        format!("flyloft_http_asset_bytes_total{{encoding=\"identity\"}} {}", plain.body.len()),
        "flyloft_http_responses_total{status=\"2xx\"} 2".into(),
        "flyloft_http_responses_total{status=\"4xx\"} 1".into(),
    ] {
        assert!(text.contains(&format!("{line}\n")), "'{line}' is not in:\n{text}");
    }
    assert!(text.contains("flyloft_http_connections "));
}
