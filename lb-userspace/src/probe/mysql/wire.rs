//! Packets of the MySQL protocol, and the values in them. No I/O.
//!
//! ```text
//!   3 bytes   length of the payload
//!   1 byte    sequence: 0 for the greeting and for a command, one more for each packet that follows, of either side
//!   payload   integers in little endian; strings that end with zero, or begin with their length
//! ```

/// Maximum length of the packets that answer one question.
pub const ANSWER_MAX_BYTES: usize = 64 * 1024;
const HEADER_BYTES: usize = 4;

/// Why received bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A packet does not have the expected sequence number.
    OutOfOrder,
    /// A packet ends within a value, or has an impossible one.
    Broken,
    /// The packets of an answer are, or say that they are, longer than [`ANSWER_MAX_BYTES`].
    TooLong,
    TooManyColumns,
    TooManyRows,
}

/// Splits what was received into packets, and numbers the packets of both sides.
#[derive(Debug)]
pub struct Packets {
    received: Vec<u8>,
    sequence: u8,
    /// How much of the answer may still come.
    left: usize,
}

impl Default for Packets {
    /// For the greeting.
    fn default() -> Self {
        Self { received: Vec::new(), sequence: 0, left: ANSWER_MAX_BYTES }
    }
}

impl Packets {
    /// Nothing was received that is not yet taken.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    pub fn push(&mut self, received: &[u8]) {
        self.received.extend_from_slice(received);
    }

    /// The payload of the next packet of the answer, or `None` while it is incomplete.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        let Some((header, rest)) = self.received.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [low, middle, high, sequence] = *header;
        let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
        if sequence != self.sequence {
            return Err(Malformed::OutOfOrder);
        }
        let end = HEADER_BYTES + length;
        let left = self.left.checked_sub(end).ok_or(Malformed::TooLong)?;
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let payload = payload.to_vec();
        self.received.drain(..end);
        (self.sequence, self.left) = (sequence.wrapping_add(1), left);
        Ok(Some(payload))
    }

    /// The packet with this payload, in the sequence. Another answer may follow.
    pub fn next(&mut self, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_le_bytes();
        let mut packet = vec![length[0], length[1], length[2], self.sequence];
        packet.extend_from_slice(payload);
        (self.sequence, self.left) = (self.sequence.wrapping_add(1), ANSWER_MAX_BYTES);
        packet
    }

    /// The packet with this payload, as the first of a sequence.
    pub fn first(&mut self, payload: &[u8]) -> Vec<u8> {
        self.sequence = 0;
        self.next(payload)
    }
}

/// Takes the values of a payload, from its beginning.
#[derive(Debug)]
pub struct Values<'p>(pub &'p [u8]);

impl<'p> Values<'p> {
    pub fn bytes(&mut self, count: usize) -> Result<&'p [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed::Broken)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    pub fn short(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// A string that ends with zero, or with the packet.
    pub fn string(&mut self) -> &'p [u8] {
        let end = self.0.iter().position(|byte| *byte == 0);
        let (string, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest.get(1..).unwrap_or_default();
        string
    }

    /// An integer that says how long it is.
    pub fn integer(&mut self) -> Result<u64, Malformed> {
        match self.byte()? {
            small @ 0..=0xfa => Ok(small.into()),
            0xfc => self.short().map(u64::from),
            0xfd => self.array().map(|[low, middle, high]| u32::from_le_bytes([low, middle, high, 0]).into()),
            0xfe => self.array().map(u64::from_le_bytes),
            // NULL, and the beginning of an error packet.
            0xfb | 0xff => Err(Malformed::Broken),
        }
    }

