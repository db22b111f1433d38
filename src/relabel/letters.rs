//! Upper and lower case one character at a time, as Go's `strings.ToUpper` and `strings.ToLower` have it.
//!
//! Rust's own conversions follow Unicode's special casing, in which `ß` becomes `SS` and the end of a word matters; Go maps
//! each character to exactly one.

/// `text` in lower case.
pub(super) fn lower(text: &str) -> String {
    text.chars().map(lower_character).collect()
}

/// `text` in upper case.
pub(super) fn upper(text: &str) -> String {
    text.chars().map(upper_character).collect()
}

fn lower_character(c: char) -> char {
    // The only character whose lower case is longer than one (Unicode, `SpecialCasing.txt`).
    if c == '\u{130}' { 'i' } else { c.to_lowercase().next().unwrap_or(c) }
}

fn upper_character(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => simple_upper(c),
    }
}

/// The one-character upper case of what Unicode gives several (`UnicodeData.txt` against `SpecialCasing.txt`).
fn simple_upper(c: char) -> char {
    let distance = match c {
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => 8,
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => 9,
        _ => 0,
    };
    char::from_u32(u32::from(c) + distance).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_becomes_one_character() {
        assert_eq!(lower("ÀÉ Straße İΣ"), "àé straße iσ");
        assert_eq!(upper("àé straße ŉ ﬁ ᾳ ᾀ ǆ"), "ÀÉ STRAßE ŉ ﬁ ᾼ ᾈ Ǆ");
        for c in '\0'..=char::MAX {
            assert_eq!((lower(&c.to_string()).chars().count(), upper(&c.to_string()).chars().count()), (1, 1), "{c}");
        }
    }
}
