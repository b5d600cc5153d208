//! `image`: pictures decoded, made smaller, turned, given mip levels, and encoded again, perhaps in another format.
//!
//! What nothing is asked of stays as it is, byte by byte, once it was decoded without an error: a picture that fits
//! already loses nothing to another round of JPEG. The path stays as well, whatever the format.

mod color;
mod pixels;

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType as PngFilter, PngEncoder};
use image::codecs::qoi::QoiEncoder;
use image::codecs::webp::WebPEncoder;
use image::error::UnsupportedErrorKind;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits};
use serde::Deserialize;

use super::{Context, Input, Labelled, Output, Transform};
use crate::error::Result;
use crate::ids::AssetKind;

pub use color::Color;
pub use pixels::Filter;
use pixels::{Light, Shape};

/// The longest side of a picture, in pixels.
const SIDE_MAX: u32 = 32 << 10;
/// The most pixels of a picture: 8192 by 8192. While it is averaged, each takes 16 bytes.
const PIXELS_MAX: u64 = 64 << 20;
/// The largest `scale`.
const SCALE_MAX: f64 = 16.0;
/// The quality of a JPEG if none is given.
const QUALITY: u8 = 85;
/// What `rgba8` starts with.
const RAW_MAGIC: &[u8; 8] = b"RGBA8\0\0\0";

/// The transform `image`; see [`ImageParameters`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Image;

impl Image {
    /// Its name.
    pub const NAME: &'static str = "image";
}

/// How a picture is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// PNG, 8 or 16 bits per channel, as the source has.
    Png,
    /// JPEG of the given quality. It has no alpha: colours stay, transparency goes.
    Jpeg,
    /// WebP without loss.
    Webp,
    /// QOI: larger than PNG, and several times as quick.
    Qoi,
    /// Bare pixels: `RGBA8` and three zeros, width and height as `u32` little-endian, then the rows from the top, four
    /// bytes per pixel.
    Rgba8,
}

/// Which way a picture is turned over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flip {
    /// Left becomes right.
    Horizontal,
    /// The top becomes the bottom: as OpenGL counts rows.
    Vertical,
}

/// What a rule asks of a picture. A picture keeps its proportions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageParameters {
    /// It is multiplied by this number first. Default 1.
    pub scale: Option<f64>,
    /// It is made so small that it is at most as wide, in pixels. Default: as it is.
    pub max_width: Option<u32>,
    /// It is made so small that it is at most as high, in pixels. Default: as it is.
    pub max_height: Option<u32>,
    /// How pixels are averaged, also for mip levels. Default `catmull-rom`.
    pub filter: Filter,
    /// What its numbers mean. Default `srgb`.
    pub color: Color,
    /// Whether it is turned over, before anything else. Default: it is not.
    pub flip: Option<Flip>,
    /// Whether colours are multiplied by alpha. Default `false`.
    pub premultiply: bool,
    /// Whether each half, down to one pixel, is an asset of its own below this one: `#mip/1`, `#mip/2` and so on, in
    /// the same format. Default `false`.
    pub mips: bool,
    /// How it is written. Default: as it was; what is only read (BMP, TGA) becomes PNG.
    pub format: Option<Format>,
    /// The quality of JPEG, 1 to 100. Default 85.
    pub quality: Option<u8>,
}

impl Transform for Image {
    type Parameters = ImageParameters;

    fn name(&self) -> &str {
        Self::NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, parameters: &ImageParameters) -> std::result::Result<(), String> {
        if let Some(scale) = parameters.scale
            && !(scale > 0.0 && scale <= SCALE_MAX)
        {
            return Err(format!("'scale' is {scale}; expected more than 0 and at most {SCALE_MAX}"));
        }
        for (name, side) in [("max_width", parameters.max_width), ("max_height", parameters.max_height)] {
            if let Some(side) = side.filter(|side| !(1..=SIDE_MAX).contains(side)) {
                return Err(format!("'{name}' is {side}; expected 1 to {SIDE_MAX}"));
            }
        }
        if let Some(quality) = parameters.quality {
            if !(1..=100).contains(&quality) {
                return Err(format!("'quality' is {quality}; expected 1 to 100"));
            }
            if parameters.format.is_some_and(|format| format != Format::Jpeg) {
                return Err("'quality' is of the format \"jpeg\" alone".into());
            }
        }
        Ok(())
    }

