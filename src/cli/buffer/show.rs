//! Progress of long work: one line on stderr that is drawn over, and only where a person looks at it.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::text;

/// How often the line is drawn anew.
const FRAME: Duration = Duration::from_millis(100);
/// Work shorter than this needs no line.
const PATIENCE: Duration = Duration::from_millis(300);
/// Width of the bar.
const BAR_CELLS: u64 = 30;

/// A bar that is wiped away when it is dropped.
pub(super) struct Progress {
    what: &'static str,
    began: Instant,
    drawn: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// A bar for `what`.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, began: Instant::now(), drawn: None, is_shown: std::io::stderr().is_terminal() }
    }

    /// The same, where the output does not go to the terminal that the bar would spoil.
    pub(super) fn beside_output(what: &'static str) -> Self {
        let mut bar = Self::new(what);
        bar.is_shown &= !std::io::stdout().is_terminal();
        bar
    }

    /// `done` of `total` bytes.
    pub(super) fn bytes(&mut self, done: u64, total: u64) {
        self.draw(done, total, text::bytes, "");
    }

    /// `done` of `total` samples, and what else there is to say.
    pub(super) fn samples(&mut self, done: u64, total: u64, note: &str) {
        self.draw(done, total, text::count, note);
    }

    fn draw(&mut self, done: u64, total: u64, unit: impl Fn(u64) -> String, note: &str) {
        let now = Instant::now();
        let took = now.duration_since(self.began);
        if !self.is_shown || !is_due(took, self.drawn.map(|at| now.duration_since(at))) {
            return;
        }
        self.drawn = Some(now);
        let line = line(self.what, (done, total), took, unit, note);
        // Nobody is left to tell when even this cannot be printed.
        drop(write!(std::io::stderr().lock(), "\r\x1b[K{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            drop(write!(std::io::stderr().lock(), "\r\x1b[K"));
        }
    }
}

/// Whether it takes long, and there may be news.
fn is_due(took: Duration, since_drawn: Option<Duration>) -> bool {
    took >= PATIENCE && since_drawn.is_none_or(|since| since >= FRAME)
}

fn line(what: &str, (done, total): (u64, u64), took: Duration, unit: impl Fn(u64) -> String, note: &str) -> String {
    let (done, total) = (done.min(total), total.max(1));
    let cells = u128::from(BAR_CELLS) * u128::from(done) / u128::from(total);
    let bar: String = (0..u128::from(BAR_CELLS)).map(|cell| if cell < cells { '█' } else { '░' }).collect();
    let rate = (done as f64 / took.as_secs_f64().max(0.001)).max(0.001);
    let left = Duration::from_secs_f64(((total - done) as f64 / rate).min(1e9));
    let percent = u128::from(done) * 100 / u128::from(total);
    let rest = if done == 0 { String::new() } else { format!(", {} left", text::duration(left)) };
    let note = if note.is_empty() { String::new() } else { format!("  {note}") };
    format!("{what} {bar} {percent:3} %  {} of {}{rest}{note}", unit(done), unit(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_drawn_of_long_work_and_only_now_and_then() {
        assert!(is_due(PATIENCE, None));
        assert!(!is_due(PATIENCE / 2, None), "short work needs none");
        assert!(!is_due(PATIENCE, Some(FRAME / 2)), "nobody reads so fast");
        assert!(is_due(PATIENCE, Some(FRAME)));
    }

    #[test]
    fn nothing_is_drawn_where_nobody_looks() {
        let began = Instant::now().checked_sub(PATIENCE).unwrap();
        let mut bar = Progress { what: "reads", began, drawn: None, is_shown: false };
        bar.bytes(1, 2);
        assert_eq!(bar.drawn, None);
        bar.is_shown = true;
        bar.bytes(1, 2);
        assert!(bar.drawn.is_some());
    }

    #[test]
    fn a_bar_says_how_far_and_how_long() {
        let half = line("reads", (50, 100), Duration::from_secs(10), text::count, "");
        assert_eq!(half, format!("reads {}{}  50 %  50 of 100, 10s left", "█".repeat(15), "░".repeat(15)));
        let nothing = line("reads", (0, 0), Duration::ZERO, text::count, "waits");
        assert!(nothing.contains("  0 %") && nothing.ends_with("waits"), "{nothing}");
    }
}
