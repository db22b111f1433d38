//! `outhaul check`: is the configuration right? Touches no engine, no disk but the file, no network.

use super::{Configured, Exit, say};

pub(super) fn main(configured: &Configured) -> Result<Exit, Exit> {
    let config = configured.load()?;
    for notice in &config.notices {
        say(&format_args!("note: {notice}"))?;
    }
    for engine in &config.docker {
        say(&format_args!("docker: {} every {:?}", engine.host, config.global.scrape_interval))?;
    }
    for endpoint in &config.remote_write {
        say(&format_args!("remote_write {}: {}", endpoint.name, endpoint.url.masked()))?;
    }
    if let Some(gateway) = &config.pushgateway {
        say(&format_args!("pushgateway: {}", gateway.url.masked()))?;
    }
    say(&format_args!("buffer: {}, at most {} MiB", config.buffer.path.display(), config.buffer.max_bytes >> 20))?;
    if let Some(web) = &config.web {
        say(&format_args!("web: http://{}", web.listen_address))?;
    }
    say(&"configuration is valid")?;
    Ok(Exit::Fine)
}
