//! A reader's hold on one generation.

use std::collections::HashSet;
use std::sync::Arc;

use super::load::ask;
use super::typed::{self, Typed};
use super::{ANY, AssetReader, DEFAULT_PRIORITY, Decode, Load, LoadAs, LoadMany, Request};
use crate::actors::Shared;
use crate::bundle::{AssetRecord, BuildRecord, Bundle, Dependency};
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath, ContentHash, Generation, Origin, Priority};
use crate::residency::{Answer, Asset, Holding, Key, Live, Located, Want};
use crate::telemetry::{Level, Noted};

/// One generation, for as long as it is held: whatever is published meanwhile, everything read through it is of that
/// one consistent version of the tree. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) shared: Arc<Shared>,
    pub(super) live: Arc<Live>,
    /// In debug mode: that it was taken, until the last clone is dropped.
    _noted: Option<Arc<Holding>>,
}

impl Snapshot {
    pub(super) fn new(shared: Arc<Shared>, live: Arc<Live>) -> Self {
        let holders = shared.holders.as_ref();
        let noted = holders.map(|known| Arc::new(known.snapped(live.generation(), shared.clock.now())));
        Self { shared, live, _noted: noted }
    }

    /// The generation that is held.
    pub fn generation(&self) -> Generation {
        self.live.generation()
    }

    /// The bundle that holds it, for tools that look inside. Reading it may wait for the disk.
    pub fn bundle(&self) -> &Bundle {
        self.live.bundle()
    }

    /// The asset, if it is resident in this generation: no lock, no allocation, no waiting. The path is hashed once.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let snapshot = runtime.snapshot();
    /// // Of one version of the tree, whatever is published between the two.
    /// let (page, style) = (snapshot.get("index.html"), snapshot.get("site.css"));
    /// # }
    /// ```
    pub fn get(&self, path: impl AsRef<str>) -> Option<Asset> {
        self.get_id(AssetId::of_path(path.as_ref()))
    }

    /// [`Snapshot::get`] by id, without hashing the path again.
    #[inline]
    pub fn get_id(&self, id: AssetId) -> Option<Asset> {
        let found = self.shared.table.get_at(id, self.generation());
        if let Some(asset) = &found {
            self.shared.hit(id, false, asset, ANY);
        }
        found
    }

    /// Uses the bytes of the asset, if it is resident in this generation, and gives what `with` makes of them: as
    /// [`Runtime::with`](crate::Runtime::with), by id or by path.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime) {
    /// let snapshot = runtime.snapshot();
    /// let total: usize = ["index.html", "site.css"].into_iter().filter_map(|path| snapshot.with(path, <[u8]>::len)).sum();
    /// println!("{total} bytes of generation {}", snapshot.generation());
    /// # }
    /// ```
    #[inline]
    pub fn with<R>(&self, asset: impl Into<AssetId>, with: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let id = asset.into();
        self.shared.table.read_at(id, self.generation(), |asset| {
            self.shared.hit(id, false, asset, ANY);
            with(asset)
        })
    }

    /// Loads the asset as this generation has it.
    pub fn load(&self, path: impl AsRef<str>) -> Load {
        self.request(path).send()
    }

    /// Loads the asset as this generation has it, and decodes it: as [`Runtime::load_as`](crate::Runtime::load_as).
    pub fn load_as<T: Decode>(&self, path: impl AsRef<str>) -> LoadAs<T> {
        match self.get_as(path.as_ref()) {
            Some(typed) => LoadAs::ready(typed),
            None => LoadAs::after(Arc::clone(&self.shared), self.load(path)),
        }
    }

    /// The decoded asset, if it is resident in this generation and was decoded as this type: no lock, no allocation, no
    /// waiting.
    pub fn get_as<T: Decode>(&self, path: impl AsRef<str>) -> Option<Typed<T>> {
        typed::resident(&self.shared, AssetId::of_path(path.as_ref()), self.generation())
    }

    /// A load with a priority, a deadline or dependencies.
    pub fn request(&self, path: impl AsRef<str>) -> Request {
        Request::new(&self.shared, path.as_ref(), Some(Arc::clone(&self.live)))
    }

    /// Loads many assets of this generation.
    pub fn load_many<P: AsRef<str>>(&self, paths: impl IntoIterator<Item = P>) -> LoadMany {
        LoadMany::new(self.clone(), paths.into_iter().map(|path| path.as_ref().to_owned()).collect())
    }

    /// The asset as it is stored, if that is resident: as [`Snapshot::get`] for what [`Snapshot::load_stored`] loads.
    pub fn get_stored(&self, path: impl AsRef<str>) -> Option<Asset> {
        let id = AssetId::of_path(path.as_ref());
        let found = self.shared.table.get_at(id.stored(), self.generation());
        if let Some(asset) = &found {
            self.shared.hit(id, true, asset, ANY);
        }
        found
    }

    /// Loads the asset as it is stored, where that is one Zstandard stream of its own: for whoever passes it on to
    /// somebody who decodes it. The handle derefs to the stored bytes; its hash is theirs, and so is the length. Checked,
    /// charged, kept and evicted like any other asset. The load fails with [`Error::NotFound`] for an asset
    /// that is stored otherwise; [`Snapshot::stored`] tells beforehand.
    pub fn load_stored(&self, path: impl AsRef<str>) -> Load {
        self.request(path).send_stored()
    }

