use std::{fmt, str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration as Go writes it: `24h0m0s`, `1.5s`, `300ms`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// That many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whether it is 0, which says nothing in most places.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// Itself, or `default` where it is 0.
    #[must_use]
    pub fn or(self, default: Self) -> Self {
        if self.is_zero() { default } else { self }
    }
}

/// As Go reads durations, and jiff too: also a bare `0`.
impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self::default());
        }
        let refused = |why: &dyn fmt::Display| format!("{why}; write a duration such as 24h0m0s, 90s or 0");
        let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| refused(&error))?;
        Duration::try_from(duration).map(Self).map_err(|_| refused(&"it is negative"))
    }
}

/// As Go writes it: from a second on with all smaller units, below with the largest that fits.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.0.as_secs(), self.0.subsec_nanos());
        let fraction = |of_a_unit: u32, digits: usize| {
            let text = format!("{of_a_unit:0digits$}");
            let text = text.trim_end_matches('0');
            if text.is_empty() { String::new() } else { format!(".{text}") }
        };
        if seconds == 0 && nanoseconds > 0 {
            let (unit, whole, rest) = match nanoseconds {
                1_000_000.. => ("ms", nanoseconds / 1_000_000, fraction(nanoseconds % 1_000_000, 6)),
                1000.. => ("µs", nanoseconds / 1000, fraction(nanoseconds % 1000, 3)),
                _ => ("ns", nanoseconds, String::new()),
            };
            return write!(f, "{whole}{rest}{unit}");
        }
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}{}s", seconds % 60, fraction(nanoseconds, 9))
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Where Kubernetes takes a number of nanoseconds besides a duration.
pub(super) fn or_nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GoDuration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a duration such as 5s, or a number of nanoseconds")]
    enum Either {
        Nanoseconds(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Nanoseconds(count) => Ok(GoDuration(Duration::from_nanos(count))),
        Either::Text(text) => text.parse().map_err(de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in [
            ("24h0m0s", 86_400_000),
            ("1h", 3_600_000),
            ("2m30s", 150_000),
            ("1.5s", 1500),
            ("300ms", 300),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(GoDuration(Duration::from_millis(milliseconds))), "{text}");
        }
        for text in ["", "24", "-1s", "1x", "soon"] {
            let error = text.parse::<GoDuration>().unwrap_err();
            assert!(error.ends_with("24h0m0s, 90s or 0"), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for text in [
            "0s", "1s", "59s", "1m0s", "1h0m0s", "24h0m0s", "2m30s", "1.5s", "1m0.25s", "300ms", "1.5ms",
            "7µs", "9ns",
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.to_string(), text);
        }
    }
}
