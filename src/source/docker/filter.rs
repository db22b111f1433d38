//! Which containers are watched: `include` and `exclude` of the configuration, as a pure question.

use std::collections::BTreeMap;

use crate::config::{Docker, Filter};

/// The configured choice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice {
    include: Filter,
    exclude: Filter,
}

impl Choice {
    /// The choice that `config` makes.
    pub(crate) fn new(config: &Docker) -> Self {
        Self { include: config.include.clone(), exclude: config.exclude.clone() }
    }

    /// Whether a container is watched: no pattern excludes it, and one includes it unless there is none that includes.
    pub(crate) fn allows(&self, name: &str, image: &str, labels: &BTreeMap<String, String>) -> bool {
        let included = self.include.is_empty() || matches(&self.include, name, image, labels);
        included && !matches(&self.exclude, name, image, labels)
    }

    /// The names of the container labels that the choice depends on.
    pub(crate) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.include.labels.iter().chain(&self.exclude.labels).map(|pattern| pattern.name.as_str())
    }
}

fn matches(filter: &Filter, name: &str, image: &str, labels: &BTreeMap<String, String>) -> bool {
    filter.names.iter().any(|pattern| pattern.matches(name))
        || filter.images.iter().any(|pattern| pattern.matches(image))
        || filter.labels.iter().any(|wanted| match (labels.get(&wanted.name), &wanted.value) {
            (Some(value), Some(pattern)) => pattern.matches(value),
            (Some(_), None) => true,
            (None, _) => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LabelPattern, Pattern};

    fn pattern(text: &str) -> Pattern {
        Pattern(regex::Regex::new(&format!("^(?:{text})$")).unwrap())
    }

    fn names(text: &str) -> Filter {
        Filter { names: vec![pattern(text)], ..Filter::default() }
    }

    fn labelled(name: &str, value: Option<&str>) -> Filter {
        let label = LabelPattern { name: name.into(), value: value.map(pattern) };
        Filter { labels: vec![label], ..Filter::default() }
    }

    fn allows(include: Filter, exclude: Filter) -> bool {
        let labels = [("tier".to_owned(), "front".to_owned())].into();
        Choice { include, exclude }.allows("web-1", "nginx:1", &labels)
    }

    #[test]
    fn without_patterns_every_container_is_watched() {
        assert!(allows(Filter::default(), Filter::default()));
    }

    #[test]
    fn a_container_is_included_by_name_image_or_label() {
        assert!(allows(names("web-.*"), Filter::default()));
        assert!(!allows(names("db"), Filter::default()));
        assert!(allows(Filter { images: vec![pattern("nginx:.*")], ..Filter::default() }, Filter::default()));
        assert!(allows(labelled("tier", None), Filter::default()));
        assert!(allows(labelled("tier", Some("fr.*")), Filter::default()));
        assert!(!allows(labelled("tier", Some("back")), Filter::default()));
        assert!(!allows(labelled("other", None), Filter::default()));
    }

    #[test]
    fn an_exclusion_wins() {
        assert!(!allows(names("web-.*"), names(".*-1")));
        assert!(!allows(Filter::default(), labelled("tier", None)));
    }
}
