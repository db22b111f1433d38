//! What the operating system calls this host.

use std::path::Path;

/// Files that a container engine puts into every container: Docker's, and Podman's.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// The kernel's node name; `localhost` where it has none.
pub fn name() -> String {
    let uname = rustix::system::uname();
    match uname.nodename().to_string_lossy() {
        name if name.is_empty() => "localhost".to_owned(),
        name => name.into_owned(),
    }
}

/// Whether this process runs inside a container, where the node name is the container's id and changes with each re-creation.
pub fn in_container() -> bool {
    CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists())
}
