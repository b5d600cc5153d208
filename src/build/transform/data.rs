//! `data`: tables of data, checked, and made smaller in their own format or turned to one that programs read faster.
//!
//! JSON, TOML and RON are read. In its own format a text is copied token by token as it was written, without comments
//! and white space, so that no number or string is read and written anew. As JSON, CBOR (RFC 8949) or MessagePack it
//! is a tree of values: maps keep the order that the format gives them, dates of TOML become text. All of these say
//! what they hold; a format that does not, such as postcard, needs the types of the program that reads it, and so a
//! transform of that program.

mod node;
mod ron_text;
mod toml_text;

use serde::Deserialize;

use self::node::Node;
use super::minify_json;
use super::text::{Fault, utf8};
use super::{Context, Input, Output, Transform};
use crate::error::Result;
use crate::ids::AssetPath;

/// `data`: JSON, TOML or RON, checked, minified or turned to another format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Data;

/// The parameters of [`Data`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataParameters {
    /// What the source is. Default: what its extension says.
    pub format: Option<DataFormat>,
    /// What is made of it. Default `same`.
    pub output: DataOutput,
}

/// What a source can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataFormat {
    /// JSON, RFC 8259.
    Json,
    /// TOML 1.1.
    Toml,
    /// Rusty Object Notation.
    Ron,
}

/// What can be made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataOutput {
    /// The same format without comments and white space. The default.
    #[default]
    Same,
    /// JSON.
    Json,
    /// CBOR.
    Cbor,
    /// MessagePack.
    MessagePack,
}

impl Data {
    /// Its name.
    pub const NAME: &'static str = "data";
}

impl Transform for Data {
    type Parameters = DataParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn run(&self, input: Input<'_>, parameters: &DataParameters, _context: &mut dyn Context) -> Result<Output> {
        let text = utf8(&input, Self::NAME)?;
        let built = of_path(input.path, parameters.format).and_then(|format| build(text, format, parameters.output));
        built.map(Into::into).map_err(|fault| fault.of(&input, Self::NAME))
    }
}

fn of_path(path: &AssetPath, said: Option<DataFormat>) -> Result<DataFormat, Fault> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    said.or(match extension.as_str() {
        "json" => Some(DataFormat::Json),
        "toml" => Some(DataFormat::Toml),
        "ron" => Some(DataFormat::Ron),
        _ => None,
    })
    .ok_or_else(|| Fault::whole("its name does not end in .json, .toml or .ron; say `format`"))
}

fn build(text: &str, format: DataFormat, output: DataOutput) -> Result<Vec<u8>, Fault> {
    match (format, output) {
        (DataFormat::Json, DataOutput::Same | DataOutput::Json) => minify_json::minify(text),
        (DataFormat::Toml, DataOutput::Same) => toml_text::minify(text),
        (DataFormat::Ron, DataOutput::Same) => ron_text::minify(text),
        (_, output) => {
            let node = match format {
                DataFormat::Json => serde_json::from_str::<Node>(text).map_err(|error| minify_json::fault(&error))?,
                DataFormat::Toml => toml_text::read(text)?,
                DataFormat::Ron => ron_text::read(text)?,
            };
            write(&node, output)
        }
    }
}