    fn run(&self, input: Input<'_>, parameters: &ImageParameters, _context: &mut dyn Context) -> Result<Output> {
        build(input, parameters).map_err(|cause| input.error(Self::NAME, None, cause))
    }
}

fn build(input: Input<'_>, parameters: &ImageParameters) -> std::result::Result<Output, String> {
    let source = Source::decode(input, parameters.flip)?;
    let own = Format::of_source(source.format);
    let format = parameters.format.or(own).unwrap_or(Format::Png);
    let quality = parameters.quality.unwrap_or(QUALITY);
    let write = |image| encoded(image, format, quality, source.profile.as_deref()).map_err(|error| error.to_string());

    let (old_size, shape) = ((source.image.width(), source.image.height()), Shape::of(source.image.color()));
    let size = new_size(old_size, parameters)?;
    let repaints = size != old_size || parameters.premultiply;
    let keeps = !repaints && !source.turned && own == Some(format) && parameters.quality.is_none();
    let mut light = None;
    if repaints || parameters.mips {
        let before = Light::of(&source.image, parameters.color);
        light = Some(if size == old_size { before } else { before.resized(size, parameters.filter) });
    }
    let mut output: Output = match &light {
        _ if keeps => input.bytes.to_vec(),
        Some(light) if repaints => write(light.image(shape, parameters.premultiply))?,
        _ => write(source.image)?,
    }
    .into();
    while let Some(above) = light.take_if(|light| parameters.mips && light.size() != (1, 1)) {
        let (width, height) = above.size();
        let level = above.resized(((width / 2).max(1), (height / 2).max(1)), parameters.filter);
        output.labelled.push(Labelled {
            label: format!("mip/{}", output.labelled.len() + 1),
            kind: Some(AssetKind::Texture),
            bytes: write(level.image(shape, parameters.premultiply))?,
            dependencies: Vec::new(),
        });
        light = Some(level);
    }
    Ok(output)
}

/// A picture as it was decoded, upright and turned over as asked.
struct Source {
    image: DynamicImage,
    format: ImageFormat,
    /// How its colours are meant, if it says so.
    profile: Option<Vec<u8>>,
    /// Whether its pixels stand in another order in the file.
    turned: bool,
}

impl Source {
    fn decode(input: Input<'_>, flip: Option<Flip>) -> std::result::Result<Self, String> {
        // What the bytes start with counts; TGA starts with nothing that tells, and then the name does.
        let named = || input.path.extension().and_then(ImageFormat::from_extension);
        let format = image::guess_format(input.bytes).ok().or_else(named);
        let format = format.ok_or("it is no picture that is known by its first bytes or its name")?;
        let mut reader = ImageReader::with_format(Cursor::new(input.bytes), format);
        let mut limits = Limits::default();
        limits.max_image_width = Some(SIDE_MAX);
        limits.max_image_height = Some(SIDE_MAX);
        // Eight bytes per pixel at most, and as much again for what a decoder keeps beside the picture.
        limits.max_alloc = Some(PIXELS_MAX * 16);
        reader.limits(limits);
        let told = |error: ImageError| match error {
            ImageError::Unsupported(unsupported) if matches!(unsupported.kind(), UnsupportedErrorKind::Format(_)) => {
                format!("{unsupported}; PNG, JPEG, WebP, BMP, TGA and QOI are read")
            }
            ImageError::Limits(_) => format!("it is too large: {error}"),
            error => error.to_string(),
        };
        let mut decoder = reader.into_decoder().map_err(told)?;
        let (width, height) = decoder.dimensions();
        fits((u64::from(width), u64::from(height)))?;
        let orientation = decoder.orientation().map_err(told)?;
        let profile = decoder.icc_profile().map_err(told)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(told)?;
        image.apply_orientation(orientation);
        match flip {
            Some(Flip::Horizontal) => image.apply_orientation(Orientation::FlipHorizontal),
            Some(Flip::Vertical) => image.apply_orientation(Orientation::FlipVertical),
            None => {}
        }
        Ok(Self { image, format, profile, turned: orientation != Orientation::NoTransforms || flip.is_some() })
    }
}

