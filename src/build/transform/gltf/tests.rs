//! Documents made here, with all that they consist of, and each fault that one may have.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Entry, Labelled};
use super::*;
use crate::ids::{AssetKind, AssetPath};

#[derive(Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Context for Files {
    fn read(&mut self, path: &AssetPath) -> Option<Vec<u8>> {
        self.0.get(path.as_str()).cloned()
    }
    fn exists(&mut self, path: &AssetPath) -> bool {
        self.0.contains_key(path.as_str())
    }
    fn list(&mut self, _folder: &str) -> Vec<Entry> {
        Vec::new()
    }
}

fn files() -> Files {
    let mut files = Files::default();
    files.0.insert("models/mesh data.bin".into(), data());
    files.0.insert("textures/wall.png".into(), b"a wall".to_vec());
    files
}

/// Three vertices, each followed by two bytes of colour and two of nothing; three indices; a matrix; two key frames.
fn data() -> Vec<u8> {
    let mut data = Vec::new();
    for vertex in 0..3u8 {
        for axis in 0..3 {
            data.extend_from_slice(&f32::from(vertex * 3 + axis).to_le_bytes());
        }
        data.extend_from_slice(&[vertex, 255 - vertex, 0, 0]);
    }
    assert_eq!(data.len(), 48);
    data.extend_from_slice(&[0, 0, 1, 0, 2, 0, 0, 0]);
    for number in 0..16u8 {
        data.extend_from_slice(&f32::from(number).to_le_bytes());
    }
    for number in [0.0f32, 1.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0] {
        data.extend_from_slice(&number.to_le_bytes());
    }
    data.extend_from_slice(b"\x89PNG");
    data
}

fn document() -> Value {
    json!({
        "asset": {"version": "2.0", "generator": "a test"},
        "extensionsUsed": ["KHR_materials_unlit", "KHR_lights_punctual"],
        "extensionsRequired": ["KHR_materials_unlit"],
        "extensions": {"KHR_lights_punctual": {"lights": [{"type": "point"}]}},
        "buffers": [{"uri": "mesh%20data.bin", "byteLength": data().len()}],
        "bufferViews": [
            {"buffer": 0, "byteLength": 48, "byteStride": 16},
            {"buffer": 0, "byteOffset": 48, "byteLength": 6},
            {"buffer": 0, "byteOffset": 56, "byteLength": 64},
            {"buffer": 0, "byteOffset": 120, "byteLength": 32},
            {"buffer": 0, "byteOffset": 152, "byteLength": 4}
        ],
        "accessors": [
            {"bufferView": 0, "count": 3, "type": "VEC3", "componentType": 5126, "min": [0, 1, 2], "max": [6, 7, 8]},
            {"bufferView": 0, "byteOffset": 12, "count": 3, "type": "VEC2", "componentType": 5121, "normalized": true},
            {"bufferView": 1, "count": 3, "type": "SCALAR", "componentType": 5123},
            {"bufferView": 2, "count": 1, "type": "MAT4", "componentType": 5126},
            {"bufferView": 3, "count": 2, "type": "SCALAR", "componentType": 5126, "min": [0], "max": [1.5]},
            {"bufferView": 3, "byteOffset": 8, "count": 2, "type": "VEC3", "componentType": 5126},
            {"count": 3, "type": "SCALAR", "componentType": 5121, "sparse": {
                "count": 2,
                "indices": {"bufferView": 1, "byteOffset": 2, "componentType": 5123},
                "values": {"bufferView": 4, "byteOffset": 1}
            }}
        ],
        "meshes": [
            {"name": "wall", "primitives": [
                {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0},
                {"attributes": {"POSITION": 0}, "mode": 0, "targets": [{"NORMAL": 0}]}
            ]},
            {"primitives": [{"attributes": {"POSITION": 0, "_SPARSE": 6}}], "weights": [0.5]}
        ],
        "materials": [
            {"name": "brick", "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}},
             "extensions": {"KHR_materials_specular": {"specularTexture": {"index": 1}}}},
            {"extensions": {"KHR_materials_unlit": {}}}
        ],
        "samplers": [{"magFilter": 9728}],
        "textures": [{"source": 0, "sampler": 0}, {"source": 1}, {"source": 2}],
        "images": [
            {"uri": "../textures/wall.png"},
            {"bufferView": 4, "mimeType": "image/png"},
            {"uri": "https://example.org/sky.png"}
        ],
        "animations": [{"name": "sway",
            "samplers": [{"input": 4, "output": 5}],
            "channels": [{"sampler": 0, "target": {"node": 1, "path": "translation"}}]
        }],
        "skins": [{"joints": [1], "inverseBindMatrices": 3}],
        "cameras": [{"type": "perspective", "perspective": {"yfov": 0.7, "znear": 0.1}}],
        "nodes": [
            {"children": [1, 2], "mesh": 0},
            {"mesh": 0, "skin": 0, "translation": [1, 2, 3]},
            {"camera": 0, "extensions": {"KHR_lights_punctual": {"light": 0}}},
            {"mesh": 1}
        ],
        "scenes": [{"name": "all", "nodes": [0]}, {"nodes": [3]}],
        "scene": 0
    })
}

