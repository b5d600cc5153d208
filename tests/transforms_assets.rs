//! The transforms of images, glTF and shaders, through a served tree: built, split, rebuilt by what they read, healed.

mod common;

use std::collections::BTreeSet;
use std::io::Cursor;

use common::http::Server;
use common::{Tree, within};
use flyloft::event::{BuildFailure, Published};
use flyloft::telemetry::Subscription;
use flyloft::{AssetId, AssetKind, AssetPath, Event, Runtime};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use serde_json::{Value, json};

async fn serve(tree: &Tree) -> (Runtime, Subscription) {
    let runtime = within(tree.builder().watch(true).start()).await.unwrap();
    let events = runtime.events();
    (runtime, events)
}

async fn bytes(runtime: &Runtime, path: &str) -> Vec<u8> {
    let asset = within(runtime.load(path)).await;
    asset.unwrap_or_else(|error| panic!("{path}: {error}; what fails: {:?}", runtime.status().failures)).to_vec()
}

/// Waits for the next publication.
async fn published(events: &mut Subscription) -> Published {
    within(async {
        loop {
            match events.recv().await.expect("the runtime lives") {
                Event::Published(published) => return published,
                Event::BuildFailed(failure) => panic!("{failure:?}"),
                _ => {}
            }
        }
    })
    .await
}

/// Waits for the next failure of a transform. That a file which goes cannot be read is none.
async fn failed(events: &mut Subscription, transform: &str) -> BuildFailure {
    within(async {
        loop {
            match events.recv().await.expect("the runtime lives") {
                Event::BuildFailed(failure) if failure.transform == transform => return failure,
                _ => {}
            }
        }
    })
    .await
}

fn paths(published: &Published) -> Vec<&str> {
    published.changed.iter().map(|change| change.path.as_str()).collect()
}

fn picture(width: u32, height: u32, blue: u8) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| Rgba([(x * 5) as u8, (y * 9) as u8, blue, 255]))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_is_made_small_in_another_format_with_its_levels_below_it() {
    let tree = Tree::new();
    tree.write(
        "flyloft.toml",
        b"[[transform]]\nglob = 'textures/*.bmp'\nname = 'image'\n\
          parameters = { max_width = 8, format = 'webp', mips = true }\n",
    );
    tree.write("textures/wall.bmp", &encoded(picture(32, 16, 1), ImageFormat::Bmp));
    tree.write("other.bmp", &encoded(picture(32, 16, 1), ImageFormat::Bmp));
    let (runtime, mut events) = serve(&tree).await;
    let size = |bytes: &[u8]| {
        assert_eq!(image::guess_format(bytes).unwrap(), ImageFormat::WebP);
        let image = image::load_from_memory(bytes).unwrap();
        (image.width(), image.height())
    };
    for (path, expected) in [("", (8, 4)), ("#mip/1", (4, 2)), ("#mip/2", (2, 1)), ("#mip/3", (1, 1))] {
        let path = format!("textures/wall.bmp{path}");
        assert_eq!(size(&bytes(&runtime, &path).await), expected, "{path}");
    }
    assert!(within(runtime.load("textures/wall.bmp#mip/4")).await.is_err());
    assert_eq!(bytes(&runtime, "other.bmp").await, encoded(picture(32, 16, 1), ImageFormat::Bmp));

    // Half as large: a level fewer.
    tree.replace("textures/wall.bmp", &encoded(picture(4, 2, 1), ImageFormat::Bmp));
    let change = published(&mut events).await;
    assert_eq!(paths(&change).last(), Some(&"textures/wall.bmp#mip/3"));
    assert_eq!(change.changed.last().unwrap().new, None);
    assert_eq!(size(&bytes(&runtime, "textures/wall.bmp").await), (4, 2));

    tree.replace("textures/wall.bmp", b"BM, and then nothing");
    assert_eq!(failed(&mut events, "image").await.path, "textures/wall.bmp");
    assert_eq!(size(&bytes(&runtime, "textures/wall.bmp#mip/1").await), (2, 1), "the last good version stays");
    tree.replace("textures/wall.bmp", &encoded(picture(4, 2, 9), ImageFormat::Bmp));
    published(&mut events).await;
    assert!(runtime.status().failures.is_empty());
}

