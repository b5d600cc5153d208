//! Assets sent as gzip and brotli, where the transform `compress` made these.

mod common;

use std::io::Read;

use common::Tree;
use common::http::{Answer, Server, tag};
use flyloft::Runtime;

const STYLE: &str = "a { color: teal; margin: 0 auto; }\n";

fn style(seed: usize) -> Vec<u8> {
    let rule = |index: usize| format!(".rule-{index} {{ order: {} }}\n{STYLE}", index * seed % 97);
    (0..3000).map(rule).collect::<String>().into_bytes()
}

fn site() -> Tree {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.css'\nname = 'compress'\n");
    tree.write("style.css", &style(1));
    tree.write("plain.txt", &style(2));
    tree
}

fn ask(server: &Server, method: &str, path: &str, accepted: &str, more: &[(&str, &str)]) -> Answer {
    server.ask(method, path, &[&[("Accept-Encoding", accepted)], more].concat())
}

fn decoded(answer: &Answer) -> Vec<u8> {
    let mut into = Vec::new();
    match answer.header("content-encoding") {
        "" => into.extend_from_slice(&answer.body),
        "br" => brotli::BrotliDecompress(&mut answer.body.as_slice(), &mut into).unwrap(),
        "gzip" => drop(flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_end(&mut into).unwrap()),
        "zstd" => into = zstd::stream::decode_all(answer.body.as_slice()).unwrap(),
        other => panic!("{other}"),
    }
    into
}

#[test]
fn a_client_gets_the_coding_that_it_wants_most_under_a_tag_of_its_own() {
    let server = Server::of(&site());
    let content = style(1);
    let mut tags = vec![tag(&content)];
    for (accepted, coding) in [
        ("br", "br"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, zstd;q=0.9", "gzip"),
        ("br;q=0.1, zstd;q=0.9, gzip;q=0.2", "zstd"),
        ("br;q=0, x-gzip", "gzip"),
        ("gzip;q=0.4, identity", ""),
        ("deflate", ""),
        ("*", ""),
        ("", ""),
    ] {
        // Cold, then from memory: the same answer.
        for _ in 0..2 {
            let answer = ask(&server, "GET", "/a/style.css", accepted, &[]);
            assert_eq!((answer.status, answer.header("content-encoding")), (200, coding), "{accepted}");
            assert!(decoded(&answer) == content, "{accepted}");
            assert_eq!(answer.header("content-type"), "text/css; charset=utf-8");
            assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            assert_eq!(answer.header("vary"), "accept-encoding");
            assert!(coding.is_empty() || answer.body.len() < content.len() / 3);
            tags.push(answer.header("etag").to_owned());
        }
    }
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), 4, "one for each representation: {tags:?}");
}

#[test]
fn a_bundle_has_the_codings_that_were_packed() {
    let server = Server::start(Runtime::builder().bundle(site().packed()).budget_bytes(16 << 20));
    let answer = ask(&server, "GET", "/a/style.css", "gzip", &[]);
    assert_eq!((answer.header("content-encoding"), decoded(&answer) == style(1)), ("gzip", true));
    // They are assets of their own as well, sent as what they are.
    let own = server.get("/a/style.css%23gzip");
    assert_eq!((own.header("content-encoding"), own.header("content-type")), ("", "application/octet-stream"));
    assert_eq!(own.body, answer.body);
}

