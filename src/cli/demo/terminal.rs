//! The terminal: raw mode, one screen drawn over the last, keys as they are pressed.
//!
//! Whatever happens, the terminal is left as it was found: [`Screen`] restores it when dropped.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{event, execute, queue};
use tokio::sync::mpsc;

/// How often the key thread looks up whether anybody still listens.
const KEY_POLL: Duration = Duration::from_millis(200);

/// How many pressed keys may wait; more are dropped, nobody types that fast.
const KEYS_MAX: usize = 16;

/// What a key means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `c`: cut the line, or mend it.
    Line,
    /// `q`, Escape or Ctrl-C (which raw mode hands on as a key).
    Quit,
}

/// Whether a person sits in front of it.
pub(super) fn is_interactive() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// The screen, taken over.
pub(super) struct Screen(());

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When it is none, or does not allow raw mode.
    pub(super) fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self(());
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Columns and rows.
    pub(super) fn size() -> (usize, usize) {
        terminal::size().map_or((80, 24), |(width, height)| (width.into(), height.into()))
    }

    /// Draws `lines` from the top and clears what is below.
    ///
    /// # Errors
    /// When the terminal is gone.
    #[expect(clippy::unused_self, reason = "only whoever holds the screen may draw on it")]
    pub(super) fn draw(&self, lines: &[String]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (row, line) in (0u16..).zip(lines) {
            queue!(out, MoveTo(0, row))?;
            out.write_all(line.as_bytes())?;
            queue!(out, Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Best effort: on the way out there is nothing left to do about a terminal that refuses.
        drop(execute!(io::stdout(), Show, LeaveAlternateScreen));
        drop(terminal::disable_raw_mode());
    }
}

/// The keys pressed from now on. Read on a thread of its own, because a terminal cannot be read without blocking.
pub(super) fn keys() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(KEY_POLL).and_then(|ready| if ready { event::read().map(Some) } else { Ok(None) }) {
                Ok(Some(event)) => {
                    if let Some(key) = meaning(&event) {
                        // A full or closed channel: the key is dropped.
                        sender.try_send(key).ok();
                    }
                }
                Ok(None) => {}
                // The terminal is gone; Ctrl-C as a signal still works.
                Err(_) => return,
            }
        }
    });
    receiver
}

fn meaning(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('c' | 'C') => Some(Key::Line),
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Key::Quit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn c_is_the_line_and_ctrl_c_is_the_end() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Some(Key::Line));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('x'), KeyModifiers::NONE), None);
    }
}
