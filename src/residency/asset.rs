//! The handle that a program holds: resident bytes under a name.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use super::content::Content;
use super::hold::{Counted, Linked};
use super::table::Node;
use crate::bundle::AssetRecord;
use crate::ids::{AssetId, AssetKind, AssetPath, ContentHash, Generation};

/// What an asset is called, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its id.
    pub id: AssetId,
    /// Its path.
    pub path: AssetPath,
    /// Its kind.
    pub kind: AssetKind,
    /// Whether its file may be executed.
    pub executable: bool,
}

impl From<&AssetRecord> for Name {
    fn from(record: &AssetRecord) -> Self {
        Self { id: record.id, path: record.path.clone(), kind: record.kind, executable: record.executable }
    }
}

/// A handle to resident bytes. Derefs to `[u8]`, is cheap to clone, and keeps the bytes in memory while it is held:
/// a held asset is pinned, and is not evicted. A reload never changes the bytes behind a handle.
#[derive(Clone)]
pub struct Asset(Counted<Node>);

impl Asset {
    /// The handle to `content` under `name`, as `generation` has it.
    pub fn new(name: Name, generation: Generation, content: Arc<Content>) -> Asset {
        Asset(Counted::new(Node::new(name, generation, content)))
    }

    /// The same bytes under another name or in another generation.
    pub fn under(&self, name: Name, generation: Generation) -> Asset {
        Asset::new(name, generation, Arc::clone(self.content()))
    }

    /// Its path.
    pub fn path(&self) -> &AssetPath {
        &self.0.name().path
    }

    /// Its id.
    pub fn id(&self) -> AssetId {
        self.0.name().id
    }

    /// Its kind.
    pub fn kind(&self) -> AssetKind {
        self.0.name().kind
    }

    /// Whether its file may be executed.
    pub fn executable(&self) -> bool {
        self.0.name().executable
    }

    /// The hash of the bytes.
    pub fn hash(&self) -> ContentHash {
        self.content().hash()
    }

    /// The generation it was made resident for. The bytes may be those of later generations, too.
    pub fn generation(&self) -> Generation {
        self.0.generation()
    }

    /// Its path, id, kind and execute bit together.
    pub fn name(&self) -> &Name {
        self.0.name()
    }

    /// The bytes as [`Bytes`], without a copy. The asset stays pinned while any clone of them lives.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// The bytes apart from their name.
    pub fn content(&self) -> &Arc<Content> {
        self.0.content()
    }

    /// The handle to what a table leads to.
    #[inline]
    pub(super) fn counted(found: Linked<'_, Node>) -> Asset {
        Asset(found.counted())
    }

    /// As [`Asset::counted`], for who keeps it from being freed otherwise.
    #[inline]
    pub(super) fn uncounted(found: Linked<'_, Node>) -> ManuallyDrop<Asset> {
        ManuallyDrop::new(Asset(ManuallyDrop::into_inner(found.uncounted())))
    }

    /// What is behind the handle, to be linked into a table or taken out of one.
    pub(super) fn into_node(self) -> Counted<Node> {
        self.0
    }

    /// What is behind the handle.
    pub(super) fn node(&self) -> &Node {
        &self.0
    }

    /// The handle to what was taken out of a table.
    pub(super) fn from_node(node: Counted<Node>) -> Asset {
        Asset(node)
    }

    /// Where it is.
    pub(super) fn address(&self) -> usize {
        self.0.address()
    }
}

impl Deref for Asset {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl AsRef<[u8]> for Asset {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Asset> for Bytes {
    fn from(asset: Asset) -> Bytes {
        asset.into_bytes()
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asset({}, {} bytes, generation {})", self.path(), self.len(), self.generation())
    }
}
