//! Pictures made here, through the transform, and looked at again.

use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use super::super::NoFiles;
use super::*;
use crate::ids::AssetPath;

fn parameters(text: &str) -> ImageParameters {
    let parameters: ImageParameters = toml::from_str(text).unwrap();
    Image.check(&parameters).unwrap();
    parameters
}

fn run_at(path: &str, bytes: &[u8], text: &str) -> Result<Output> {
    let path = AssetPath::new(path).unwrap();
    Image.run(Input { path: &path, bytes }, &parameters(text), &mut NoFiles)
}

fn run(bytes: &[u8], text: &str) -> Output {
    run_at("textures/a.png", bytes, text).unwrap()
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    encode(image, ImageFormat::Png)
}

/// A picture in which every pixel differs.
fn picture(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, y| Rgba([(x * 7) as u8, (y * 11) as u8, (x * y) as u8, 255]))
}

fn decoded(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).unwrap()
}

#[test]
fn a_picture_of_which_nothing_is_asked_stays_byte_by_byte() {
    let source = png(picture(16, 9));
    for text in ["", "max_width = 16\nmax_height = 9", "format = 'png'", "scale = 1.0", "filter = 'nearest'"] {
        assert_eq!(run(&source, text), Output::from(source.clone()), "{text}");
    }
    let jpeg = encode(decoded(&source).to_rgb8(), ImageFormat::Jpeg);
    assert_eq!(run(&jpeg, "").bytes, jpeg);
    // Unless a quality is asked for.
    assert_ne!(run(&jpeg, "quality = 20").bytes, jpeg);
}

#[test]
fn a_picture_is_made_as_small_as_asked_and_keeps_its_proportions() {
    let source = png(picture(100, 40));
    let check = |text: &str, expected: (u32, u32)| {
        let image = decoded(&run(&source, text).bytes);
        assert_eq!((image.width(), image.height()), expected, "{text}");
    };
    check("max_width = 50", (50, 20));
    check("max_height = 10", (25, 10));
    check("max_width = 50\nmax_height = 5", (13, 5));
    check("scale = 0.5", (50, 20));
    check("scale = 2.0", (200, 80));
    check("scale = 0.001", (1, 1));
    check("scale = 0.5\nmax_width = 10", (10, 4));
    check("max_width = 1", (1, 1));
    check("max_width = 200", (100, 40));
}

#[test]
fn light_is_averaged_and_not_numbers_unless_that_is_said() {
    // Half of the pixels black, half white: as bright as the sRGB value 188, not 128.
    let checks = GrayImage::from_fn(8, 8, |x, y| Luma([if (x + y) % 2 == 0 { 0 } else { 255 }]));
    let grey = |text: &str| {
        let DynamicImage::ImageLuma8(image) = decoded(&run(&png(checks.clone()), text).bytes) else {
            panic!("it was grey and stays grey")
        };
        image.get_pixel(2, 2).0[0]
    };
    assert_eq!(grey("scale = 0.5\nfilter = 'triangle'"), 188);
    assert_eq!(grey("scale = 0.5\nfilter = 'triangle'\ncolor = 'linear'"), 128);
}

#[test]
fn the_same_picture_gives_the_same_bytes_on_every_machine() {
    let sum = |text: &str| {
        let output = run(&png(picture(61, 47)), &format!("{text}\nmips = true\nformat = 'rgba8'"));
        let mut all = output.bytes;
        output.labelled.iter().for_each(|level| all.extend_from_slice(&level.bytes));
        crate::ids::ContentHash::of(&all).short()
    };
    let texts = ["scale = 0.7", "scale = 0.7\nfilter = 'triangle'", "scale = 2.5\ncolor = 'linear'"];
    assert_eq!(texts.map(sum), ["d938dfe1", "94ce60a9", "e08402eb"]);
}

#[test]
fn what_is_transparent_does_not_colour_what_is_not() {
    let leaf = RgbaImage::from_fn(4, 4, |x, _| if x < 2 { Rgba([0, 200, 0, 255]) } else { Rgba([255, 0, 255, 0]) });
    let image = decoded(&run(&png(leaf), "scale = 0.25\nfilter = 'triangle'").bytes).to_rgba8();
    let [red, green, blue, alpha] = image.get_pixel(0, 0).0;
    assert_eq!((red, green, blue), (0, 200, 0));
    assert!((120..136).contains(&alpha), "{alpha}");
}

#[test]
fn alpha_is_multiplied_in_when_asked() {
    let half = RgbaImage::from_pixel(2, 2, Rgba([255, 128, 0, 128]));
    let image = decoded(&run(&png(half), "premultiply = true\ncolor = 'linear'").bytes).to_rgba8();
    assert_eq!(image.get_pixel(0, 0).0, [128, 64, 0, 128]);
}

