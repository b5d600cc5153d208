//! Pixels: from what was decoded to linear light, through the filter, and back to what an encoder takes.

use image::imageops::{self, FilterType};
use image::{ColorType, DynamicImage, ImageBuffer, Rgba, Rgba32FImage};

use super::color::{Color, alpha_8, alpha_16};

/// How a picture is made smaller or larger.
///
/// Those of the library that need a sine or an exponential are left out: these come from the platform's C library, and
/// the same picture must give the same bytes on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// The nearest pixel: for pixel art.
    Nearest,
    /// A tent: soft, without ringing.
    Triangle,
    /// A cubic: sharp. The default.
    #[default]
    CatmullRom,
}

impl Filter {
    fn of_library(self) -> FilterType {
        match self {
            Self::Nearest => FilterType::Nearest,
            Self::Triangle => FilterType::Triangle,
            Self::CatmullRom => FilterType::CatmullRom,
        }
    }
}

/// What kind of pixels an image keeps through all steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// One channel rather than three.
    pub grey: bool,
    pub alpha: bool,
    /// 16 bits per channel rather than 8.
    pub deep: bool,
}

impl Shape {
    pub(super) fn of(color: ColorType) -> Self {
        Self {
            grey: !color.has_color(),
            alpha: color.has_alpha(),
            deep: color.bits_per_pixel() > 8 * u16::from(color.channel_count()),
        }
    }

    /// The image with such pixels. It never makes a coloured image grey.
    pub(super) fn of_image(self, image: DynamicImage) -> DynamicImage {
        if Self::of(image.color()) == self {
            return image;
        }
        match (self.grey, self.alpha, self.deep) {
            (true, false, false) => image.into_luma8().into(),
            (true, true, false) => image.into_luma_alpha8().into(),
            (false, false, false) => image.into_rgb8().into(),
            (false, true, false) => image.into_rgba8().into(),
            (true, false, true) => image.into_luma16().into(),
            (true, true, true) => image.into_luma_alpha16().into(),
            (false, false, true) => image.into_rgb16().into(),
            (false, true, true) => image.into_rgba16().into(),
        }
    }
}

/// A picture in linear light, its colours multiplied by their alpha, so that averages are those that the eye makes.
pub(super) struct Light {
    picture: Rgba32FImage,
    color: Color,
}

impl Light {
    pub(super) fn of(image: &DynamicImage, color: Color) -> Self {
        let (width, height) = (image.width(), image.height());
        let picture = if Shape::of(image.color()).deep {
            let image = image.to_rgba16();
            Rgba32FImage::from_fn(width, height, |x, y| {
                let [red, green, blue, alpha] = image.get_pixel(x, y).0;
                let weight = f32::from(alpha) / 65535.0;
                Rgba([
                    color.light_16(red) * weight,
                    color.light_16(green) * weight,
                    color.light_16(blue) * weight,
                    weight,
                ])
            })
        } else {
            let image = image.to_rgba8();
            Rgba32FImage::from_fn(width, height, |x, y| {
                let [red, green, blue, alpha] = image.get_pixel(x, y).0;
                let weight = f32::from(alpha) / 255.0;
                Rgba([color.light_8(red) * weight, color.light_8(green) * weight, color.light_8(blue) * weight, weight])
            })
        };
        Self { picture, color }
    }

    pub(super) fn size(&self) -> (u32, u32) {
        self.picture.dimensions()
    }

    pub(super) fn resized(&self, (width, height): (u32, u32), filter: Filter) -> Self {
        Self { picture: imageops::resize(&self.picture, width, height, filter.of_library()), color: self.color }
    }

    /// The picture with pixels of this shape; with colours multiplied by alpha, if that is wanted.
    pub(super) fn image(&self, shape: Shape, premultiplied: bool) -> DynamicImage {
        let (width, height) = self.size();
        let (color, whole) = (self.color, "as many numbers as the picture has");
        if shape.deep {
            let all = self.numbers(shape, premultiplied, |light| color.value_16(light), alpha_16);
            match (shape.grey, shape.alpha) {
                (true, false) => DynamicImage::ImageLuma16(ImageBuffer::from_raw(width, height, all).expect(whole)),
                (true, true) => DynamicImage::ImageLumaA16(ImageBuffer::from_raw(width, height, all).expect(whole)),
                (false, false) => DynamicImage::ImageRgb16(ImageBuffer::from_raw(width, height, all).expect(whole)),
                (false, true) => DynamicImage::ImageRgba16(ImageBuffer::from_raw(width, height, all).expect(whole)),
            }
        } else {
            let all = self.numbers(shape, premultiplied, |light| color.value_8(light), alpha_8);
            match (shape.grey, shape.alpha) {
                (true, false) => DynamicImage::ImageLuma8(ImageBuffer::from_raw(width, height, all).expect(whole)),
                (true, true) => DynamicImage::ImageLumaA8(ImageBuffer::from_raw(width, height, all).expect(whole)),
                (false, false) => DynamicImage::ImageRgb8(ImageBuffer::from_raw(width, height, all).expect(whole)),
                (false, true) => DynamicImage::ImageRgba8(ImageBuffer::from_raw(width, height, all).expect(whole)),
            }
        }
    }

    /// The channels of the shape, pixel by pixel.
    fn numbers<T>(
        &self,
        shape: Shape,
        premultiplied: bool,
        value: impl Fn(f32) -> T,
        alpha_value: impl Fn(f32) -> T,
    ) -> Vec<T> {
        let (colors, alphas) = (if shape.grey { 1 } else { 3 }, usize::from(shape.alpha));
        let mut all = Vec::with_capacity(self.picture.pixels().len() * (colors + alphas));
        for Rgba([red, green, blue, alpha]) in self.picture.pixels() {
            let weight = if premultiplied || *alpha <= 0.0 { 1.0 } else { *alpha };
            all.extend([red, green, blue].into_iter().take(colors).map(|one| value(one / weight)));
            all.extend((alphas > 0).then(|| alpha_value(*alpha)));
        }
        all
    }
}