    /// The hash and the length of what [`Snapshot::load_stored`] would load; `None` for an asset that is not stored as
    /// one Zstandard stream of its own: not compressed, or with LZ4, with a dictionary, in a frame with others, of
    /// more than [`crate::limits::STORED_BYTES_MAX`], or not there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table of contents is.
    pub async fn stored(&self, path: impl AsRef<str>) -> Result<Option<(ContentHash, u64)>> {
        let id = AssetId::of_path(path.as_ref());
        self.offload(move |bundle| {
            let Some(record) = bundle.asset(id)? else { return Ok(None) };
            Ok(bundle.stored(&record)?.map(|placement| (placement.content, placement.len)))
        })
        .await
    }

    /// What the table of contents says of an asset, without loading it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when this generation has no such asset.
    pub async fn record(&self, path: impl AsRef<str>) -> Result<AssetRecord> {
        self.located(path.as_ref(), DEFAULT_PRIORITY, Origin::User).await.map(|located| located.record.clone())
    }

    /// How the asset was built; `None` for one that is its source file as it is, or is not there.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table of contents is.
    pub async fn build_record(&self, path: impl AsRef<str>) -> Result<Option<BuildRecord>> {
        let id = AssetId::of_path(path.as_ref());
        self.offload(move |bundle| bundle.build_record(id)).await
    }

    /// Opens an asset to read it piece by piece in bounded memory.
    ///
    /// # Errors
    /// [`Error::NotFound`] when this generation has no such asset.
    pub async fn open(&self, path: impl AsRef<str>) -> Result<AssetReader> {
        let record = self.record(path).await?;
        let shared = &self.shared;
        if shared.accesses.is_on() {
            let (priority, origin) = ANY;
            let (ticks, level) = (shared.clock.ticks(), Level::Streamed);
            let (id, weight) = (record.id, record.len);
            shared.note(Noted { id, stored: false, ticks, weight, level, priority, origin, latency_us: 0 });
        }
        Ok(AssetReader::new(self.clone(), record))
    }

    /// Every asset whose path starts with `prefix`, in path order. Reads the table of contents off the caller's thread.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table of contents is.
    pub async fn assets(&self, prefix: &str) -> Result<Vec<AssetRecord>> {
        let prefix = prefix.to_owned();
        let within = move |record: &Result<AssetRecord>| {
            record.as_ref().map_or(true, |record| record.path.as_str().starts_with(&prefix))
        };
        self.offload(move |bundle| bundle.assets().filter(within).collect()).await
    }

    /// What an asset uses, directly: also what does not exist.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table of contents is.
    pub async fn dependencies(&self, path: impl AsRef<str>) -> Result<Vec<Dependency>> {
        let id = AssetId::of_path(path.as_ref());
        self.offload(move |bundle| bundle.dependencies(id)).await
    }

    /// What uses an asset, directly. The asset itself need not exist.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table of contents is.
    pub async fn dependents(&self, path: impl AsRef<str>) -> Result<Vec<AssetPath>> {
        let id = AssetId::of_path(path.as_ref());
        self.offload(move |bundle| {
            let ids = bundle.dependents(id)?;
            let records = ids.into_iter().map(|id| bundle.asset(id));
            records.filter_map(|record| record.map(|found| found.map(|record| record.path)).transpose()).collect()
        })
        .await
    }

    /// The asset and everything that it depends on, directly or not; the asset first, each once.
    pub(super) async fn closure(&self, path: &str) -> Result<Vec<String>> {
        let first = AssetPath::new(path)?;
        let generation = self.generation();
        self.offload(move |bundle| {
            let missing = || Error::NotFound { what: first.to_string(), generation };
            bundle.asset(first.id())?.ok_or_else(missing)?;
            let mut seen: HashSet<AssetPath> = HashSet::from([first.clone()]);
            let mut paths = vec![first];
            let mut next = 0;
            while let Some(path) = paths.get(next) {
                let present = bundle.dependencies(path.id())?.into_iter().filter(|dependency| dependency.present);
                paths.extend(present.map(|dependency| dependency.path).filter(|path| seen.insert(path.clone())));
                next += 1;
            }
            Ok(paths.into_iter().map(|path| path.to_string()).collect())
        })
        .await
    }

    pub(super) async fn located(&self, path: &str, priority: Priority, origin: Origin) -> Result<Arc<Located>> {
        let now = self.shared.clock.now();
        let ask = ask(&self.shared, AssetPath::new(path)?, priority, origin, None, now);
        let key = Key { generation: self.generation(), id: AssetId::of_path(path), want: Want::Record };
        let (ticket, _) = self.shared.ledger.join(&self.live, key, ask)?;
        match ticket.await? {
            Answer::Record(located) => Ok(located),
            _ => Err(Error::Failed { cause: "a look-up was answered with something else".into() }),
        }
    }

    /// Reads the table of contents on the decoder's threads: it may wait for the disk, and the caller may not.
    pub(super) async fn offload<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Bundle) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let live = Arc::clone(&self.live);
        let job = Box::new(move || drop(tell.send(read(live.bundle()))));
        self.shared.decoders_here().submit(DEFAULT_PRIORITY as u8, job);
        told.await.unwrap_or(Err(Error::ShutDown))
    }
}