const MAIN: &[u8] = b"#include \"lib/light.wgsl\"\n@fragment\nfn main() -> @location(0) vec4f { return light(); }\n";
const LIGHT: &[u8] = b"fn light() -> vec4f { return vec4f(1.0); }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shader_is_built_anew_by_what_it_includes_and_told_where_it_is_wrong() {
    let tree = Tree::new();
    tree.write(
        "flyloft.toml",
        b"[[transform]]\nglob = 'shaders/*.wgsl'\nname = 'shader'\n\
          [[transform]]\nglob = 'shaders/*.spirv.wgsl'\nname = 'shader'\nparameters = { output = 'spirv' }\n",
    );
    tree.write("shaders/sky.wgsl", MAIN);
    tree.write("shaders/sky.spirv.wgsl", MAIN);
    tree.write("shaders/lib/light.wgsl", LIGHT);
    let (runtime, mut events) = serve(&tree).await;
    let whole = String::from_utf8(bytes(&runtime, "shaders/sky.wgsl").await).unwrap();
    assert!(whole.starts_with("fn light()") && whole.contains("fn main()"), "{whole}");
    assert_eq!(bytes(&runtime, "shaders/sky.spirv.wgsl").await[..4], 0x0723_0203u32.to_le_bytes());
    assert_eq!(bytes(&runtime, "shaders/lib/light.wgsl").await, LIGHT);

    // What is included changes: so do all that include it, in the same generation.
    tree.replace("shaders/lib/light.wgsl", &[LIGHT, b"// brighter\n"].concat());
    let change = published(&mut events).await;
    let expected = ["shaders/lib/light.wgsl", "shaders/sky.wgsl"];
    assert_eq!(paths(&change), expected, "a comment makes no other SPIR-V");
    let whole = String::from_utf8(bytes(&runtime, "shaders/sky.wgsl").await).unwrap();
    assert!(whole.contains("// brighter"));

    // It breaks: both are told, with the line that includes it and the place in it.
    tree.replace("shaders/lib/light.wgsl", b"fn light() -> vec4f {\n  return bright;\n}\n");
    let failures = [failed(&mut events, "shader").await, failed(&mut events, "shader").await];
    let named: BTreeSet<&str> = failures.iter().map(|failure| &*failure.path).collect();
    assert_eq!(named, BTreeSet::from(["shaders/sky.spirv.wgsl", "shaders/sky.wgsl"]));
    for failure in &failures {
        assert_eq!(failure.line, Some(1));
        assert!(failure.cause.starts_with("shaders/lib/light.wgsl:2:10: "), "{}", failure.cause);
    }
    assert_eq!(bytes(&runtime, "shaders/sky.wgsl").await, whole.as_bytes(), "the last good version stays");

    // It is gone, and comes back.
    tree.remove("shaders/lib/light.wgsl");
    let failure = failed(&mut events, "shader").await;
    assert!(failure.cause.contains("there is no file \"lib/light.wgsl\""), "{}", failure.cause);
    tree.replace("shaders/lib/light.wgsl", LIGHT);
    within(async {
        while !runtime.status().failures.is_empty() {
            drop(events.recv().await);
        }
    })
    .await;
    let healed = String::from_utf8(bytes(&runtime, "shaders/sky.wgsl").await).unwrap();
    assert!(healed.starts_with("fn light() -> vec4f { return vec4f(1.0); }"), "{healed}");
}

fn scene(material: &str) -> Value {
    json!({
        "asset": {"version": "2.0"},
        "buffers": [{"uri": "scene.bin", "byteLength": 36}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{
            "bufferView": 0, "count": 3, "type": "VEC3", "componentType": 5126, "min": [0, 0, 0], "max": [9, 9, 9]
        }],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "material": 0}]}],
        "materials": [{"name": material, "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [{"source": 0}],
        "images": [{"uri": "wall.png"}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}]
    })
}

