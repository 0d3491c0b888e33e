//! Flow control: each stream has a window, so that one whose reader has stopped holds up nobody else.
//!
//! ```text
//!  sender: Budget   WINDOW at first, less with every byte sent, more with every credit
//!  receiver: Window WINDOW at first, less with every byte received; what the reader has taken goes back as credit
//! ```

use super::ProtocolError;

/// How many bytes of one stream may be on the way or unread.
pub const WINDOW: u32 = 256 << 10;

/// The sender's side of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget(u32);

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget(WINDOW)
    }

    /// How many bytes may be sent now.
    pub(crate) fn left(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// So many were sent, which is not more than are left.
    pub(crate) fn spend(&mut self, count: usize) {
        self.0 = self.0.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// The receiver gives credit, but never for more than was sent.
    pub(crate) fn credit(&mut self, count: u32) -> Result<(), ProtocolError> {
        let left = self.0.checked_add(count).filter(|left| *left <= WINDOW && count > 0);
        self.0 = left.ok_or(ProtocolError::Credit(count))?;
        Ok(())
    }
}

/// The receiver's side of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// What the sender may still send.
    left: u32,
    /// What the reader has taken and the sender was not told of.
    taken: u32,
}

impl Window {
    pub(crate) fn new() -> Window {
        Window { left: WINDOW, taken: 0 }
    }

    /// So many bytes came.
    pub(crate) fn received(&mut self, count: usize) -> Result<(), ProtocolError> {
        let left = u32::try_from(count).ok().and_then(|count| self.left.checked_sub(count));
        self.left = left.ok_or(ProtocolError::Window)?;
        Ok(())
    }

    /// The reader has taken so many; the credit to send, when it is worth a frame. More than were received are not counted.
    pub(crate) fn consumed(&mut self, count: usize) -> Option<u32> {
        let unread = WINDOW - self.left - self.taken;
        self.taken += u32::try_from(count).unwrap_or(u32::MAX).min(unread);
        // A quarter: few frames, and the sender never waits for a reader that is not behind.
        if self.taken < WINDOW / 4 {
            return None;
        }
        self.left += self.taken;
        Some(std::mem::take(&mut self.taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_has_what_the_receiver_allows_and_neither_can_be_cheated() {
        let (mut budget, mut window) = (Budget::new(), Window::new());
        let whole = budget.left();
        budget.spend(whole);
        window.received(whole).unwrap();
        assert_eq!(budget.left(), 0);
        assert!(window.received(1).is_err());
        assert_eq!(window.consumed(10), None);
        let credit = window.consumed(whole).unwrap();
        assert_eq!(credit, WINDOW);
        budget.credit(credit).unwrap();
        assert_eq!(budget.left(), whole);
        assert!(budget.credit(1).is_err());
        assert!(budget.credit(u32::MAX).is_err());
        assert_eq!(window.consumed(1 << 30), None, "nothing was received since");
    }
}
