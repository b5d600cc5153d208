//! What accessors stand for: arrays, tightly packed, bounds checked where bytes are used.

use std::collections::BTreeMap;

use gltf::json::accessor::{ComponentType, Type};
use gltf::json::validation::Checked;
use gltf::json::{Accessor, Index, buffer};
use serde_json::{Map, Value, json};

use super::document::{Document, Fault, Outcome};

/// The bytes of all arrays of a file at most: many accessors may stand for the same bytes, and some for none.
const BYTES_MAX: u64 = 1 << 30;
/// What arrays begin at a multiple of, and their part of the file too.
const ALIGNMENT: usize = 16;
/// What a file of arrays starts with.
const MAGIC: &[u8; 8] = b"LOFTARR1";

/// The arrays of a document.
pub(super) struct Arrays<'a> {
    document: &'a Document,
    /// How many bytes may still be made.
    left: u64,
}

/// One array.
pub(super) struct Array {
    pub count: usize,
    pub bytes: Vec<u8>,
    pub component: ComponentType,
    pub kind: Type,
    description: Map<String, Value>,
}

impl<'a> Arrays<'a> {
    pub fn of(document: &'a Document) -> Self {
        Self { document, left: BYTES_MAX }
    }

    pub fn get(&mut self, index: Index<Accessor>) -> Outcome<Array> {
        let path = format!("accessors[{}]", index.value());
        let document = self.document;
        let fault = |cause: &str| Fault::new(path.clone(), cause);
        let missing = || fault("it points at something that is not there");
        let accessor = document.root.accessors.get(index.value()).ok_or_else(missing)?;
        let (Checked::Valid(component), Checked::Valid(kind)) = (accessor.component_type, accessor.type_) else {
            return Err(fault("it has a type that glTF does not know"));
        };
        let component = component.0;
        let element = element_bytes(component, kind);
        let bytes = accessor.count.0.checked_mul(element as u64).filter(|bytes| *bytes <= self.left);
        let bytes = bytes.ok_or_else(|| fault("the arrays of this file have more than a gibibyte"))?;
        self.left -= bytes;
        let (count, bytes) = (accessor.count.0 as usize, bytes as usize);

        let offset = accessor.byte_offset.unwrap_or_default().0;
        let mut bytes = match accessor.buffer_view {
            Some(view) => self.packed(view, offset, count, element).map_err(|cause| fault(&cause))?,
            None => vec![0; bytes],
        };
        if let Some(sparse) = &accessor.sparse {
            let Checked::Valid(width) = sparse.indices.component_type else {
                return Err(fault("its sparse indices have a type that glTF does not know"));
            };
            let many = usize::try_from(sparse.count.0).ok().filter(|many| *many <= count);
            let many = many.ok_or_else(|| fault("it has more sparse values than values"))?;
            let width = width.0.size();
            let (indices, values) = (&sparse.indices, &sparse.values);
            let at =
                self.packed(indices.buffer_view, indices.byte_offset.0, many, width).map_err(|cause| fault(&cause))?;
            let with =
                self.packed(values.buffer_view, values.byte_offset.0, many, element).map_err(|cause| fault(&cause))?;
            let mut last = None;
            for (at, with) in at.chunks_exact(width).zip(with.chunks_exact(element)) {
                let at = number(at);
                if last.replace(at).is_some_and(|last| last >= at) {
                    return Err(fault("its sparse indices do not increase"));
                }
                let place = bytes.chunks_exact_mut(element).nth(at);
                place.ok_or_else(|| fault("a sparse index is beyond its values"))?.copy_from_slice(with);
            }
        }
        let mut description = Map::new();
        description.insert("count".into(), count.into());
        description.insert("type".into(), name_of(kind).into());
        description.insert("component".into(), component_name(component).into());
        if accessor.normalized {
            description.insert("normalized".into(), true.into());
        }
        for (name, value) in [("min", &accessor.min), ("max", &accessor.max)] {
            description.extend(value.clone().map(|value| (name.to_owned(), value)));
        }
        Ok(Array { count, bytes, component, kind, description })
    }