fn write(node: &Node, output: DataOutput) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let cannot = |error: &dyn std::fmt::Display| Fault::whole(format!("it cannot be written so: {error}"));
    match output {
        DataOutput::Same | DataOutput::Json => {
            node.fits_json().map_err(Fault::whole)?;
            serde_json::to_writer(&mut bytes, node).map_err(|error| cannot(&error))?;
        }
        DataOutput::Cbor => ciborium::into_writer(node, &mut bytes).map_err(|error| cannot(&error))?,
        DataOutput::MessagePack => rmp_serde::encode::write(&mut bytes, node).map_err(|error| cannot(&error))?,
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str, format: DataFormat, output: DataOutput) -> Vec<u8> {
        build(text, format, output).unwrap()
    }

    const JSON: &str = "{ \"b\": [1, -2, 0.1, 18446744073709551615], \"a\": {\"x\": null, \"y\": true} }";

    #[test]
    fn every_format_is_turned_into_every_other_and_means_the_same() {
        let toml = "b = [1, -2, 0.1]\n[a]\ny = true\nz = 1979-05-27T07:32:00Z";
        let ron = "(b: [1, -2, 0.1], a: {\"x\": None, 'y': Some(true)}, /* c */ d: (1, \"z\"))";
        let check = |text: &str, format, json: &str| {
            assert_eq!(String::from_utf8(made(text, format, DataOutput::Json)).unwrap(), json);
            let expected: serde_json::Value = serde_json::from_str(json).unwrap();
            let cbor = made(text, format, DataOutput::Cbor);
            let cbor: serde_json::Value = ciborium::from_reader(cbor.as_slice()).unwrap();
            let messagepack = made(text, format, DataOutput::MessagePack);
            let messagepack: serde_json::Value = rmp_serde::from_slice(&messagepack).unwrap();
            assert_eq!((&cbor, &messagepack), (&expected, &expected));
        };
        check(JSON, DataFormat::Json, r#"{"b":[1,-2,0.1,18446744073709551615],"a":{"x":null,"y":true}}"#);
        check(toml, DataFormat::Toml, r#"{"a":{"y":true,"z":"1979-05-27T07:32:00Z"},"b":[1,-2,0.1]}"#);
        check(ron, DataFormat::Ron, r#"{"b":[1,-2,0.1],"a":{"x":null,"y":true},"d":[1,"z"]}"#);
    }

    #[test]
    fn the_same_text_gives_the_same_bytes() {
        assert_eq!(made("{\"a\":[1]}", DataFormat::Json, DataOutput::Cbor), b"\xa1\x61a\x81\x01");
        assert_eq!(made("{\"a\":[1]}", DataFormat::Json, DataOutput::MessagePack), b"\x81\xa1a\x91\x01");
    }

    #[test]
    fn what_does_not_parse_or_cannot_be_said_is_refused_with_its_place() {
        let check = |text: &str, format, output, place: Option<(u32, u32)>, cause: &str| {
            let fault = build(text, format, output).unwrap_err();
            assert!(fault.place == place && fault.cause.contains(cause), "{fault:?}");
        };
        use DataOutput::{Cbor, Json, Same};
        for output in [Same, Cbor] {
            check("{\n\"a\": }", DataFormat::Json, output, Some((2, 6)), "expected value");
            check("a = 1\nb = \n", DataFormat::Toml, output, Some((2, 5)), "");
            check("(a: 1,\n b: ])", DataFormat::Ron, output, Some((2, 5)), "");
        }
        check("(a: 1,\n b: Wall(2))", DataFormat::Ron, Json, Some((2, 5)), "'Wall'");
        check("{\"a\": 1, \"a\": 2}", DataFormat::Json, Cbor, Some((1, 12)), "the key \"a\" stands there twice");
        check("{1.5: 1}", DataFormat::Ron, Json, None, "only texts are keys in JSON");
        check("a = nan", DataFormat::Toml, Json, None, "JSON has no number like NaN");
        check("a = 1e999", DataFormat::Json, Json, Some((1, 1)), "expected value");
    }

    #[test]
    fn the_format_is_that_of_the_extension_unless_it_is_said() {
        let check = |path: &str, said, expected: Result<DataFormat, Fault>| {
            assert_eq!(of_path(&AssetPath::new(path).unwrap(), said), expected, "{path}");
        };
        check("a.JSON", None, Ok(DataFormat::Json));
        check("a.scene", Some(DataFormat::Ron), Ok(DataFormat::Ron));
        let said = "its name does not end in .json, .toml or .ron; say `format`";
        check("a.scene", None, Err(Fault::whole(said)));
    }
}