#[test]
fn each_level_is_half_the_one_above_down_to_one_pixel() {
    let source = png(picture(20, 5));
    let output = run(&source, "mips = true");
    assert_eq!(output.bytes, source, "the picture itself stays");
    let sizes: Vec<(String, u32, u32)> = output
        .labelled
        .iter()
        .map(|level| {
            assert_eq!(level.kind, Some(AssetKind::Texture));
            let image = decoded(&level.bytes);
            (level.label.clone(), image.width(), image.height())
        })
        .collect();
    let expected = [("mip/1", 10, 2), ("mip/2", 5, 1), ("mip/3", 2, 1), ("mip/4", 1, 1)];
    assert_eq!(sizes, expected.map(|(label, width, height)| (label.to_owned(), width, height)));
    let output = run(&source, "mips = true\nmax_width = 4\nformat = 'qoi'");
    assert_eq!(output.labelled.len(), 2);
    assert!(output.bytes.starts_with(b"qoif") && output.labelled.iter().all(|level| level.bytes.starts_with(b"qoif")));
    assert_eq!(run(&png(picture(1, 1)), "mips = true").labelled, []);
}

#[test]
fn a_flat_picture_stays_flat_at_every_level() {
    let flat = RgbImage::from_pixel(9, 7, Rgb([17, 130, 244]));
    for filter in ["nearest", "triangle", "catmull-rom"] {
        let output = run(&png(flat.clone()), &format!("mips = true\nscale = 0.9\nfilter = '{filter}'"));
        for bytes in output.labelled.iter().map(|level| &level.bytes).chain([&output.bytes]) {
            assert!(decoded(bytes).to_rgb8().pixels().all(|pixel| pixel.0 == [17, 130, 244]), "{filter}");
        }
    }
}

#[test]
fn formats_become_one_another_without_loss_but_for_jpeg() {
    let source = picture(13, 7);
    for from in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Qoi, ImageFormat::Bmp, ImageFormat::Tga] {
        let bytes = encode(source.clone(), from);
        // A TGA is known by its name alone.
        let path = format!("a.{}", from.extensions_str()[0]);
        for to in ["png", "webp", "qoi"] {
            let output = run_at(&path, &bytes, &format!("format = '{to}'")).unwrap();
            assert_eq!(image::guess_format(&output.bytes).unwrap().extensions_str()[0], to);
            assert_eq!(decoded(&output.bytes).to_rgba8(), source, "{path} to {to}");
        }
        let raw = run_at(&path, &bytes, "format = 'rgba8'").unwrap().bytes;
        assert_eq!(raw[..16], *b"RGBA8\0\0\0\x0d\0\0\0\x07\0\0\0");
        assert_eq!(raw[16..], *source.as_raw());
    }
    let bmp = encode(source.clone(), ImageFormat::Bmp);
    assert!(run_at("a.bmp", &bmp, "").unwrap().bytes.starts_with(b"\x89PNG"));
    let small = run(&png(source.clone()), "format = 'jpeg'\nquality = 10").bytes;
    let fine = run(&png(source), "format = 'jpeg'\nquality = 100").bytes;
    assert!(small.starts_with(b"\xff\xd8\xff") && small.len() < fine.len());
}

#[test]
fn sixteen_bits_stay_sixteen_bits_in_png() {
    let heights: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_fn(64, 4, |x, _| Luma([x as u16 * 1000]));
    let image = decoded(&run(&png(heights.clone()), "flip = 'horizontal'").bytes);
    assert_eq!(image.to_luma16().get_pixel(0, 0).0, [63000]);
    let image = decoded(&run(&png(heights.clone()), "scale = 0.5\nfilter = 'triangle'\ncolor = 'linear'").bytes);
    let DynamicImage::ImageLuma16(image) = image else { panic!("{:?}", image.color()) };
    assert_eq!(image.get_pixel(10, 0).0, [20500]);
    let image = decoded(&run(&png(heights), "format = 'webp'").bytes);
    assert_eq!(image.to_luma8().get_pixel(63, 0).0, [245]);
}

