//! What the command line says.

use std::path::PathBuf;

use shoal_core::pool::layout::MAX_WORKERS;

const USAGE: &str = "usage: features [--size-mb N] [--positions N] [--workers N] PHOTO.jpg|PHOTO.png...";

/// The options.
pub struct Options {
    /// Bytes of features, at least.
    pub bytes: usize,
    /// Positions to reset.
    pub positions: usize,
    /// Workers of the pool.
    pub workers: usize,
    /// Files, at least one.
    pub photos: Vec<PathBuf>,
}

impl Options {
    /// Reads the arguments; an error says which one is wrong and what would be right.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let workers = shoal_core::cpu_count();
        let mut options = Options { bytes: 200_000_000, positions: 5_000_000, workers, photos: vec![] };
        while let Some(argument) = arguments.next() {
            let mut number = || -> Result<usize, String> {
                let given = arguments.next().unwrap_or_default();
                let number = given.parse().ok().filter(|number| *number > 0);
                number.ok_or_else(|| format!("{argument}: a whole number from 1, not {given:?}\n{USAGE}"))
            };
            match argument.as_str() {
                "--size-mb" => options.bytes = number()?.saturating_mul(1_000_000),
                "--positions" => options.positions = number()?,
                "--workers" => options.workers = number()?,
                option if option.starts_with('-') => return Err(format!("{option}: no such option\n{USAGE}")),
                photo => options.photos.push(photo.into()),
            }
        }
        if options.workers > MAX_WORKERS {
            return Err(format!("--workers: at most {MAX_WORKERS}, not {}\n{USAGE}", options.workers));
        }
        if options.photos.is_empty() {
            return Err(format!("PHOTO: at least one is needed\n{USAGE}"));
        }
        Ok(options)
    }
}
