//! From a path or a text to a spec.

use std::{collections::BTreeSet, fs, io::Read, net::IpAddr, os::unix::fs::FileTypeExt, path::Path};

use nix::unistd::gethostname;
use toml::de::DeTable;

use super::{
    Spec,
    exec::Writers,
    file,
    validate::{Host, validate},
};
use crate::{
    document::mistakes::{Mistakes, Report, Span},
    text::quote,
};

/// Maximum size of a file in bytes. 65,536 backends of the longest names and addresses take some 12 MB, as many listens 7 MB.
pub const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Reads a file. All IO is here. No backend may have one of the addresses of the `host`.
pub fn read(path: &Path, host: &BTreeSet<IpAddr>) -> Result<Spec, Mistakes> {
    let name = path.display().to_string();
    let cannot = |error: std::io::Error| Mistakes::of_file(&name, &format!("cannot be read: {error}"));

    let mut bytes = Vec::new();
    let kind = fs::metadata(path).map_err(cannot)?.file_type();
    if kind.is_dir() {
        return Err(Mistakes::of_file(&name, "is a directory, not a file"));
    }
    // Opening a FIFO waits for a writer. The pipes of a shell (`/dev/stdin`, `<(...)`) have one.
    let is_pipe = kind.is_fifo() && path.starts_with("/dev");
    if !kind.is_file() && !is_pipe {
        return Err(Mistakes::of_file(&name, "is not a regular file"));
    }
    let file = fs::File::open(path).map_err(cannot)?;
    let writers = Writers::of(path, &file.metadata().map_err(cannot)?);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Mistakes::of_file(&name, "is larger than 64 MiB, too large for a configuration"));
    }

    match std::str::from_utf8(&bytes) {
        Ok(text) => parse_on(host, writers, &name, text),
        Err(error) => Err(not_utf8(&name, &bytes, error.valid_up_to())),
    }
}

/// Parses and validates a text, or returns all mistakes. `name` is the file name in messages.
pub fn parse(name: &str, text: &str) -> Result<Spec, Mistakes> {
    parse_on(&BTreeSet::new(), Writers::Root, name, text)
}

fn parse_on(
    addresses: &BTreeSet<IpAddr>,
    writers: Writers,
    name: &str,
    text: &str,
) -> Result<Spec, Mistakes> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let syntax = Report::new(text);
    let mut last_line = 0;
    for error in errors {
        let span = error.span().map_or(Span::START, Span::from);
        // Later mistakes in the same line are consequences of the first.
        if syntax.line(span) != last_line {
            last_line = syntax.line(span);
            syntax.add(span, format!("invalid TOML: {}", error.message().replace('\n', " ")));
        }
    }
    // After a syntax error, missing keys are not reported: they may be in the part that was not parsed.
    syntax.finish(name)?;

    let report = Report::new(text);
    let host = Host { addresses, name: host_name() };
    let spec = validate(file::read(&document, &report), &host, writers, &report);
    report.finish(name)?;
    Ok(spec)
}

/// Empty if it cannot be read, which is not the name of a node.
fn host_name() -> String {
    gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

fn not_utf8(name: &str, bytes: &[u8], valid: usize) -> Mistakes {
    let text = String::from_utf8_lossy(bytes);
    let wrong = bytes.get(valid).copied().unwrap_or_default();
    let message = format!("not UTF-8: byte {}", quote(&format!("{wrong:#04x}")));
    // The two are the same up to the invalid byte.
    Mistakes::at(name, &text, Span::from(valid..valid + 1), message)
}
