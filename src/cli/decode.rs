//! `outhaul decode`: prints a captured request body.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Exit, complain, say};
use crate::encode::{self, Message};
use crate::receive::{self, REQUEST_BYTES_MAX};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The body as it was sent, compressed; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Which remote-write message it is; found out from its fields unless given
    #[arg(long)]
    message: Option<Version>,

    /// Print one JSON object instead of a line for each sample
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    /// prometheus.WriteRequest
    V1,
    /// io.prometheus.write.v2.Request
    V2,
}

impl From<Version> for Message {
    fn from(version: Version) -> Self {
        match version {
            Version::V1 => Self::V1,
            Version::V2 => Self::V2,
        }
    }
}

pub(super) fn main(options: &Options) -> Result<Exit, Exit> {
    let failed = |problem: &dyn std::fmt::Display| {
        complain(&format_args!("{}: {problem}", options.file.display()));
        Exit::Failed
    };
    let body = read(&options.file).map_err(|error| failed(&error))?;
    if body.len() > REQUEST_BYTES_MAX {
        return Err(failed(&format_args!("the body is larger than {REQUEST_BYTES_MAX} bytes")));
    }
    let message = options.message.map(Message::from);
    let (message, compression, decoded) =
        encode::decode_unknown(&body, message, REQUEST_BYTES_MAX).map_err(|error| failed(&error))?;
    if options.json {
        let mut object = receive::json(&decoded);
        object["message"] = message.name().into();
        object["compression"] = compression.content_encoding().into();
        say(&object)?;
    } else {
        let (samples, series) = (decoded.tally().samples, decoded.series.len());
        say(&format_args!(
            "# {}, {}, {series} series, {samples} samples",
            message.name(),
            compression.content_encoding()
        ))?;
        say(&receive::print(&decoded).trim_end())?;
    }
    Ok(Exit::Fine)
}

/// No more than can be a body, and one byte to know that it is more.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let source: Box<dyn Read> =
        if path == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(File::open(path)?) };
    let mut body = Vec::new();
    source.take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut body)?;
    Ok(body)
}
