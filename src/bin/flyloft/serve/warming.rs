//! What `serve --warm` may be asked for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use flyloft::config::WarmConfig;
use flyloft::runtime::Warming;

/// What to load before it is asked for.
#[derive(Clone, Debug)]
pub enum Warm {
    Historical,
    Predicted,
    Sequential(String),
    Dependencies(String),
}

/// `historical`, `predicted`, `sequential`, `sequential=PREFIX` or `dependencies=PATH`.
pub fn parse(text: &str) -> Result<Warm, String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    match (name, value) {
        ("historical", None) => Ok(Warm::Historical),
        ("predicted", None) => Ok(Warm::Predicted),
        ("sequential", prefix) => Ok(Warm::Sequential(prefix.unwrap_or_default().to_owned())),
        ("dependencies", Some(path)) if !path.is_empty() => Ok(Warm::Dependencies(path.to_owned())),
        _ => Err("it is not one of historical, predicted, sequential[=PREFIX], dependencies=PATH".to_owned()),
    }
}

impl Warm {
    pub fn warming(&self) -> Warming {
        match self {
            Warm::Historical => Warming::historical(),
            Warm::Predicted => Warming::predicted(),
            Warm::Sequential(prefix) => Warming::sequential([prefix]),
            Warm::Dependencies(path) => Warming::dependencies([path]),
        }
    }
}

/// What has to be remembered for what is asked for: of a folder in its store, of a bundle beside it, unless the settings
/// say where.
pub fn config(asked: &[Warm], source: &Path, settings: WarmConfig) -> WarmConfig {
    let history = settings.history || asked.iter().any(|warm| matches!(warm, Warm::Historical));
    let beside = || {
        let mut name = OsString::from(source);
        name.push(".accesses");
        PathBuf::from(name)
    };
    let journal = settings.journal.or_else(|| (history && !source.is_dir()).then(beside));
    WarmConfig { history, journal, ..settings }
}
