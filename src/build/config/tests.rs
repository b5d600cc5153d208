//! What a `flyloft.toml` means, and what is said about one that cannot be used.

use proptest::prelude::*;

use super::*;

fn path(text: &str) -> AssetPath {
    AssetPath::new(text).unwrap()
}

fn rule<'a>(config: &'a TreeConfig, asset: &str) -> Option<&'a str> {
    config.rule(&path(asset)).map(|rule| rule.name.as_str())
}

#[test]
fn the_documented_example_is_valid_and_means_what_it_says() {
    let config = TreeConfig::parse(include_str!("../../../docs/flyloft.toml")).unwrap();
    config.check(&TransformRegistry::with_builtins()).unwrap();
    assert!(config.ignores("deep/a.tmp", false) && config.ignores("raw/a/b.psd", false));
    assert!(!config.ignores("a/raw/b.png", false) && !config.ignores("raw", false) && config.ignores("raw", true));
    assert_eq!(rule(&config, "deep/a.json"), Some("minify-json"));
    assert_eq!(rule(&config, "package.json"), None);
    assert_eq!(rule(&config, "data/kept/deep/a.json"), None);
    assert_eq!(rule(&config, "a.png"), None);
    assert_eq!(config.dependencies(&path("scenes/hall.scene")), [path("textures/wall.png"), path("audio/hall.ogg")]);
    assert_eq!(config.dependencies(&path("index.html")), [path("data/menu.json")]);
    assert_eq!(config.dependencies(&path("other")), []);
    assert_eq!(config.all_dependencies().count(), 2);
}

#[test]
fn an_empty_file_is_the_default_and_version_controls_are_always_ignored() {
    for config in [TreeConfig::default(), TreeConfig::parse("").unwrap()] {
        assert!(
            config.ignores(".git", true) && config.ignores("sub/.git", false) && config.ignores(".git/HEAD", false)
        );
        assert!(!config.ignores(".gitignore", false) && !config.ignores("flyloft.toml", false));
        assert!(config.rules().is_empty());
    }
}

#[test]
fn what_is_below_an_ignored_folder_is_ignored() {
    let config = TreeConfig::parse("ignore = ['build/', 'docs/*.pdf', 'thumbs']").unwrap();
    assert!(config.ignores("x/build/deep/a.png", false) && config.ignores("thumbs/a.png", false));
    assert!(config.ignores("docs/a.pdf", false) && !config.ignores("docs/b/a.pdf", false));
    assert!(!config.ignores("build", false), "a file of that name is none");
}

#[test]
fn a_mistake_is_reported_with_its_line_and_column() {
    let check = |text: &str, expected: &str| {
        let error = TreeConfig::parse(text).unwrap_err().to_string();
        assert_eq!(error, format!("flyloft.toml:{expected}"), "{text}");
    };
    check("\n ignored = []", "2:2: unknown key \"ignored\"; expected ignore, transform or deps");
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
    check("[[transform]]\nglob = 'a'\nnmae = 'b'", "3:1: unknown key \"nmae\"; expected glob, name or parameters");
    check("[[transform]]\nparameters = 3", "2:14: expected a table of parameters, found an integer");
    check(
        "[[transform]]\nglob = 'a'\nname = 'b'\nparameters = { n = 9223372036854775808 }",
        "4:20: expected an integer of 64 bits",
    );
    check("deps = 3", "1:8: expected a table: write [deps], found an integer");
    check("[deps]\n\"../a\" = []", "2:1: \"../a\" is not a path of the tree: it has a '.' or '..' part");
    check("[deps]\na = ['b', '/c']", "2:11: \"/c\" is not a path of the tree: it is absolute or has an empty part");
    check("[deps]\na = 3", "2:5: expected a path or an array of paths, found an integer");
    let error = TreeConfig::parse("a = \n").unwrap_err().to_string();
    assert!(error.starts_with("flyloft.toml:1:") && !error.contains('\n'), "{error}");
    let error = TreeConfig::parse("[deps]\na = []\na = []").unwrap_err().to_string();
    assert!(error.starts_with("flyloft.toml:3:1: duplicate key"), "{error}");
}

#[test]
fn a_rule_must_name_a_transform_and_parameters_that_exist() {
    let registry = TransformRegistry::with_builtins();
    let check = |text: &str, expected: &str| {
        let error = TreeConfig::parse(text).unwrap().check(&registry).unwrap_err().to_string();
        assert_eq!(error, format!("flyloft.toml:{expected}"));
    };
    check(
        "[[transform]]\nglob = 'a'\nname = 'minify'",
        "3:8: no transform is named 'minify'; expected one of identity, minify-json",
    );
    check(
        "[[transform]]\nglob = 'a'\nname = 'minify-json'\n[transform.parameters]\nindent = 2",
        "5:1: parameter 'indent': 'minify-json' has no such parameter; it takes none",
    );
}

#[test]
fn of_the_rules_that_match_the_last_one_counts_and_its_parameters_are_its_own() {
    let text = "[[transform]]\nglob = '*.x'\nname = 'one'\nparameters = { a = 1, b = [1.5, 'x', true], c = { d = 1979-05-27 } }\n\
        [[transform]]\nglob = 'sub/*.x'\nname = 'two'";
    let config = TreeConfig::parse(text).unwrap();
    assert_eq!((rule(&config, "a.x"), rule(&config, "sub/a.x")), (Some("one"), Some("two")));
    let one = config.rule(&path("a.x")).unwrap();
    assert_eq!(one.place, "flyloft.toml:3:8");
    let expected: toml::Table = toml::from_str("c = { d = 1979-05-27 }\nb = [1.5, 'x', true]\na = 1").unwrap();
    assert_eq!(one.parameters, expected);
    assert_eq!(one.parameters_hash(), parameters_hash(&expected));
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
        if let Err(error) = TreeConfig::parse(&text) {
            let error = error.to_string();
            prop_assert!(error.starts_with("flyloft.toml") && !error.contains('\n'), "{}", error);
        }
    }

    #[test]
    fn hostile_nesting_does_not_overflow(depth in 1usize..20_000) {
        for (open, close) in [("[", "]"), ("{a=", "}")] {
            let _ = TreeConfig::parse(&format!("ignore = {}{}", open.repeat(depth), close.repeat(depth)));
        }
        let _ = TreeConfig::parse(&format!("ignore = '{}'", "{a,".repeat(depth)));
        let _ = TreeConfig::parse(&format!("[{}a]", "a.".repeat(depth)));
    }
}
