r"""Expressions in LaTeX or plain text, read strictly: anything not fully understood is `Unreadable`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from grpo_dist.rewards.answers.tokens import CLOSING, Token, squeezed, tokenise
from grpo_dist.rewards.answers.types import Tree, Unreadable, is_minus_one, negated

MAX_TOKENS = 1500
MAX_DEPTH = 50
MAX_DIGITS = 600

INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "sinh": "arcsinh", "cosh": "arccosh", "tanh": "arctanh"}
FUNCTIONS = frozenset((*INVERSES, *INVERSES.values(), "cot", "sec", "csc", "log", "ln", "lg", "exp", "sqrt"))
_GREEK_TEXT = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma "
    "tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
_GREEK = frozenset(_GREEK_TEXT.split())
_NAMING = frozenset(
    (
        r"\angle",
        r"\triangle",
        r"\overline",
        r"\overrightarrow",
        r"\vec",
        r"\widehat",
        r"\hat",
        r"\bar",
        r"\mathbb",
        r"\mathcal",
    )
)
_MATHS_WORD = re.compile(r"(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|sqrt|log|ln|exp|pi)([a-zA-Z]?)")
_LETTERS = 3
"""Up to this many letters in a row may be factors; more are a word."""


def parse_expression(text: str) -> Tree:
    """The meaning of cleaned text. Raises: Unreadable."""
    tokens = tokenise(text)
    if not tokens or len(tokens) > MAX_TOKENS:
        raise Unreadable(text)
    reader = _Reader(tokens)
    tree = reader.sum_or_fraction()
    if reader.peek() is not None:
        raise Unreadable(text)
    return tree


class _Reader:
    """Recursive descent over the tokens that are not white space."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = [token for token in tokens if token.kind != "space"]
        self.letters: list[Token] = []
        self.place, self.depth, self.bars = 0, 0, 0

    def peek(self, ahead: int = 0) -> Token | None:
        place = self.place + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def at(self, *texts: str) -> bool:
        token = self.peek()
        return token is not None and token.text in texts

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise Unreadable("the text ends")
        self.place += 1
        return token

    def expect(self, text: str) -> None:
        if self.take().text != text:
            raise Unreadable(f"{text} is missing")

    def sum_or_fraction(self) -> Tree:
        r"""All up to a closing bracket; `a \over b` divides what stands on both sides."""
        above = self.sum()
        if not self.at(r"\over"):
            return above
        self.take()
        return ("divide", above, self.sum())

    def sum(self) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        terms = [self.signed_term()]
        while self.at("+", "-"):
            terms.append(self.signed_term())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def signed_term(self) -> Tree:
        negative = False
        for _ in range(2):  # x + -3, but no longer sequence of signs
            if self.at("+", "-"):
                negative ^= self.take().text == "-"
        term = self.term()
        return negated(term) if negative else term

    def term(self) -> Tree:
        product = [self.factor()]
        divided = False
        while (token := self.peek()) is not None:
            if token.text == "*" or token.text in (r"\times", r"\cdot"):
                self.take()
                product.append(self.signed_factor())
                divided = False
            elif token.text in ("/", r"\div"):
                self.take()
                below = self.signed_factor()
                above = product[0] if len(product) == 1 else ("multiply", *product)
                divided = above[0] != "number" or below[0] != "number"
                product = [("divide", above, below)]
            elif self.begins_factor(token):
                factorial = self.tokens[self.place - 1].text == "!"
                # 1/2x is clear, a/bx is not; x 2 and 3 4 are no products, 3! 7! is.
                if divided or (token.kind == "number" and not factorial):
                    raise Unreadable("not clear what is multiplied")
                product.append(self.factor())
            else:
                break
        return product[0] if len(product) == 1 else ("multiply", *product)

    def begins_factor(self, token: Token) -> bool:
        if token.text == "|":
            return self.bars == 0
        if token.kind in ("number", "word", "text", "command"):
            return token.text not in CLOSING and token.text != r"\over"
        return token.text in ("(", "[", "{")

    def signed_factor(self) -> Tree:
        if self.at("-", "+"):
            return negated(self.factor()) if self.take().text == "-" else self.factor()
        return self.factor()

    def factor(self) -> Tree:
        base = self.base()
        while (token := self.peek()) is not None:
            following = self.peek(1)
            if token.text == "^" or (token.text == "*" and following is not None and following.text == "*"):
                self.place += 1 if token.text == "^" else 2
                base = ("power", base, self.exponent())
            elif token.text == "!":
                self.take()
                if self.at("!", "="):
                    raise Unreadable("two factorial signs")
                base = ("call", "factorial", base)
            elif token.text == "°":
                self.take()
                base = ("multiply", base, ("divide", ("constant", "pi"), ("number", Fraction(180))))
            else:
                break
        return base

    def exponent(self) -> Tree:
        if self.at("-", "+"):
            return negated(self.exponent()) if self.take().text == "-" else self.exponent()
        if self.at(r"\frac", r"\sqrt", r"\pi") or not self.at("{", "("):
            return self.base()
        return self.group()

    def group(self) -> Tree:
        """Inside one pair of brackets."""
        closing = {"(": ")", "[": "]", "{": "}"}[self.take().text]
        bars, self.bars = self.bars, 0
        tree = self.sum_or_fraction()
        self.bars = bars
        self.expect(closing)
        return tree

    def argument(self) -> Tree:
        """The argument of a command: a group, or the next digit or letter."""
        if self.at("{"):
            return self.group()
        token = self.take()
        if token.kind == "number" and token.text.isdigit():
            self.place -= 1
            rest = token.text[1:]
            self.tokens[self.place : self.place + 1] = [
                Token("number", digit, token.start, token.end, token.depth) for digit in (token.text[0], rest) if digit
            ]
            return _number(self.take().text)
        self.place -= 1
        return self.base()

    def base(self) -> Tree:
        token = self.peek()
        if token is None:
            raise Unreadable("the text ends")
        if token.text in ("(", "[", "{"):
            return self.group()
        if token.kind == "number":
            return self.number()
        if token.text == "|":
            return self.absolute()
        if token.kind == "word":
            return self.word()
        if token.kind == "text":
            name = self.take().text[6:-1].strip()
            if not re.fullmatch(r"[A-Za-z]+", name):
                raise Unreadable(name)
            if name in FUNCTIONS:
                return self.function(name)
            return self.letter(name) if len(name) == 1 else self.named(name)
        if token.kind == "command":
            return self.command(self.take().text)
        raise Unreadable(token.text)

    def absolute(self) -> Tree:
        self.expect("|")
        self.bars += 1
        inside = self.sum()
        self.bars -= 1
        self.expect("|")
        return ("call", "abs", inside)

    def number(self) -> Tree:
        """A number; with a fraction of two numbers behind it, a mixed one."""
        number = _number(self.take().text)
        if not self.at(r"\frac") or number[1].denominator != 1:
            return number
        start, tokens = self.place, list(self.tokens)
        self.take()
        above, below = self.argument(), self.argument()
        if above[0] == below[0] == "number" and not self.at("^"):
            return ("add", number, ("divide", above, below))
        self.place, self.tokens = start, tokens
        return number

    def word(self) -> Tree:
        token = self.take()
        found = _MATHS_WORD.fullmatch(token.text)
        if found and (found[1] != "pi" or not found[2]):
            if found[2]:
                self.place -= 1
                self.tokens[self.place] = Token("word", found[2], token.start, token.end, token.depth)
            return ("constant", "pi") if found[1] == "pi" else self.function(found[1])
        if token.text in _GREEK or token.text.lower() == "infinity":
            return self.named("infty" if token.text.lower() == "infinity" else token.text)
        if len(token.text) > _LETTERS:
            raise Unreadable(token.text)
        if len(token.text) > 1:
            self.place -= 1
            self.tokens[self.place : self.place + 1] = [
                Token("word", letter, token.start, token.end, token.depth) for letter in token.text
            ]
            token = self.take()
        return self.letter(token.text)

    def letter(self, letter: str) -> Tree:
        if letter in "ei" and not self.at("_"):
            return ("constant", letter)
        name = self.named(letter)
        following = "".join(token.text for token in self.tokens[self.place : self.place + 6])
        if letter in "fgh" and following.startswith(("(", "^{-1}(")):
            start = self.place
            self.place += 5 * following.startswith("^")
            self.skip_group()
            return ("symbol", name[1] + squeezed("".join(token.text for token in self.tokens[start : self.place])))
        return name

    def named(self, name: str) -> Tree:
        """A symbol with its index and primes, and with a number in brackets: `v(0)` is a value of v, not v times 0."""
        if self.at("_"):
            self.take()
            start = self.place
            if self.at("{"):
                self.skip_group()
            else:
                self.take()
            name += "_" + "".join(token.text for token in self.tokens[start : self.place]).strip("{}")
        while self.at("'"):
            name += self.take().text
        following = [self.peek(ahead) for ahead in range(3)]
        if None not in following and following[1].kind == "number" and following[0].text + following[2].text == "()":
            self.place += 3
            name += f"({following[1].text})"
        return ("symbol", name)

    def skip_group(self) -> None:
        depth = 0
        while True:
            token = self.take()
            depth += (token.text in "([{") - (token.text in ")]}")
            if depth == 0:
                return

    def command(self, command: str) -> Tree:
        name = command[1:]
        if command == r"\frac":
            return ("divide", self.argument(), self.argument())
        if command == r"\binom":
            return ("call", "binomial", self.argument(), self.argument())
        if command == r"\pi":
            return ("constant", "pi")
        if name in FUNCTIONS:
            return self.function(name)
        if command in (r"\lfloor", r"\lceil"):
            inside = self.sum()
            self.expect(r"\rfloor" if command == r"\lfloor" else r"\rceil")
            return ("call", "floor" if command == r"\lfloor" else "ceiling", inside)
        if name in _GREEK or name == "infty":
            return self.named(name)
        if command in _NAMING:
            return self.thing(command)
        raise Unreadable(command)

    def thing(self, command: str) -> Tree:
        r"""`\angle ABC`, `\overline{AB}`: a name in which the order of letters matters."""
        if self.at("{"):
            start = self.place
            self.skip_group()
            name = "".join(token.text for token in self.tokens[start : self.place])[1:-1]
        else:
            token = self.take()
            if token.kind not in ("word", "number", "command"):
                raise Unreadable(command)
            name = token.text
        if not re.fullmatch(r"[A-Za-z0-9\\']+", name):
            raise Unreadable(command)
        return self.named(f"{command} {name}")

    def function(self, name: str) -> Tree:
        if name == "sqrt":
            return self.root()
        base = self.index() if name == "log" and self.at("_") else None
        power = None
        if self.at("^"):
            self.take()
            power = self.exponent()
        if power is not None and is_minus_one(power):
            if name not in INVERSES:
                raise Unreadable(name)
            name, power = INVERSES[name], None
        argument = self.group() if self.at("(", "{", "[") else self.operand()
        call = ("call", name, argument) if base is None else ("call", "log", argument, base)
        return call if power is None else ("power", call, power)

    def index(self) -> Tree:
        self.take()
        return self.argument() if self.at("{") else self.base()

    def root(self) -> Tree:
        degree: Tree = ("number", Fraction(2))
        if self.at("["):
            degree = self.group()
        inside = self.group() if self.at("(") else self.argument()
        return ("call", "root", inside, degree)

    def operand(self) -> Tree:
        r"""The argument of a function written without brackets: `\sin 2x`; it ends at another function."""
        product = [self.factor()]
        while (token := self.peek()) is not None and self.begins_factor(token):
            name = token.text.lstrip("\\")
            if token.kind == "number" or (_MATHS_WORD.fullmatch(name) and name != "pi") or token.text in ("(", "["):
                break
            product.append(self.factor())
        return product[0] if len(product) == 1 else ("multiply", *product)


def _number(text: str) -> Tree:
    if len(text) > MAX_DIGITS:
        raise Unreadable("too many digits")
    return ("number", Fraction(text))
