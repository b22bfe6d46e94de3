//! What iptables-save prints.

use crate::takeover::tables::{Chain, Ip, Rule, RuleId, Table};

/// The tables of it. Lines that are not of that form are passed over.
pub(super) fn parse(ip: Ip, saved: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table { ip, name: name.to_owned(), chains: Vec::new(), rules: Vec::new() });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let name = words.next().unwrap_or_default().to_owned();
            // Only chains of the kernel's hooks have a policy.
            table.chains.push(Chain { name, hooked: words.next() != Some("-") });
        } else if let Some((chain, rest)) = line.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) {
            let words = words(rest);
            table.rules.push(Rule {
                chain: chain.to_owned(),
                id: RuleId::Words(rest.to_owned()),
                leads_to: after(&words, &["-j", "-g"]),
                comment: after(&words, &["--comment"]),
            });
        }
    }
    tables
}

fn after(words: &[String], flags: &[&str]) -> Option<String> {
    words.windows(2).find(|pair| flags.contains(&pair[0].as_str())).map(|pair| pair[1].clone())
}

/// Words, of which some stand in double quotes, with a backslash before what would end them.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_quotes_are_one() {
        assert_eq!(
            words(r#"-m comment --comment "a \"b\" -j X" -j Y"#),
            ["-m", "comment", "--comment", r#"a "b" -j X"#, "-j", "Y"]
        );
    }

    #[test]
    fn a_comment_leads_nowhere() {
        let tables = parse(
            Ip::V4,
            "*nat\n:OUTPUT ACCEPT [0:0]\n:A - [0:0]\n-A A -m comment --comment \"-j KUBE-SERVICES\"\n",
        );
        assert_eq!(tables[0].rules[0].leads_to, None);
        assert!(tables[0].chains[0].hooked && !tables[0].chains[1].hooked);
        assert!(parse(Ip::V4, "-A X -j Y\n:Z - [0:0]\n").is_empty(), "no table");
    }
}
