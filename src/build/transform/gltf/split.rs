//! The parts of a document as assets of their own: each holds and names only what it uses, so that an edit of one
//! leaves the bytes of the others as they were.

use std::collections::BTreeSet;

use gltf::json::accessor::{ComponentType, Type};
use gltf::json::mesh::{MorphTarget, Primitive};
use gltf::json::{Accessor, Index};
use serde_json::{Map, Value, json};

use super::super::{Context, Labelled};
use super::array::{Array, ArrayFile, Arrays, head, or_null};
use super::document::{Document, Fault, Outcome, within};
use crate::build::extract;
use crate::ids::{AssetKind, AssetPath};

/// All parts, in the order of their labels' kinds.
pub(super) fn all(document: &Document, path: &AssetPath, context: &mut dyn Context) -> Outcome<Vec<Labelled>> {
    let mut splitter = Splitter { document, arrays: Arrays::of(document), path, labelled: Vec::new() };
    splitter.meshes()?;
    splitter.materials()?;
    let sources = splitter.images(context)?;
    splitter.textures(&sources)?;
    splitter.animations()?;
    splitter.skins()?;
    splitter.plain("camera", document.list("cameras"))?;
    splitter.plain("light", lights(document))?;
    splitter.scenes()?;
    Ok(splitter.labelled)
}

/// The lights of `KHR_lights_punctual`, which nodes refer to.
fn lights(document: &Document) -> &[Value] {
    let lights = document.raw.pointer("/extensions/KHR_lights_punctual/lights");
    lights.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

struct Splitter<'a> {
    document: &'a Document,
    arrays: Arrays<'a>,
    path: &'a AssetPath,
    labelled: Vec<Labelled>,
}

