"""
InChI: header, layer marks, elements and whole numbers as tokens, the rest by character.

`InChI=1S/CH4O/c1-2/h2H,1H3` -> `InChI=1S / C H 4 O /c 1 - 2 /h 2 H , 1 H 3`. An atom's number is one token up to 255;
a larger one is split into digits. The vocabulary comes from these rules alone. Nothing in printable ASCII is
unknown, and decoding gives the string back. The rules are this project's own: published models read InChI character by
character.
"""

from __future__ import annotations

import string

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers

from .fast import whole_or_characters

ELEMENTS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr Y Zr Nb "
    "Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt "
    "Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc "
    "Lv Ts Og"
)
LARGEST_NUMBER = 255


def build_inchi() -> Tokenizer:
    """Build the tokenizer of InChI strings; needs no data."""
    headers = ["InChI=1S", "InChI=1"]
    layers = [f"/{letter}" for letter in string.ascii_lowercase]
    numbers = [str(number) for number in range(10, LARGEST_NUMBER + 1)]
    elements = [symbol for symbol in ELEMENTS.split() if len(symbol) > 1]
    tokenizer = Tokenizer(whole_or_characters([*headers, *layers, *elements, *numbers]))
    expression = r"InChI=1S?|/[a-z]|[A-Z][a-z]?|[0-9]+|(?m:.)"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(expression), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