fn vertices(first: f32) -> Vec<u8> {
    [first, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0].into_iter().flat_map(f32::to_le_bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scene_is_split_and_each_part_reloads_by_itself() {
    let tree = Tree::new();
    tree.write("flyloft.toml", b"[[transform]]\nglob = '*.gltf'\nname = 'gltf'\n");
    tree.write("scene.gltf", scene("brick").to_string().as_bytes());
    tree.write("scene.bin", &vertices(0.0));
    tree.write("wall.png", &encoded(picture(2, 2, 0), ImageFormat::Png));
    let (runtime, mut events) = serve(&tree).await;
    let mesh = bytes(&runtime, "scene.gltf#mesh/0").await;
    assert!(mesh.starts_with(b"LOFTARR1"));
    assert!(mesh.windows(36).any(|window| window == vertices(0.0)));
    let material: Value = serde_json::from_slice(&bytes(&runtime, "scene.gltf#material/0").await).unwrap();
    assert_eq!(material, scene("brick")["materials"][0]);
    let texture: Value = serde_json::from_slice(&bytes(&runtime, "scene.gltf#texture/0").await).unwrap();
    assert_eq!(texture["source"], "wall.png");
    assert_eq!(bytes(&runtime, "scene.gltf").await, scene("brick").to_string().into_bytes());
    let snapshot = runtime.snapshot();
    let record = snapshot.bundle().find(&AssetPath::new("scene.gltf#mesh/0").unwrap()).unwrap().unwrap();
    assert_eq!(record.kind, AssetKind::Mesh);
    let uses = snapshot.bundle().dependency_ids(record.id).unwrap();
    assert_eq!(uses, [AssetId::of_path("scene.gltf#material/0")]);

    // An edit of the vertices is one of the mesh, and of nothing else that was made.
    tree.replace("scene.bin", &vertices(0.5));
    assert_eq!(paths(&published(&mut events).await), ["scene.bin", "scene.gltf#mesh/0"]);
    tree.replace("scene.gltf", scene("stone").to_string().as_bytes());
    assert_eq!(paths(&published(&mut events).await), ["scene.gltf", "scene.gltf#material/0"]);

    // What is wrong is named by its path and line; what is good again heals.
    let mut broken = scene("stone");
    broken["meshes"][0]["primitives"][0]["material"] = json!(3);
    tree.replace("scene.gltf", serde_json::to_string_pretty(&broken).unwrap().as_bytes());
    let failure = failed(&mut events, "gltf").await;
    assert_eq!(failure.path, "scene.gltf");
    assert!(failure.cause.starts_with("meshes[0].primitives[0].material: it points at"), "{}", failure.cause);
    assert!(failure.line.is_some_and(|line| line > 10) && failure.column == Some(23), "{failure:?}");
    assert_eq!(bytes(&runtime, "scene.gltf#mesh/0").await.len(), mesh.len());
    tree.replace("scene.gltf", scene("stone").to_string().as_bytes());
    within(async {
        while !runtime.status().failures.is_empty() {
            drop(events.recv().await);
        }
    })
    .await;
    // A picture that it names has to be there: its bytes are its own business.
    tree.replace("wall.png", &encoded(picture(2, 2, 7), ImageFormat::Png));
    assert_eq!(paths(&published(&mut events).await), ["wall.png"]);
    tree.remove("wall.png");
    let failure = failed(&mut events, "gltf").await;
    assert!(failure.cause.starts_with("images[0].uri: there is no wall.png"), "{}", failure.cause);
}

#[test]
fn http_says_what_a_picture_became_and_what_a_part_is() {
    let tree = Tree::new();
    tree.write(
        "flyloft.toml",
        b"[[transform]]\nglob = '*.png'\nname = 'image'\nparameters = { format = 'webp', mips = true }\n\
          [[transform]]\nglob = '*.gltf'\nname = 'gltf'\n\
          [[transform]]\nglob = '*.wgsl'\nname = 'shader'\nparameters = { output = 'spirv' }\n",
    );
    tree.write("wall.png", &encoded(picture(40, 40, 0), ImageFormat::Png));
    tree.write("scene.gltf", scene("brick").to_string().as_bytes());
    tree.write("scene.bin", &vertices(0.0));
    tree.write("sky.wgsl", LIGHT);
    tree.write("plain.txt", b"text");
    let server = Server::of(&tree);
    let expected = [
        ("/a/wall.png", "image/webp"),
        ("/a/wall.png%23mip/1", "image/webp"),
        ("/a/scene.gltf", "model/gltf+json"),
        ("/a/scene.gltf%23mesh/0", "application/octet-stream"),
        ("/a/scene.gltf%23material/0", "application/json"),
        ("/a/sky.wgsl", "application/octet-stream"),
        ("/a/plain.txt", "text/plain; charset=utf-8"),
    ];
    for (path, kind) in expected {
        // First from the bundle, then from memory; and of a representation that has other bytes too.
        for round in 0..2 {
            for (method, headers) in [
                ("HEAD", &[][..]),
                ("GET", &[("Range", "bytes=3-5")]),
                ("GET", &[("Accept-Encoding", "zstd")]),
                ("GET", &[]),
            ] {
                let answer = server.ask(method, path, headers);
                assert!(matches!(answer.status, 200 | 206), "{method} {path}: {}", answer.status);
                assert_eq!(answer.header("content-type"), kind, "{method} {path} {headers:?}, round {round}");
            }
        }
    }
}
