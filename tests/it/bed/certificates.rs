//! Certificates, made by openssl when a test runs: an authority, and what it signed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The system's own settings may contradict the arguments.
const CONFIG: &str = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = unused\n\
                      [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
                      subjectKeyIdentifier = hash\n";

/// A certificate authority with its files in a directory of the test's.
pub(crate) struct Authority {
    directory: PathBuf,
    name: String,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        let authority = Self { directory: directory.to_owned(), name: name.to_owned() };
        fs::write(authority.file("cnf"), CONFIG).unwrap();
        let subject = format!("/CN=outhaul test {name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-extensions",
            "authority",
            "-subj",
            &subject,
            "-config",
            &format!("{name}.cnf"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ]);
        authority
    }

    /// The certificate to trust.
    pub(crate) fn file(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.name))
    }

    /// A certificate for a server or a client called `dns_name`, in files called `file`.
    pub(crate) fn issue(&self, file: &str, dns_name: &str) -> Pair {
        static SERIAL: AtomicU32 = AtomicU32::new(1);
        let name = &self.name;
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed).to_string();
        fs::write(self.directory.join(format!("{file}.ext")), format!("subjectAltName = DNS:{dns_name}\n")).unwrap();
        let path = |extension: &str| format!("{file}.{extension}");
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &format!("/CN={dns_name}"),
            "-config",
            &format!("{name}.cnf"),
            "-keyout",
            &path("key"),
            "-out",
            &path("csr"),
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &path("csr"),
            "-CA",
            &format!("{name}.pem"),
            "-CAkey",
            &format!("{name}.key"),
            "-set_serial",
            &serial,
            "-days",
            "2",
            "-extfile",
            &path("ext"),
            "-out",
            &path("pem"),
        ]);
        Pair { cert: self.directory.join(path("pem")), key: self.directory.join(path("key")) }
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.directory)
            .output()
            .unwrap_or_else(|error| panic!("openssl cannot be started: {error}; run tests/run, which fetches it"));
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
