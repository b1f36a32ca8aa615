//! Puts all mutants of a file into it, each behind its switch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::list::{Genre, Mutant};

/// A mutant's number; from 1.
pub type Id = u32;

/// A file with its mutants.
pub struct Instrumented {
    /// What to compile.
    pub text: String,
    /// Which bytes of it are there for which mutants.
    pub places: Vec<Place>,
    /// Those that are in it.
    pub placed: BTreeSet<Id>,
}

/// A part of the text that is there for mutants.
pub struct Place {
    /// In bytes.
    pub range: Range<usize>,
    /// They may be to blame for what the compiler finds there.
    pub ids: Vec<Id>,
    /// A whole `match`, some of whose arms are mutants: to blame only if it is not exhaustive without them.
    pub arms: bool,
}

/// Puts them in. What is a constant is left as it is: nothing can be switched there.
pub fn instrument(source: &str, mutants: &[(Id, &Mutant)]) -> syn::Result<Instrumented> {
    let file = syn::parse_file(source)?;
    let source = Source::new(source);
    let mut at: BTreeMap<usize, Vec<(Id, &Mutant)>> = BTreeMap::new();
    for (id, mutant) in mutants {
        at.entry(source.offset(mutant.span.start.line, mutant.span.start.column - 1)).or_default().push((*id, mutant));
    }
    let mut finder = Finder { source: &source, at, edits: Vec::new(), placed: BTreeSet::new() };
    finder.visit_file(&file);
    let mut edits = finder.edits;
    edits.sort_by_key(|e| (e.range.start, !e.is_insert(), std::cmp::Reverse(e.range.end), e.order));
    let mut out = Instrumented { text: String::new(), places: Vec::new(), placed: finder.placed };
    emit(source.text, 0..source.text.len(), &edits, &mut out);
    Ok(out)
}

/// How a mutant is reached: `if on(7) {`.
fn on(id: Id) -> String {
    format!("crate::mutants_switch::on({id})")
}

struct Source<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Source<'a> {
        Source { text, lines: std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect() }
    }

    /// Of a line, from 1, and a column in characters, from 0.
    fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.lines[line - 1];
        self.text[start..].char_indices().nth(column).map_or(self.text.len(), |(i, _)| start + i)
    }

    fn range(&self, span: proc_macro2::Span) -> Range<usize> {
        let (start, end) = (span.start(), span.end());
        self.offset(start.line, start.column)..self.offset(end.line, end.column)
    }
}

/// What to do to a part of the source.
enum What {
    /// Other expressions in its place, each if its mutant is on.
    Else(Vec<(Id, String)>),
    /// Text before it, for these.
    Insert(String, Vec<Id>),
    /// Nothing: a `match` with arms of these.
    Match(Vec<Id>),
}

struct Edit {
    range: Range<usize>,
    /// Of two over the same range the outer one is lower.
    order: u8,
    what: What,
}

impl Edit {
    fn is_insert(&self) -> bool {
        matches!(self.what, What::Insert(..))
    }
}

fn emit(source: &str, within: Range<usize>, mut edits: &[Edit], out: &mut Instrumented) {
    let mut at = within.start;
    while let [edit, rest @ ..] = edits {
        out.text.push_str(&source[at..edit.range.start]);
        at = edit.range.start;
        let start = out.text.len();
        let inner = match &edit.what {
            What::Insert(text, ids) => {
                out.text.push_str(text);
                out.places.push(Place { range: start..out.text.len(), ids: ids.clone(), arms: false });
                edits = rest;
                continue;
            }
            _ => rest.iter().take_while(|e| e.range.start < edit.range.end && e.range.end <= edit.range.end).count(),
        };
        let (ids, arms) = match &edit.what {
            What::Else(others) => {
                out.text.push('(');
                for (id, other) in others {
                    let start = out.text.len();
                    let _ = write!(out.text, "if {} {{ {other} }} else ", on(*id));
                    out.places.push(Place { range: start..out.text.len(), ids: vec![*id], arms: false });
                }
                out.text.push_str("{ ");
                emit(source, edit.range.clone(), &rest[..inner], out);
                out.text.push_str(" })");
                (others.iter().map(|(id, _)| *id).collect(), false)
            }
            What::Match(ids) => {
                emit(source, edit.range.clone(), &rest[..inner], out);
                (ids.clone(), true)
            }
            What::Insert(..) => unreachable!("handled above"),
        };
        out.places.push(Place { range: start..out.text.len(), ids, arms });
        at = edit.range.end;
        edits = &rest[inner..];
    }
    out.text.push_str(&source[at..within.end]);
}

struct Finder<'a> {
    source: &'a Source<'a>,
    at: BTreeMap<usize, Vec<(Id, &'a Mutant)>>,
    edits: Vec<Edit>,
    placed: BTreeSet<Id>,
}

