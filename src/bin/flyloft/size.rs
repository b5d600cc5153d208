//! Sizes and durations, as people write and read them.

use std::time::Duration;

/// Reads a size: `4096`, `64k`, `512MiB`, `2G`. `k`, `KiB` and their like are powers of 1024; `kB` and its like of 1000.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let refused = || format!("'{text}' is not a size; write 4096, 64k or 512MiB");
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit = unit.trim().to_ascii_lowercase();
    let (prefix, base) = match unit.as_str() {
        "" | "b" => return Ok(number),
        unit => match unit.strip_suffix("ib") {
            Some(prefix) => (prefix, 1024u64),
            None => unit.strip_suffix('b').map_or((unit, 1024), |prefix| (prefix, 1000)),
        },
    };
    let power = ["k", "m", "g", "t"].iter().position(|known| *known == prefix).ok_or_else(refused)?;
    let factor = base.pow(power as u32 + 1);
    number.checked_mul(factor).ok_or_else(|| format!("'{text}' is more than any machine holds"))
}

/// Reads a duration: `5ms`, `1s`, `250us`.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let refused = || format!("'{text}' is not a time; write 5ms, 250us or 1s");
    let number: u64 = number.parse().map_err(|_| refused())?;
    match unit.trim() {
        "us" | "µs" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(refused()),
    }
}

/// A size with three digits or so: `61.3 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A count with its thousands apart: `52,000`.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many of what: `1 asset`, `2 assets`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A share in percent: `21.1 %`.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "0 %".to_owned() } else { format!("{:.1} %", 100.0 * part as f64 / whole as f64) }
}

/// A duration in the unit that suits it: `850 µs`, `1.8 ms`, `4.2 s`.
pub fn span(span: Duration) -> String {
    let us = span.as_micros();
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_people_write_it() {
        let check = |text: &str, expected: u64| assert_eq!(parse(text), Ok(expected), "{text}");
        check("4096", 4096);
        check("64k", 64 << 10);
        check("64K", 64 << 10);
        check("512MiB", 512 << 20);
        check("512 MiB", 512 << 20);
        check("2g", 2 << 30);
        check("1kB", 1000);
        check("3MB", 3_000_000);
        check("10b", 10);
        for bad in ["", "k", "-1", "1.5G", "12q", "99999999999999999999", "99999999999T"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(parse_span("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(parse_span("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(parse_span("1 s"), Ok(Duration::from_secs(1)));
        for bad in ["", "5", "ms", "-1s", "1h", "0.5s"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "asset"), "1 asset");
        assert_eq!(share(1, 4), "25.0 %");
        assert_eq!(span(Duration::from_micros(1800)), "1.8 ms");
    }
}
