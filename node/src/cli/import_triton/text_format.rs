//! Protobuf's text format, as `config.pbtxt` is written in it: read into a tree
//! that keeps every field and its line, known or not, so that whatever is not
//! carried over can be named.

/// Messages inside messages, at most.
const DEPTH_MAX: u32 = 32;

/// One field, where it stands. A list is several fields of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// As written.
    pub name: String,
    /// From 1.
    pub line: u32,
    /// What it is set to.
    pub value: Value,
}

/// What a field is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number, an enumeration's word, or `true` and `false`.
    Word(String),
    /// What stood in quotes.
    Text(String),
    /// In braces.
    Message(Vec<Field>),
}

impl Value {
    /// The word or the text.
    pub fn scalar(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Text(text) => Some(text),
            Self::Message(_) => None,
        }
    }

    /// The fields; none if it is no message.
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Message(fields) => fields,
            Self::Word(_) | Self::Text(_) => &[],
        }
    }
}

/// Why a text is not in this format, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct SyntaxError {
    /// From 1.
    pub line: u32,
    /// What is wrong there.
    pub problem: String,
}

/// Reads a whole message.
pub fn parse(text: &str) -> Result<Vec<Field>, SyntaxError> {
    let mut parser = Parser { rest: text, line: 1 };
    let fields = parser.fields(0)?;
    match parser.peek() {
        None => Ok(fields),
        Some(found) => Err(parser.wrong(format!("'{found}' closes nothing"))),
    }
}

struct Parser<'a> {
    rest: &'a str,
    line: u32,
}

