//! What a `flyloft.toml` means, and what is said about one that cannot be used.

use proptest::prelude::*;

use super::*;
use crate::build::transform::{Context, Input, NoFiles, Output, Transform};
use crate::config::{EvictionPolicy, RuntimeConfig};

fn path(text: &str) -> AssetPath {
    AssetPath::new(text).unwrap()
}

fn rule(config: &TreeConfig, asset: &str) -> Option<String> {
    config.rule(&path(asset)).map(|rule| rule.names().collect::<Vec<_>>().join("+"))
}

/// A transform with parameters of most types.
struct Typed(&'static str);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    level: u8,
    #[serde(default)]
    mode: Mode,
    #[serde(default, rename = "sizes")]
    _sizes: Vec<u32>,
    needed: Option<String>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Fast,
    VerySmall,
}

impl Transform for Typed {
    type Parameters = Settings;
    fn name(&self) -> &str {
        self.0
    }
    fn version(&self) -> u32 {
        2
    }
    fn check(&self, settings: &Settings) -> Result<(), String> {
        match settings.level {
            0..=9 => Ok(()),
            level => Err(format!("'level' is {level}; expected 0 to 9")),
        }
    }
    fn run(&self, input: Input<'_>, settings: &Settings, _: &mut dyn Context) -> crate::error::Result<Output> {
        let mode = if matches!(settings.mode, Mode::VerySmall) { b'v' } else { b'f' };
        let needed = settings.needed.as_deref().unwrap_or_default().as_bytes();
        Ok([input.bytes, &[b'0' + settings.level, mode], needed].concat().into())
    }
}

fn registry() -> TransformRegistry {
    let mut registry = TransformRegistry::new();
    registry.register(Identity).unwrap();
    registry.register(crate::build::transform::MinifyJson).unwrap();
    for name in ["one", "two"] {
        registry.register(Typed(name)).unwrap();
    }
    registry
}

fn parse(text: &str) -> Result<TreeConfig, Mistake> {
    TreeConfig::parse(text, &registry())
}

#[test]
fn the_documented_example_is_valid_and_means_what_it_says() {
    let config =
        TreeConfig::parse(include_str!("../../../docs/flyloft.toml"), &TransformRegistry::with_builtins()).unwrap();
    assert!(config.ignores("deep/a.tmp", false) && config.ignores("raw/a/b.psd", false));
    assert!(!config.ignores("a/raw/b.png", false) && !config.ignores("raw", false) && config.ignores("raw", true));
    assert_eq!(rule(&config, "deep/a.json"), Some("minify-json".into()));
    assert_eq!(rule(&config, "package.json"), None);
    assert_eq!(rule(&config, "data/kept/deep/a.json"), None);
    assert_eq!(rule(&config, "a.png"), None);
    assert_eq!(config.dependencies(&path("scenes/hall.scene")), [path("textures/wall.png"), path("audio/hall.ogg")]);
    assert_eq!(config.dependencies(&path("index.html")), [path("data/menu.json")]);
    assert_eq!(config.dependencies(&path("other")), []);
    assert_eq!(config.all_dependencies().count(), 2);
    let names: Vec<&str> = config.places().iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["models/tower.glb", "models/tree.glb", "models/tree.glb"]);
    let tower = Place::at([120.0, 0.0, 40.5]).radius_m(8.0).level(150.0, "models/tower-far.glb");
    assert_eq!(config.places()[0].1, tower);
    assert_eq!(config.places()[2].1, Place::at([14.0, 0.0, 9.0]).importance(0.5));
}

#[test]
fn the_documented_example_shows_every_transform_with_its_parameters() {
    // The lines that are for who has the features, as if they were no comments.
    let text = include_str!("../../../docs/flyloft.toml").replace("\n#:", "\n");
    let mut registry = TransformRegistry::with_builtins();
    registry.allow_commands();
    let mistakes = TreeConfig::mistakes(&text, &registry);
    let unexpected: Vec<&Mistake> =
        mistakes.iter().filter(|mistake| !mistake.message.contains("is not built in")).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
    for name in registry.names() {
        assert!(text.contains(&format!("name = {name:?}")), "{name} is not in it");
    }
    if cfg!(all(feature = "image", feature = "gltf", feature = "shaders", feature = "minify", feature = "compress")) {
        assert!(mistakes.is_empty(), "{mistakes:#?}");
    }
}

#[test]
fn an_empty_file_is_the_default_and_version_controls_are_always_ignored() {
    for config in [TreeConfig::default(), parse("").unwrap()] {
        assert!(
            config.ignores(".git", true) && config.ignores("sub/.git", false) && config.ignores(".git/HEAD", false)
        );
        assert!(!config.ignores(".gitignore", false) && !config.ignores("flyloft.toml", false));
        assert!(config.rules().is_empty());
    }
}

