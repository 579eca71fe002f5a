"""
Explain in chemical terms why a SMILES was refused.

RDKit writes syntax errors only to its log, which is global to the process and cannot be read safely from several
threads. So a refused SMILES is parsed again here (Daylight's grammar with OpenSMILES' extensions). Problems of valence
and aromaticity are reported in RDKit's words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_TOKEN = re.compile(
    r"(?P<bracket>\[[^\[\]]*\])|(?P<atom>Cl|Br|[BCNOPSFI*bcnops])|(?P<ring>%\(\d{1,5}\)|%\d\d|\d)"
    r"|(?P<bond>->|<-|[-=#$:/\\~])|(?P<open>\()|(?P<close>\))|(?P<dot>\.)"
)
_BRACKET_ATOM = re.compile(
    r"\[\d*(?P<symbol>[A-Z][a-z]{0,2}|[a-z]{1,2}|\*|#\d+)(?:@(?:@|[A-Z]{2}\d+)?)?(?:H\d?)?(?:[-+]\d+|\++|-+)?(?::\d+)?\]"
)
_AROMATIC = {"b", "c", "n", "o", "p", "s", "as", "se", "te", "si"}


def syntax_problem(text: str) -> str | None:
    """Return the first syntax error of a SMILES, or None. Positions count from 1."""
    position = 0
    parentheses: list[int] = []
    rings: dict[int, int] = {}  # ring number -> which atom opened it
    bonds: set[tuple[int, int]] = set()
    atoms = 0
    current: list[int] = []  # atom to return to at each open parenthesis
    previous = 0  # atom that the next bond starts from, 0: none
    pending: tuple[str, int] | None = None  # bond or dot that waits for an atom
    just_opened = False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return _unreadable(text, position)
        kind, token, at = match.lastgroup, match.group(), position + 1
        position = match.end()
        if kind in ("bracket", "atom"):
            if kind == "bracket":
                problem = _bracket_problem(token, at)
                if problem:
                    return problem
            atoms += 1
            if previous and not (pending and pending[0] == "."):
                bonds.add((previous, atoms))
            previous, pending = atoms, None
        elif kind == "ring":
            if not previous or (pending and pending[0] == "."):
                return f"ring number at position {at} follows no atom"
            number = int(token.strip("%()"))
            if number in rings:
                opened_by = rings.pop(number)
                if opened_by == previous:
                    return f"ring {number} joins an atom to itself"
                if (opened_by, previous) in bonds:
                    return f"ring {number} joins two atoms that already have a bond"
                bonds.add((opened_by, previous))
            else:
                rings[number] = previous
            pending = None
        elif kind in ("bond", "dot"):
            if pending or (not previous) or (kind == "dot" and just_opened):
                return f"{token!r} at position {at} follows no atom"
            pending = (token, at)
        elif kind == "open":
            if not previous or pending:
                return f"parenthesis at position {at} follows no atom"
            parentheses.append(at)
            current.append(previous)
        else:
            if not parentheses:
                return f"parenthesis closed at position {at} was never opened"
            if pending:
                return f"{pending[0]!r} at position {pending[1]} leads to no atom"
            if just_opened:
                return f"empty parentheses at position {at - 1}"
            parentheses.pop()
            previous = current.pop()
        just_opened = kind == "open"
    if pending:
        return f"{pending[0]!r} at position {pending[1]} leads to no atom"
    if parentheses:
        return f"parenthesis opened at position {parentheses[-1]} not closed"
    if rings:
        numbers = ", ".join(str(number) for number in sorted(rings))
        return f"ring{'s' if len(rings) > 1 else ''} {numbers} not closed"
    return None


def chemistry_problem(molecule: str | Mol) -> str | None:
    """Return the first problem that RDKit's sanitisation finds, or None. The caller turns RDKit's log off."""
    from rdkit import Chem

    mol = Chem.MolFromSmiles(molecule, sanitize=False) if isinstance(molecule, str) else molecule
    if mol is None:
        return None
    problems = Chem.DetectChemistryProblems(mol)
    if not problems:
        return None
    message = problems[0].Message().strip().replace("atom # ", "atom ")
    message = message.replace("Can't kekulize mol.  Unkekulized atoms:", "can't kekulize the aromatic system of atoms")
    return message[:1].lower() + message[1:]


def _is_element(symbol: str) -> bool:
    from rdkit import Chem

    if symbol == "*" or symbol in _AROMATIC:
        return True
    if symbol.startswith("#"):
        return 0 <= int(symbol[1:]) <= 118
    if not symbol[0].isupper():
        return False
    try:
        return Chem.GetPeriodicTable().GetAtomicNumber(symbol) > 0
    except RuntimeError:
        return False


def _bracket_problem(token: str, at: int) -> str | None:
    if token == "[]":
        return f"empty brackets at position {at}"
    match = _BRACKET_ATOM.fullmatch(token)
    symbol = re.match(r"\[\d*([A-Z][a-z]*|[a-z]{1,2})", token)
    if match:
        # "[CoH]" reads as Co-H, "[Sc]" as scandium: the longest symbol counts, as in RDKit
        return None if _is_element(match["symbol"]) else f"unknown element {match['symbol']}"
    if symbol and not any(_is_element(symbol[1][:length]) for length in (1, 2)):
        return f"unknown element {symbol[1]}"
    return f"{token} at position {at} is not an atom"


def _unreadable(text: str, position: int) -> str:
    character, at = text[position], position + 1
    if character == "[":
        return f"bracket opened at position {at} not closed"
    if character == "]":
        return f"bracket closed at position {at} was never opened"
    if character.isspace():
        return f"white space at position {at}: pass the SMILES without a name"
    symbol = re.match(r"[A-Z][a-z]?|[a-z]", text[position:])
    if position and text[position - 1].isupper() and _is_element(text[position - 1 : at]):
        return f"element {text[position - 1 : at]} at position {position} needs brackets: [{text[position - 1 : at]}]"
    if symbol:
        for name in (symbol[0], symbol[0][0]):
            if _is_element(name):
                return f"element {name} at position {at} needs brackets: [{name}]"
        return f"unknown element {symbol[0]} at position {at}"
    return f"character {character!r} at position {at} is not allowed in a SMILES"
