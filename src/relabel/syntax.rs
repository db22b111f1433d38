//! Go's syntax of regular expressions (RE2), read and written again in Rust's.
//!
//! What comes out is made only of what both engines mean alike: classes such as `\d` and `\b` as ASCII, literals and
//! `\Q…\E` as escapes, names of groups kept aside. What Go refuses (look-around, back-references, `a**`, `a{1001}`) is
//! refused here, and the few things that only Go takes are refused rather than read differently:
//!
//! - surrogates (`\x{D800}`), which no UTF-8 text can match;
//! - a repetition right behind flags or an empty quote (`a(?i)*`, `a\Q\E*`);
//! - a character group that Rust's Unicode tables lack (found out when compiling);
//! - groups within groups beyond [`MAX_NESTING`]; Go's bound is 1000.

use super::pattern::Names;

/// The deepest nesting of groups.
const MAX_NESTING: usize = 200;

/// The most repetitions, also of repetitions within repetitions (Go, `regexp/syntax`, "Syntax": the count of `x{n,m}`).
const MAX_REPEAT: u32 = 1_000;

/// The same expression in Rust's syntax, and the names of its groups.
///
/// # Errors
/// What is wrong with it.
pub(super) fn translated(text: &str) -> Result<(String, Names), String> {
    let mut reader = Reader::new(text);
    reader.read()?;
    Ok((reader.out, reader.names))
}

fn wrong<T>(what: &str) -> Result<T, String> {
    Err(format!("not a regular expression: {what}"))
}

/// What a repetition may stand behind.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Atom,
    Repetition,
}

/// One open group, or the whole.
struct Level {
    /// The highest product of repetitions within repetitions so far.
    product: u32,
}