#[test]
fn what_is_below_an_ignored_folder_is_ignored() {
    let config = parse("ignore = ['build/', 'docs/*.pdf', 'thumbs']").unwrap();
    assert!(config.ignores("x/build/deep/a.png", false) && config.ignores("thumbs/a.png", false));
    assert!(config.ignores("docs/a.pdf", false) && !config.ignores("docs/b/a.pdf", false));
    assert!(!config.ignores("build", false), "a file of that name is none");
}

#[test]
fn a_mistake_is_reported_with_its_line_and_column() {
    let check = |text: &str, expected: &str| {
        let error = parse(text).unwrap_err().to_string();
        assert_eq!(error, format!("flyloft.toml:{expected}"), "{text}");
    };
    check(
        "\n ignored = []",
        "2:2: unknown key \"ignored\"; expected ignore, transform, deps, places or runtime; did you mean 'ignore'?",
    );
    check("ignore = 3", "1:10: expected a glob or an array of globs, found an integer");
    check("ignore = ['a', true]", "1:16: expected a string, found true or false");
    check("ignore = ['a', '[b']", "1:16: \"[b\" is not a glob: unclosed character class; missing ']'");
    check("ignore = ['']", "1:11: \"\" is not a glob: it is empty");
    check("# ö\n[transform]\nglob = 'a'", "2:1: expected an array of tables: write [[transform]], found a table");
    check("transform = [1]", "1:14: expected a table with glob and name, found an integer");
    check("[[transform]]\nname = 'identity'", "1:1: this [[transform]] has no glob");
    check("[[transform]]\nglob = []\nname = 'identity'", "1:1: this [[transform]] has no glob");
    check("[[transform]]\nglob = 'a'", "1:1: this [[transform]] has no name");
    check("[[transform]]\nglob = 'a'\nname = 3", "3:8: expected the name of a transform, found an integer");
    check(
        "[[transform]]\nglob = 'a'\nnmae = 'b'",
        "3:1: unknown key \"nmae\"; expected glob, name, parameters or steps; did you mean 'name'?",
    );
    check(
        "[[transform]]\nglob = 'a'\nname = 'one'\nparameters = 3",
        "4:14: expected a table of parameters, found an integer",
    );
    check(
        "[[transform]]\nglob = 'a'\nname = 'b'\nparameters = { n = 9223372036854775808 }",
        "4:20: expected an integer of 64 bits",
    );
    check("deps = 3", "1:8: expected a table: write [deps], found an integer");
    check("[deps]\n\"../a\" = []", "2:1: \"../a\" is not a path of the tree: it has a '.' or '..' part");
    check("[deps]\na = ['b', '/c']", "2:11: \"/c\" is not a path of the tree: it is absolute or has an empty part");
    check("[deps]\na = 3", "2:5: expected a path or an array of paths, found an integer");
    let error = parse("a = \n").unwrap_err().to_string();
    assert!(error.starts_with("flyloft.toml:1:") && !error.contains('\n'), "{error}");
    let error = parse("[deps]\na = []\na = []").unwrap_err().to_string();
    assert!(error.starts_with("flyloft.toml:3:1: duplicate key"), "{error}");
}

#[test]
fn a_place_that_cannot_be_used_is_reported_where_it_stands() {
    let check = |text: &str, expected: &str| {
        let error = parse(&format!("[places]\n{text}")).unwrap_err().to_string();
        assert_eq!(error, format!("flyloft.toml:2:{expected}"), "{text}");
    };
    check("a = 3", "5: expected a table with at, and radius, importance or levels, found an integer");
    check("a = { radius = 1 }", "5: this place has no at = [x, y, z]");
    check("a = { at = [1, 2] }", "12: expected three numbers, [x, y, z], found 2 of them");
    check("a = { at = [1, 2, '3'] }", "19: expected a number, found a string");
    check("a = { at = [1, nan, 3] }", "12: NaN is not a coordinate within 1000000000 metres of the origin");
    check("a = { at = [1, inf, 3] }", "12: inf is not a coordinate within 1000000000 metres of the origin");
    check("a = { at = [1, 2, 3], radius = -1 }", "32: -1 is not a radius within 0 to 1000000000 metres");
    check("a = [{ at = [1, 2, 3] }, { at = [1, 2, 3], importance = 2 }]", "57: 2 is not within 0 to 1");
    check(
        "a = { at = [1, 2, 3], raduis = 1 }",
        "23: unknown key \"raduis\"; expected at, radius, importance or levels; did you mean 'radius'?",
    );
    check("a = { at = [1, 2, 3], levels = [{ distance = 5 }] }", "33: this level has no asset");
    check("a = { at = [1, 2, 3], levels = [{ asset = 'b' }] }", "33: this level has no distance");
    check(
        "a = { at = [1, 2, 3], levels = [{ distance = 5, asset = 'b' }, { distance = 5, asset = 'c' }] }",
        "32: 5 is not a distance above 5: levels are in the order of their distances",
    );
    check("\"../a\" = { at = [1, 2, 3] }", "1: \"../a\" is not a path of the tree: it has a '.' or '..' part");
    assert!(
        parse("places = 3").unwrap_err().to_string().ends_with("expected a table: write [places], found an integer")
    );
}

