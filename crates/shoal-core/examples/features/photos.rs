//! Photographs from files, as bytes of red, green and blue.

use std::io::Cursor;
use std::path::Path;

use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_png::PngDecoder;

use crate::filters::{CHANNELS, Photo};

/// A photograph as it was decoded.
pub struct Decoded {
    /// Pixels of a row.
    pub width: usize,
    /// Three bytes for each pixel.
    pub pixels: Vec<u8>,
}

impl Decoded {
    /// How many rows it has.
    pub fn height(&self) -> usize {
        self.photo().height()
    }

    /// As the filters want it.
    pub fn photo(&self) -> Photo<'_> {
        Photo { width: self.width, pixels: &self.pixels }
    }
}

/// Decodes a JPEG or PNG file, told apart by the name's end. Grey becomes red, green and blue alike; opacity is dropped.
pub fn decode(path: &Path) -> Result<Decoded, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| at(&error))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    let (size, bytes) = match extension.as_str() {
        "jpg" | "jpeg" => {
            let mut decoder = JpegDecoder::new(Cursor::new(bytes));
            let bytes = decoder.decode().map_err(|error| at(&error))?;
            (decoder.dimensions(), bytes)
        }
        "png" => {
            let options = DecoderOptions::default().png_set_strip_to_8bit(true);
            let mut decoder = PngDecoder::new_with_options(Cursor::new(bytes), options);
            let bytes = decoder.decode_raw().map_err(|error| at(&error))?;
            (decoder.dimensions(), bytes)
        }
        _ => return Err(at(&"a photograph is a .jpg, .jpeg or .png file")),
    };
    let (width, height) = size.filter(|(width, height)| width * height > 0).ok_or_else(|| at(&"it has no pixels"))?;
    let components = bytes.len() / (width * height);
    let mut pixels = Vec::with_capacity(width * height * CHANNELS);
    for pixel in bytes.chunks_exact(components) {
        match components {
            1 | 2 => pixels.extend([pixel[0]; CHANNELS]),
            _ => pixels.extend(&pixel[..CHANNELS]),
        }
    }
    Ok(Decoded { width, pixels })
}
