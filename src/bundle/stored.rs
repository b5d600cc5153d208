//! Contents as they are stored: frames that together are one Zstandard stream, which a client can be sent undecoded.

use super::Bundle;
use super::values::{AssetRecord, Codec, Piece, Placement};
use crate::error::Result;
use crate::ids::ContentHash;
use crate::limits;

/// What tells the hash of stored bytes from that of a content.
const CONTEXT: &str = "flyloft: the stored frames of a content, in order";

impl Placement {
    /// Where the content lies as it is stored, to be read without being decoded. `None` unless it is the whole of a
    /// content of at most [`limits::STORED_BYTES_MAX`], every frame is of it alone and entire, and every frame is
    /// Zstandard without a dictionary: such frames, one after the other, are one stream by RFC 8878, section 3.1.
    ///
    /// The hash of the new placement stands for the stored bytes: the same content, stored in another way, has another.
    pub fn stored(&self) -> Option<Placement> {
        if self.pieces.is_empty() || self.piece_bytes() != self.len || self.len > limits::STORED_BYTES_MAX {
            return None;
        }
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let mut frame = piece.frame;
            let entire = piece.from == 0 && piece.len == frame.decoded_len;
            if !entire || frame.codec != Codec::Zstd || frame.dictionary != 0 {
                return None;
            }
            hasher.update(&frame.stored_hash);
            // Stored bytes are the stored form of themselves: every stage reads and checks them like any others.
            frame.codec = Codec::Store;
            frame.decoded_len = frame.stored_len;
            pieces.push(Piece { frame, from: 0, len: frame.stored_len });
        }
        let len = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        Some(Placement { content: ContentHash(*hasher.finalize().as_bytes()), len, start: 0, pieces })
    }
}

impl Bundle {
    /// Where an asset lies as it is stored, if that is one Zstandard stream of its own: see [`Placement::stored`].
    /// `None` for one of more than [`limits::STORED_BYTES_MAX`], too.
    ///
    /// # Errors
    /// As [`Bundle::placement`].
    pub fn stored(&self, record: &AssetRecord) -> Result<Option<Placement>> {
        if record.len > limits::STORED_BYTES_MAX {
            // Its frames need not be looked for.
            return Ok(None);
        }
        Ok(self.placement(&record.content, 0..u64::MAX)?.and_then(|placement| placement.stored()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{EncodeHint, EncodedFrame, Encoder, FrameRef};
    use crate::config::Layout;

    fn frame(number: u32, encoded: &EncodedFrame) -> FrameRef {
        FrameRef {
            number,
            offset: u64::from(number) << 20,
            stored_len: encoded.stored.len() as u32,
            decoded_len: encoded.decoded_len,
            codec: encoded.codec,
            dictionary: encoded.dictionary,
            stored_hash: encoded.stored_hash,
        }
    }

    fn placed(frames: &[FrameRef]) -> Placement {
        let pieces: Vec<Piece> =
            frames.iter().map(|frame| Piece { frame: *frame, from: 0, len: frame.decoded_len }).collect();
        let len = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        Placement { content: ContentHash([7; 32]), len, start: 0, pieces }
    }

    fn encoded(text: &str) -> EncodedFrame {
        Encoder::new(Layout::Access).encode(text.repeat(4_000).as_bytes(), EncodeHint::default())
    }

    #[test]
    fn the_frames_of_one_content_in_their_order_are_one_zstandard_stream() {
        let (first, second) = (encoded("one frame "), encoded("another "));
        let stored = placed(&[frame(1, &first), frame(2, &second)]).stored().unwrap();
        assert_eq!(stored.len, (first.stored.len() + second.stored.len()) as u64);
        assert!(
            stored.pieces.iter().all(|piece| piece.frame.codec == Codec::Store && piece.len == piece.frame.stored_len)
        );
        let stream = [first.stored, second.stored].concat();
        let decoded = zstd::stream::decode_all(stream.as_slice()).unwrap();
        assert_eq!(decoded, ["one frame ".repeat(4_000), "another ".repeat(4_000)].concat().into_bytes());
    }

    #[test]
    fn what_is_shared_cut_or_of_another_codec_has_no_stored_form() {
        let frame = frame(1, &encoded("text "));
        let whole = placed(&[frame]);
        assert!(whole.stored().is_some());
        let mut part = whole.clone();
        part.pieces[0].len -= 1;
        part.len -= 1;
        assert_eq!(part.stored(), None, "a part of a frame");
        let mut range = whole.clone();
        range.len += 1;
        assert_eq!(range.stored(), None, "a range of a content");
        for codec in [Codec::Store, Codec::Lz4] {
            assert_eq!(placed(&[FrameRef { codec, ..frame }]).stored(), None, "{codec:?}");
        }
        assert_eq!(placed(&[FrameRef { dictionary: 1, ..frame }]).stored(), None, "a dictionary");
        assert_eq!(placed(&[]).stored(), None, "nothing");
    }

    #[test]
    fn the_same_content_stored_in_another_way_has_another_hash() {
        let (first, second) = (frame(1, &encoded("one ")), frame(2, &encoded("two ")));
        let hash = |frames: &[FrameRef]| placed(frames).stored().unwrap().content;
        assert_ne!(hash(&[first, second]), hash(&[second, first]));
        assert_ne!(hash(&[first]), hash(&[FrameRef { stored_hash: [1; 32], ..first }]));
        assert_ne!(hash(&[first]), ContentHash([7; 32]));
        assert_ne!(hash(&[first]), ContentHash(first.stored_hash));
    }
}
