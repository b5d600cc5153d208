//! Shaders with their includes, as a map of files stands for the tree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::Entry;
use super::*;

/// A tree, and which of its files were asked for.
struct Files {
    files: BTreeMap<&'static str, &'static str>,
    asked: Vec<String>,
}

impl Context for Files {
    fn read(&mut self, path: &AssetPath) -> Option<Vec<u8>> {
        self.asked.push(path.as_str().to_owned());
        self.files.get(path.as_str()).map(|text| text.as_bytes().to_vec())
    }
    fn exists(&mut self, path: &AssetPath) -> bool {
        self.files.contains_key(path.as_str())
    }
    fn list(&mut self, _folder: &str) -> Vec<Entry> {
        Vec::new()
    }
}

fn build(files: &[(&'static str, &'static str)], text: &str) -> (Result<Output>, Vec<String>) {
    let mut context = Files { files: files.iter().copied().collect(), asked: Vec::new() };
    let parameters: ShaderParameters = toml::from_str(text).unwrap();
    Shader.check(&parameters).unwrap();
    let path = AssetPath::new(files[0].0).unwrap();
    let result = Shader.run(Input { path: &path, bytes: files[0].1.as_bytes() }, &parameters, &mut context);
    (result, context.asked)
}

fn source(files: &[(&'static str, &'static str)], text: &str) -> String {
    String::from_utf8(build(files, text).0.unwrap().bytes).unwrap()
}

fn error(files: &[(&'static str, &'static str)], text: &str) -> String {
    build(files, text).0.unwrap_err().to_string()
}

const VERTEX: &str =
    "#version 450\nlayout(location = 0) in vec3 position;\nvoid main() { gl_Position = vec4(position, 1.0); }\n";

#[test]
fn a_shader_is_its_source_with_what_it_includes() {
    let files = [
        (
            "shaders/sky.wgsl",
            "// include: lib/light.wgsl\n#include \"../noise.wgsl\"\n@fragment fn main() -> @location(0) vec4f { return vec4f(light() * noise()); }\n",
        ),
        ("shaders/lib/light.wgsl", "#pragma once\n#include \"/noise.wgsl\"\nfn light() -> f32 { return noise(); }"),
        ("noise.wgsl", "#pragma once\nfn noise() -> f32 { return 0.5; }\n"),
    ];
    let whole = source(&files, "");
    assert_eq!(whole.matches("fn noise()").count(), 1);
    assert!(!whole.contains("#include") && !whole.contains("#pragma"), "{whole}");
    let (result, asked) = build(&files, "");
    result.unwrap();
    assert_eq!(asked, ["shaders/lib/light.wgsl", "noise.wgsl"], "each file is read once");
}

#[test]
fn folders_of_the_rule_are_looked_in_after_the_files_own() {
    let files = [
        (
            "a/main.vert",
            "#version 450\n#include <scale.glsl>\n#include \"own.glsl\"\nvoid main() { gl_Position = vec4(SCALE + OWN); }",
        ),
        ("lib/scale.glsl", "const float SCALE = 2.0;"),
        ("lib/own.glsl", "#error \"the other one\""),
        ("a/own.glsl", "const float OWN = 1.0;"),
    ];
    let (result, asked) = build(&files, "include_folders = ['missing', 'lib']");
    result.unwrap();
    assert_eq!(asked, ["missing/scale.glsl", "lib/scale.glsl", "a/own.glsl"]);
    assert_eq!(
        error(&files, "include_folders = ['missing']"),
        "a/main.vert:2: shader: there is no file \"scale.glsl\"; looked for missing/scale.glsl"
    );
    assert!(error(&files, "").contains("the rule gives none"));
}

#[test]
fn an_error_names_the_file_and_the_line_in_which_it_stands() {
    let main = "fn one() -> f32 { return 1.0; }\n#include \"b.wgsl\"\nfn two() -> f32 { return three(); }\n";
    let check = |main: &'static str, included: &'static str, start: &str, part: &str| {
        let error = error(&[("a.wgsl", main), ("b.wgsl", included)], "");
        assert!(error.starts_with(start) && error.contains(part), "{error}");
    };
    check(main, "", "a.wgsl:3:26: shader: ", "three");
    check(main, "fn three() -> f32 {\n  return x;\n}", "a.wgsl:2: shader: b.wgsl:2:10: ", "`x`");
    // An error of the second kind: it parses, and is not valid.
    check("// ö\nfn a() -> f32 { return vec2f(1.0).z; }", "", "a.wgsl:2:", "shader: ");
    check("@fragment\nfn a() {}\n@fragment fn a2() -> f32 { return 1.0; }", "", "a.wgsl:", "shader: ");
}

