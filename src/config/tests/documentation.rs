//! What is written about the configuration is true of it, and nothing is left out.

use super::*;

const DOCUMENTATION: &str = include_str!("../../../docs/CONFIGURATION.md");
const EXAMPLE: &str = include_str!("../../../deploy/outhaul.example.yml");

#[test]
fn the_examples_of_the_documentation_are_valid() {
    let blocks: Vec<&str> =
        DOCUMENTATION.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4);
    for text in blocks.into_iter().chain([EXAMPLE]) {
        from_text(text);
    }
}

#[test]
fn what_is_commented_out_in_the_example_is_valid_too() {
    let mut text = String::new();
    for line in EXAMPLE.lines().skip_while(|line| line.starts_with('#') || line.is_empty()) {
        let is_alternative = line.contains("# authorization:") || line.contains("credentials_file");
        let line = if is_alternative { line.to_owned() } else { line.replacen("# ", "", 1) };
        text.push_str(&line);
        text.push('\n');
    }
    // The remarks that follow a value lost their `#` too where the line had no other.
    let text = regex::Regex::new(r"(?m) {2,}(one|`|the name|switches|what|shows|or |`web).*$")
        .unwrap()
        .replace_all(&text, "")
        .into_owned();
    let config = from_text(&text);
    assert_eq!(config.pushgateway.unwrap().mode, PushgatewayMode::Fallback);
    assert_eq!(basic(&config.remote_write[0].auth).0, "123456");
}

#[test]
fn no_secret_is_in_the_debug_text_of_a_configuration() {
    let config = from_text(FULL);
    let text = format!("{config:?} {config:#?}");
    assert!(!text.contains("hunter2"), "{text}");
    let environment: Environment = [("OUTHAUL_REMOTE_WRITE_PASSWORD", "hunter2")].into_iter().collect();
    assert!(!format!("{environment:?}").contains("hunter2"));
}

#[test]
fn every_key_is_in_the_documentation() {
    let extra = "  basic_auth: {}\n  authorization: {}\n";
    let text = format!("{}{extra}buffer: {{}}\nweb: {{}}\nlog: {{}}\n", FULL.split("buffer:").next().unwrap());
    let path: Arc<Path> = Arc::from(Path::new(FILE));
    let (root, report) = layers(Some((&path, &text)), &Environment::default()).unwrap();
    raw::Block::read(&report, String::new(), root, |root| validate::read(root, &Environment::default()));
    let asked = report.asked();
    assert!(asked.len() > 120, "{asked:?}");
    for path in asked {
        let key = path.rsplit('.').next().unwrap();
        let named = [format!("`{key}`"), format!(".{key}`")];
        assert!(named.iter().any(|name| DOCUMENTATION.contains(name)), "{path} is not in docs/CONFIGURATION.md");
    }
}

#[test]
fn every_shortcut_is_in_the_documentation() {
    for name in environment::known_variables().chain([environment::DOCKER_HOST]) {
        assert!(DOCUMENTATION.contains(&format!("`{name}`")), "{name}");
    }
}