#[test]
fn every_mistake_is_found_in_the_order_of_the_text() {
    let text = "ignore = 3\n[deps]\na = 1\nb = ['/c']\n[[transform]]\nglob = 'a'\n[[transform]]\nglob = 'b'\n\
        name = 'onn'\n[[transform]]\nglob = 'c'\nname = 'one'\n";
    let mistakes = TreeConfig::mistakes(text, &registry());
    let lines: Vec<Option<u32>> = mistakes.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [1, 3, 4, 5, 9].map(Some), "{mistakes:?}");
    assert!(mistakes[4].message.ends_with("did you mean 'one'?"), "{}", mistakes[4]);
    assert_eq!(&text[mistakes[4].span.clone()], "'onn'");
    assert_eq!(parse(text).unwrap_err(), mistakes[0]);
    // What follows from a mistake of the grammar is none of its own.
    let broken = TreeConfig::mistakes("ignore = [\nunknown = 1\n", &registry());
    assert!(broken.iter().all(|mistake| !mistake.message.contains("unknown key")), "{broken:?}");
    assert!(TreeConfig::mistakes("", &registry()).is_empty());
    let many = TreeConfig::mistakes(&"[[transform]]\n".repeat(1000), &registry());
    assert_eq!(many.len(), 20);
}

#[test]
fn a_rule_must_name_a_transform_and_parameters_that_exist() {
    let check = |text: &str, expected: &str| {
        let error = parse(&format!("[[transform]]\nglob = 'a'\n{text}")).unwrap_err().to_string();
        assert_eq!(error, format!("flyloft.toml:{expected}"), "{text}");
    };
    let known = registry().names().join(", ");
    let meant = "did you mean 'minify-json'?";
    check("name = 'minify-jsn'", &format!("3:8: no transform is named 'minify-jsn'; expected one of {known}; {meant}"));
    check(
        "name = 'minify-json'\n[transform.parameters]\nindent = 2",
        "5:1: parameters of 'minify-json': unknown field `indent`, there are no fields",
    );
    check(
        "name = 'one'\nparameters = { level = 3, lvl = 2 }",
        "4:27: parameters of 'one': unknown field `lvl`, expected one of `level`, `mode`, `sizes`, `needed`; \
         did you mean 'level'?",
    );
    check(
        "name = 'one'\nparameters = { level = 300 }",
        "4:24: parameters of 'one': invalid value: integer `300`, expected u8",
    );
    check("name = 'one'\nparameters = { level = 10 }", "4:16: parameters of 'one': 'level' is 10; expected 0 to 9");
    check(
        "name = 'one'\nparameters = { sizes = [1,\n 'a'] }",
        "5:2: parameters of 'one': invalid type: string \"a\", expected u32",
    );
    check(
        "name = 'one'\n[transform.parameters]\nmode = 'slow'",
        "5:8: parameters of 'one': unknown variant `slow`, expected `fast` or `very-small`",
    );
    check(
        "name = 'one'\nsteps = [{ name = 'two' }]",
        "3:1: expected either steps or one name with parameters, found both",
    );
    check("steps = []", "3:9: expected at least one step");
    check("steps = [{ name = 'two', level = 1 }]", "3:26: unknown key \"level\"; expected name or parameters");
    check("steps = [{ parameters = {} }]", "3:10: this step has no name");
    check(
        "steps = [{ name = 'one' }, { name = 'six' }]",
        &format!("3:37: no transform is named 'six'; expected one of {known}"),
    );
    check("steps = [3]", "3:10: expected a table with name and parameters, found an integer");
}

