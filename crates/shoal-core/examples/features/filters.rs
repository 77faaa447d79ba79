//! Per-pixel features of a photograph: each colour channel smoothed by Gaussians of several widths, and the length of
//! its gradient at each.
//!
//! A band of rows is computed from those rows and the [`REACH`] above and below (the band's halo), by the same additions
//! in the same order wherever it is cut: a photograph in bands gives the very same bytes as the whole.

use std::ops::Range;

/// The widths of the Gaussians, in pixels.
const SIGMAS: [usize; 4] = [1, 2, 4, 8];
/// Red, green, blue.
pub const CHANNELS: usize = 3;
/// Features, and bytes, of one pixel: for each channel and width the smoothed value and the gradient.
pub const FEATURES: usize = CHANNELS * SIGMAS.len() * 2;
/// Where a Gaussian's tail is cut, in sigmas.
const CUT: usize = 3;
/// Rows that a pixel's features depend on, above and below: the widest Gaussian, and one for the difference.
const REACH: usize = SIGMAS[SIGMAS.len() - 1] * CUT + 1;
/// Brings gradients into the range of a byte.
const GAIN: f32 = 2.0;

/// A photograph: rows of pixels of three bytes.
#[derive(Clone, Copy, Debug)]
pub struct Photo<'a> {
    /// Pixels of a row.
    pub width: usize,
    /// `width × CHANNELS` bytes for each row.
    pub pixels: &'a [u8],
}

/// Rows of numbers, the first of them being row `top` of the photograph.
struct Plane {
    top: usize,
    width: usize,
    values: Vec<f32>,
}

impl Plane {
    fn new(rows: &Range<usize>, width: usize) -> Plane {
        Plane { top: rows.start, width, values: vec![0.0; rows.len() * width] }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[(row - self.top) * self.width..][..self.width]
    }
}

impl Photo<'_> {
    /// How many rows it has.
    pub fn height(&self) -> usize {
        self.pixels.len() / (self.width * CHANNELS)
    }

    /// Those rows and `more` on either side, as far as there are any.
    fn widened(&self, rows: &Range<usize>, more: usize) -> Range<usize> {
        rows.start.saturating_sub(more)..(rows.end + more).min(self.height())
    }

    fn channel(&self, channel: usize, rows: Range<usize>) -> Plane {
        let mut plane = Plane::new(&rows, self.width);
        let pixels = self.pixels[rows.start * self.width * CHANNELS..].chunks_exact(CHANNELS);
        for (value, pixel) in plane.values.iter_mut().zip(pixels) {
            *value = f32::from(pixel[channel]);
        }
        plane
    }
}

/// Computes the features of `rows` into `out`, which has [`FEATURES`] bytes for each pixel of them.
pub fn features(photo: &Photo<'_>, rows: Range<usize>, out: &mut [u8]) {
    assert_eq!(out.len(), rows.len() * photo.width * FEATURES, "out: {FEATURES} bytes a pixel");
    let last = photo.height() - 1;
    for channel in 0..CHANNELS {
        let plane = photo.channel(channel, photo.widened(&rows, REACH));
        for (scale, sigma) in SIGMAS.into_iter().enumerate() {
            let smooth = smoothed(&plane, sigma, photo.widened(&rows, 1), last);
            let feature = (channel * SIGMAS.len() + scale) * 2;
            for (row, out) in rows.clone().zip(out.chunks_exact_mut(photo.width * FEATURES)) {
                let (above, below) = (smooth.row(row.saturating_sub(1)), smooth.row((row + 1).min(last)));
                describe(smooth.row(row), above, below, sigma, feature, out);
            }
        }
    }
}

/// `rows` of the plane, smoothed: down the columns first, then along the rows. Beyond the photograph's edge its last
/// value goes on.
fn smoothed(plane: &Plane, sigma: usize, rows: Range<usize>, last: usize) -> Plane {
    let kernel = gaussian(sigma);
    let (reach, width) = (kernel.len() / 2, plane.width);
    let mut smooth = Plane::new(&rows, width);
    let mut column = vec![0.0f32; width + 2 * reach];
    for (row, out) in rows.zip(smooth.values.chunks_exact_mut(width)) {
        column.fill(0.0);
        for (tap, weight) in kernel.iter().enumerate() {
            let source = plane.row((row + tap).saturating_sub(reach).min(last));
            add(&mut column[reach..][..width], source, *weight);
        }
        let (first, end) = (column[reach], column[reach + width - 1]);
        column[..reach].fill(first);
        column[reach + width..].fill(end);
        for (tap, weight) in kernel.iter().enumerate() {
            add(out, &column[tap..][..width], *weight);
        }
    }
    smooth
}

fn add(sum: &mut [f32], values: &[f32], weight: f32) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

/// The weights of a Gaussian; they add up to one.
fn gaussian(sigma: usize) -> Vec<f32> {
    let reach = (sigma * CUT) as i32;
    let weight = |at: i32| (-0.5 * (at as f32 / sigma as f32).powi(2)).exp();
    let sum: f32 = (-reach..=reach).map(weight).sum();
    (-reach..=reach).map(|at| weight(at) / sum).collect()
}

/// Writes two features of each pixel of a row. A float becomes the nearest byte there is.
fn describe(row: &[f32], above: &[f32], below: &[f32], sigma: usize, feature: usize, out: &mut [u8]) {
    let last = row.len() - 1;
    for (x, out) in out.chunks_exact_mut(FEATURES).enumerate() {
        let across = row[(x + 1).min(last)] - row[x.saturating_sub(1)];
        let down = below[x] - above[x];
        let length = (across * across + down * down).sqrt() * sigma as f32 * GAIN;
        out[feature] = row[x].round() as u8;
        out[feature + 1] = length.round() as u8;
    }
}