impl<'a> Finder<'a> {
    /// The mutants of a kind that begin there, each once.
    fn take(&mut self, at: usize, genre: Genre) -> Vec<(Id, &'a Mutant)> {
        let found = self.at.get(&at).into_iter().flatten().filter(|(_, m)| m.genre == genre);
        let found: Vec<_> = found.filter(|(id, _)| !self.placed.contains(id)).copied().collect();
        self.placed.extend(found.iter().map(|(id, _)| *id));
        found
    }

    fn edit(&mut self, range: Range<usize>, order: u8, what: What) {
        let nothing = match &what {
            What::Else(others) => others.is_empty(),
            What::Insert(_, ids) | What::Match(ids) => ids.is_empty(),
        };
        if !nothing {
            self.edits.push(Edit { range, order, what });
        }
    }

    fn insert(&mut self, at: usize, text: String, of: &[(Id, &Mutant)]) {
        self.edit(at..at, 0, What::Insert(text, of.iter().map(|(id, _)| *id).collect()));
    }

    /// The whole expression with another operator, or none.
    fn operator(&mut self, op: Range<usize>, whole: Range<usize>, genre: Genre) {
        let (before, after) = (&self.source.text[whole.start..op.start], &self.source.text[op.end..whole.end]);
        let others = self.take(op.start, genre).into_iter();
        let others = others.map(|(id, m)| (id, format!("{before}{}{after}", m.replacement))).collect();
        self.edit(whole, 2, What::Else(others));
    }
}