    /// The bytes of a view of a buffer.
    pub fn view(&self, index: Index<buffer::View>) -> Result<&'a [u8], String> {
        let (root, name) = (&self.document.root, format!("bufferViews[{}]", index.value()));
        let view = root.buffer_views.get(index.value()).ok_or_else(|| format!("there is no {name}"))?;
        let buffer = self.document.buffers.get(view.buffer.value()).map_or(&[][..], Vec::as_slice);
        let start = view.byte_offset.unwrap_or_default().0;
        let end = start.saturating_add(view.byte_length.0);
        let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        buffer
            .get(range)
            .ok_or_else(|| format!("{name} ends at {end}; buffers[{}] has {} bytes", view.buffer.value(), buffer.len()))
    }

    /// `count` elements of a view, without what stands between them.
    fn packed(&self, view: Index<buffer::View>, offset: u64, count: usize, element: usize) -> Result<Vec<u8>, String> {
        let bytes = self.view(view)?;
        let stride = self.document.root.buffer_views[view.value()].byte_stride.map_or(element, |stride| stride.0);
        let need = |count: usize| (count as u64 - 1).checked_mul(stride as u64)?.checked_add(element as u64);
        let end = if count == 0 { Some(0) } else { need(count) }.and_then(|need| need.checked_add(offset));
        if stride < element || end.is_none_or(|end| end > bytes.len() as u64) {
            return Err(format!(
                "{count} elements of {element} bytes, {stride} apart, from {offset} are more than bufferViews[{}] has, {} bytes",
                view.value(),
                bytes.len()
            ));
        }
        let bytes = &bytes[(offset as usize).min(bytes.len())..];
        if stride == element {
            return Ok(bytes[..count * element].to_vec());
        }
        Ok(bytes.chunks(stride).take(count).flat_map(|bytes| &bytes[..element]).copied().collect())
    }
}

impl Array {
    /// The largest number of an array of unsigned ones.
    pub fn largest(&self) -> Option<usize> {
        self.bytes.chunks_exact(self.component.size()).map(number).max()
    }
}

/// A little-endian unsigned number of one, two or four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The bytes of an element: each column of a matrix begins at a multiple of four.
fn element_bytes(component: ComponentType, kind: Type) -> usize {
    let size = component.size();
    match kind {
        Type::Mat2 => 2 * (2 * size).next_multiple_of(4),
        Type::Mat3 => 3 * (3 * size).next_multiple_of(4),
        _ => kind.multiplicity() * size,
    }
}

fn name_of(kind: Type) -> &'static str {
    match kind {
        Type::Scalar => "SCALAR",
        Type::Vec2 => "VEC2",
        Type::Vec3 => "VEC3",
        Type::Vec4 => "VEC4",
        Type::Mat2 => "MAT2",
        Type::Mat3 => "MAT3",
        Type::Mat4 => "MAT4",
    }
}

fn component_name(component: ComponentType) -> &'static str {
    match component {
        ComponentType::I8 => "i8",
        ComponentType::U8 => "u8",
        ComponentType::I16 => "i16",
        ComponentType::U16 => "u16",
        ComponentType::U32 => "u32",
        ComponentType::F32 => "f32",
    }
}

/// A file of arrays that is being written: what they are as JSON, then their bytes.
#[derive(Default)]
pub(super) struct ArrayFile {
    data: Vec<u8>,
    /// Arrays that are in, by accessor, with what is said of them.
    known: BTreeMap<usize, Value>,
}

impl ArrayFile {
    /// Puts in an array, once for each accessor, and says where it stands.
    pub fn put(&mut self, index: Index<Accessor>, array: Array) -> Value {
        if let Some(known) = self.known.get(&index.value()) {
            return known.clone();
        }
        let mut description = array.description;
        description.insert("offset".into(), self.data.len().into());
        self.data.extend_from_slice(&array.bytes);
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
        self.known.insert(index.value(), Value::Object(description.clone()));
        Value::Object(description)
    }

    /// The whole file.
    pub fn finish(self, head: &Value) -> Vec<u8> {
        let mut json = head.to_string().into_bytes();
        json.resize(json.len().next_multiple_of(ALIGNMENT), b' ');
        let mut bytes = MAGIC.to_vec();
        // A head comes from JSON of less than 4 GiB: files of a tree that are larger are not transformed.
        bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&json);
        bytes.extend_from_slice(&self.data);
        bytes
    }
}

/// What is known of a thing besides its arrays: its name and what is the program's own.
pub(super) fn head(raw: &Value) -> Map<String, Value> {
    let mut head = Map::new();
    for name in ["name", "extras", "extensions"] {
        head.extend(raw.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    head
}

/// `null` rather than nothing.
pub(super) fn or_null<T: Into<Value>>(value: Option<T>) -> Value {
    value.map_or(json!(null), Into::into)
}