impl Format {
    /// The format in which a source is written again; `None` for what is only read.
    fn of_source(format: ImageFormat) -> Option<Self> {
        match format {
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::WebP => Some(Self::Webp),
            ImageFormat::Qoi => Some(Self::Qoi),
            _ => None,
        }
    }

    /// The pixels that the format holds of those that there are.
    fn holds(self, shape: Shape) -> Shape {
        match self {
            Self::Png => shape,
            Self::Jpeg => Shape { alpha: false, deep: false, ..shape },
            Self::Webp => Shape { deep: false, ..shape },
            Self::Qoi => Shape { grey: false, deep: false, ..shape },
            Self::Rgba8 => Shape { grey: false, alpha: true, deep: false },
        }
    }
}

/// Refuses what has more pixels than are worked on.
fn fits((width, height): (u64, u64)) -> std::result::Result<(), String> {
    if width.saturating_mul(height) > PIXELS_MAX || width.max(height) > u64::from(SIDE_MAX) {
        return Err(format!(
            "{width} by {height} pixels are too many: at most {SIDE_MAX} on a side and {PIXELS_MAX} in all"
        ));
    }
    Ok(())
}

/// How large it becomes: never less than a pixel on a side.
fn new_size((width, height): (u32, u32), parameters: &ImageParameters) -> std::result::Result<(u32, u32), String> {
    let scaled = |side: u32| match parameters.scale {
        Some(scale) => (f64::from(side) * scale).round().max(1.0) as u64,
        None => u64::from(side),
    };
    let (mut width, mut height) = (scaled(width), scaled(height));
    let share = |side: u64, part: u64, of: u64| ((side * part + of / 2) / of).max(1);
    if let Some(most) = parameters.max_width.map(u64::from).filter(|most| width > *most) {
        (width, height) = (most, share(height, most, width));
    }
    if let Some(most) = parameters.max_height.map(u64::from).filter(|most| height > *most) {
        (width, height) = (share(width, most, height), most);
    }
    fits((width, height))?;
    let side = |side: u64| u32::try_from(side).expect("it fits, and then a side is at most SIDE_MAX");
    Ok((side(width), side(height)))
}

fn encoded(image: DynamicImage, format: Format, quality: u8, profile: Option<&[u8]>) -> image::ImageResult<Vec<u8>> {
    let image = format.holds(Shape::of(image.color())).of_image(image);
    // WebP has three channels, whatever it is given.
    let profile = fitting(profile, !image.color().has_color() && format != Format::Webp);
    let mut into = Vec::new();
    match format {
        Format::Png => {
            let encoder = PngEncoder::new_with_quality(&mut into, CompressionType::Default, PngFilter::Adaptive);
            written(encoder, &image, profile)?;
        }
        Format::Jpeg => written(JpegEncoder::new_with_quality(&mut into, quality), &image, profile)?,
        Format::Webp => written(WebPEncoder::new_lossless(&mut into), &image, profile)?,
        // It has no place for a profile.
        Format::Qoi => written(QoiEncoder::new(&mut into), &image, None)?,
        Format::Rgba8 => {
            into.reserve_exact(RAW_MAGIC.len() + 8 + image.as_bytes().len());
            into.extend_from_slice(RAW_MAGIC);
            into.extend_from_slice(&image.width().to_le_bytes());
            into.extend_from_slice(&image.height().to_le_bytes());
            into.extend_from_slice(image.as_bytes());
        }
    }
    Ok(into)
}

fn written(mut encoder: impl ImageEncoder, image: &DynamicImage, profile: Option<&[u8]>) -> image::ImageResult<()> {
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile.to_vec()).map_err(ImageError::Unsupported)?;
    }
    encoder.write_image(image.as_bytes(), image.width(), image.height(), image.color().into())
}

/// A profile that speaks of other channels than those written, such as the inks of a JPEG made for print, would be a lie.
fn fitting(profile: Option<&[u8]>, grey: bool) -> Option<&[u8]> {
    let channels: &[u8] = if grey { b"GRAY" } else { b"RGB " };
    profile.filter(|profile| profile.get(16..20) == Some(channels))
}

#[cfg(test)]
mod tests;
