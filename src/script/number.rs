//! Conversion of JSON numbers without loss. A number that neither an integer nor a float holds becomes text.

use rhai::Dynamic;

/// The number of significant digits that every float preserves.
const SAFE_DIGITS: usize = 15;

/// Converts a JSON number. A number that neither an `i64` nor a float can reproduce (`12345678901234567890`,
/// `0.1234567890123456789`, `1e400`) becomes a string of exactly that text. It can be stored and compared, and arithmetic
/// with it is an error.
pub(super) fn from_json(text: &str) -> Dynamic {
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return match text.parse::<i64>() {
            Ok(number) => number.into(),
            Err(_) => text.into(),
        };
    }
    match text.parse::<f64>() {
        Ok(number) if is_short(text) || (number.is_finite() && holds(number, text)) => number.into(),
        _ => text.into(),
    }
}

/// Returns whether the text has no exponent and so few digits that a float holds them.
fn is_short(text: &str) -> bool {
    text.len() <= SAFE_DIGITS && !text.contains(['e', 'E'])
}

fn holds(number: f64, text: &str) -> bool {
    let written = normal(text);
    (written.0.len() <= SAFE_DIGITS && (-290..=290).contains(&written.1)) || normal(&printed(number)) == written
}

/// Formats a number as effects do. Some floats have two shortest texts, and other formatters may choose the other one.
fn printed(number: f64) -> String {
    serde_json::to_string(&number).unwrap_or_default()
}

/// Returns the significant digits and the exponent of `0.DIGITS × 10^exponent`.
fn normal(text: &str) -> (String, i64) {
    let text = text.trim_start_matches('-');
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    // An exponent beyond i64 belongs to zero or to a number beyond every float.
    let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap_or(i64::MAX / 2);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let leading = digits.len() - significant.len();
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        return (String::new(), 0);
    }
    (significant.to_owned(), exponent.saturating_add(whole.len() as i64 - leading as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_keeps_its_value_or_becomes_its_text() {
        let kind = |text: &str| {
            let value = from_json(text);
            format!("{} {value}", if value.is_string() { "text" } else { value.type_name() })
        };
        let all =
            ["1", "-0", "9223372036854775807", "9223372036854775808", "1.5", "1.0", "0.1", "1e3", "1e400", "-2.50"];
        assert_eq!(
            all.map(kind),
            [
                "i64 1",
                "i64 0",
                "i64 9223372036854775807",
                "text 9223372036854775808",
                "f64 1.5",
                "f64 1.0",
                "f64 0.1",
                "f64 1000.0",
                "text 1e400",
                "f64 -2.5"
            ]
        );
        assert_eq!(kind("0.1000000000000000055511151231257827"), "text 0.1000000000000000055511151231257827");
        assert_eq!(kind("9007199254740993.0"), "text 9007199254740993.0");
        assert_eq!(kind("0.30000000000000004"), "f64 0.30000000000000004");
        // This float lies halfway between two texts of 16 digits. The written one is read back.
        let halfway = printed(805_685_579_034_139.0 + 0.25);
        assert!(kind(&halfway).starts_with("f64 "), "{}", kind(&halfway));
        assert_eq!(kind("0e999999999999999999999"), "f64 0.0");
    }

    proptest! {
        #[test]
        fn every_float_and_every_integer_comes_back_as_it_was_written(float: f64, integer: i64) {
            prop_assume!(float.is_finite());
            let written = serde_json::to_string(&float).unwrap();
            prop_assert_eq!(from_json(&written).as_float().unwrap().to_bits(), float.to_bits());
            prop_assert_eq!(from_json(&integer.to_string()).as_int().unwrap(), integer);
        }

        #[test]
        fn a_number_that_becomes_a_float_prints_as_the_same_number(digits in "[1-9][0-9]{0,24}", point in 0usize..24) {
            let mut text = digits;
            text.insert(point.clamp(1, text.len()), '.');
            let text = if text.ends_with('.') { format!("{text}0") } else { text };
            if let Ok(float) = from_json(&text).as_float() {
                prop_assert_eq!(normal(&printed(float)), normal(&text));
            }
        }
    }
}
