//! Wavefront OBJ (`mtllib`) and MTL (texture maps with their options).

use memchr::{memchr, memchr2, memmem};

use super::found::Found;

/// Materials are named by `mtllib`; everything else in an OBJ is geometry, and long.
pub(super) fn extract_obj(found: &mut Found<'_>) {
    const KEYWORD: &[u8] = b"mtllib";
    let bytes = found.bytes();
    let finder = memmem::Finder::new(KEYWORD);
    let mut at = 0;
    while let Some(hit) = finder.find(&bytes[at..]) {
        let start = at + hit;
        let end = memchr2(b'\n', b'\r', &bytes[start..]).map_or(bytes.len(), |len| start + len);
        at = end;
        let Ok(rest) = std::str::from_utf8(&bytes[start + KEYWORD.len()..end]) else { continue };
        if begins_a_line(bytes, start) && rest.starts_with([' ', '\t']) {
            for name in libraries(rest) {
                found.file(name, Some(start), true);
            }
        }
    }
}

fn begins_a_line(bytes: &[u8], at: usize) -> bool {
    let before = bytes[..at].trim_ascii_end();
    at == 0 || bytes[before.len()..at].iter().any(|byte| matches!(byte, b'\n' | b'\r')) || before.is_empty()
}

/// Names are separated by spaces, and many exporters write names with spaces: a name ends where `.mtl` does.
fn libraries(rest: &str) -> impl Iterator<Item = &str> {
    const EXTENSION: &[u8] = b".mtl";
    let mut rest = rest.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let blanks = rest.match_indices([' ', '\t']).map(|(blank, _)| blank);
        let ends = |blank: &usize| {
            let name = &rest.as_bytes()[..*blank];
            name.len() > EXTENSION.len() && name[name.len() - EXTENSION.len()..].eq_ignore_ascii_case(EXTENSION)
        };
        let end = blanks.into_iter().find(ends).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after.trim_start();
        Some(name)
    })
}

/// Texture maps: `map_*`, `bump`, `disp`, `decal`, `refl`, `norm`.
pub(super) fn extract_mtl(found: &mut Found<'_>) {
    let bytes = found.bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |len| at + len);
        if let Ok(line) = std::str::from_utf8(&bytes[at..end])
            && let Some((keyword, rest)) = line.trim().split_once([' ', '\t'])
            && names_a_map(keyword)
            && let Some(name) = after_options(rest)
        {
            found.file(name, Some(at), true);
        }
        at = end + 1;
    }
}

fn names_a_map(keyword: &str) -> bool {
    let is = |other: &str| keyword.eq_ignore_ascii_case(other);
    let maps = keyword.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("map_"));
    // `map_aat on` switches antialiasing.
    (maps && !is("map_aat")) || ["bump", "disp", "decal", "refl", "norm"].into_iter().any(is)
}

/// What follows the options of a texture map: the rest of the line, since names may have spaces.
fn after_options(rest: &str) -> Option<&str> {
    let mut rest = rest.trim();
    while rest.starts_with('-') {
        let (option, after) = next_word(rest);
        // How many words an option takes at least and at most; beyond the first only numbers are taken.
        let (least, most) = match option.to_ascii_lowercase().as_str() {
            "-blendu" | "-blendv" | "-cc" | "-clamp" | "-imfchan" | "-type" | "-bm" | "-boost" | "-texres" => (1, 1),
            "-mm" => (2, 2),
            "-o" | "-s" | "-t" => (1, 3),
            // Not an option: a name that starts with a hyphen.
            _ => break,
        };
        rest = after;
        for taken in 0..most {
            let (word, after) = next_word(rest);
            if word.is_empty() || (taken >= least && word.parse::<f32>().is_err()) {
                break;
            }
            rest = after;
        }
    }
    (!rest.is_empty()).then_some(rest)
}

fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_at(text.find([' ', '\t']).unwrap_or(text.len()));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::super::found::shown;

    #[test]
    fn material_libraries_are_named() {
        let text = "# mtllib no.mtl\nmtllib a.mtl b.mtl\r\nv 0 0 0\n  mtllib My Stuff.MTL other.mtl\nmtllib odd\nxmtllib no.mtl\nmtllib\nmtllib C:\\x.mtl\nmtllib sub\\c.mtl";
        let expected = ["2 m/a.mtl", "2 m/b.mtl", "4 m/My Stuff.MTL", "4 m/other.mtl", "5 m/odd", "9 m/sub/c.mtl"];
        assert_eq!(shown("m/a.obj", text), expected);
    }

    #[test]
    fn texture_maps_are_named_past_their_options() {
        let text = "newmtl a\nKd 1 1 1\nmap_Kd wood.png\nmap_Ks -s 1 1 1 -o 0.5 -clamp on a b.png\n\
            bump -bm 0.8 b.png\nrefl -type sphere -mm 0 1 sky.hdr\nmap_aat on\ndisp -x.png\n\
            MAP_BUMP tex\\n.png\nmap_d -imfchan m 1.png\nmap_Kd\nmap_Kd -s 1\nnorm http://x/y.png\n";
        let expected = ["3 wood.png", "4 a b.png", "5 b.png", "6 sky.hdr", "8 -x.png", "9 tex/n.png", "10 1.png"];
        assert_eq!(shown("a.mtl", text), expected);
    }
}