#[test]
fn of_the_rules_that_match_the_last_one_counts_and_its_parameters_are_its_own() {
    let text = "[[transform]]\nglob = '*.x'\nname = 'one'\nparameters = { level = 1, mode = 'very-small', sizes = [1, 2] }\n\
        [[transform]]\nglob = 'sub/*.x'\nsteps = [{ name = 'two' }, { name = 'one', parameters = { needed = '!' } }]";
    let config = parse(text).unwrap();
    assert_eq!((rule(&config, "a.x"), rule(&config, "sub/a.x")), (Some("one".into()), Some("two+one".into())));
    let one = config.rule(&path("a.x")).unwrap();
    let expected: toml::Table = toml::from_str("sizes = [1, 2]\nmode = 'very-small'\nlevel = 1").unwrap();
    let recorded = BuildStep { transform: "one".into(), version: 2, parameters: parameters_hash(&expected) };
    assert_eq!(one.recorded(), std::slice::from_ref(&recorded));
    assert!(one.is_recorded_as(std::slice::from_ref(&recorded)) && !one.is_recorded_as(&[]));
    assert!(!one.is_recorded_as(&[BuildStep { version: 1, ..recorded }]));
    let run = |asset: &str| {
        let asset = path(asset);
        let steps = config.rule(&asset).unwrap().steps();
        steps.iter().fold(b"x".to_vec(), |bytes, step| {
            step.transform.run(Input { path: &asset, bytes: &bytes }, &mut NoFiles).unwrap().bytes
        })
    };
    assert_eq!((run("a.x"), run("sub/a.x")), (b"x1v".to_vec(), b"x0f0f!".to_vec()));
}

#[test]
fn a_hash_of_parameters_tells_values_and_types_apart() {
    let hash = |text: &str| parameters_hash(&toml::from_str(text).unwrap());
    let all =
        ["", "a = 1", "a = 2", "a = 1.0", "a = '1'", "a = [1]", "a = [[1]]", "a = { b = 1 }", "b = 1", "a = true"];
    let distinct: std::collections::BTreeSet<[u8; 32]> = all.iter().map(|text| hash(text)).collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(hash(""), [0; 32]);
    // Kept in bundles: may not change.
    let hex = blake3::Hash::from_bytes(hash("a = 1")).to_hex();
    assert_eq!(
        hex.as_str(),
        blake3::hash(b"t\x01\0\0\0\0\0\0\0k\x01\0\0\0\0\0\0\0ai\x01\0\0\0\0\0\0\0").to_hex().as_str()
    );
}

proptest! {
    #[test]
    fn hostile_text_does_not_panic(text in "(\\[{0,2}|transform|deps|ignore|glob|name|[\\]=\n '\"{},.*?a1é\\\\]){0,60}") {
        if let Err(error) = parse(&text) {
            let error = error.to_string();
            prop_assert!(error.starts_with("flyloft.toml") && !error.contains('\n'), "{}", error);
        }
    }

    #[test]
    fn hostile_nesting_does_not_overflow(depth in 1usize..20_000) {
        for (open, close) in [("[", "]"), ("{a=", "}")] {
            let _ = parse(&format!("ignore = {}{}", open.repeat(depth), close.repeat(depth)));
        }
        let _ = parse(&format!("ignore = '{}'", "{a,".repeat(depth)));
        let _ = parse(&format!("[{}a]", "a.".repeat(depth)));
    }
}

#[test]
fn a_runtime_is_set_up_and_what_it_cannot_be_set_to_is_reported_with_its_place() {
    let config = parse("[runtime]\nbudget_bytes = 16777216\n[runtime.eviction]\npolicy = 'sieve'").unwrap();
    let set = config.runtime().over(RuntimeConfig { watch: true, ..RuntimeConfig::default() });
    assert_eq!((set.budget_bytes, set.eviction.policy, set.watch), (16 << 20, EvictionPolicy::Sieve, true));
    assert_eq!(parse("").unwrap().runtime().over(RuntimeConfig::default()), RuntimeConfig::default());
    let check = |text: &str, said: &[&str]| {
        let error = parse(text).unwrap_err().to_string();
        assert!(said.iter().all(|part| error.contains(part)), "{said:?} is not all in: {error}");
    };
    check("runtime = 3", &["flyloft.toml:1:11", "expected a table"]);
    check("[runtime]\nbudget_byte = 1", &["flyloft.toml:2:1", "did you mean 'budget_bytes'?"]);
    check("[runtime]\nbudget_bytes = 'much'", &["flyloft.toml:2:16"]);
    check("[runtime]\nbudget_bytes = 0", &["flyloft.toml:", "budget_bytes"]);
    check("[runtime.eviction]\npolicy = 'clock'", &["flyloft.toml:2:10", "clock", "sieve"]);
    check("[runtime.eviction]\ntarget_percent = 0", &["eviction.target_percent"]);
}
