//! From a path or a text to a spec.

use std::{collections::BTreeSet, fs, io::Read, net::IpAddr, os::unix::fs::FileTypeExt, path::Path};

use nix::unistd::gethostname;
use toml::{Spanned, de::DeTable};

use super::{
    Spec,
    exec::Writers,
    file,
    validate::{Host, MayLackServices, Reports, validate},
};
use crate::{
    document::mistakes::{Mistakes, Report, Span},
    text::quote,
};

/// Maximum size of a file in bytes. 65,536 backends of the longest names and addresses take some 12 MB, as many listens 7 MB.
pub const MAX_FILE: u64 = 64 * 1024 * 1024;

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    writers: Writers,
}

/// A text in place of the services of a file.
#[derive(Clone, Copy, Debug)]
pub struct Services<'t> {
    /// The file name in messages.
    pub name: &'t str,
    /// What is in it.
    pub text: &'t str,
}

/// Reads a file. No backend may have one of the addresses of the `host`.
pub fn read(path: &Path, host: &BTreeSet<IpAddr>) -> Result<Spec, Mistakes> {
    read_source(path)?.parse(host)
}

/// Reads a file as it is. All IO is here.
pub fn read_source(path: &Path) -> Result<Source, Mistakes> {
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

    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text, writers }),
        Err(error) => Err(not_utf8(&name, error.as_bytes(), error.utf8_error().valid_up_to())),
    }
}

/// Parses and validates a text, or returns all mistakes. `name` is the file name in messages.
pub fn parse(name: &str, text: &str) -> Result<Spec, Mistakes> {
    parse_on(&BTreeSet::new(), Writers::Root, Services { name, text })
}

impl Source {
    /// What is in the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Parses and validates the file, or returns all mistakes.
    pub fn parse(&self, host: &BTreeSet<IpAddr>) -> Result<Spec, Mistakes> {
        let Self { name, text, writers } = self;
        parse_on(host, writers.clone(), Services { name, text })
    }

    /// The same with these services instead of those of the file. There must be some.
    pub fn parse_with(&self, services: Services<'_>, host: &BTreeSet<IpAddr>) -> Result<Spec, Mistakes> {
        let (local, shared) = (syntax(&self.name, &self.text)?, syntax(services.name, services.text)?);
        let (of_file, of_services) = (Report::new(&self.text), Report::new(services.text));
        let file = file::File {
            services: file::read_services(&shared, &of_services),
            ..file::read(&local, &of_file)
        };
        let reports = Reports { file: &of_file, services: &of_services };
        let host = Host { addresses: host, name: host_name() };
        let spec = validate(file, &host, self.writers.clone(), MayLackServices::No, &reports);
        of_services.finish(services.name)?;
        of_file.finish(&self.name)?;
        Ok(spec)
    }
}

fn parse_on(
    addresses: &BTreeSet<IpAddr>,
    writers: Writers,
    Services { name, text }: Services<'_>,
) -> Result<Spec, Mistakes> {
    let document = syntax(name, text)?;
    let report = Report::new(text);
    let host = Host { addresses, name: host_name() };
    let file = file::read(&document, &report);
    let may_lack = if file.cluster.is_some() { MayLackServices::Yes } else { MayLackServices::No };
    let reports = Reports { file: &report, services: &report };
    let spec = validate(file, &host, writers, may_lack, &reports);
    report.finish(name)?;
    Ok(spec)
}

/// Parses TOML, or returns all mistakes.
pub fn syntax<'t>(name: &str, text: &'t str) -> Result<Spanned<DeTable<'t>>, Mistakes> {
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
    Ok(document)
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
