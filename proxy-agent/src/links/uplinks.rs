use std::{convert::Infallible, str::FromStr};

/// Which links are uplinks, if not found by themselves: names, where `eth*` stands for all that begin so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplinks(Vec<String>);

impl Uplinks {
    /// None is named: uplinks are found by themselves.
    #[must_use]
    pub fn is_automatic(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a link is named.
    #[must_use]
    pub fn names(&self, link: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, link))
    }

    /// The names that none of `links` has.
    pub fn without<'a>(&'a self, links: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(String::as_str).filter(|pattern| !links.iter().any(|link| matches(pattern, link)))
    }
}

/// Names with commas between them.
impl FromStr for Uplinks {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_of_names() {
        let uplinks: Uplinks = "eth0, ens*,".parse().unwrap();
        assert!(!uplinks.is_automatic());
        for (name, named) in [("eth0", true), ("eth01", false), ("ens5", true), ("ens", true), ("lo", false)]
        {
            assert_eq!(uplinks.names(name), named, "{name}");
        }
        assert_eq!(uplinks.without(&["ens1", "lo"]).collect::<Vec<_>>(), ["eth0"]);
        assert!("".parse::<Uplinks>().unwrap().is_automatic());
    }
}