fn run(bytes: &[u8], files: &mut Files) -> Result<Output> {
    let path = AssetPath::new("models/a.gltf").unwrap();
    Gltf.run(Input { path: &path, bytes }, &NoParameters {}, files)
}

fn split(document: &Value) -> Vec<Labelled> {
    let text = document.to_string();
    let output = run(text.as_bytes(), &mut files()).unwrap();
    assert_eq!(output.bytes, text.as_bytes(), "the file itself stays");
    output.labelled
}

fn part<'a>(parts: &'a [Labelled], label: &str) -> &'a Labelled {
    parts.iter().find(|part| part.label == label).unwrap_or_else(|| panic!("no {label}"))
}

fn json_of(parts: &[Labelled], label: &str) -> Value {
    serde_json::from_slice(&part(parts, label).bytes).unwrap()
}

/// Head and data of a file of arrays, read by its description in docs/transforms.md.
fn arrays(bytes: &[u8]) -> (Value, &[u8]) {
    assert_eq!(bytes[..8], *b"LOFTARR1");
    let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    assert_eq!(len % 16, 0);
    (serde_json::from_slice(&bytes[16..16 + len]).unwrap(), &bytes[16 + len..])
}

fn array<'a>(data: &'a [u8], description: &Value, element: usize) -> &'a [u8] {
    let start = description["offset"].as_u64().unwrap() as usize;
    &data[start..start + description["count"].as_u64().unwrap() as usize * element]
}