    /// A string that begins with its length.
    pub fn counted(&mut self) -> Result<&'p [u8], Malformed> {
        let length = usize::try_from(self.integer()?).map_err(|_| Malformed::Broken)?;
        self.bytes(length)
    }

    /// The same, or NULL.
    pub fn nullable(&mut self) -> Result<Option<&'p [u8]>, Malformed> {
        const NULL: u8 = 0xfb;
        match self.0.split_first() {
            Some((&NULL, rest)) => {
                self.0 = rest;
                Ok(None)
            }
            Some(_) | None => self.counted().map(Some),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet.
    pub fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        [&length.to_le_bytes()[..3], &[sequence], payload].concat()
    }

    /// A string with its length.
    pub fn counted(text: &str) -> Vec<u8> {
        let length = match u8::try_from(text.len()) {
            Ok(small @ 0..=0xfa) => vec![small],
            Ok(_) | Err(_) => [&[0xfc], &(text.len() as u16).to_le_bytes()[..]].concat(),
        };
        [&length, text.as_bytes()].concat()
    }

    #[test]
    fn packets_are_found_wherever_the_pieces_end() {
        let stream = [packet(0, b"greeting"), packet(1, b""), packet(2, &[7; 300])].concat();

        for cut in 0..stream.len() {
            let (mut packets, mut taken) = (Packets::default(), Vec::new());
            for piece in [&stream[..cut], &stream[cut..]] {
                packets.push(piece);
                while let Some(payload) = packets.take().unwrap() {
                    taken.push(payload);
                }
            }

            assert_eq!(taken, [b"greeting".to_vec(), Vec::new(), vec![7; 300]], "cut at {cut}");
            assert!(packets.is_empty());
        }
    }

    #[test]
    fn an_answer_that_announces_too_much_is_refused_at_its_header() {
        let mut packets = Packets::default();
        packets.push(&[0xff, 0xff, 0xff, 0]);
        assert_eq!(packets.take(), Err(Malformed::TooLong));

        // Many packets are as bad as a long one.
        let mut packets = Packets::default();
        packets.push(&[packet(0, &vec![0; 40_000]), packet(1, &vec![0; 40_000])].concat());
        assert!(packets.take().unwrap().is_some());
        assert_eq!(packets.take(), Err(Malformed::TooLong));

        // Each answer has the same room.
        let mut packets = Packets::default();
        for _ in 0..10 {
            packets.first(b"question");
            packets.push(&packet(1, &vec![0; ANSWER_MAX_BYTES - HEADER_BYTES]));
            assert!(packets.take().unwrap().is_some());
        }
    }

    #[test]
    fn both_sides_are_numbered_together() {
        let mut packets = Packets::default();
        packets.push(&packet(0, b"greeting"));
        packets.take().unwrap();
        assert_eq!(packets.next(b"login"), packet(1, b"login"));

        packets.push(&packet(3, b"done"));

        assert_eq!(packets.take(), Err(Malformed::OutOfOrder));
        assert_eq!(packets.first(b"question"), packet(0, b"question"));
    }

    #[test]
    fn integers_say_how_long_they_are() {
        for (bytes, number) in [
            (&[0xfa][..], Ok(250)),
            (&[0xfc, 0xfb, 0], Ok(251)),
            (&[0xfd, 0, 0, 1], Ok(0x1_0000)),
            (&[0xfe, 0, 0, 0, 1, 0, 0, 0, 0], Ok(0x100_0000)),
            (&[0xfb], Err(Malformed::Broken)),
            (&[0xff], Err(Malformed::Broken)),
            (&[0xfc, 1], Err(Malformed::Broken)),
            (&[], Err(Malformed::Broken)),
        ] {
            assert_eq!(Values(bytes).integer(), number, "{bytes:?}");
        }
    }

    #[test]
    fn a_string_longer_than_its_packet_is_broken() {
        for bytes in [&[4, b'a', b'b', b'c'][..], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], &[0xfc]] {
            assert_eq!(Values(bytes).counted(), Err(Malformed::Broken), "{bytes:?}");
        }
        assert_eq!(Values(&[0xfb]).nullable(), Ok(None));
        assert_eq!(Values(&[1, b'a']).nullable(), Ok(Some(&b"a"[..])));
        assert_eq!(Values(b"no end").string(), b"no end");
    }

    proptest! {
        #[test]
        fn a_string_is_read_as_it_was_written(text in ".{0,400}", rest in any::<Vec<u8>>()) {
            let bytes = [counted(&text), rest.clone()].concat();
            let mut values = Values(&bytes);

            prop_assert_eq!(values.counted(), Ok(text.as_bytes()));
            prop_assert_eq!(values.0, rest);
        }

        #[test]
        fn no_bytes_make_it_panic_or_keep_more_than_was_received(
            pieces in proptest::collection::vec(proptest::collection::vec(0_u8..4, 0..40), 0..40),
        ) {
            let (mut packets, mut received) = (Packets::default(), 0);
            for piece in &pieces {
                packets.push(piece);
                received += piece.len();
                while let Ok(Some(payload)) = packets.take() {
                    received -= HEADER_BYTES + payload.len();
                }
                prop_assert_eq!(packets.received.len(), received);
            }
        }
    }
}
