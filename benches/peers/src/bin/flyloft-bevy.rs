//! Bevy's asset server on a tree, for benches/reload.rs: each line of the input is a path and what its file will begin
//! with; it answers `loaded` when it holds the asset, and the time when it first held that edition, or `missed`.
//!
//! Built by scripts/reload.sh. Looks at the asset server without a pause, as the reader of Flyloft's does.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bevy_app::{App, TaskPoolPlugin};
use bevy_asset::io::Reader;
use bevy_asset::{
    Asset, AssetApp, AssetLoader, AssetMetaCheck, AssetMode, AssetPlugin, AssetServer, Assets, Handle, LoadContext,
};
use bevy_reflect::TypePath;

/// What is not seen by then was missed.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Asset, TypePath)]
struct Text(Vec<u8>);

#[derive(Default, TypePath)]
struct TextLoader;

impl AssetLoader for TextLoader {
    type Asset = Text;
    type Settings = ();
    type Error = std::io::Error;

    async fn load(&self, reader: &mut dyn Reader, _: &(), _: &mut LoadContext<'_>) -> std::io::Result<Text> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await?;
        Ok(Text(bytes))
    }

    fn extensions(&self) -> &[&str] {
        &["txt"]
    }
}

fn main() {
    let root = std::env::args().nth(1).expect("the tree is named");
    let mut app = App::new();
    app.add_plugins((
        TaskPoolPlugin::default(),
        AssetPlugin {
            file_path: root,
            watch_for_changes_override: Some(true),
            mode: AssetMode::Unprocessed,
            meta_check: AssetMetaCheck::Never,
            ..AssetPlugin::default()
        },
    ));
    app.init_asset::<Text>().register_asset_loader(TextLoader);
    app.finish();
    app.cleanup();
    app.update();
    let mut out = std::io::stdout().lock();
    let mut say = |line: &str| {
        writeln!(out, "{line}").and_then(|()| out.flush()).expect("the bench listens");
    };
    say("ready");
    // Kept, as a program keeps what it shows.
    let mut handles = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the bench speaks text");
        let (path, first) = line.split_once('\t').expect("a path and a first line");
        let handle: Handle<Text> = app.world().resource::<AssetServer>().load(path.to_owned());
        let loaded = until(&mut app, &handle, |_| true);
        say(if loaded { "loaded" } else { "not loaded" });
        if until(&mut app, &handle, |text| {
            text.strip_prefix(first.as_bytes()).is_some_and(|rest| rest.starts_with(b"\n"))
        }) {
            let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
            say(&at.as_nanos().to_string());
        } else {
            say("missed");
        }
        handles.push(handle);
    }
}

/// Runs frames until the asset is as wanted. Whether it came to be.
fn until(app: &mut App, handle: &Handle<Text>, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let began = Instant::now();
    loop {
        app.update();
        let assets = app.world().resource::<Assets<Text>>();
        if assets.get(handle).is_some_and(|text| wanted(&text.0)) {
            return true;
        }
        if began.elapsed() > PATIENCE {
            return false;
        }
        std::thread::yield_now();
    }
}