impl Parser<'_> {
    /// Up to the end of the text, or to whatever closes a message.
    fn fields(&mut self, depth: u32) -> Result<Vec<Field>, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(self.wrong(format!("messages are nested more than {DEPTH_MAX} deep")));
        }
        let mut fields = Vec::new();
        while let Some(next) = self.peek() {
            if matches!(next, '}' | '>') {
                break;
            }
            self.field(&mut fields, depth)?;
        }
        Ok(fields)
    }

    fn field(&mut self, fields: &mut Vec<Field>, depth: u32) -> Result<(), SyntaxError> {
        let line = self.line;
        let name = self.name()?;
        let colon = self.eat(':');
        match self.peek() {
            Some('[') => {
                self.eat('[');
                while !self.eat(']') {
                    let line = self.line;
                    let value = self.value(depth)?;
                    fields.push(Field { name: name.clone(), line, value });
                    if !self.eat(',') && self.peek() != Some(']') {
                        return Err(self.wrong(format!("the list '{name}' is not closed by ']'")));
                    }
                }
            }
            Some('{' | '<') => {
                let value = self.value(depth)?;
                fields.push(Field { name, line, value });
            }
            Some(_) if colon => {
                let value = self.value(depth)?;
                fields.push(Field { name, line, value });
            }
            _ => return Err(self.wrong(format!("'{name}' is followed by neither ':' nor '{{'"))),
        }
        if !self.eat(',') {
            self.eat(';');
        }
        Ok(())
    }

    /// An identifier, or an extension's in brackets.
    fn name(&mut self) -> Result<String, SyntaxError> {
        let bracketed = self.eat('[');
        let name = self.word();
        if name.is_empty() {
            let found = self.peek().map_or_else(|| "the end".to_owned(), |found| format!("'{found}'"));
            return Err(self.wrong(format!("a field's name is missing before {found}")));
        }
        if bracketed && !self.eat(']') {
            return Err(self.wrong(format!("'[{name}' is not closed by ']'")));
        }
        Ok(name)
    }

    fn value(&mut self, depth: u32) -> Result<Value, SyntaxError> {
        match self.peek() {
            Some(open @ ('{' | '<')) => {
                let close = if open == '{' { '}' } else { '>' };
                self.eat(open);
                let fields = self.fields(depth + 1)?;
                if !self.eat(close) {
                    return Err(self.wrong(format!("a message is not closed by '{close}'")));
                }
                Ok(Value::Message(fields))
            }
            Some('"' | '\'') => {
                let mut text = self.quoted()?;
                while matches!(self.peek(), Some('"' | '\'')) {
                    text.push_str(&self.quoted()?);
                }
                Ok(Value::Text(text))
            }
            _ => {
                let word = self.word();
                if word.is_empty() {
                    return Err(self.wrong("a value is missing".to_owned()));
                }
                Ok(Value::Word(word))
            }
        }
    }

    /// Letters, digits and what numbers and full names have besides.
    fn word(&mut self) -> String {
        self.skip_blank();
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '/');
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn quoted(&mut self) -> Result<String, SyntaxError> {
        self.skip_blank();
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map_or('"', |(_, quote)| quote);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, c @ ('\\' | '"' | '\'' | '?'))) => text.push(c),
                    _ => {
                        return Err(
                            self.wrong("an escape in a text is not one of \\n \\t \\r \\\\ \\\" \\'".into())
                        );
                    }
                },
                c if c == quote => {
                    self.rest = self.rest.get(at + c.len_utf8()..).unwrap_or_default();
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(self.wrong("a text is not closed by its quote".to_owned()))
    }

    fn peek(&mut self) -> Option<char> {
        self.skip_blank();
        self.rest.chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        if self.peek() != Some(wanted) {
            return false;
        }
        self.rest = self.rest.get(wanted.len_utf8()..).unwrap_or_default();
        true
    }

    /// Blanks, line ends and comments.
    fn skip_blank(&mut self) {
        while let Some(c) = self.rest.chars().next() {
            let skipped = match c {
                '#' => self.rest.find('\n').unwrap_or(self.rest.len()),
                '\n' => {
                    self.line += 1;
                    1
                }
                c if c.is_whitespace() => c.len_utf8(),
                _ => return,
            };
            self.rest = self.rest.get(skipped..).unwrap_or_default();
        }
    }

    fn wrong(&self, problem: String) -> SyntaxError {
        SyntaxError { line: self.line, problem }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn word(name: &str, line: u32, text: &str) -> Field {
        Field { name: name.to_owned(), line, value: Value::Word(text.to_owned()) }
    }

    fn text(name: &str, line: u32, text: &str) -> Field {
        Field { name: name.to_owned(), line, value: Value::Text(text.to_owned()) }
    }

    #[test]
    fn fields_texts_messages_and_lists_are_read_with_their_lines() {
        let fields = parse(
            "name: \"digits\" # a comment\nmax_batch_size: 8\ninput [\n  { name: 'x' dims: [ 1, -1 ] },\n  < name: \"y\" >\n]\nfloat: -1.5e3;",
        )
        .unwrap();
        let message = |line, fields| Field { name: "input".into(), line, value: Value::Message(fields) };
        let expected = [
            text("name", 1, "digits"),
            word("max_batch_size", 2, "8"),
            message(4, vec![text("name", 4, "x"), word("dims", 4, "1"), word("dims", 4, "-1")]),
            message(5, vec![text("name", 5, "y")]),
            word("float", 7, "-1.5e3"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn texts_have_escapes_and_may_be_in_pieces() {
        assert_eq!(parse(r#"a: "x\n\"y\"" 'z'"#).unwrap(), [text("a", 1, "x\n\"y\"z")]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_not_in_the_format_is_named_with_its_line() {
        for (text, expected) in [
            ("a: 1\nb 2", "line 2: 'b' is followed by neither ':' nor '{'"),
            ("a {\n b: 1", "line 2: a message is not closed by '}'"),
            ("a: [ 1 2 ]", "line 1: the list 'a' is not closed by ']'"),
            ("a: \"x", "line 1: a text is not closed by its quote"),
            ("}", "line 1: '}' closes nothing"),
            ("a:", "line 1: 'a' is followed by neither ':' nor '{'"),
            (": 1", "line 1: a field's name is missing before ':'"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        let deep = "a {".repeat(40);
        assert_eq!(parse(&deep).unwrap_err().problem, "messages are nested more than 32 deep");
    }

    proptest! {
        #[test]
        fn whatever_is_read_ends_without_a_panic(text in "[a-c:{}<>\\[\\],;\"'\\\\#\n ß0-9.-]{0,200}") {
            let _ = parse(&text);
        }
    }
}
