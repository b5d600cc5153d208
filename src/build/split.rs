//! Where a large content is cut: at boundaries that its own bytes define, so that an edit moves few of them.

use fastcdc::v2020::FastCDC;

/// Contents of at least this many frames are cut where their bytes say, if they compress. Frames cut so are smaller on
/// average, and compress a little less: for less than this the whole content is as quickly stored again.
const FRAMES_MIN: u64 = 16;
/// How much of a content is tried to see whether it compresses.
pub const SAMPLE_BYTES: usize = 16 << 10;
/// A content is worth cutting by its bytes when its samples shrink to at most this share, in percent.
const WORTH_PERCENT: usize = 90;

/// Whether a content of this length may be cut by its bytes.
pub fn is_large(len: u64, frame_bytes_max: u64) -> bool {
    len >= FRAMES_MIN * frame_bytes_max
}

/// Where the samples start that show whether a large content compresses.
pub fn samples(len: u64) -> [u64; 3] {
    let last = len.saturating_sub(SAMPLE_BYTES as u64);
    [0, last / 2, last]
}

/// Whether samples that shrank from `before` to `after` bytes are worth it.
pub fn is_worth(before: usize, after: usize) -> bool {
    after * 100 <= before * WORTH_PERCENT
}

/// The length of the first chunk of `window`, which holds the next `frame_bytes_max` bytes of the content, or all that
/// is left of it.
pub fn first_cut(window: &[u8], frame_bytes_max: usize) -> usize {
    let least = frame_bytes_max / 4;
    if window.len() <= least {
        return window.len();
    }
    let chunks = FastCDC::new(window, least, frame_bytes_max / 4 * 3, frame_bytes_max);
    // At the end of a content the chunker would cut again; a frame may as well hold all that is left.
    chunks.into_iter().next().map_or(window.len(), |chunk| chunk.length).clamp(1, window.len())
}

/// Every cut of a content that is in memory.
pub fn cuts(content: &[u8], frame_bytes_max: usize) -> Vec<u64> {
    let mut cuts = Vec::with_capacity(content.len() / frame_bytes_max * 2);
    let mut at = 0;
    while at < content.len() {
        at += first_cut(&content[at..content.len().min(at + frame_bytes_max)], frame_bytes_max);
        cuts.push(at as u64);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn an_insertion_moves_few_cuts() {
        let old = noise(4 << 20);
        let mut new = old.clone();
        new.splice(1_000_000..1_000_000, *b"inserted");
        let chunks = |content: &[u8]| -> Vec<Vec<u8>> {
            let mut start = 0;
            cuts(content, 64 << 10)
                .into_iter()
                .map(|end| {
                    let chunk = content[start..end as usize].to_vec();
                    start = end as usize;
                    chunk
                })
                .collect()
        };
        let before = chunks(&old);
        let after = chunks(&new);
        let fresh = after.iter().filter(|chunk| !before.contains(chunk)).count();
        assert!(fresh <= 4, "{fresh} of {} chunks are new", after.len());
        assert!(after.iter().all(|chunk| chunk.len() <= 64 << 10));
        assert_eq!(after.concat(), new);
    }

    #[test]
    fn a_content_is_cut_the_same_whether_all_of_it_is_in_memory_or_a_window() {
        let content = noise(700_001);
        let mut at = 0;
        let mut windowed = Vec::new();
        while at < content.len() {
            let window = content[at..content.len().min(at + 65536)].to_vec();
            at += first_cut(&window, 65536);
            windowed.push(at as u64);
        }
        assert_eq!(cuts(&content, 65536), windowed);
    }
}