impl Splitter<'_> {
    /// The path of another part.
    fn part(&self, kind: &str, index: usize) -> Outcome<AssetPath> {
        let label = format!("{kind}/{index}");
        self.path.labelled(&label).map_err(|error| Fault::new("", error.to_string()))
    }

    fn parts(&self, kind: &str, indices: impl IntoIterator<Item = usize>) -> Outcome<Vec<AssetPath>> {
        let indices: BTreeSet<usize> = indices.into_iter().collect();
        indices.into_iter().map(|index| self.part(kind, index)).collect()
    }

    fn add(&mut self, label: String, kind: AssetKind, bytes: Vec<u8>, dependencies: Vec<AssetPath>) {
        self.labelled.push(Labelled { label, kind: Some(kind), bytes, dependencies });
    }

    /// Items that are JSON and refer to nothing.
    fn plain(&mut self, kind: &str, items: &[Value]) -> Outcome<()> {
        for (at, item) in items.iter().enumerate() {
            self.add(format!("{kind}/{at}"), AssetKind::Scene, item.to_string().into_bytes(), Vec::new());
        }
        Ok(())
    }

    fn meshes(&mut self) -> Outcome<()> {
        let document = self.document;
        for (at, (mesh, raw)) in document.root.meshes.iter().zip(document.list("meshes")).enumerate() {
            let mut file = ArrayFile::default();
            let mut primitives = Vec::new();
            for (index, (primitive, raw)) in mesh.primitives.iter().zip(items(raw, "primitives")).enumerate() {
                let path = format!("meshes[{at}].primitives[{index}]");
                primitives.push(self.primitive(primitive, raw, &path, &mut file)?);
            }
            let mut head = head(raw);
            head.insert("primitives".into(), primitives.into());
            head.extend(raw.get("weights").map(|weights| ("weights".to_owned(), weights.clone())));
            let materials = mesh.primitives.iter().filter_map(|primitive| primitive.material);
            let dependencies = self.parts("material", materials.map(|material| material.value()))?;
            self.add(format!("mesh/{at}"), AssetKind::Mesh, file.finish(&Value::Object(head)), dependencies);
        }
        Ok(())
    }

    fn primitive(&mut self, primitive: &Primitive, raw: &Value, path: &str, file: &mut ArrayFile) -> Outcome<Value> {
        let mut vertices = None;
        let mut attributes = Map::new();
        for (name, index) in &primitive.attributes {
            let name = name.to_string();
            let array = self.arrays.get(*index)?;
            if *vertices.get_or_insert(array.count) != array.count {
                let cause = format!("it has {} values, and another attribute has another number", array.count);
                return Err(Fault::new(format!("{path}.attributes[\"{name}\"]"), cause));
            }
            attributes.insert(name, file.put(*index, array));
        }
        let mut indices = Value::Null;
        if let Some(index) = primitive.indices {
            let array = self.arrays.get(index)?;
            let fault = |cause: String| Fault::new(format!("{path}.indices"), cause);
            let unsigned = matches!(array.component, ComponentType::U8 | ComponentType::U16 | ComponentType::U32);
            if array.kind != Type::Scalar || !unsigned {
                return Err(fault("they are not unsigned numbers".into()));
            }
            if let Some(largest) = array.largest().filter(|largest| *largest >= vertices.unwrap_or(0)) {
                return Err(fault(format!("one is {largest}, and there are {} vertices", vertices.unwrap_or(0))));
            }
            indices = file.put(index, array);
        }
        let mut targets = Vec::new();
        for MorphTarget { positions, normals, tangents } in primitive.targets.iter().flatten() {
            let mut target = Map::new();
            for (name, index) in [("POSITION", positions), ("NORMAL", normals), ("TANGENT", tangents)] {
                if let Some(index) = index {
                    target.insert(name.into(), self.put(*index, file)?);
                }
            }
            targets.push(Value::Object(target));
        }
        let mut head = head(raw);
        head.insert("mode".into(), raw.get("mode").cloned().unwrap_or(json!(4)));
        head.insert("material".into(), or_null(primitive.material.map(|material| material.value())));
        head.insert("attributes".into(), attributes.into());
        head.insert("indices".into(), indices);
        if !targets.is_empty() {
            head.insert("targets".into(), targets.into());
        }
        Ok(Value::Object(head))
    }

    fn put(&mut self, index: Index<Accessor>, file: &mut ArrayFile) -> Outcome<Value> {
        let array: Array = self.arrays.get(index)?;
        Ok(file.put(index, array))
    }

    fn materials(&mut self) -> Outcome<()> {
        let (document, textures) = (self.document, self.document.root.textures.len());
        for (at, raw) in document.list("materials").iter().enumerate() {
            let mut used = BTreeSet::new();
            textures_of(raw, &mut used);
            let dependencies = self.parts("texture", used.into_iter().filter(|index| *index < textures))?;
            self.add(format!("material/{at}"), AssetKind::Scene, raw.to_string().into_bytes(), dependencies);
        }
        Ok(())
    }

    /// Where the bytes of each image are: in another file of the tree, or in a part that this makes.
    fn images(&mut self, context: &mut dyn Context) -> Outcome<Vec<Option<AssetPath>>> {
        let document = self.document;
        let mut sources = Vec::new();
        for (at, image) in document.root.images.iter().enumerate() {
            let path = format!("images[{at}]");
            let bytes = match (&image.uri, image.buffer_view) {
                (Some(uri), _) => match within(uri) {
                    Some(bytes) => bytes.map_err(|cause| Fault::new(format!("{path}.uri"), cause))?,
                    None => {
                        // What is elsewhere than in the tree is for the program to fetch.
                        let source = extract::target(self.path, uri);
                        if let Some(file) = source.as_ref().filter(|file| !context.exists(file)) {
                            return Err(Fault::new(format!("{path}.uri"), format!("there is no {file}")));
                        }
                        sources.push(source);
                        continue;
                    }
                },
                (None, Some(view)) => self.arrays.view(view).map_err(|cause| Fault::new(path, cause))?.to_vec(),
                (None, None) => return Err(Fault::new(path, "it has neither a uri nor a bufferView")),
            };
            sources.push(Some(self.part("image", at)?));
            self.add(format!("image/{at}"), AssetKind::Texture, bytes, Vec::new());
        }
        Ok(sources)
    }

    fn textures(&mut self, sources: &[Option<AssetPath>]) -> Outcome<()> {
        let document = self.document;
        for (at, raw) in document.list("textures").iter().enumerate() {
            let asset = |index: usize| sources.get(index).cloned().flatten();
            let mut head = head(raw);
            let sampler = number(raw, "sampler").and_then(|index| document.list("samplers").get(index));
            head.insert("sampler".into(), sampler.cloned().unwrap_or(json!({})));
            let source = number(raw, "source");
            let mut used: BTreeSet<AssetPath> = source.and_then(asset).into_iter().collect();
            head.insert("source".into(), or_null(used.first().map(|path| path.as_str().to_owned())));
            if used.is_empty()
                && let Some(uri) = source.and_then(|index| document.list("images").get(index)?.get("uri"))
            {
                head.insert("uri".into(), uri.clone());
            }
            // Extensions name another image, in another format, for who can read that.
            if let Some(Value::Object(extensions)) = head.get_mut("extensions") {
                for extension in extensions.values_mut() {
                    if let Some(path) = number(extension, "source").and_then(asset) {
                        extension["source"] = path.as_str().into();
                        used.insert(path);
                    }
                }
            }
            let bytes = Value::Object(head).to_string().into_bytes();
            self.add(format!("texture/{at}"), AssetKind::Scene, bytes, used.into_iter().collect());
        }
        Ok(())
    }

    fn animations(&mut self) -> Outcome<()> {
        let document = self.document;
        for (at, (animation, raw)) in document.root.animations.iter().zip(document.list("animations")).enumerate() {
            let mut file = ArrayFile::default();
            let mut samplers = Vec::new();
            for (sampler, raw) in animation.samplers.iter().zip(items(raw, "samplers")) {
                let mut head = head(raw);
                head.insert("interpolation".into(), raw.get("interpolation").cloned().unwrap_or(json!("LINEAR")));
                head.insert("input".into(), self.put(sampler.input, &mut file)?);
                head.insert("output".into(), self.put(sampler.output, &mut file)?);
                samplers.push(Value::Object(head));
            }
            let mut head = head(raw);
            head.insert("channels".into(), raw.get("channels").cloned().unwrap_or(json!([])));
            head.insert("samplers".into(), samplers.into());
            self.add(format!("animation/{at}"), AssetKind::Other, file.finish(&Value::Object(head)), Vec::new());
        }
        Ok(())
    }

    fn skins(&mut self) -> Outcome<()> {
        let document = self.document;
        for (at, (skin, raw)) in document.root.skins.iter().zip(document.list("skins")).enumerate() {
            let mut file = ArrayFile::default();
            let mut head = head(raw);
            head.insert("joints".into(), raw.get("joints").cloned().unwrap_or(json!([])));
            head.extend(raw.get("skeleton").map(|node| ("skeleton".to_owned(), node.clone())));
            let matrices = match skin.inverse_bind_matrices {
                Some(index) => self.put(index, &mut file)?,
                None => Value::Null,
            };
            head.insert("inverseBindMatrices".into(), matrices);
            self.add(format!("skin/{at}"), AssetKind::Mesh, file.finish(&Value::Object(head)), Vec::new());
        }
        Ok(())
    }

    fn scenes(&mut self) -> Outcome<()> {
        let (document, raw_nodes) = (self.document, self.document.list("nodes"));
        let nodes = &document.root.nodes;
        for (at, (scene, raw)) in document.root.scenes.iter().zip(document.list("scenes")).enumerate() {
            let mut seen = BTreeSet::new();
            let mut waiting: Vec<usize> = scene.nodes.iter().map(Index::value).collect();
            while let Some(index) = waiting.pop() {
                if !seen.insert(index) {
                    let cause = format!("scenes[{at}] comes to it more than once; nodes are a tree");
                    return Err(Fault::new(format!("nodes[{index}]"), cause));
                }
                waiting.extend(nodes[index].children.iter().flatten().map(Index::value));
            }
            let mut head = head(raw);
            head.insert("default".into(), (document.root.scene.map(|scene| scene.value()) == Some(at)).into());
            head.insert("roots".into(), raw.get("nodes").cloned().unwrap_or(json!([])));
            let all: Map<String, Value> =
                seen.iter().map(|index| (index.to_string(), raw_nodes[*index].clone())).collect();
            head.insert("nodes".into(), all.into());
            let of = |name: &'static str| seen.iter().filter_map(move |index| number(&raw_nodes[*index], name));
            let light = |index: &usize| {
                number(raw_nodes[*index].pointer("/extensions/KHR_lights_punctual")?, "light")
                    .filter(|light| *light < lights(document).len())
            };
            let dependencies = [
                self.parts("camera", of("camera"))?,
                self.parts("light", seen.iter().filter_map(light))?,
                self.parts("mesh", of("mesh"))?,
                self.parts("skin", of("skin"))?,
            ];
            let bytes = Value::Object(head).to_string().into_bytes();
            self.add(format!("scene/{at}"), AssetKind::Scene, bytes, dependencies.concat());
        }
        Ok(())
    }
}

fn items<'a>(raw: &'a Value, name: &str) -> &'a [Value] {
    raw.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(raw: &Value, name: &str) -> Option<usize> {
    raw.get(name).and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok())
}

/// The textures that a material names, those of extensions included: by the key and the index below it.
fn textures_of(raw: &Value, into: &mut BTreeSet<usize>) {
    match raw {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            if name.ends_with("Texture") {
                into.extend(number(value, "index"));
            }
            textures_of(value, into);
        }),
        Value::Array(items) => items.iter().for_each(|item| textures_of(item, into)),
        _ => {}
    }
}