#[test]
fn a_picture_is_turned_over_and_upright_as_its_camera_says() {
    let corner = |image: &DynamicImage, x, y| image.to_rgba8().get_pixel(x, y).0;
    let source = picture(4, 3);
    let flipped = decoded(&run(&png(source.clone()), "flip = 'vertical'").bytes);
    assert_eq!(corner(&flipped, 1, 0), source.get_pixel(1, 2).0);
    // Orientation 6: the camera was held upright, and the picture lies on its side.
    let exif = [&b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[6, 0, 0, 0], &[0; 4]].concat();
    let mut lying = Vec::new();
    let mut encoder = PngEncoder::new(&mut lying);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(source.as_raw(), 4, 3, image::ExtendedColorType::Rgba8).unwrap();
    let upright = decoded(&run(&lying, "").bytes);
    assert_eq!((upright.width(), upright.height()), (3, 4));
    assert_eq!(corner(&upright, 2, 0), source.get_pixel(0, 0).0);
}

#[test]
fn a_profile_goes_along_if_it_speaks_of_the_same_channels() {
    let mut profile = vec![0; 128];
    profile[16..20].copy_from_slice(b"RGB ");
    let source = |profile: &[u8]| {
        let mut bytes = Vec::new();
        let mut encoder = PngEncoder::new(&mut bytes);
        encoder.set_icc_profile(profile.to_vec()).unwrap();
        encoder.write_image(&[9; 12], 2, 2, image::ExtendedColorType::Rgb8).unwrap();
        bytes
    };
    let kept = |bytes: &[u8]| {
        ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .unwrap()
            .into_decoder()
            .unwrap()
            .icc_profile()
            .unwrap()
    };
    for format in ["png", "jpeg", "webp"] {
        let text = format!("scale = 0.5\nformat = '{format}'");
        assert_eq!(kept(&run(&source(&profile), &text).bytes).as_deref(), Some(&profile[..]), "{format}");
        profile[16..20].copy_from_slice(b"CMYK");
        assert_eq!(kept(&run(&source(&profile), &text).bytes), None, "{format}");
        profile[16..20].copy_from_slice(b"RGB ");
    }
}

#[test]
fn what_is_no_picture_or_too_large_is_refused_with_the_cause() {
    let check = |path: &str, bytes: &[u8], expected: &str| {
        let error = run_at(path, bytes, "scale = 0.5").unwrap_err().to_string();
        assert!(error.starts_with(path) && error.contains(expected), "{error}");
    };
    check("a.txt", b"hello", "image: it is no picture that is known");
    check("a.png", b"hello", "image: ");
    let source = png(picture(64, 64));
    check("a.png", &source[..source.len() / 2], "image: ");
    check("a.gif", b"GIF89a\x01\0\x01\0\0\0\0;", "PNG, JPEG, WebP, BMP, TGA and QOI are read");
    // A header that claims more pixels than there is memory for.
    let mut huge = b"qoif".to_vec();
    huge.extend_from_slice(&12_000u32.to_be_bytes());
    huge.extend_from_slice(&12_000u32.to_be_bytes());
    huge.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    check("a.qoi", &huge, "12000 by 12000 pixels are too many");
    let error = run_at("a.png", &png(RgbImage::new(4096, 4096)), "scale = 16.0").unwrap_err().to_string();
    assert!(error.contains("65536 by 65536 pixels are too many"), "{error}");
}

#[test]
fn a_parameter_that_makes_no_sense_is_named() {
    let check = |text: &str, expected: &str| {
        let parameters: std::result::Result<ImageParameters, _> = toml::from_str(text);
        let error = match parameters {
            Ok(parameters) => Image.check(&parameters).unwrap_err(),
            Err(error) => error.message().to_owned(),
        };
        assert!(error.contains(expected), "{text}: {error}");
    };
    check("scale = 0.0", "'scale' is 0; expected more than 0 and at most 16");
    check("scale = nan", "'scale' is NaN");
    check("scale = 17.0", "'scale'");
    check("max_width = 0", "'max_width' is 0; expected 1 to 32768");
    check("max_height = 40000", "'max_height' is 40000");
    check("quality = 0", "'quality' is 0; expected 1 to 100");
    check("quality = 9\nformat = 'png'", "'quality' is of the format \"jpeg\" alone");
    check("filter = 'lanczos3'", "expected one of `nearest`, `triangle`, `catmull-rom`");
    check("size = 3", "unknown field `size`");
}

proptest! {
    #[test]
    fn hostile_bytes_do_not_panic(
        start in prop::sample::select(vec![&b""[..], b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"BM", b"qoif"]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for path in ["a.png", "a.tga"] {
            let _ = run_at(path, &[start, &rest[..]].concat(), "mips = true\nmax_width = 64");
        }
    }

    #[test]
    fn a_damaged_picture_does_not_panic(at in 0usize..1000, value in any::<u8>()) {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Qoi] {
            let mut bytes = encode(DynamicImage::from(picture(12, 8)).to_rgb8(), format);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = run_at("a.png", &bytes, "scale = 0.5");
        }
    }
}