#[test]
fn an_error_in_glsl_has_its_line_too() {
    let check = |text: &'static str, start: &str, part: &str| {
        let error = error(&[("a.frag", text)], "");
        assert!(error.starts_with(start) && error.contains(part), "{error}");
    };
    check("#version 450\nvoid main() {\n  float a = b;\n}\n", "a.frag:3:13: shader: ", "b");
    check("#version 450\nvoid main() {\n  float a = ;\n}\n", "a.frag:3:", "Expected");
    check("#version 100\nvoid main() {}\n", "a.frag:1:", "version");
    check("#version 450\n#error no\nvoid main() {}", "a.frag:2:", "");
    let included =
        error(&[("a.frag", "#version 450\n\n#include \"b.glsl\"\nvoid main() {}"), ("b.glsl", "\nfloat f( { }")], "");
    assert!(included.starts_with("a.frag:3: shader: b.glsl:2:"), "{included}");
}

#[test]
fn files_that_include_each_other_are_told_and_end() {
    let circle =
        [("a.wgsl", "#include \"b.wgsl\""), ("b.wgsl", "\n#include \"c.wgsl\""), ("c.wgsl", "#include \"b.wgsl\"")];
    assert_eq!(
        error(&circle, ""),
        "a.wgsl:1: shader: c.wgsl:1: it includes itself: b.wgsl includes c.wgsl includes b.wgsl"
    );
    assert!(error(&[("a.wgsl", "\n#include \"./a.wgsl\"")], "").starts_with("a.wgsl:2: shader: it includes itself"));
    // A file that guards itself may be asked for again by what it includes only after it ended.
    let bomb = [
        ("a.wgsl", "#include \"b.wgsl\"\n#include \"b.wgsl\"\n#include \"b.wgsl\"\n#include \"b.wgsl\""),
        ("b.wgsl", "#include \"c.wgsl\"\n#include \"c.wgsl\"\n#include \"c.wgsl\"\n#include \"c.wgsl\""),
        ("c.wgsl", "#include \"d.wgsl\"\n#include \"d.wgsl\"\n#include \"d.wgsl\"\n#include \"d.wgsl\""),
        ("d.wgsl", "#include \"e.wgsl\"\n#include \"e.wgsl\"\n#include \"e.wgsl\"\n#include \"e.wgsl\""),
        (
            "e.wgsl",
            "const a_name_that_is_long_enough_for_this_file_to_be_too_large_when_it_is_put_in_a_quarter_of_a_thousand_times = 1;",
        ),
    ];
    assert!(error(&bomb, "").starts_with("a.wgsl:"));
}

#[test]
fn what_a_comment_says_is_no_directive() {
    let text = "/* #include \"no.glsl\"\n#include \"no.glsl\"\n*/ // #include \"no.glsl\"\n/* /* */\n#include \"yes.glsl\"\nvoid main() {}\n";
    let files = [("a.comp", text), ("yes.glsl", "float yes;")];
    assert!(source(&files, "check = false").contains("float yes;"));
    // In WGSL blocks nest.
    let files = [("a.wgsl", "/* /* */\n#include \"no.wgsl\"\n*/\n// include the light: here\n// include:\n")];
    assert_eq!(source(&files, "").lines().count(), 5);
}

#[test]
fn glsl_is_told_what_the_rule_defines() {
    let files = [(
        "a.vert",
        "// first\n#version 450\n#ifndef SIZE\n#error no size\n#endif\nvoid main() {\n gl_Position = vec4(SIZE);\n x;\n}",
    )];
    let error = error(&files, "defines = { SIZE = '2.0', FAST = '' }");
    assert!(error.starts_with("a.vert:8:2: shader: "), "lines are those of the file: {error}");
    let whole = source(&files, "check = false\ndefines = { SIZE = '2.0', FAST = '' }");
    assert!(whole.starts_with("// first\n#version 450\n#define FAST \n#define SIZE 2.0\n#ifndef"), "{whole}");
    let error = self::error(&[("a.wgsl", "")], "defines = { A = '1' }");
    assert_eq!(error, "a.wgsl: shader: the rule gives 'defines', which are for GLSL; WGSL has none");
}

