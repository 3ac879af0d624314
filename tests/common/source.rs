//! A Rust file as the architecture's rules see it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One Rust file.
pub struct Source {
    /// Relative to the repository.
    pub path: String,
    /// Its length.
    pub lines: usize,
    /// Tokens in order, groups opened and closed.
    tokens: Vec<String>,
    /// Files compiled only for tests, as this one declares them.
    pub test_modules: Vec<String>,
}

impl Source {
    /// Lexes `text`.
    pub fn new(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut source = Self {
            path: path.to_owned(),
            lines: text.lines().count(),
            tokens: Vec::new(),
            test_modules: Vec::new(),
        };
        source.flatten(stream);
        source
    }

    fn flatten(&mut self, stream: TokenStream) {
        let mut trees = stream.into_iter().peekable();
        while let Some(tree) = trees.next() {
            let attribute = match (&tree, trees.peek()) {
                (TokenTree::Punct(hash), Some(TokenTree::Group(group)))
                    if hash.as_char() == '#' =>
                {
                    group.stream().to_string()
                }
                _ => String::new(),
            };
            if attribute == "cfg (test)" {
                let item: Vec<TokenTree> = take_item(&mut trees);
                let words: Vec<String> = item.iter().map(ToString::to_string).collect();
                if let [.., keyword, name, end] = words.as_slice()
                    && (keyword.as_str(), end.as_str()) == ("mod", ";")
                {
                    self.test_modules.push(name.clone());
                }
            } else if let TokenTree::Group(group) = tree {
                if group.stream().to_string().starts_with("doc =") {
                    continue;
                }
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                self.tokens.push(open.to_owned());
                self.flatten(group.stream());
                self.tokens.push(close.to_owned());
            } else {
                self.tokens.push(tree.to_string());
            }
        }
    }

    /// `src/energy/perf.rs` is in `energy`; the generated skeleton belongs to `sched`.
    pub fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let room = inside.split('/').next()?.trim_end_matches(".rs");
        match room {
            "lib" => None,
            "bpf_skel" => Some("sched"),
            room => Some(room),
        }
    }

    /// Modules between the crate's root and this file's items: 1 for src/units.rs.
    fn depth(&self) -> usize {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inside.trim_end_matches("/mod").split('/').count()
    }

    /// Every first-level module of the library that this file names.
    pub fn imports(&self) -> Vec<&str> {
        let supers = ["super"].repeat(self.depth());
        let roots: [&[&str]; 3] = [&["crate"], &["scx_joule"], &supers];
        let imports = roots.into_iter().flat_map(|root| self.members(root, true));
        let owner = |module| match module {
            "bpf_skel" => "sched",
            module => module,
        };
        imports.map(owner).collect()
    }

    /// What is named directly below `path`; `from_start` when no path may go before it.
    pub fn members(&self, path: &[&str], from_start: bool) -> Vec<&str> {
        let tokens: Vec<&str> = self.tokens.iter().map(String::as_str).collect();
        let wanted: Vec<&str> = path.iter().flat_map(|it| [it, ":", ":"]).collect();
        let mut members = Vec::new();
        for start in 0..tokens.len() {
            let free = !from_start || start == 0 || tokens[start - 1] != ":";
            if free && tokens[start..].starts_with(&wanted) {
                members.extend(first_segments(&tokens[start + wanted.len()..]));
            }
        }
        members
    }

    /// Whether the token is there.
    pub fn names(&self, token: &str) -> bool {
        self.tokens.iter().any(|it| it == token)
    }

    /// String literals, without prefix and quotes.
    pub fn strings(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(|token| {
            let text = token.trim_start_matches(['b', 'c', 'r', '#']);
            text.strip_prefix('"')
        })
    }
}

/// The rest of an attribute and the item it is for, up to its body or semicolon.
fn take_item(trees: &mut impl Iterator<Item = TokenTree>) -> Vec<TokenTree> {
    let mut item = Vec::new();
    for tree in trees {
        let ends = match &tree {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(punct) => punct.as_char() == ';',
            _ => false,
        };
        item.push(tree);
        if ends {
            break;
        }
    }
    item
}

/// `units::KHz` → `units`; `{error::Error, units::{KHz}}` → `error`, `units`.
fn first_segments<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    if tokens.first() != Some(&"{") {
        return tokens.first().copied().into_iter().collect();
    }
    let (mut depth, mut segments, mut expected) = (0, Vec::new(), true);
    for &token in tokens {
        match token {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," if depth == 1 => expected = true,
            name if depth == 1 && expected => {
                segments.push(name);
                expected = false;
            }
            _ => {}
        }
    }
    segments
}