/// Reads Go's syntax and writes Rust's.
struct Reader<'a> {
    rest: &'a str,
    out: String,
    names: Names,
    levels: Vec<Level>,
    before: Before,
    /// The product of repetitions within the last atom.
    product: u32,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let whole = Level { product: 1 };
        Self {
            rest: text,
            out: String::new(),
            names: Vec::new(),
            levels: vec![whole],
            before: Before::Nothing,
            product: 1,
        }
    }

    fn read(&mut self) -> Result<(), String> {
        while let Some(first) = self.rest.chars().next() {
            match first {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.skip(1);
                    self.out.push('|');
                    self.before = Before::Nothing;
                }
                '^' | '$' | '.' => {
                    self.skip(1);
                    self.out.push(first);
                    self.atom(1);
                }
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.skip(1);
                    self.repetition(&first.to_string(), 1)?;
                }
                '{' => self.brace()?,
                '\\' => self.backslash()?,
                other => {
                    self.skip(other.len_utf8());
                    self.literal(other);
                }
            }
        }
        if self.levels.len() > 1 { wrong("a ( without its )") } else { Ok(()) }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Takes the next character.
    fn take(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.skip(next.len_utf8());
        Some(next)
    }

    /// Takes `text` if it is next.
    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Notes that something was written that can be repeated.
    fn atom(&mut self, product: u32) {
        self.before = Before::Atom;
        self.product = product;
        if let Some(level) = self.levels.last_mut() {
            level.product = level.product.max(product);
        }
    }

    fn literal(&mut self, literal: char) {
        push_literal(&mut self.out, literal);
        self.atom(1);
    }

    fn open(&mut self) -> Result<(), String> {
        self.skip(1);
        if self.takes("?") {
            if self.takes("P<") || self.takes("<") {
                let name = self.group_name()?;
                self.names.push(Some(name));
                return self.enter("(");
            }
            return self.flags();
        }
        self.names.push(None);
        self.enter("(")
    }

    fn enter(&mut self, opening: &str) -> Result<(), String> {
        if self.levels.len() > MAX_NESTING {
            return Err(format!("groups are nested deeper than {MAX_NESTING} levels"));
        }
        self.out.push_str(opening);
        self.levels.push(Level { product: 1 });
        self.before = Before::Nothing;
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.skip(1);
        if self.levels.len() == 1 {
            return wrong("a ) without its (");
        }
        let product = self.levels.pop().map_or(1, |level| level.product);
        self.out.push(')');
        self.atom(product);
        Ok(())
    }

    /// The rest of `(?P<name>` or `(?<name>` (Go, `regexp/syntax`, `isValidCaptureName`).
    fn group_name(&mut self) -> Result<String, String> {
        if self.rest.starts_with(['=', '!']) {
            return wrong("look-around is not supported, in Prometheus neither");
        }
        let Some((name, rest)) = self.rest.split_once('>') else { return wrong("the name of a group has no end") };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return wrong("the name of a group is made of letters, digits and _");
        }
        self.rest = rest;
        Ok(name.to_owned())
    }

    /// The rest of `(?flags)` or `(?flags:` (Go, `regexp/syntax`, `parsePerlFlags`).
    fn flags(&mut self) -> Result<(), String> {
        let (mut on, mut off) = (String::new(), String::new());
        let mut minus = false;
        loop {
            match self.take() {
                Some(flag @ ('i' | 'm' | 's' | 'U')) => {
                    let (to, from) = if minus { (&mut off, &mut on) } else { (&mut on, &mut off) };
                    from.retain(|other| other != flag);
                    if !to.contains(flag) {
                        to.push(flag);
                    }
                }
                Some('-') if !minus => minus = true,
                Some(end @ (':' | ')')) if !minus || !off.is_empty() => {
                    let dash = if off.is_empty() { "" } else { "-" };
                    if end == ':' {
                        return self.enter(&format!("(?{on}{dash}{off}:"));
                    }
                    if !(on.is_empty() && off.is_empty()) {
                        self.out.extend(["(?", &on, dash, &off, ")"]);
                        // Go would repeat what stands before the flags.
                        self.before = Before::Nothing;
                    }
                    return Ok(());
                }
                Some('=' | '!') => return wrong("look-around is not supported, in Prometheus neither"),
                _ => return wrong("unknown kind of group; known are (…), (?:…), (?P<name>…) and the flags i, m, s, U"),
            }
        }
    }

    /// Writes a repetition of up to `most` times, whose laziness is still to be read.
    fn repetition(&mut self, operator: &str, most: u32) -> Result<(), String> {
        let lazy = self.takes("?");
        match self.before {
            Before::Nothing => return wrong("a repetition (*, +, ? or {n}) of nothing"),
            Before::Repetition => return wrong("a repetition of a repetition, such as a**; use a group"),
            Before::Atom => {}
        }
        let product = self.product.saturating_mul(most.max(1));
        if most > 1 && product > MAX_REPEAT {
            return Err(format!("more than {MAX_REPEAT} repetitions; they multiply when nested"));
        }
        self.out.push_str(operator);
        if lazy {
            self.out.push('?');
        }
        self.atom(if most == 0 { 1 } else { product });
        self.before = Before::Repetition;
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}`; anything else behind a brace makes it a literal (Go, `regexp/syntax`, `repeat`).
    fn brace(&mut self) -> Result<(), String> {
        let Some((least, most, length)) = counts(self.rest) else {
            self.skip(1);
            self.literal('{');
            return Ok(());
        };
        if least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || least > most) {
            return Err(format!("a repetition counts from 0 to {MAX_REPEAT}, the smaller number first"));
        }
        let operator = &self.rest[..length];
        self.skip(length);
        self.repetition(operator, most.unwrap_or(least))
    }

    fn backslash(&mut self) -> Result<(), String> {
        if let Some(quoted) = self.rest.strip_prefix("\\Q") {
            let (literal, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            self.before = Before::Nothing;
            literal.chars().for_each(|literal| self.literal(literal));
            self.rest = rest;
            return Ok(());
        }
        for (go, rust) in [("\\A", "\\A"), ("\\z", "\\z"), ("\\b", "(?-u:\\b)"), ("\\B", "(?-u:\\B)")] {
            if self.takes(go) {
                self.out.push_str(rust);
                self.atom(1);
                return Ok(());
            }
        }
        if let Some(group) = self.group()? {
            self.out.push_str(&group);
            self.atom(1);
            return Ok(());
        }
        let literal = self.escape()?;
        self.literal(literal);
        Ok(())
    }

    /// `[…]` (Go, `regexp/syntax`, `parseClass`).
    fn class(&mut self) -> Result<(), String> {
        self.skip(1);
        self.out.push('[');
        if self.takes("^") {
            self.out.push('^');
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if self.rest.is_empty() {
                return wrong("a [ without its ]");
            }
            if let Some(group) = self.posix()? {
                self.out.push_str(&group);
            } else if let Some(group) = self.group()? {
                self.out.push_str(&group);
            } else {
                self.range()?;
            }
        }
        self.skip(1);
        self.out.push(']');
        self.atom(1);
        Ok(())
    }

    /// A character in a class, or a range of them.
    fn range(&mut self) -> Result<(), String> {
        let low = self.class_character()?;
        push_literal(&mut self.out, low);
        if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
            self.skip(1);
            let high = self.class_character()?;
            if high < low {
                return wrong("the ends of a range in […] are the wrong way round");
            }
            self.out.push('-');
            push_literal(&mut self.out, high);
        }
        Ok(())
    }

    fn class_character(&mut self) -> Result<char, String> {
        if self.rest.starts_with('\\') {
            return self.escape();
        }
        self.take().map_or_else(|| wrong("a [ without its ]"), Ok)
    }

    /// `[:alpha:]` within a class.
    fn posix(&mut self) -> Result<Option<String>, String> {
        let Some((name, rest)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) else {
            return Ok(None);
        };
        let (not, plain) = name.strip_prefix('^').map_or(("", name), |plain| ("^", plain));
        let ranges = match plain {
            "alnum" => "0-9A-Za-z",
            "alpha" => "A-Za-z",
            "ascii" => r"\x{0}-\x{7F}",
            "blank" => r"\x{9}\x{20}",
            "cntrl" => r"\x{0}-\x{1F}\x{7F}",
            "digit" => "0-9",
            "graph" => r"\x{21}-\x{7E}",
            "lower" => "a-z",
            "print" => r"\x{20}-\x{7E}",
            "punct" => r"\x{21}-\x{2F}\x{3A}-\x{40}\x{5B}-\x{60}\x{7B}-\x{7E}",
            "space" => r"\x{9}-\x{D}\x{20}",
            "upper" => "A-Z",
            "word" => "0-9A-Za-z_",
            "xdigit" => "0-9A-Fa-f",
            _ => return wrong("unknown class between [: and :]"),
        };
        self.rest = rest;
        Ok(Some(format!("[{not}{ranges}]")))
    }

    /// `\d`, `\pL`, `\p{Greek}` and the like, in or outside a class.
    fn group(&mut self) -> Result<Option<String>, String> {
        const PERL: [(&str, &str); 6] = [
            ("\\d", "[0-9]"),
            ("\\D", "[^0-9]"),
            ("\\s", r"[\t\n\f\r\x{20}]"),
            ("\\S", r"[^\t\n\f\r\x{20}]"),
            ("\\w", "[0-9A-Za-z_]"),
            ("\\W", "[^0-9A-Za-z_]"),
        ];
        for (go, rust) in PERL {
            if self.takes(go) {
                return Ok(Some(rust.to_owned()));
            }
        }
        let mut not = if self.takes("\\p") {
            false
        } else if self.takes("\\P") {
            true
        } else {
            return Ok(None);
        };
        let name = if self.takes("{") {
            let Some((name, rest)) = self.rest.split_once('}') else { return wrong("a \\p{ without its }") };
            self.rest = rest;
            not ^= name.starts_with('^');
            name.strip_prefix('^').unwrap_or(name).to_owned()
        } else {
            self.take().map(String::from).unwrap_or_default()
        };
        let plain = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '-' | ' ');
        if name.is_empty() || !name.chars().all(plain) {
            return wrong("unknown character group behind \\p");
        }
        Ok(Some(format!("\\{}{{{name}}}", if not { 'P' } else { 'p' })))
    }

    /// The character that an escape stands for (Go, `regexp/syntax`, `parseEscape`).
    fn escape(&mut self) -> Result<char, String> {
        self.skip(1);
        let Some(first) = self.take() else { return wrong("a \\ at the end") };
        let is_octal = |next: Option<char>| next.is_some_and(|c| ('0'..='7').contains(&c));
        let code = match first {
            '1'..='9' if first > '7' || !is_octal(self.rest.chars().next()) => {
                return wrong("back-references are not supported, in Prometheus neither");
            }
            '0'..='7' => {
                let more = self.rest.chars().take(2).take_while(|c| is_octal(Some(*c))).count();
                let digits = format!("{first}{}", &self.rest[..more]);
                self.skip(more);
                u32::from_str_radix(&digits, 8).ok()
            }
            'x' => self.hexadecimal(),
            'a' => Some(0x07),
            'f' => Some(0x0c),
            'n' => Some(0x0a),
            'r' => Some(0x0d),
            't' => Some(0x09),
            'v' => Some(0x0b),
            'Z' => return wrong("\\Z is not supported, in Prometheus neither; the end is \\z or $"),
            'C' => return wrong("\\C (one byte) is not supported, in Prometheus neither"),
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => Some(u32::from(other)),
            other => return wrong(&format!("unknown escape \\{}", other.escape_debug())),
        };
        code.and_then(char::from_u32).map_or_else(|| wrong("an escape by number is not a character of Unicode"), Ok)
    }

    /// The number behind `\x`: two digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let digits = if self.takes("{") {
            let (digits, rest) = self.rest.split_once('}')?;
            self.rest = rest;
            digits
        } else {
            let digits = self.rest.get(..2)?;
            self.skip(2);
            digits
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let significant = digits.trim_start_matches('0');
        if significant.is_empty() { Some(0) } else { u32::from_str_radix(significant, 16).ok() }
    }
}

fn push_literal(out: &mut String, literal: char) {
    if literal.is_ascii_alphanumeric() || literal == '_' || !literal.is_ascii() {
        out.push(literal);
    } else {
        out.extend(literal.escape_unicode().map(|c| if c == 'u' { 'x' } else { c }));
    }
}

/// The numbers of `{n}`, `{n,}` or `{n,m}` at the start of `text`, and how long it is.
fn counts(text: &str) -> Option<(u32, Option<u32>, usize)> {
    let inner = text.strip_prefix('{')?;
    let (inner, _) = inner.split_once('}')?;
    let length = inner.len() + 2;
    match inner.split_once(',') {
        None => number(inner).map(|count| (count, Some(count), length)),
        Some((least, "")) => number(least).map(|least| (least, None, length)),
        Some((least, most)) => Some((number(least)?, Some(number(most)?), length)),
    }
}

/// A whole number without leading zeros; one too large for any use is the largest.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = is_number && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().unwrap_or(u32::MAX))
}
