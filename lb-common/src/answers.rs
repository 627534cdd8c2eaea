//! The account of answers to refused packets: how many are sent, and how many bytes.
//!
//! The source address of a refused packet may be forged, so every answer may hit a victim. Two limits make that useless to
//! an attacker: the number of answers in a second, and their bytes, which never exceed the bytes of the packets that they
//! answer. A rule for each packet would not do for the latter: an ICMP error quotes the IP header and eight bytes (RFC 792),
//! so it is longer than a small datagram. Instead, bytes that are sent beyond those received are a debt with a limit, which
//! later packets pay back.

use crate::{
    clock::{Age, Ticks},
    limits::{ANSWER_DEBT_BYTES, ANSWERS_PER_SECOND},
};

/// The only element of the `ANSWERS` map: `start of the second (32) | answers in it (16) | debt in bytes (16)`.
///
/// Zero means that nothing was sent yet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers(pub u64);

crate::plain!(Answers = "answers: second 32, count 16, debt 16");

/// What happens to a packet that asks for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The limit of this second is reached. The word does not change, so that a flood costs a read and no write.
    Exhausted,
    /// No answer, because the debt would become too large. The packet pays some of it back.
    Saved(Answers),
    /// It is answered.
    Spent(Answers),
}

const _: () = assert!(ANSWERS_PER_SECOND + ANSWER_DEBT_BYTES <= u16::MAX as u32);

impl Answers {
    const SECOND: Ticks = Ticks::from_seconds(1);

    const fn new(start: Ticks, count: u32, debt_bytes: u32) -> Self {
        Self((start.0 as u64) << 32 | ((count & 0xffff) << 16) as u64 | (debt_bytes & 0xffff) as u64)
    }

    /// The limit of the second that began at `start` is reached.
    pub const fn exhausted(start: Ticks) -> Self {
        Self::new(start, ANSWERS_PER_SECOND, 0)
    }

    /// Decides whether a packet of `received_bytes` gets an answer of `sent_bytes`.
    #[inline(always)]
    pub const fn account(self, now: Ticks, received_bytes: u32, sent_bytes: u32) -> Account {
        let (start, count) = (Ticks((self.0 >> 32) as u32), (self.0 >> 16) as u32 & 0xffff);
        let debt = self.0 as u32 & 0xffff;
        // A CPU that was preempted after it read the clock does not begin an earlier second.
        let is_over = count == 0 || Age::new(now, start).is_over(Self::SECOND);
        let (start, count) = if is_over { (now, 0) } else { (start, count) };
        if count >= ANSWERS_PER_SECOND {
            return Account::Exhausted;
        }
        let owed = (debt + sent_bytes).saturating_sub(received_bytes);
        if owed > ANSWER_DEBT_BYTES {
            return Account::Saved(Self::new(start, count, debt.saturating_sub(received_bytes)));
        }
        Account::Spent(Self::new(start, count + 1, owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Ticks = Ticks(u32::MAX - 100);

    /// Sends packets at `now` until one is not answered. Returns the number of answers, and the word.
    fn answered(mut word: Answers, now: Ticks, received_bytes: u32, sent_bytes: u32) -> (u32, Answers) {
        let mut count = 0;
        while let Account::Spent(after) = word.account(now, received_bytes, sent_bytes) {
            (word, count) = (after, count + 1);
        }
        (count, word)
    }

    fn later(ticks: u32) -> Ticks {
        Ticks(START.0.wrapping_add(ticks))
    }

    #[test]
    fn a_second_has_its_limit_and_the_next_one_begins_afresh_although_the_clock_wraps() {
        let (count, word) = answered(Answers::default(), START, 60, 54);

        assert_eq!(count, ANSWERS_PER_SECOND);
        assert_eq!(word.account(START, 60, 54), Account::Exhausted);
        assert_eq!(word.account(later(Ticks::from_seconds(1).0), 60, 54), Account::Exhausted);
        let (count, _) = answered(word, later(Ticks::from_seconds(1).0 + 1), 60, 54);
        assert_eq!(count, ANSWERS_PER_SECOND);
    }

    #[test]
    fn a_clock_that_is_late_does_not_begin_another_second() {
        let (_, word) = answered(Answers::default(), later(1), 60, 54);

        assert_eq!(word.account(START, 60, 54), Account::Exhausted);
    }

    #[test]
    fn the_bytes_sent_never_exceed_those_received_by_more_than_the_debt() {
        let (mut word, mut now, mut random) = (Answers::default(), START, 1_u32);
        let (mut received, mut sent, mut answers) = (0_u64, 0_u64, 0);
        for _ in 0..100_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (question, answer) = (42 + (random >> 28), 70);
            now.0 = now.0.wrapping_add(random >> 30);
            received += u64::from(question);
            match word.account(now, question, answer) {
                Account::Exhausted => {}
                Account::Saved(after) => word = after,
                Account::Spent(after) => {
                    word = after;
                    sent += u64::from(answer);
                    answers += 1;
                }
            }

            assert!(sent <= received + u64::from(ANSWER_DEBT_BYTES));
        }
        assert!(
            answers > 50_000,
            "small datagrams are answered at the rate that their bytes pay for: {answers}"
        );
    }

    #[test]
    fn a_large_packet_pays_the_debt_back_and_earns_nothing() {
        let (count, in_debt) = answered(Answers::default(), START, 42, 70);

        assert_eq!(count, ANSWER_DEBT_BYTES / (70 - 42));
        let Account::Spent(free) = in_debt.account(START, 60_000, 70) else { panic!("{in_debt:?}") };
        assert_eq!(answered(free, START, 42, 70).0, ANSWER_DEBT_BYTES / (70 - 42));
    }

    #[test]
    fn a_packet_that_is_not_answered_pays_for_the_next_one() {
        let (_, word) = answered(Answers::default(), START, 42, 70);

        let Account::Saved(word) = word.account(START, 42, 70) else { panic!("{word:?}") };
        assert!(matches!(word.account(START, 42, 70), Account::Spent(_)));
    }
}
