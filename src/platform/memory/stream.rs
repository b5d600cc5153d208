//! Copies past the caches.

/// Copies `from` to `to` with stores that go past the caches, where the processor has them; [`slice::copy_from_slice`]
/// elsewhere. Nothing in the library uses it: `cargo bench --bench copies` shows why, by size.
///
/// ```
/// let mut to = [0; 100];
/// flyloft::platform::memory::copy_streaming(&mut to, &[7; 100]);
/// assert_eq!(to, [7; 100]);
/// ```
///
/// # Panics
/// When the lengths differ, as `copy_from_slice` does.
pub fn copy_streaming(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len(), "a copy is as long as what it is of");
    #[cfg(target_arch = "x86_64")]
    lines(to, from);
    #[cfg(not(target_arch = "x86_64"))]
    to.copy_from_slice(from);
}

/// Whole cache lines with streaming stores, what is before and after them as usual.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
fn lines(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LINE: usize = 64;
    let before = to.as_ptr().align_offset(LINE).min(to.len());
    let (from_start, from) = from.split_at(before);
    let (to_start, to) = to.split_at_mut(before);
    to_start.copy_from_slice(from_start);
    let (from_lines, from_end) = from.as_chunks::<LINE>();
    let (to_lines, to_end) = to.as_chunks_mut::<LINE>();
    for (to, from) in to_lines.iter_mut().zip(from_lines) {
        let (to, from) = (to.as_mut_ptr().cast::<__m128i>(), from.as_ptr().cast::<__m128i>());
        for part in 0..LINE / size_of::<__m128i>() {
            // SAFETY: both lines have 64 bytes, four parts of 16; `to` is at a multiple of 64, as the store asks for.
            // Every processor of this architecture has these instructions (SSE2).
            unsafe { _mm_stream_si128(to.add(part), _mm_loadu_si128(from.add(part))) };
        }
    }
    // SAFETY: as above. Streaming stores are not ordered with others by themselves: whoever is told that the copy is
    // there must find it there.
    unsafe { _mm_sfence() };
    to_end.copy_from_slice(from_end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_wherever_it_starts_and_ends() {
        let from: Vec<u8> = (0..1000_u32).map(|at| (at * 7) as u8).collect();
        for (start, len) in [(0, 1000), (1, 999), (3, 64), (5, 0), (63, 130), (64, 63), (100, 777)] {
            let mut to = vec![1; 1002];
            copy_streaming(&mut to[start + 1..start + 1 + len], &from[start..start + len]);
            assert_eq!(to[start + 1..start + 1 + len], from[start..start + len]);
            assert!(to[..=start].iter().chain(&to[start + 1 + len..]).all(|byte| *byte == 1));
        }
    }
}