#[test]
fn a_shader_becomes_wgsl_or_spirv() {
    let wgsl = source(&[("a.vert", VERTEX)], "output = 'wgsl'");
    assert!(wgsl.contains("@vertex") && wgsl.contains("@location(0)"), "{wgsl}");
    // What was written is read again.
    let again: &'static str = Box::leak(wgsl.clone().into_boxed_str());
    assert_eq!(source(&[("a.wgsl", again)], "output = 'wgsl'"), wgsl);
    for (path, text) in [("a.vert", VERTEX), ("a.wgsl", again)] {
        let (result, _) = build(&[(path, text)], "output = 'spirv'");
        let bytes = result.unwrap().bytes;
        assert_eq!(bytes[..8], [3, 2, 0x23, 7, 0, 0, 1, 0], "magic and version, little-endian");
        assert_eq!(bytes, build(&[(path, text)], "output = 'spirv'").0.unwrap().bytes);
    }
}

#[test]
fn a_name_tells_language_and_stage_or_the_rule_does() {
    for path in ["a.vert", "a.vert.glsl", "a.VS", "a.vsh"] {
        source(&[(path, VERTEX)], "");
    }
    source(&[("a.glsl", VERTEX)], "stage = 'vertex'");
    source(&[("a.shader", VERTEX)], "stage = 'vertex'\nlanguage = 'glsl'");
    assert!(error(&[("a.glsl", VERTEX)], "").contains("give 'stage'"));
    assert!(error(&[("vert", VERTEX)], "").contains("give 'language'"));
    assert_eq!(source(&[("a.hlsl", "float4 main() {}")], "check = false"), "float4 main() {}\n");
}

#[test]
fn a_parameter_that_makes_no_sense_is_named() {
    let check = |text: &str, expected: &str| {
        let parameters: std::result::Result<ShaderParameters, _> = toml::from_str(text);
        let error = match parameters {
            Ok(parameters) => Shader.check(&parameters).unwrap_err(),
            Err(error) => error.message().to_owned(),
        };
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("check = false\noutput = 'spirv'", "'check' is false");
    check("include_folders = ['../lib']", "'include_folders' has \"../lib\"");
    check("defines = { '2X' = '1' }", "'defines' has \"2X\"");
    check("defines = { X = \"1\\n#error\" }", "'defines' has more than a line");
    check("language = 'wgsl'\ndefines = { A = '' }", "'defines' are for GLSL");
    check("stage = 'geometry'", "expected one of `vertex`, `fragment`, `compute`");
}

#[test]
fn nesting_is_no_way_to_overflow_the_stack() {
    for open in ["(", "[", "{", "fn f() { if true {", "-"] {
        let deep: &'static str = Box::leak(format!("const a = {}1", open.repeat(2000)).into_boxed_str());
        build(&[("a.wgsl", deep)], "").0.unwrap_err();
        build(&[("a.frag", deep)], "").0.unwrap_err();
    }
    for (start, part, end) in [
        ("fn f() { if true {} ", "else if true {} ", "}"),
        ("fn f() -> i32 { return 1", "+ 1", "; }"),
        ("fn f(a: i32) -> i32 { return a", "+ a", "; }"),
        ("fn f() { var a = 1;", "a += 1;", "}"),
        ("void f() { if (true) {} ", "else if (true) {} ", "}"),
        ("int f(int a) { return a", "+ a", "; }"),
        ("int f(int a) { return ", "-", "a; }"),
        ("int f(int a) { return ", "a=", "a; }"),
        ("int f(int a) { return ", "true ? a : ", "a; }"),
        ("const a: ", "array<", "i32"),
    ] {
        // As long as is let through, and longer.
        for count in [990, 1100] {
            let long: &'static str = Box::leak(format!("{start}{}{end}", part.repeat(count)).into_boxed_str());
            let _ = build(&[("a.wgsl", long)], "output = 'spirv'");
            let _ = build(&[("a.frag", long)], "output = 'spirv'");
        }
    }
}

#[test]
fn what_people_draw_in_comments_is_no_depth() {
    let text = format!("/*{}\n((((*/\n{}fn f() {{}}\n", "*".repeat(3000), "//-----((((\n".repeat(300));
    source(&[("a.wgsl", Box::leak(text.into_boxed_str()))], "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_text_does_not_panic(
        text in "(#include|\"b\"|#pragma once|/\\*|\\*/|//|fn|var|const|struct|void|main|vec4|[a{}()\\[\\];:,.=<>@#0-9\n \\\\ö]){0,80}",
    ) {
        let leaked: &'static str = Box::leak(text.into_boxed_str());
        for path in ["a.wgsl", "a.frag"] {
            let _ = build(&[(path, leaked), ("b", leaked)], "");
        }
    }
}