/// `a && let Some(b) = c`: an `if` in its place would keep `b` to itself.
fn binds(e: &syn::Expr) -> bool {
    match e {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(b) => binds(&b.left) || binds(&b.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}

    fn visit_expr_repeat(&mut self, e: &'ast syn::ExprRepeat) {
        self.visit_expr(&e.expr);
    }

    fn visit_item_fn(&mut self, f: &'ast syn::ItemFn) {
        if f.sig.constness.is_none() {
            visit::visit_item_fn(self, f);
        }
    }

    fn visit_impl_item_fn(&mut self, f: &'ast syn::ImplItemFn) {
        if f.sig.constness.is_none() {
            visit::visit_impl_item_fn(self, f);
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        if let Some(first) = block.stmts.first() {
            let start = self.source.range(first.span()).start;
            let returns = self.take(start, Genre::FnValue);
            let text = returns.iter().fold(String::new(), |mut text, (id, m)| {
                let _ = write!(text, "if {} {{ return {}; }} ", on(*id), m.replacement);
                text
            });
            self.insert(start, text, &returns);
        }
        visit::visit_block(self, block);
    }

    fn visit_expr_binary(&mut self, e: &'ast syn::ExprBinary) {
        if !binds(&e.left) && !binds(&e.right) {
            self.operator(self.source.range(e.op.span()), self.source.range(e.span()), Genre::BinaryOperator);
        }
        visit::visit_expr_binary(self, e);
    }

    fn visit_expr_unary(&mut self, e: &'ast syn::ExprUnary) {
        self.operator(self.source.range(e.op.span()), self.source.range(e.span()), Genre::UnaryOperator);
        visit::visit_expr_unary(self, e);
    }

    fn visit_expr_match(&mut self, e: &'ast syn::ExprMatch) {
        let mut arms = Vec::new();
        for arm in &e.arms {
            let pattern = self.source.range(arm.pat.span());
            let deleted = self.take(pattern.start, Genre::MatchArm);
            arms.extend(deleted.iter().map(|(id, _)| *id));
            let unless: Vec<String> = deleted.iter().map(|(id, _)| format!("!{}", on(*id))).collect();
            let unless = unless.join(" && ");
            match &arm.guard {
                None => self.insert(pattern.end, format!(" if {unless}"), &deleted),
                Some((_, guard)) => {
                    let range = self.source.range(guard.span());
                    self.insert(range.start, format!("{unless} && "), &deleted);
                    if !binds(guard) {
                        let others = self.take(range.start, Genre::MatchArmGuard).into_iter();
                        let others = others.map(|(id, m)| (id, m.replacement.clone())).collect();
                        self.edit(range, 1, What::Else(others));
                    }
                }
            }
        }
        self.edit(self.source.range(e.span()), 3, What::Match(arms));
        visit::visit_expr_match(self, e);
    }

    fn visit_expr_struct(&mut self, e: &'ast syn::ExprStruct) {
        if let Some(rest) = &e.rest {
            let rest = &self.source.text[self.source.range(rest.span())];
            let path = &self.source.text[self.source.range(e.path.span())];
            for field in &e.fields {
                let syn::Member::Named(name) = &field.member else { continue };
                // What the field would be if it were not named.
                let other = match rest {
                    "Default::default()" => format!("<{path} as Default>::default().{name}"),
                    rest => format!("({rest}).{name}.clone()"),
                };
                let deleted = self.take(self.source.range(field.span()).start, Genre::StructField);
                let range = self.source.range(field.expr.span());
                if field.colon_token.is_some() {
                    let others = deleted.into_iter().map(|(id, _)| (id, other.clone())).collect();
                    self.edit(range, 1, What::Else(others));
                } else if let [(id, _)] = deleted[..] {
                    self.insert(range.end, format!(": if {} {{ {other} }} else {{ {name} }}", on(id)), &deleted);
                }
            }
        }
        visit::visit_expr_struct(self, e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Point, Span};

    /// The mutant that replaces `what`, which stands in the source once.
    fn mutant(source: &str, genre: Genre, what: &str, replacement: &str) -> Mutant {
        let at = source.find(what).expect("it is there");
        assert_eq!(source.matches(what).count(), 1, "{what}");
        let point = |offset: usize| {
            let before = &source[..offset];
            let line = before.matches('\n').count() + 1;
            Point { line, column: before.rsplit('\n').next().expect("a line").chars().count() + 1 }
        };
        let span = Span { start: point(at) };
        let (file, name) = ("src/lib.rs".into(), format!("{what} -> {replacement}"));
        Mutant { name, file, genre, replacement: replacement.into(), span, function: None }
    }

    fn instrumented(source: &str, mutants: &[Mutant]) -> Instrumented {
        let mutants: Vec<_> = (1..).zip(mutants).collect();
        let out = instrument(source, &mutants).expect("it parses");
        syn::parse_file(&out.text).unwrap_or_else(|e| panic!("{e}: {}", out.text));
        out
    }

    /// Without what leads to the switch, to be read.
    fn short(out: &Instrumented) -> String {
        out.text.replace("crate::mutants_switch::", "")
    }

    #[test]
    fn operators_are_nested() {
        let source = "fn f(a: u64, b: u64) -> bool { !(a + 1 < b) }";
        let out = instrumented(
            source,
            &[
                mutant(source, Genre::UnaryOperator, "!", ""),
                mutant(source, Genre::BinaryOperator, "<", "<="),
                mutant(source, Genre::BinaryOperator, "<", ">"),
                mutant(source, Genre::BinaryOperator, "+", "-"),
            ],
        );
        assert_eq!(
            short(&out),
            "fn f(a: u64, b: u64) -> bool { (if on(1) { (a + 1 < b) } else { !((if on(2) { a + 1 <= b } else if on(3) { a + 1 > b } \
             else { (if on(4) { a - 1 } else { a + 1 }) < b })) }) }"
        );
        assert_eq!(out.placed, BTreeSet::from([1, 2, 3, 4]));
        let four = out.places.iter().find(|p| p.ids == [4]).expect("a place");
        assert!(out.text[four.range.clone()].ends_with("{ a - 1 } else "));
    }

    #[test]
    fn functions_return_at_once() {
        let source =
            "struct S;\nimpl S {\n    fn ü(&self) -> Option<u8> {\n        let x = 1;\n        Some(x)\n    }\n}\n";
        let body = "let x = 1;\n        Some(x)";
        let out = instrumented(
            source,
            &[mutant(source, Genre::FnValue, body, "None"), mutant(source, Genre::FnValue, body, "Some(0)")],
        );
        assert!(
            short(&out).contains("if on(1) { return None; } if on(2) { return Some(0); } let x = 1;\n"),
            "{}",
            out.text
        );
    }

    #[test]
    fn arms_and_guards_are_switched_off() {
        let source = "fn f(a: u8, b: bool) -> u8 { match a { 1 => 10, 2 if b => 20, _ => 30 } }";
        let out = instrumented(
            source,
            &[
                mutant(source, Genre::MatchArm, "1 => 10,", ""),
                mutant(source, Genre::MatchArm, "2 if b => 20,", ""),
                mutant(source, Genre::MatchArmGuard, "b =>", "true"),
            ],
        );
        assert_eq!(
            short(&out),
            "fn f(a: u8, b: bool) -> u8 { match a { 1 if !on(1) => 10, 2 if !on(2) && (if on(3) { true } else { b }) => 20, _ => 30 } }"
        );
        assert!(out.places.iter().any(|p| p.arms && p.ids == [1, 2]));
    }

    #[test]
    fn fields_are_left_out() {
        let source = "fn f(b: u8) -> S { S { a: 1, b, ..Default::default() } }";
        let out = instrumented(
            source,
            &[mutant(source, Genre::StructField, "a: 1", ""), mutant(source, Genre::StructField, "b, ", "")],
        );
        assert_eq!(
            short(&out),
            "fn f(b: u8) -> S { S { a: (if on(1) { <S as Default>::default().a } else { 1 }), \
             b: if on(2) { <S as Default>::default().b } else { b }, ..Default::default() } }"
        );
    }

    #[test]
    fn constants_and_chains_with_let_stay_as_they_are() {
        let source = "const A: u8 = 1 + 2;\nconst fn b() -> u8 { 3 - 1 }\nfn c(a: Option<u8>, b: bool) -> bool { if b && let Some(a) = a { a == 1 } else { b } }\n";
        let out = instrumented(
            source,
            &[
                mutant(source, Genre::BinaryOperator, "+", "-"),
                mutant(source, Genre::BinaryOperator, "- 1", "+"),
                mutant(source, Genre::BinaryOperator, "&&", "||"),
            ],
        );
        assert_eq!(out.text, source);
        assert!(out.placed.is_empty());
    }
}
