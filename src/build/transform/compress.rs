//! `compress`: an asset's bytes once more as gzip and as brotli, for clients that would rather have them so.
//!
//! The asset itself stays as it is. Beside it stand `style.css#gzip` and `style.css#br`, assets of their own, which the
//! HTTP face sends to who accepts that coding. Both encoders are written in Rust and compute the same on every
//! machine: brotli with its `portable-float`, DEFLATE with `miniz_oxide`, whose choices do not depend on what the
//! processor offers. `flate2` would choose another one of its encoders as soon as any crate asks for that.

use brotli::enc::BrotliEncoderParams;
use serde::Deserialize;

use super::{Context, Input, Labelled, Output, Transform};
use crate::error::Result;

/// The compress transform: adds the labelled assets `gzip` and `br`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compress;

/// The parameters of [`Compress`].
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompressParameters {
    /// Which codings. Default both.
    pub codings: Vec<Coding>,
    /// How hard gzip tries, from 1 to 9. Default 9: it is done once, and sent often.
    pub gzip_level: u8,
    /// How hard brotli tries, from 0 to 11. Default 9; 11 takes some ten times as long.
    pub brotli_quality: u32,
    /// How many times smaller a coding must be, or it is left out. Default 1.1, at least 1.
    pub ratio_min: f64,
}

impl Default for CompressParameters {
    fn default() -> Self {
        Self { codings: Coding::ALL.to_vec(), gzip_level: 9, brotli_quality: 9, ratio_min: 1.1 }
    }
}

/// A coding of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Coding {
    /// RFC 1952.
    #[serde(rename = "gzip")]
    Gzip,
    /// RFC 7932.
    #[serde(rename = "br")]
    Brotli,
}

impl Coding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Brotli];

    /// Its name in HTTP, and the label of the asset.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }
}

/// The window of brotli, as a power of two: what RFC 7932 has without an extension.
const BROTLI_WINDOW_BITS: i32 = 22;

impl Compress {
    /// Its name.
    pub const NAME: &'static str = "compress";
}

impl Transform for Compress {
    type Parameters = CompressParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    /// Raised also when an encoder's library writes something else than before.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, parameters: &CompressParameters) -> Result<(), String> {
        let CompressParameters { codings, gzip_level, brotli_quality, ratio_min } = parameters;
        if codings.is_empty() {
            return Err("'codings' is empty; expected gzip, br or both".into());
        }
        if !(1..=9).contains(gzip_level) {
            return Err(format!("'gzip_level' is {gzip_level}; expected 1 to 9"));
        }
        if *brotli_quality > 11 {
            return Err(format!("'brotli_quality' is {brotli_quality}; expected 0 to 11"));
        }
        if !ratio_min.is_finite() || *ratio_min < 1.0 {
            return Err(format!("'ratio_min' is {ratio_min}; expected 1 or more"));
        }
        Ok(())
    }

    fn run(&self, input: Input<'_>, parameters: &CompressParameters, _context: &mut dyn Context) -> Result<Output> {
        let mut output = Output::from(input.bytes.to_vec());
        for coding in Coding::ALL.into_iter().filter(|coding| parameters.codings.contains(coding)) {
            let coded = match coding {
                Coding::Gzip => Ok(gzip(input.bytes, parameters.gzip_level)),
                Coding::Brotli => brotli(input.bytes, parameters.brotli_quality),
            };
            let bytes = coded.map_err(|error| input.error(Self::NAME, None, format!("{}: {error}", coding.name())))?;
            if bytes.len() as f64 * parameters.ratio_min <= input.bytes.len() as f64 {
                output.labelled.push(Labelled {
                    label: coding.name().to_owned(),
                    kind: None,
                    bytes,
                    dependencies: Vec::new(),
                });
            }
        }
        Ok(output)
    }
}