#[test]
fn a_document_is_split_into_what_it_consists_of() {
    let parts = split(&document());
    let shown: Vec<String> = parts
        .iter()
        .map(|part| {
            let uses: Vec<&str> =
                part.dependencies.iter().map(|path| path.as_str().trim_start_matches("models/a.gltf")).collect();
            format!("{} {} [{}]", part.label, part.kind.unwrap(), uses.join(" "))
        })
        .collect();
    let expected = [
        "mesh/0 mesh [#material/0]",
        "mesh/1 mesh []",
        "material/0 scene [#texture/0 #texture/1]",
        "material/1 scene []",
        "image/1 texture []",
        "texture/0 scene [textures/wall.png]",
        "texture/1 scene [#image/1]",
        "texture/2 scene []",
        "animation/0 other []",
        "skin/0 mesh []",
        "camera/0 scene []",
        "light/0 scene []",
        "scene/0 scene [#camera/0 #light/0 #mesh/0 #skin/0]",
        "scene/1 scene [#mesh/1]",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_mesh_holds_its_arrays_packed() {
    let parts = split(&document());
    let (head, data) = arrays(&part(&parts, "mesh/0").bytes);
    assert_eq!(head["name"], "wall");
    let primitive = &head["primitives"][0];
    assert_eq!((&primitive["material"], &primitive["mode"]), (&json!(0), &json!(4)));
    let position = &primitive["attributes"]["POSITION"];
    let expected =
        json!({"offset": 0, "count": 3, "type": "VEC3", "component": "f32", "min": [0, 1, 2], "max": [6, 7, 8]});
    assert_eq!(*position, expected);
    let numbers: Vec<u8> = (0..9u8).flat_map(|number| f32::from(number).to_le_bytes()).collect();
    assert_eq!(array(data, position, 12), numbers);
    let colours = &primitive["attributes"]["TEXCOORD_0"];
    assert_eq!((&colours["normalized"], &colours["offset"]), (&json!(true), &json!(48)));
    assert_eq!(array(data, colours, 2), [0, 255, 1, 254, 2, 253]);
    assert_eq!(array(data, &primitive["indices"], 2), [0, 0, 1, 0, 2, 0]);
    let second = &head["primitives"][1];
    assert_eq!(second["attributes"]["POSITION"]["offset"], 0, "an array is put in once");
    assert_eq!((&second["indices"], &second["targets"][0]["NORMAL"]["offset"]), (&Value::Null, &json!(0)));
    assert_eq!(data.len(), 48 + 16 + 16);
    // Without a view the array is zeros but for what is said sparsely.
    let (head, data) = arrays(&part(&parts, "mesh/1").bytes);
    assert_eq!(array(data, &head["primitives"][0]["attributes"]["_SPARSE"], 1), [0, b'P', b'N']);
    assert_eq!(head["weights"], json!([0.5]));
}

#[test]
fn the_other_parts_say_what_they_are() {
    let parts = split(&document());
    assert_eq!(json_of(&parts, "material/0"), document()["materials"][0]);
    assert_eq!(part(&parts, "image/1").bytes, b"\x89PNG");
    assert_eq!(json_of(&parts, "texture/0"), json!({"sampler": {"magFilter": 9728}, "source": "textures/wall.png"}));
    assert_eq!(json_of(&parts, "texture/1"), json!({"sampler": {}, "source": "models/a.gltf#image/1"}));
    let elsewhere = json!({"sampler": {}, "source": null, "uri": "https://example.org/sky.png"});
    assert_eq!(json_of(&parts, "texture/2"), elsewhere);
    let (head, data) = arrays(&part(&parts, "animation/0").bytes);
    assert_eq!(head["channels"], document()["animations"][0]["channels"]);
    assert_eq!(head["samplers"][0]["interpolation"], "LINEAR");
    assert_eq!(array(data, &head["samplers"][0]["input"], 4), [0, 0, 0, 0, 0, 0, 0xc0, 0x3f]);
    let (head, data) = arrays(&part(&parts, "skin/0").bytes);
    assert_eq!(head["joints"], json!([1]));
    assert_eq!(array(data, &head["inverseBindMatrices"], 64)[4..8], 1f32.to_le_bytes());
    let scene = json_of(&parts, "scene/0");
    assert_eq!((&scene["default"], &scene["roots"], &scene["name"]), (&json!(true), &json!([0]), &json!("all")));
    assert_eq!(scene["nodes"]["1"], document()["nodes"][1]);
    assert_eq!(scene["nodes"].as_object().unwrap().len(), 3);
    assert_eq!(json_of(&parts, "scene/1")["default"], json!(false));
}

#[test]
fn an_edit_of_one_part_leaves_the_others_as_they_were() {
    let before = split(&document());
    let changed = |edit: &dyn Fn(&mut Value)| {
        let mut document = document();
        edit(&mut document);
        let after = split(&document);
        let labels =
            before.iter().zip(&after).filter(|(before, after)| before != after).map(|(_, after)| after.label.clone());
        assert_eq!(before.len(), after.len());
        labels.collect::<Vec<_>>()
    };
    assert_eq!(changed(&|all| all["materials"][1]["name"] = json!("new")), ["material/1"]);
    assert_eq!(changed(&|all| all["meshes"][1]["weights"] = json!([0.25])), ["mesh/1"]);
    assert_eq!(changed(&|all| all["nodes"][3]["name"] = json!("new")), ["scene/1"]);
    assert_eq!(changed(&|all| all["samplers"][0]["magFilter"] = json!(9729)), ["texture/0"]);
    assert_eq!(changed(&|all| all["asset"]["generator"] = json!("new")), [""; 0]);
    let mut files = files();
    // The second index: one mesh holds it as an index and the other as the place of a sparse value.
    files.0.get_mut("models/mesh data.bin").unwrap()[50] = 0;
    let after = run(document().to_string().as_bytes(), &mut files).unwrap().labelled;
    let labels: Vec<&str> =
        before.iter().zip(&after).filter(|(before, after)| before != after).map(|(_, after)| &*after.label).collect();
    assert_eq!(labels, ["mesh/0", "mesh/1"]);
}

fn glb(json: &[u8], binary: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = b"glTF\x02\0\0\0\0\0\0\0".to_vec();
    for (kind, chunk) in [(b"JSON", Some(json)), (b"BIN\0", binary)] {
        let Some(chunk) = chunk else { continue };
        bytes.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
        bytes.extend_from_slice(kind);
        bytes.extend_from_slice(chunk);
    }
    let len = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes
}

#[test]
fn a_glb_and_a_data_uri_are_split_as_a_file_beside_is() {
    let expected = split(&document());
    let mut inside = document();
    inside["buffers"][0].as_object_mut().unwrap().remove("uri");
    let bytes = glb(inside.to_string().as_bytes(), Some(&[&data()[..], &[0; 3]].concat()));
    assert_eq!(
        run(&bytes, &mut files()).unwrap(),
        Output { bytes, labelled: expected.clone(), dependencies: Vec::new() }
    );
    let mut inline = document();
    inline["buffers"][0]["uri"] = json!(format!("data:application/octet-stream;base64,{}", STANDARD.encode(data())));
    inline["images"][1] = json!({"uri": "data:image/png,%89PNG"});
    assert_eq!(split(&inline), expected);
}

#[test]
fn a_glb_that_lies_is_refused() {
    let text = document().to_string();
    let whole = glb(text.as_bytes(), Some(&data()));
    let check = |bytes: &[u8], expected: &str| {
        let error = run(bytes, &mut files()).unwrap_err().to_string();
        assert!(error.starts_with("models/a.gltf: gltf: ") && error.contains(expected), "{error}");
    };
    check(&whole[..8], "shorter than its header says");
    check(&whole[..whole.len() - 1], "shorter than its header says");
    check(b"glTF\x01\0\0\0\x0c\0\0\0", "a GLB of version 1; expected 2");
    check(b"glTF\x02\0\0\0\x0c\0\0\0", "the first chunk of the GLB is not its JSON");
    check(b"glTF\x02\0\0\0\x04\0\0\0", "the first chunk of the GLB is not its JSON");
    check(b"glTF\x02\0\0\0\x14\0\0\0\xff\xff\xff\xffJSON", "a chunk of the GLB is cut short");
    check(&glb(b"{", None), "EOF while parsing");
    let mut inside = document();
    inside["buffers"][0].as_object_mut().unwrap().remove("uri");
    check(&glb(inside.to_string().as_bytes(), None), "buffers[0]: it has no uri, and the file carries no bytes for it");
    check(&glb(inside.to_string().as_bytes(), Some(b"abc")), "buffers[0]: it has 3 bytes; expected byteLength, 156");
}

#[test]
fn each_fault_is_named_by_its_path() {
    let check = |pointer: &str, value: Value, expected: &str| {
        let mut document = document();
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        let result = run(document.to_string().as_bytes(), &mut files()).map(drop);
        let error = result.expect_err(pointer).to_string();
        assert!(error.starts_with("models/a.gltf:1:") && error.contains(expected), "{pointer}: {error}");
    };
    let nothing = "it points at something that is not there";
    check("/asset/version", json!("1.0"), "asset.version: glTF 1.0; expected 2.0");
    check("/asset", json!({}), "asset: it says no version; expected 2.0");
    check(
        "/meshes/1/primitives/0/attributes/POSITION",
        json!(7),
        &format!("meshes[1].primitives[0].attributes[\"POSITION\"]: {nothing}"),
    );
    check("/meshes/0/primitives/0/attributes/TEXCOORD_0", json!(9), &format!("attributes[\"TEXCOORD_0\"]: {nothing}"));
    check("/meshes/0/primitives/0/indices", json!(70), &format!("meshes[0].primitives[0].indices: {nothing}"));
    check("/meshes/0/primitives/0/indices", json!(4), "meshes[0].primitives[0].indices: they are not unsigned numbers");
    check(
        "/meshes/0/primitives/0/attributes/TEXCOORD_0",
        json!(5),
        "it has 2 values, and another attribute has another number",
    );
    check("/accessors/0/max", Value::Null, "it is missing");
    check(
        "/accessors/2/componentType",
        json!(5),
        "accessors[2].componentType: it has a value that glTF does not allow",
    );
    check(
        "/accessors/0/count",
        json!(4),
        "accessors[0]: 4 elements of 12 bytes, 16 apart, from 0 are more than bufferViews[0] has, 48 bytes",
    );
    check("/accessors/1/byteOffset", json!(u64::MAX), "accessors[1]: ");
    check("/accessors/6/count", json!(u64::MAX), "accessors[6]: the arrays of this file have more than a gibibyte");
    check("/accessors/6/count", json!(1u64 << 31), "accessors[6]: the arrays of this file have more than a gibibyte");
    check("/accessors/6/count", json!(2), "accessors[6]: a sparse index is beyond its values");
    check("/accessors/6/count", json!(4), "it has 3 values, and another attribute has another number");
    check("/accessors/6/sparse/count", json!(4), "accessors[6]: it has more sparse values than values");
    check("/accessors/6/sparse/indices/bufferView", json!(2), "accessors[6]: its sparse indices do not increase");
    check(
        "/bufferViews/1/byteOffset",
        json!(200),
        "accessors[2]: bufferViews[1] ends at 206; buffers[0] has 156 bytes",
    );
    check("/bufferViews/0/byteStride", json!(4), "accessors[0]: 3 elements of 12 bytes, 4 apart");
    check("/bufferViews/0/byteStride", json!(1), "bufferViews[0].byteStride: it has a value that glTF does not allow");
    check("/buffers/0/byteLength", json!(157), "buffers[0]: it has 156 bytes; expected byteLength, 157");
    check("/buffers/0/uri", json!("no.bin"), "buffers[0].uri: there is no models/no.bin");
    check("/buffers/0/uri", json!("../../x.bin"), "buffers[0].uri: \"../../x.bin\" is no file of the tree");
    check("/buffers/0/uri", json!("data:;base64,*"), "buffers[0].uri: a data URI that is not base64");
    check("/buffers/0/uri", json!("data:x"), "buffers[0].uri: a data URI without a comma");
    check("/images/0/uri", json!("no.png"), "images[0].uri: there is no models/no.png");
    check("/images/0", json!({}), "images[0]: it has neither a uri nor a bufferView");
    check("/nodes/1", json!({"children": [0]}), "nodes[0]: scenes[0] comes to it more than once; nodes are a tree");
    check("/scenes/1/nodes/0", json!(4), &format!("scenes[1].nodes[0]: {nothing}"));
    check("/materials/0/pbrMetallicRoughness/baseColorTexture/index", json!(9), nothing);
    check(
        "/extensionsRequired/0",
        json!("KHR_draco_mesh_compression"),
        "extensionsRequired[0]: KHR_draco_mesh_compression keeps meshes",
    );
    check("/scene", json!(5), &format!("scene: {nothing}"));
    let colours = json!({"bufferView": 0, "byteOffset": 12, "count": 3, "type": "SCALAR", "componentType": 5123});
    check("/accessors/2", colours, "meshes[0].primitives[0].indices: one is 65280, and there are 3 vertices");
}

#[test]
fn an_error_has_its_line_where_the_file_has_lines() {
    let pretty = serde_json::to_string_pretty(&{
        let mut document = document();
        document["meshes"][0]["primitives"][0]["material"] = json!(8);
        document
    })
    .unwrap();
    let error = run(pretty.as_bytes(), &mut files()).unwrap_err().to_string();
    let line = 1 + pretty.lines().position(|line| line.contains("\"material\": 8")).unwrap();
    let expected = format!("models/a.gltf:{line}:23: gltf: meshes[0].primitives[0].material: it points at something");
    assert!(error.starts_with(&expected), "{error}");
    let error = run(b"{\n \"asset\": }", &mut files()).unwrap_err().to_string();
    assert_eq!(error, "models/a.gltf:2:11: gltf: expected value");
    let error = run(b"{\"asset\": {\"version\": \"2.0\"},\n \"meshes\": [{}]}", &mut files()).unwrap_err().to_string();
    assert!(error.starts_with("models/a.gltf:2:") && error.contains("primitives"), "{error}");
}

#[test]
fn the_kinds_of_parts_go_by_what_they_are() {
    let parts = split(&document());
    assert_eq!(part(&parts, "mesh/0").kind, Some(AssetKind::Mesh));
    assert_eq!(split(&json!({"asset": {"version": "2.0"}})), []);
}

proptest! {
    #[test]
    fn a_document_with_any_value_in_any_place_does_not_panic(
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![json!(null), json!(0), json!(-1), json!(3), json!(1e300), json!(u64::MAX), json!(u32::MAX), json!(""), json!("data:,"), json!([]), json!({}), json!([0, 0])]),
    ) {
        let mut document = document();
        let mut pointers = Vec::new();
        places(&document, String::new(), &mut pointers);
        *document.pointer_mut(at.get::<String>(&pointers)).unwrap() = value;
        let _ = run(document.to_string().as_bytes(), &mut files());
    }

    #[test]
    fn hostile_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), as_glb in any::<bool>()) {
        let start: &[u8] = if as_glb { b"glTF\x02\0\0\0" } else { b"{\"asset\":{\"version\":\"2.0\"}," };
        let _ = run(&[start, &bytes[..]].concat(), &mut files());
    }
}

/// The pointers to everything below a value.
fn places(value: &Value, at: String, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| places(value, format!("{at}/{name}"), into)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| places(value, format!("{at}/{index}"), into))
        }
        _ => {}
    }
    into.push(at);
}