#[test]
fn a_head_tells_what_a_get_would_and_loads_nothing() {
    let server = Server::of(&site());
    let head = ask(&server, "HEAD", "/a/style.css", "br", &[]);
    assert_eq!((server.resident(), head.body.len()), (0, 0));
    let get = ask(&server, "GET", "/a/style.css", "br", &[]);
    for name in ["etag", "content-length", "content-encoding", "content-type", "vary", "accept-ranges"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[test]
fn a_range_is_of_the_representation_that_is_sent() {
    let server = Server::of(&site());
    let whole = ask(&server, "GET", "/a/style.css", "gzip", &[]);
    let part =
        |range: &str, tag: &str| ask(&server, "GET", "/a/style.css", "gzip", &[("Range", range), ("If-Range", tag)]);
    let some = part("bytes=10-99", whole.header("etag"));
    assert_eq!((some.status, some.header("content-encoding")), (206, "gzip"));
    assert_eq!(some.header("content-range"), format!("bytes 10-99/{}", whole.body.len()));
    assert_eq!(some.body, whole.body[10..100]);
    // Part of the plain bytes is not continued with coded ones.
    let other = part("bytes=10-99", &tag(&style(1)));
    assert_eq!((other.status, &other.body), (200, &whole.body));
    let past = style(1).len() - 10;
    let beyond = ask(&server, "GET", "/a/style.css", "gzip", &[("Range", &format!("bytes={past}-"))]);
    assert_eq!((beyond.status, beyond.header("content-encoding")), (416, ""));
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", whole.body.len()));
    let plain = ask(&server, "GET", "/a/style.css", "identity", &[("Range", &format!("bytes={past}-"))]);
    assert_eq!((plain.status, plain.body), (206, style(1)[past..].to_vec()));
}

#[test]
fn what_a_client_has_is_compared_with_what_it_would_get() {
    let server = Server::of(&site());
    let tag_of = |accepted: &str| ask(&server, "HEAD", "/a/style.css", accepted, &[]).header("etag").to_owned();
    let (br, gzip) = (tag_of("br"), tag_of("gzip"));
    let status =
        |accepted: &str, name: &str, tag: &str| ask(&server, "GET", "/a/style.css", accepted, &[(name, tag)]).status;
    assert_eq!(status("br", "If-None-Match", &br), 304);
    assert_eq!(status("gzip", "If-None-Match", &br), 200);
    assert_eq!(status("", "If-None-Match", &br), 200);
    assert_eq!(status("gzip", "If-None-Match", &format!("{br}, {gzip}")), 304);
    assert_eq!((status("br", "If-Match", &br), status("gzip", "If-Match", &br)), (200, 412));
}

#[test]
fn only_what_the_transform_made_of_the_very_bytes_is_sent_as_a_coding() {
    let tree = Tree::new();
    let rules = "[[transform]]\nglob = '*.css'\nsteps = [{ name = 'compress' }, { name = 'minify-text' }]\n";
    tree.write("flyloft.toml", rules.as_bytes());
    // Compressed before it was changed once more.
    tree.write("early.css", &[&style(1), &b"\n\n\n"[..]].concat());
    // A file that has the name of a coding.
    tree.write("plain.txt", &style(2));
    tree.write("plain.txt#gzip", b"no gzip at all");
    let server = Server::of(&tree);
    assert_eq!(server.get("/a/early.css%23gzip").status, 200, "it is there");
    for (path, content) in [("/a/early.css", style(1)), ("/a/plain.txt", style(2))] {
        for _ in 0..2 {
            let answer = ask(&server, "GET", path, "gzip, br", &[]);
            assert_eq!((answer.status, answer.header("content-encoding")), (200, ""), "{path}");
            assert!(answer.body == content, "{path}");
        }
    }
    ask(&server, "GET", "/a/none.css", "gzip, br", &[]).refused(404, "none.css");
}

#[test]
fn a_reload_changes_every_representation_at_once() {
    let tree = site();
    let server = Server::start(tree.builder().budget_bytes(16 << 20).watch(true));
    let mut events = server.runtime.events();
    let old = ask(&server, "GET", "/a/style.css", "br", &[]);
    tree.replace("style.css", &style(3));
    server.published(&mut events);
    for accepted in ["br", "gzip", ""] {
        let new = ask(&server, "GET", "/a/style.css", accepted, &[("If-None-Match", old.header("etag"))]);
        assert_eq!((new.status, new.header("x-flyloft-generation")), (200, "2"));
        assert!(decoded(&new) == style(3), "{accepted}");
    }
    // Too small to be worth it: the codings are gone with the content.
    tree.replace("style.css", b"a{}");
    server.published(&mut events);
    let small = ask(&server, "GET", "/a/style.css", "br, gzip", &[]);
    assert_eq!((small.header("content-encoding"), small.text()), ("", "a{}"));
    server.get("/a/style.css%23br").refused(404, "style.css#br");
}

#[test]
fn what_goes_over_the_wire_is_counted_by_coding() {
    let server = Server::of(&site());
    let br = ask(&server, "GET", "/a/style.css", "br", &[]);
    let gzip = ask(&server, "GET", "/a/style.css", "gzip", &[]);
    let text = server.get("/metrics").text().to_owned();
    for (coding, answer) in [("br", br), ("gzip", gzip)] {
        let line = format!("flyloft_http_asset_bytes_total{{encoding=\"{coding}\"}} {}\n", answer.body.len());
        assert!(text.contains(&line), "'{line}' is not in:\n{text}");
    }
}