/// One member of RFC 1952. No name, no time and no system in its header: the same bytes for the same content.
fn gzip(bytes: &[u8], level: u8) -> Vec<u8> {
    const MAGIC_DEFLATE: [u8; 3] = [0x1f, 0x8b, 8];
    const UNKNOWN_SYSTEM: u8 = 255;
    // That the encoder tried hardest, or did not.
    let effort = if level == 9 { 2 } else { 0 };
    let mut into = vec![0; 10];
    into[..3].copy_from_slice(&MAGIC_DEFLATE);
    (into[8], into[9]) = (effort, UNKNOWN_SYSTEM);
    into.extend_from_slice(&miniz_oxide::deflate::compress_to_vec(bytes, level));
    into.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    // The length modulo 2^32.
    into.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    into
}

fn brotli(mut bytes: &[u8], quality: u32) -> std::io::Result<Vec<u8>> {
    let params = BrotliEncoderParams {
        quality: i32::try_from(quality).unwrap_or(i32::MAX),
        lgwin: BROTLI_WINDOW_BITS,
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut into = Vec::new();
    brotli::BrotliCompress(&mut bytes, &mut into, &params)?;
    Ok(into)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::super::NoFiles;
    use super::*;
    use crate::ids::AssetPath;

    fn run(bytes: &[u8], parameters: &str) -> Output {
        let path = AssetPath::new("a.css").unwrap();
        let parameters = toml::from_str(parameters).unwrap();
        Compress.check(&parameters).unwrap();
        Compress.run(Input { path: &path, bytes }, &parameters, &mut NoFiles).unwrap()
    }

    fn labels(output: &Output) -> Vec<&str> {
        output.labelled.iter().map(|labelled| labelled.label.as_str()).collect()
    }

    #[test]
    fn what_comes_out_is_the_input_and_both_codings_of_it() {
        let text = b"a { color: teal }\n".repeat(500);
        let output = run(&text, "");
        assert_eq!((&output.bytes, labels(&output)), (&text, vec!["gzip", "br"]));
        let mut decoded = Vec::new();
        flate2::read::GzDecoder::new(&output.labelled[0].bytes[..]).read_to_end(&mut decoded).unwrap();
        assert_eq!(decoded, text);
        decoded.clear();
        brotli::BrotliDecompress(&mut &output.labelled[1].bytes[..], &mut decoded).unwrap();
        assert_eq!(decoded, text);
        for quality in ["brotli_quality = 0", "brotli_quality = 11", "gzip_level = 1"] {
            assert_eq!(run(&text, quality).labelled.len(), 2);
        }
    }

    #[test]
    fn a_coding_that_saves_too_little_is_left_out() {
        let mut noise = vec![0; 4096];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
        assert!(labels(&run(&noise, "")).is_empty());
        assert!(labels(&run(b"", "")).is_empty() && labels(&run(b"a", "ratio_min = 1.0")).is_empty());
        let text = b"curtain batten pulley ".repeat(20);
        assert!(labels(&run(&text, "ratio_min = 1000.0")).is_empty());
        assert_eq!(labels(&run(&text, "codings = ['br']")), ["br"]);
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
        let mut text = Vec::new();
        for index in 0..4000_u32 {
            text.extend_from_slice(format!("{} ", index.wrapping_mul(2_654_435_761) % 977).as_bytes());
        }
        let output = run(&text, "brotli_quality = 11");
        let hashes: Vec<String> = output.labelled.iter().map(|labelled| hash(&labelled.bytes)).collect();
        // Noted when it was written. Should a new version of an encoder change them, raise the transform's version.
        assert_eq!(hashes, ["3bafc600ffb19185", "90332c6dc741c105"]);
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        let check = |parameters: &str, name: &str| {
            let refused = Compress.check(&toml::from_str(parameters).unwrap()).unwrap_err();
            assert!(refused.starts_with(name), "{refused}");
        };
        check("codings = []", "'codings' ");
        check("gzip_level = 0", "'gzip_level' is 0;");
        check("brotli_quality = 12", "'brotli_quality' is 12;");
        check("ratio_min = 0.9", "'ratio_min' is 0.9;");
        check("ratio_min = nan", "'ratio_min' ");
    }
}
